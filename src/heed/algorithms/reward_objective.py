"""What a reward model learns from, as one value: its examples, their batch, loss and judgement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from heed.algorithms.reward_ties import TieParameter
from heed.data.batch import Batch, Row
from heed.learners.local import LocalLearner
from heed.records import Finding


@dataclass(frozen=True)
class Objective:
    """How one `loss_type` is trained and measured.

    Args:
        train, held_out: examples; no prompt is in both.
        normal: rows to bring the score's mean and deviation to 0 and 1 on.
        batch: lays examples out.
        loss: of a batch's outputs; its metrics are logged as their means.
        measure: metrics on the held-out examples.
        judge: findings on the held-out examples when all is done, and the facts behind them.
        ties: the tie parameter, where the loss has one.
    """

    train: Sequence[Any]
    held_out: Sequence[Any]
    normal: list[Row]
    batch: Callable[[Sequence[Any]], Batch]
    loss: Callable[..., Any]
    measure: Callable[[LocalLearner], dict[str, float | None]]
    judge: Callable[[LocalLearner], tuple[list[Finding], dict[str, Any]]]
    ties: TieParameter | None = None
