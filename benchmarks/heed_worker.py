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

from benchmarks.jobs import BATCH_SIZE, GROUP_SIZE, LEARNING_RATE, MANY, MAX_TOKENS, Case
from benchmarks.turns import Turns
from heed.data.datasets import load_prompts
from heed.records import Sampling
from heed.settings import DataSettings, LearnerSettings, ModelSettings, OptimSettings, RunSettings

NEVER_SECONDS = 1e12
OPTIM = OptimSettings(lr=LEARNING_RATE)


class AfterStep:
    """A sink that reports each step's end to the turns; the look before step 1 is set-up."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._started = False

    def stage(self, run: str, text: str, total: int | None) -> None:
        """Set-up is over when the first stage that has steps begins."""
        if not self._started and total:
            self._started = True
            self._turns.ready()

    def progress(self, done: int, total: int | None, figures: Mapping[str, Any]) -> None:
        """Nothing is shown."""

    def metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        """One step, or one update of PPO, is over."""
        if step > 0:
            if metrics.get("completions/mean_length") is not None:
                self._turns.note(num_tokens=metrics["completions/mean_length"] * BATCH_SIZE)
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
    return DataSettings(path=str(case.data(name)), max_length=256)


def train_sft(case: Case, learner: LearnerSettings, turns: Turns) -> None:
    from heed.algorithms import sft

    config = sft.SFTConfig(
        run=run_settings(),
        model=ModelSettings(path=str(case.policy)),
        data=data(case, "sft"),
        num_train_epochs=MANY,
        eval_every=MANY * BATCH_SIZE,
        batch_size=BATCH_SIZE,
        optim=OPTIM,
        learner=learner,
    )
    sft.run(config, [AfterStep(turns)])


def train_reward(case: Case, learner: LearnerSettings, turns: Turns) -> None:
    from heed.algorithms import reward

    config = reward.RewardConfig(
        run=run_settings(),
        model=ModelSettings(path=str(case.reward)),
        data=data(case, "reward"),
        num_train_epochs=MANY,
        eval_every=MANY * BATCH_SIZE,
        batch_size=BATCH_SIZE,
        optim=OPTIM,
        learner=learner,
    )
    reward.run(config, [AfterStep(turns)])


def train_ppo(case: Case, learner: LearnerSettings, turns: Turns) -> None:
    from heed.algorithms import ppo

    config = ppo.PPOConfig(
        run=run_settings(),
        model=ModelSettings(path=str(case.policy)),
        data=data(case, "prompts"),
        reward_funcs=(str(case.reward),),
        total_episodes=MANY * BATCH_SIZE,
        batch_size=BATCH_SIZE,
        num_ppo_epochs=4,
        num_mini_batches=1,
        sampling=Sampling(max_tokens=MAX_TOKENS[case.lengths]),
        kl_coef=0.05,
        exact_kl_rows=0,
        num_eval_prompts=1,
        eval_every=MANY,
        optim=OPTIM,
        learner=learner,
    )
    ppo.run(config, [AfterStep(turns)])


def generate(case: Case, learner: LearnerSettings, turns: Turns) -> None:
    from heed.engines.policy import open_policy

    model = ModelSettings(path=str(case.policy))
    policy = open_policy(model, precision=learner.precision)
    prompts = cycle(load_prompts(data(case, "prompts"))[0])
    sampling = Sampling(max_tokens=MAX_TOKENS[case.lengths], n=GROUP_SIZE)
    turns.ready()
    while True:
        chosen = [next(prompts) for _ in range(BATCH_SIZE // GROUP_SIZE)]
        groups = policy.engine.generate(chosen, sampling)
        turns.note(num_tokens=sum(c.num_tokens for group in groups for c in group))
        turns.step_done()


JOBS = {"sft": train_sft, "reward": train_reward, "ppo": train_ppo, "generate": generate}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--job", choices=sorted(JOBS), required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--lengths", required=True)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    given = parser.parse_args()
    turns = Turns()
    case = Case(given.assets, given.job, given.model, given.lengths)
    JOBS[given.job](case, LearnerSettings(precision=given.precision), turns)


if __name__ == "__main__":
    main()
