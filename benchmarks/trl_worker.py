"""TRL's side of a benchmark; see `benchmarks.turns` for how it is driven.

A trainer is set up with its own defaults but for what makes it slower on this machine (gradient
checkpointing) and what is no part of a step (saving, reporting).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import cycle
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)

from benchmarks.jobs import LEARNING_RATE, MANY, Case, distinct_letters
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


def causal(case: Case, precision: str = "fp32") -> Any:
    dtype = torch.bfloat16 if precision == "bf16-weights" else torch.float32
    return AutoModelForCausalLM.from_pretrained(case.policy, dtype=dtype)


def classifier(case: Case) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(
        case.reward, num_labels=1, dtype=torch.float32
    )


def arguments(case: Case, precision: str) -> dict[str, Any]:
    return {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": case.batch_size,
        "learning_rate": LEARNING_RATE,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": case.device == "cpu",
        "bf16": precision != "fp32",
        "gradient_checkpointing": False,
        "seed": 0,
    }


def train_sft(case: Case, precision: str, turns: Turns) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    SFTTrainer(
        causal(case, precision),
        args=SFTConfig(max_steps=MANY, max_length=case.max_length, **arguments(case, precision)),
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
        args=RewardConfig(max_steps=MANY, max_length=case.max_length, **arguments(case, precision)),
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
        response_length=case.max_tokens,
        total_episodes=MANY * case.batch_size,
        num_ppo_epochs=4,
        num_mini_batches=1,
        num_sample_generations=0,
        temperature=1.0,
        stop_token="eos",
        **arguments(case, precision),
    )
    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=causal(case, precision),
        ref_model=causal(case, precision),
        reward_model=classifier(case),
        value_model=classifier(case),
        train_dataset=Dataset.from_list(rows),
        callbacks=[AfterStep(turns)],
    )
    trainer.train()


def train_dpo(case: Case, precision: str, turns: Turns) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    DPOTrainer(
        causal(case, precision),
        args=DPOConfig(
            max_steps=MANY,
            max_length=case.max_length,
            precompute_ref_log_probs=case.job == "dpo-cached",
            **arguments(case, precision),
        ),
        train_dataset=Dataset.from_list(rows_of(case, "reward")),
        processing_class=AutoTokenizer.from_pretrained(case.policy),
        callbacks=[AfterStep(turns)],
    ).train()


def train_online(case: Case, precision: str, turns: Turns) -> None:
    import trl
    from datasets import Dataset

    name = case.job.upper()
    config = getattr(trl, f"{name}Config")(
        max_steps=MANY,
        max_completion_length=case.max_tokens,
        num_generations=case.group_size,
        **arguments(case, precision),
    )
    getattr(trl, f"{name}Trainer")(
        causal(case, precision),
        reward_funcs=[distinct_letters],
        args=config,
        train_dataset=Dataset.from_list(rows_of(case, "prompts")),
        processing_class=AutoTokenizer.from_pretrained(case.policy),
        callbacks=[AfterStep(turns)],
    ).train()


def generate(case: Case, precision: str, turns: Turns) -> None:
    """Sample as its GRPO trainer does: a prompt repeated for each completion of its group."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(case.policy)
    rows = rows_of(case, "prompts")
    trainer = GRPOTrainer(
        causal(case, precision),
        reward_funcs=[lambda completions, **more: [0.0] * len(completions)],
        args=GRPOConfig(
            max_completion_length=case.max_tokens,
            num_generations=case.group_size,
            **arguments(case, precision),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    prompts = cycle(
        [tokenizer(row["prompt"], add_special_tokens=False)["input_ids"] for row in rows]
    )
    turns.ready()
    while True:
        chosen = [next(prompts) for _ in range(case.batch_size // case.group_size)]
        repeated = [ids for ids in chosen for _ in range(case.group_size)]
        completions = trainer._generate_single_turn(repeated, None, {}, case.group_size)[0]
        turns.note(num_tokens=sum(len(ids) for ids in completions))
        turns.step_done()


JOBS = {
    "sft": train_sft,
    "reward": train_reward,
    "dpo": train_dpo,
    "dpo-cached": train_dpo,
    "ppo": train_ppo,
    "grpo": train_online,
    "rloo": train_online,
    "generate": generate,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", type=Case.loads, required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16", "bf16-weights"], required=True)
    given = parser.parse_args()
    JOBS[given.case.job](given.case, given.precision, Turns())


if __name__ == "__main__":
    main()
