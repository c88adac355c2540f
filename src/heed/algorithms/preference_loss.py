"""The loss of a batch of pairs, put together from rows of the table, and what is reported of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from heed.algorithms.preference_pairs import Pairs, joined, pairs_of, sequence_kl
from heed.algorithms.preference_rows import Row, better_tokens
from heed.algorithms.preference_settings import PairLossSettings
from heed.algorithms.references import References
from heed.algorithms.reward import PairRows, pair_batch
from heed.data.batch import PairBatch
from heed.errors import LearnerError
from heed.learners.base import Evaluator, LossTerms, Outputs, PairLoss
from heed.learners.local import LocalLearner
from heed.losses.replies import wpo_weights


def values_of(pairs: Pairs, config: PairLossSettings) -> Tensor:
    """The weighted sum of the losses, [B], unreduced."""
    total = torch.zeros_like(pairs.chosen.total)
    for row, weight in zip(config.rows.values(), config.weights, strict=True):
        total = total + weight * row.values(pairs, config, config.beta_of(row))
    if config.use_weighting:
        assert pairs.chosen.alignment is not None
        assert pairs.rejected.alignment is not None
        aligned = pairs.chosen.alignment, pairs.rejected.alignment
        total = total * wpo_weights(*aligned, clamped=config.clamp_weighting)
    return total


def first_row(config: PairLossSettings) -> Row:
    """The loss whose implicit reward is reported: the first, and likelihood only where alone."""
    rows = [row for name, row in config.rows.items() if name != "sft"]
    return (rows or list(config.rows.values()))[0]


def described(pairs: Pairs, config: PairLossSettings) -> dict[str, Tensor]:
    """Numbers of each pair to report, [B], without gradient; names as in the metrics."""
    row = first_row(config)
    chosen, rejected = (
        row.rewards(side, config.beta_of(row)).detach() for side in (pairs.chosen, pairs.rejected)
    )
    margin = chosen - rejected
    found = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": margin,
        "rewards/accuracies": (margin > 0).float() + 0.5 * (margin == 0).float(),
        "logps/chosen": pairs.chosen.total.detach(),
        "logps/rejected": pairs.rejected.total.detach(),
        "lengths/delta": pairs.chosen.tokens - pairs.rejected.tokens,
    }
    if config.use_weighting:
        assert pairs.chosen.alignment is not None
        assert pairs.rejected.alignment is not None
        aligned = pairs.chosen.alignment, pairs.rejected.alignment
        found["wpo_weight"] = wpo_weights(*aligned, clamped=config.clamp_weighting)
    if config.needs_reference and config.ld_alpha is None:
        found["logps/chosen_change"] = pairs.chosen.ratio.detach()
    return found


def preference_loss(
    config: PairLossSettings, reference: Evaluator | None = None, *, origin: bool = False
) -> PairLoss:
    """The loss of a micro-batch of pairs, unreduced [b].

    Args:
        config: which losses.
        reference: asked for whole distributions where a loss reads them.
        origin: also report what the loss would be if the policy were the reference.
    """

    def loss(chosen: Outputs, rejected: Outputs, batch: PairBatch) -> LossTerms:
        kls = None
        if "log_distribution" in config.also:
            kls = kls_of(reference, chosen, rejected, batch)
        pairs = pairs_of(chosen, rejected, batch, ld_alpha=config.ld_alpha, kls=kls)
        values = values_of(pairs, config)
        metrics = described(pairs, config)
        if origin:
            metrics["origin"] = values_of(pairs.with_own_reference(), config)
        if batch.weights is not None:
            values = values * batch.weights
            if origin:
                metrics["origin"] = metrics["origin"] * batch.weights
        return LossTerms(values, {name: each.detach() for name, each in metrics.items()})

    return loss


def kls_of(
    reference: Evaluator | None, chosen: Outputs, rejected: Outputs, batch: PairBatch
) -> tuple[Tensor, Tensor]:
    """Sequence KL of both sides, [b] each, with gradient.

    Raises:
        LearnerError: there is no reference to ask, or the policy gave no distributions.
    """
    ours = chosen.log_distribution, rejected.log_distribution
    if reference is None or ours[0] is None or ours[1] is None:
        raise LearnerError(
            "the loss needs whole distributions of policy and reference; the learner gives them "
            "with also=('log_distribution',), the reference is a model of its own or the policy "
            "without its adapters"
        )
    return (
        sequence_kl(reference, ours[0], batch.chosen),
        sequence_kl(reference, ours[1], batch.rejected),
    )


def lay_out(
    config: PairLossSettings, references: References, rows: Sequence[PairRows]
) -> PairBatch:
    """Lay pairs out with the reference's log-probabilities and the tokens that are learned."""
    batch = pair_batch(rows)
    if config.needs_reference or config.reference_free:
        batch = PairBatch(
            references.fill(batch.chosen, [chosen for _, chosen, _ in rows]),
            references.fill(batch.rejected, [rejected for _, _, rejected in rows]),
            batch.p,
            weights=batch.weights,
        )
    p = batch.p.double()
    tokens = batch.chosen.learn.sum(1), batch.rejected.learn.sum(1)
    mean = (p * tokens[0] + (1 - p) * tokens[1]).mean()
    return _with_whole(batch, {"mean_tokens": mean.expand(len(batch))})


