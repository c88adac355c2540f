"""TRL's side of a benchmark; see `benchmarks.turns` for how it is driven.

A trainer is set up with its own defaults but for what makes it slower on this machine (gradient
checkpointing) and what is no part of a step (saving, reporting).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)

from benchmarks.jobs import BATCH_SIZE, GROUP_SIZE, LEARNING_RATE, MANY, MAX_TOKENS, Case
from benchmarks.turns import Turns


class AfterStep(TrainerCallback):
    """Reports each step's end to the turns."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Set-up is over."""
        self._turns.ready()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """One optimiser step, or one update of PPO, is over."""
        self._turns.step_done()


def rows_of(case: Case, name: str) -> list[dict[str, str]]:
    text = case.data(name).read_text()
    return [json.loads(line) for line in text.splitlines()]


def causal(case: Case) -> Any:
    return AutoModelForCausalLM.from_pretrained(case.policy, dtype=torch.float32)


def classifier(case: Case) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(
        case.reward, num_labels=1, dtype=torch.float32
    )


def arguments(precision: str) -> dict[str, Any]:
    return {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": precision == "bf16",
        "gradient_checkpointing": False,
        "seed": 0,
    }


def train_sft(case: Case, precision: str, turns: Turns) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    SFTTrainer(
        causal(case),
        args=SFTConfig(max_steps=MANY, max_length=256, **arguments(precision)),
        train_dataset=Dataset.from_list(rows_of(case, "sft")),
        processing_class=AutoTokenizer.from_pretrained(case.policy),
        callbacks=[AfterStep(turns)],
    ).train()


def train_reward(case: Case, precision: str, turns: Turns) -> None:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rows = [
        {side: row["prompt"] + row[side] for side in ("chosen", "rejected")}
        for row in rows_of(case, "reward")
    ]
    RewardTrainer(
        classifier(case),
        args=RewardConfig(max_steps=MANY, max_length=256, **arguments(precision)),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(case.policy),
        callbacks=[AfterStep(turns)],
    ).train()


def train_ppo(case: Case, precision: str, turns: Turns) -> None:
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(case.policy, padding_side="left")
    rows = [
        {"input_ids": tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]}
        for row in rows_of(case, "prompts")
    ]
    config = PPOConfig(
        response_length=MAX_TOKENS[case.lengths],
        total_episodes=MANY * BATCH_SIZE,
        num_ppo_epochs=4,
        num_mini_batches=1,
        num_sample_generations=0,
        temperature=1.0,
        stop_token="eos",
        **arguments(precision),
    )
    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=causal(case),
        ref_model=causal(case),
        reward_model=classifier(case),
        value_model=classifier(case),
        train_dataset=Dataset.from_list(rows),
        callbacks=[AfterStep(turns)],
    )
    trainer.train()


def generate(case: Case, precision: str, turns: Turns) -> None:
    """Sample as its GRPO trainer does: a prompt repeated for each completion of its group."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(case.policy)
    rows = rows_of(case, "prompts")
    trainer = GRPOTrainer(
        causal(case),
        reward_funcs=[lambda completions, **more: [0.0] * len(completions)],
        args=GRPOConfig(
            max_completion_length=MAX_TOKENS[case.lengths],
            num_generations=GROUP_SIZE,
            **arguments(precision),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    prompts = cycle(
        [tokenizer(row["prompt"], add_special_tokens=False)["input_ids"] for row in rows]
    )
    turns.ready()
    while True:
        chosen = [next(prompts) for _ in range(BATCH_SIZE // GROUP_SIZE)]
        repeated = [ids for ids in chosen for _ in range(GROUP_SIZE)]
        completions = trainer._generate_single_turn(repeated, None, {}, GROUP_SIZE)[0]
        turns.note(num_tokens=sum(len(ids) for ids in completions))
        turns.step_done()


JOBS = {"sft": train_sft, "reward": train_reward, "ppo": train_ppo, "generate": generate}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--job", choices=sorted(JOBS), required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--lengths", required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16"], required=True)
    given = parser.parse_args()
    turns = Turns()
    case = Case(given.assets, given.job, given.model, given.lengths)
    JOBS[given.job](case, given.precision, turns)


if __name__ == "__main__":
    main()
