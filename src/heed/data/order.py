"""In which order rows are visited: a function of the seed and the step, so nothing is stored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from heed.errors import ConfigError
from heed.ids import stream_seed


@dataclass(frozen=True)
class Order:
    """Visit `num_rows` rows in batches; each epoch is a fresh permutation of all rows.

    A batch that reaches the end of an epoch goes on with the next one, so every batch is full
    and no row is visited a second time before every row was visited once.

    Args:
        num_rows: rows to visit.
        batch_size: rows of one batch.
        seed: of the run.
        purpose: names the random stream.
    """

    num_rows: int
    batch_size: int
    seed: int
    purpose: str

    def __post_init__(self) -> None:
        if self.num_rows < 1:
            raise ConfigError(f"there are no rows to visit ({self.purpose}); give at least one")

    def steps(self, epochs: float) -> int:
        """Batches that visit every row `epochs` times, rounded up; at least 1."""
        return max(1, -(-round(self.num_rows * epochs) // self.batch_size))

    def batch(self, step: int) -> list[int]:
        """Row numbers of batch `step`, counted from 0."""
        first = step * self.batch_size
        return [self._row(i) for i in range(first, first + self.batch_size)]

    def epoch(self, step: int) -> float:
        """Passes over the rows before batch `step`."""
        return step * self.batch_size / self.num_rows

    def _row(self, visit: int) -> int:
        epoch, place = divmod(visit, self.num_rows)
        return int(_permutation(self.num_rows, self.seed, self.purpose, epoch)[place])


@lru_cache(maxsize=8)
def _permutation(num_rows: int, seed: int, purpose: str, epoch: int) -> np.ndarray:
    return np.random.default_rng(stream_seed(seed, purpose, epoch)).permutation(num_rows)