def with_whole_batch(
    config: PairLossSettings, learner: LocalLearner, batch: PairBatch
) -> PairBatch:
    """Measure what must be known of all pairs before the first micro-batch, and lay it beside them.

    The policy is asked once without gradient. What depends on more than one pair, such as the rank
    of a pair in the batch, is a constant from then on, so that the micro-batches' gradients add up
    to that of the whole batch.
    """
    rows = [row for row in config.rows.values() if row.whole_batch is not None]
    if not rows:
        return batch
    sides = learner.forward(batch.chosen), learner.forward(batch.rejected)
    pairs = pairs_of(*sides, batch, ld_alpha=config.ld_alpha)
    for row in rows:
        assert row.whole_batch is not None
        batch = _with_whole(batch, row.whole_batch(pairs))
    return batch


def _with_whole(batch: PairBatch, values: dict[str, Tensor]) -> PairBatch:
    chosen = batch.chosen.with_row_values(**values)
    return PairBatch(chosen, batch.rejected, batch.p, batch.margin, batch.weights)


def measure(
    config: PairLossSettings,
    learner: LocalLearner,
    reference: Evaluator | None,
    references: References,
    rows: Sequence[PairRows],
    chunk: int = 64,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Evaluate pairs without gradient, all of them as one batch.

    Returns:
        loss [N] and the numbers of `described`, each [N].
    """
    parts = []
    also = [name for name in config.also if name == "log_collision"]
    for first in range(0, len(rows), chunk):
        batch = lay_out(config, references, rows[first : first + chunk])
        chosen = learner.forward(batch.chosen, also=also)
        rejected = learner.forward(batch.rejected, also=also)
        kls = None
        if "log_distribution" in config.also:
            chosen = replace(chosen, log_distribution=learner.log_distribution(batch.chosen))
            rejected = replace(rejected, log_distribution=learner.log_distribution(batch.rejected))
            kls = kls_of(reference, chosen, rejected, batch)
        parts.append(pairs_of(chosen, rejected, batch, ld_alpha=config.ld_alpha, kls=kls))
    pairs = joined(parts)
    whole = {"mean_tokens": better_tokens(pairs).mean().expand(len(rows))}
    for row in config.rows.values():
        whole |= row.whole_batch(pairs) if row.whole_batch is not None else {}
    pairs = Pairs(pairs.chosen, pairs.rejected, pairs.p, whole)
    return values_of(pairs, config), described(pairs, config)
