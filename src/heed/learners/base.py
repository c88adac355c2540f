"""The learner protocol: batches and losses in, gradients and steps out.

The learner never knows which algorithm it serves. An algorithm writes streams on the tokens and
hands over a loss; the learner splits the batch, computes, and sums with the global denominator,
so neither micro-batches nor padding nor packing change a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from heed.data.batch import Batch, GroupBatch, PairBatch, TokenBatch


@dataclass(frozen=True)
class Outputs:
    """What a model says of B rows; a quantity that the model does not have is None.

    Args:
        logprobs: [B, T] nats, at learned tokens, 0 elsewhere.
        entropy: [B, T] nats of the distribution that predicts token t, detached.
        values: [B, T] expected return before token t is chosen.
        scores: [B] the reward model's score, read at the last real token.
        log_collision: [B, T] nats, log of the sum of squares of the distribution that predicts
            token t, detached; where asked for.
        log_distribution: [N, V] nats, the distributions behind the learned tokens, row by row and
            with gradient; where asked for, and in `backward` alone.
        attributes: [B, K] the numbers that the score is a weighted sum of.
    """

    logprobs: Tensor | None = None
    entropy: Tensor | None = None
    values: Tensor | None = None
    scores: Tensor | None = None
    log_collision: Tensor | None = None
    log_distribution: Tensor | None = None
    attributes: Tensor | None = None


@dataclass(frozen=True)
class LossTerms:
    """A loss before reduction.

    Args:
        values: any shape whose first axis is the micro-batch's rows; summed and divided by the
            global denominator. Zero where nothing is learned.
        metrics: detached tensors [b] or [b, T] to be handed back for the whole batch.
    """

    values: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


Further = Literal["log_collision", "log_distribution"]
"""Outputs that a policy computes only where they are asked for."""

TokenLoss = Callable[[Outputs, TokenBatch], LossTerms]
PairLoss = Callable[[Outputs, Outputs, PairBatch], LossTerms]
GroupLoss = Callable[[Outputs, GroupBatch], LossTerms]


class Learner(Protocol):
    """Whatever holds weights and improves them.

    Every implementation passes `tests/contracts/test_learner.py`.
    """

    def forward(
        self, batch: TokenBatch, *, entropy: bool = False, also: Collection[Further] = ()
    ) -> Outputs:
        """Evaluate without gradients; outputs are fp32 and in the batch's order and layout."""
        ...

    def log_distribution(self, batch: TokenBatch) -> Tensor:
        """Evaluate the whole distribution behind each learned token: [N, V] nats."""
        ...

    @property
    def learning_rate(self) -> float:
        """Rate of the next step."""
        ...

    def backward(
        self,
        batch: Batch,
        loss: TokenLoss | PairLoss | GroupLoss,
        denominator: float,
        *,
        entropy: bool = False,
        also: Collection[Further] = (),
    ) -> dict[str, Tensor]:
        """Add the gradient of sum(loss.values) / denominator, and return the loss's metrics.

        What the loss reads beyond log-probabilities is named by `entropy` and `also`.

        A metric comes back as [B] or [B, T] for the whole batch, rows in the batch's order;
        `loss` is always among them ([B], each row's summed values).

        Raises:
            LearnerError: the loss is not finite. The batch that made it is saved first.
        """
        ...

    def step(self) -> float:
        """Apply and clear the gradient; returns its norm before clipping."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and optimiser state."""
        ...

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        ...

    def widen(self) -> None:
        """Give the weights their full precision back, to save the model when all is done."""
        ...

    def weights(self) -> Mapping[str, Any]:
        """The current weights by name, for an engine; views where possible."""
        ...


class Evaluator(Protocol):
    """The part of a learner that a frozen model has: a reference."""

    def forward(self, batch: TokenBatch, *, entropy: bool = False) -> Outputs:
        """As `Learner.forward`."""
        ...

    def log_distribution(self, batch: TokenBatch) -> Tensor:
        """As `Learner.log_distribution`."""
        ...
