"""The losses of single replies, the baselines that they are measured from, and their batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from heed import masked
from heed.algorithms.references import References
from heed.algorithms.unpaired_config import UnpairedConfig
from heed.data.batch import Row, TokenBatch, collate
from heed.data.judgements import LabelledReply
from heed.data.order import Order
from heed.learners.base import Evaluator, LossTerms, Outputs, TokenLoss
from heed.losses import unpaired


def order_of(config: UnpairedConfig, num_rows: int) -> Order:
    """In which order replies are visited."""
    return Order(num_rows, config.batch_size, config.run.seed, "unpaired")


def values_of(
    config: UnpairedConfig, ratio: Tensor, labels: Tensor, baseline: Tensor | float
) -> Tensor:
    """The loss of each reply, [B], unreduced."""
    if config.loss_type == "bco":
        return unpaired.bco(ratio, labels, baseline, config.beta)
    weights = config.desirable_weight, config.undesirable_weight
    return unpaired.kto(ratio, labels, baseline, config.beta, *weights)


def unpaired_loss(config: UnpairedConfig) -> TokenLoss:
    """The loss of a micro-batch of replies, unreduced [b].

    The batch has the stream `reference_logprobs`, and one value a row of `labels`, `baseline` and
    `weights`.
    """

    def loss(outputs: Outputs, batch: TokenBatch) -> LossTerms:
        assert outputs.logprobs is not None
        logps = masked.sum(outputs.logprobs, batch.learn, dim=1)
        ratio = logps - masked.sum(batch.stream("reference_logprobs"), batch.learn, dim=1)
        labels, baseline = batch.row_values("labels"), batch.row_values("baseline")
        weights = batch.row_values("weights").to(ratio.dtype)
        values = weights * values_of(config, ratio, labels, baseline.to(ratio.dtype))
        origin = weights * values_of(config, torch.zeros_like(ratio).detach(), labels, 0.0)
        fixed = {"reward": config.beta * ratio, "logps": logps, "origin": origin}
        return LossTerms(values, {name: each.detach() for name, each in fixed.items()})

    return loss


def lay_out(references: References, replies: Sequence[tuple[LabelledReply, Row]]) -> TokenBatch:
    """Lay replies out with their labels, weights and the reference's log-probabilities."""
    rows = [row for _, row in replies]
    batch = references.fill(collate(rows), rows)
    weights = [1.0 if reply.weight is None else reply.weight for reply, _ in replies]
    return batch.with_row_values(
        labels=torch.tensor([reply.p for reply, _ in replies]), weights=torch.tensor(weights)
    )


def mismatched(rows: Sequence[Row], max_length: int | None = None) -> list[Row]:
    """Pair each prompt with the reply to the row before it, the first with the last one's.

    Args:
        max_length: the end of a reply that would make a row longer is cut off; None for never.

    Source: Ethayarajh et al. 2024: replies to other prompts of the batch estimate the policy's
    distance from the reference, because both are far from any one of them.
    """
    out = []
    for i, row in enumerate(rows):
        other = rows[i - 1]
        at, begin = list(row.learn).index(True), list(other.learn).index(True)
        tokens = [*row.tokens[:at], *other.tokens[begin:]][:max_length]
        learn = [*row.learn[:at], *other.learn[begin:]][:max_length]
        out.append(Row(f"{row.id}|{other.id}", tokens, learn))
    return out


class Baseline:
    """What log-ratios, or rewards, are measured from: of the whole batch, without gradient.

    Args:
        config: which loss.
        state: of a checkpoint.
        max_length: of mismatched rows.
    """

    def __init__(
        self,
        config: UnpairedConfig,
        state: dict[str, float] | None = None,
        max_length: int | None = None,
    ) -> None:
        self._config, self._max_length = config, max_length
        state = state or {}
        self._mean, self._count = state.get("mean", 0.0), state.get("count", 0.0)

    def state(self) -> dict[str, float]:
        """What a checkpoint needs."""
        return {"mean": self._mean, "count": self._count}

    def measure(
        self, learner: Evaluator, references: References, batch: TokenBatch, rows: Sequence[Row]
    ) -> tuple[str | None, float]:
        """Measure it for a batch: its name among the metrics (TRL's), and its value.

        KTO's is of this batch alone; BCO's is the mean over all batches so far, this one included.
        """
        if self._config.loss_type == "apo_zero_unpaired":
            return None, 0.0
        if self._config.loss_type == "kto":
            others = mismatched(rows, self._max_length)
            pairs = references.fill(collate(others), others)
            self._mean = float(unpaired.kto_baseline(_ratio(learner, pairs)))
            return "kl", self._mean
        rewards = self._config.beta * _ratio(learner, batch)
        self._count += len(rewards)
        self._mean += (float(rewards.mean()) - self._mean) * len(rewards) / self._count
        return "delta", self._mean

    def values(self, ratio: Tensor, labels: Tensor) -> Tensor:
        """The loss of replies beside the baseline as it stands."""
        return values_of(self._config, ratio, labels, self._mean)


def _ratio(learner: Evaluator, batch: TokenBatch) -> Tensor:
    found = learner.forward(batch).logprobs
    assert found is not None
    gap = found - batch.stream("reference_logprobs")
    return masked.sum(gap, batch.learn, dim=1)
