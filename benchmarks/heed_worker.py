"""heed's side of a benchmark; see `benchmarks.turns` for how it is driven.

Each job is the public `run(config)` with its defaults for speed, and a sink that reports each
step's end. Checkpoints and looks at held-out data are put off, as saving is on TRL's side.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.jobs import LEARNING_RATE, MANY, Case
from benchmarks.turns import Turns
from heed.data.datasets import load_prompts
from heed.records import Sampling
from heed.settings import DataSettings, LearnerSettings, ModelSettings, OptimSettings, RunSettings

NEVER_SECONDS = 1e12
OPTIM = OptimSettings(lr=LEARNING_RATE)


class AfterStep:
    """A sink that reports each step's end to the turns; the look before step 1 is set-up."""

    def __init__(self, turns: Turns, case: Case) -> None:
        self._turns, self._case = turns, case
        self._started = False

    def stage(self, run: str, text: str, total: int | None) -> None:
        """Set-up is over when the stage of steps begins; a reference is asked before it."""
        if not self._started and total and not text.startswith("reference"):
            self._started = True
            self._turns.ready()

    def progress(self, done: int, total: int | None, figures: Mapping[str, Any]) -> None:
        """Nothing is shown."""

    def metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        """One step, or one update of PPO, is over."""
        if step > 0:
            if metrics.get("completions/mean_length") is not None:
                mean = metrics["completions/mean_length"]
                self._turns.note(num_tokens=mean * self._case.batch_size)
            self._turns.step_done()

    def note(self, text: str) -> None:
        """Nothing is shown."""

    def warning(self, name: str, message: str) -> None:
        """Nothing is shown."""

    def finish(self, status: str) -> None:
        """The worker ends before its run does."""


def run_settings() -> RunSettings:
    folder = str(Path(tempfile.mkdtemp()) / "run")
    return RunSettings(folder=folder, checkpoint_seconds=NEVER_SECONDS)


def data(case: Case, name: str) -> DataSettings:
    return DataSettings(path=str(case.data(name)), max_length=case.max_length)


def common(case: Case, learner: LearnerSettings) -> dict[str, Any]:
    return {
        "run": run_settings(),
        "batch_size": case.batch_size,
        "optim": OPTIM,
        "learner": learner,
    }


def train_sft(case: Case, learner: LearnerSettings, turns: Turns) -> None:
    from heed.algorithms import sft

    config = sft.SFTConfig(
        model=ModelSettings(path=str(case.policy)),
        data=data(case, "sft"),
        num_train_epochs=MANY,
        eval_every=MANY * case.batch_size,
        **common(case, learner),
    )
    sft.run(config, [AfterStep(turns, case)])


def train_reward(case: Case, learner: LearnerSettings, turns: Turns) -> None:
    from heed.algorithms import reward

    config = reward.RewardConfig(
        model=ModelSettings(path=str(case.reward)),
        data=data(case, "reward"),
        num_train_epochs=MANY,
        eval_every=MANY * case.batch_size,
        **common(case, learner),
    )
    reward.run(config, [AfterStep(turns, case)])


def train_dpo(case: Case, learner: LearnerSettings, turns: Turns) -> None:
    """DPO; where the reference is asked in each step, it is one that could move and never does."""
    from heed.algorithms import preference

    config = preference.PreferenceConfig(
        model=ModelSettings(path=str(case.policy)),
        data=data(case, "reward"),
        num_train_epochs=MANY,
        eval_every=MANY * case.batch_size,
        eval_frac=0.0,
        sync_ref_model=case.job == "dpo",
        ref_model_sync_steps=MANY,
        **common(case, learner),
    )
    preference.run(config, [AfterStep(turns, case)])


def online(case: Case) -> dict[str, Any]:
    return {
        "model": ModelSettings(path=str(case.policy)),
        "data": data(case, "prompts"),
        "total_episodes": MANY * case.batch_size,
        "sampling": Sampling(max_tokens=case.max_tokens),
        "exact_kl_rows": 0,
        "num_eval_prompts": 1,
        "eval_every": MANY,
    }


def train_ppo(case: Case, learner: LearnerSettings, turns: Turns) -> None:
    from heed.algorithms import ppo

    config = ppo.PPOConfig(
        reward_funcs=(str(case.reward),),
        num_ppo_epochs=4,
        num_mini_batches=1,
        kl_coef=0.05,
        **online(case),
        **common(case, learner),
    )
    ppo.run(config, [AfterStep(turns, case)])


def train_online(case: Case, learner: LearnerSettings, turns: Turns) -> None:
    """GRPO without a KL, as TRL's default is, and RLOO with TRL's 0.05."""
    from heed.algorithms import critic_free

    config = critic_free.OnlineConfig(
        preset=case.job,
        beta={"grpo": 0.0, "rloo": 0.05}[case.job],
        num_generations=case.group_size,
        reward_funcs=("benchmarks.jobs:distinct_letters",),
        **online(case),
        **common(case, learner),
    )
    critic_free.run(config, [AfterStep(turns, case)])


def generate(case: Case, learner: LearnerSettings, turns: Turns) -> None:
    from heed.engines.policy import open_policy

    model = ModelSettings(path=str(case.policy))
    policy = open_policy(model, device=learner.device, precision=learner.precision)
    prompts = cycle(load_prompts(data(case, "prompts"))[0])
    sampling = Sampling(max_tokens=case.max_tokens, n=case.group_size)
    turns.ready()
    while True:
        chosen = [next(prompts) for _ in range(case.batch_size // case.group_size)]
        groups = policy.engine.generate(chosen, sampling)
        turns.note(num_tokens=sum(c.num_tokens for group in groups for c in group))
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
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    given = parser.parse_args()
    learner = LearnerSettings(precision=given.precision, device=given.case.device)
    JOBS[given.case.job](given.case, learner, Turns())


if __name__ == "__main__":
    main()
