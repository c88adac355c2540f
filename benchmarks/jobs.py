"""What is measured: the sizes that both sides share, and where a case's files are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BATCH_SIZE = 32
"""Rows of a supervised step, pairs of a reward-model step, completions of a PPO update."""
GROUP_SIZE = 8
"""Completions of one prompt where only generation is measured."""
LEARNING_RATE = 1e-6
MAX_TOKENS = {"fixed": 64, "natural": 128}
"""Longest completion; in "fixed" no policy ends before it."""
MANY = 1_000_000
"""Steps that no run reaches: a worker goes on until it is told to stop."""


@dataclass(frozen=True)
class Case:
    """One job on one model with one kind of lengths."""

    assets: Path
    job: str
    model: str
    lengths: str

    @property
    def policy(self) -> Path:
        """Folder of the causal model."""
        return self.assets / f"{self.model}-{self.lengths}"

    @property
    def reward(self) -> Path:
        """Folder of the reward model."""
        return self.assets / f"{self.model}-reward"

    def data(self, name: str) -> Path:
        """File of rows: sft, reward or prompts."""
        return self.assets / f"{name}-{self.lengths}.jsonl"
