"""What is measured: the sizes that both sides share, and where a case's files are."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

LEARNING_RATE = 1e-6
MANY = 1_000_000
"""Steps that no run reaches: a worker goes on until it is told to stop."""

Job = Literal["sft", "reward", "dpo", "dpo-cached", "ppo", "grpo", "rloo", "generate"]
JOB_NAMES: dict[str, str] = {
    "sft": "supervised step",
    "reward": "reward-model step",
    "dpo": "DPO step, reference asked in it",
    "dpo-cached": "DPO step, reference asked before",
    "ppo": "PPO update",
    "grpo": "GRPO update",
    "rloo": "RLOO update",
    "generate": "generation alone",
}
SAMPLES = ("ppo", "grpo", "rloo", "generate")
"""Jobs in which the policy writes the completions."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompts and completions, the end token included: least and most.

    Args:
        mean: tokens of a completion beyond the least, geometric; None where all have the most.
    """

    prompt: tuple[int, int]
    completion: tuple[int, int]
    mean: int | None = None


LENGTHS: dict[str, Lengths] = {
    "fixed": Lengths((64, 64), (64, 64)),
    "natural": Lengths((16, 112), (8, 128), 40),
    "fixed-128": Lengths((128, 128), (128, 128)),
    "natural-128": Lengths((32, 224), (16, 256), 80),
    "short": Lengths((8, 8), (8, 8)),
}
"""By name: those of the CPU's table, those of a GPU's, and those of the tests."""


@dataclass(frozen=True)
class Case:
    """One job on one model with one kind of lengths.

    Args:
        assets: folder that `benchmarks.assets` filled.
        batch_size: rows of a supervised step, pairs of a step on pairs, completions of an update.
        group_size: completions of one prompt, where a method or generation has groups.
        device: cpu or cuda.
    """

    assets: Path
    job: str
    model: str
    lengths: str
    batch_size: int = 32
    group_size: int = 8
    device: str = "cpu"

    @property
    def policy(self) -> Path:
        """Folder of the causal model."""
        return self.assets / f"{self.model}-{self.lengths}"

    @property
    def reward(self) -> Path:
        """Folder of the reward model."""
        return self.assets / f"{self.model}-reward"

    @property
    def max_tokens(self) -> int:
        """Longest completion; with fixed lengths no policy ends before it."""
        return LENGTHS[self.lengths].completion[1]

    @property
    def max_length(self) -> int:
        """Room for the longest row."""
        return LENGTHS[self.lengths].prompt[1] + self.max_tokens + 16

    def data(self, name: str) -> Path:
        """File of rows: sft, reward or prompts."""
        return self.assets / f"{name}-{self.model}-{self.lengths}.jsonl"

    def dumps(self) -> str:
        """Write the case as one line."""
        return json.dumps({**asdict(self), "assets": str(self.assets)})

    @classmethod
    def loads(cls, text: str) -> Case:
        """Read what `dumps` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "assets": Path(fields["assets"])})


def distinct_letters(completions: list[str], **more: object) -> list[float]:
    """Score completions in no time: the reward of jobs that need no reward model."""
    return [len(set(text)) / 100 for text in completions]
