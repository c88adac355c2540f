"""What losses of pairs read: a few numbers of each reply, made from its tokens in one place.

The same numbers come out of a micro-batch with gradient, of a whole batch without (for what must
be known of all pairs before the first micro-batch), and of the held-out pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from heed import kl, masked
from heed.data.batch import PairBatch, TokenBatch
from heed.errors import LearnerError
from heed.learners.base import Evaluator, Outputs
from heed.losses import replies


@dataclass(frozen=True)
class Reply:
    """One side of B pairs; every tensor is [B], and None is what no loss asked for.

    Args:
        logps: log pi(reply) in nats; tokens beyond the shorter side weighed down under LD-DPO.
        total: the same with every token whole.
        tokens: learned tokens, the end token among them.
        reference: log ref(reply), weighed as `logps`.
        kl: sum over the reply's tokens of KL(ref || pi) in nats.
        alignment: of WPO, see `heed.losses.replies.alignment`.
    """

    logps: Tensor
    total: Tensor
    tokens: Tensor
    reference: Tensor | None = None
    kl: Tensor | None = None
    alignment: Tensor | None = None

    @property
    def ratio(self) -> Tensor:
        """log pi(reply) - log ref(reply), [B] nats."""
        return self.logps - present(self.reference, "reference_logprobs")

    @property
    def mean(self) -> Tensor:
        """log pi(reply) a token, [B] nats."""
        return self.logps / self.tokens

    def with_own_reference(self) -> Reply:
        """The side as it is where the policy is the reference."""
        none = None if self.kl is None else torch.zeros_like(self.kl)
        reference = None if self.reference is None else self.logps.detach()
        return Reply(
            self.logps.detach(), self.total.detach(), self.tokens, reference, none, self.alignment
        )


@dataclass(frozen=True)
class Pairs:
    """B pairs as their losses see them.

    Args:
        chosen, rejected: the sides.
        p: [B] probability that chosen is better; None where all are 1.
        whole: name -> [B], what was measured over the whole batch for each of these pairs.
    """

    chosen: Reply
    rejected: Reply
    p: Tensor | None
    whole: dict[str, Tensor]

    def of_whole_batch(self, name: str) -> Tensor:
        """A number that depends on all pairs of the batch, [B].

        Raises:
            LearnerError: it was not measured.
        """
        return present(self.whole.get(name), name)

    def with_own_reference(self) -> Pairs:
        """The pairs as they are where the policy is the reference: at the origin."""
        sides = self.chosen.with_own_reference(), self.rejected.with_own_reference()
        return Pairs(*sides, self.p, self.whole)


WHOLE = ("mean_tokens", "reference_at_rank", "rejected_at_rank", "chosen_at_rank")
"""Numbers of the whole batch, kept with the pair as streams of its chosen side."""


def present(values: Tensor | None, name: str) -> Tensor:
    """Return a tensor that a loss needs.

    Raises:
        LearnerError: it is absent; the message names the stream and what fills it.
    """
    if values is None:
        raise LearnerError(
            f"the loss needs the stream {name!r}, and this batch has none; it is filled by "
            "heed.algorithms.preference before the step: the reference's forward pass for "
            "reference_logprobs, a pass over the whole batch for the rest"
        )
    return values


def pairs_of(
    chosen: Outputs,
    rejected: Outputs,
    batch: PairBatch,
    *,
    ld_alpha: float | None = None,
    kls: tuple[Tensor, Tensor] | None = None,
) -> Pairs:
    """Read a batch of pairs with what a policy says of it.

    Args:
        chosen, rejected: outputs; those of WPO where they have a log_collision.
        batch: with the stream `reference_logprobs` where the loss has a reference.
        ld_alpha: weight of tokens beyond the shorter side, None for 1.
        kls: sequence KL [B] of both sides.
    """
    shared = torch.minimum(batch.chosen.learn.sum(1), batch.rejected.learn.sum(1))
    kl_chosen, kl_rejected = kls or (None, None)
    p = batch.p
    return Pairs(
        _reply(chosen, batch.chosen, shared, ld_alpha, kl_chosen),
        _reply(rejected, batch.rejected, shared, ld_alpha, kl_rejected),
        None if bool((p == 1).all()) else p,
        {n: batch.chosen.row_values(n) for n in WHOLE if n in batch.chosen.streams},
    )


def _reply(
    outputs: Outputs, batch: TokenBatch, shared: Tensor, ld_alpha: float | None, kls: Tensor | None
) -> Reply:
    assert outputs.logprobs is not None
    total = masked.sum(outputs.logprobs, batch.learn, dim=1)
    logps, reference = total, batch.streams.get("reference_logprobs")
    if ld_alpha is not None:
        weights = replies.length_weights(batch.learn, shared, ld_alpha)
        logps = masked.sum(outputs.logprobs * weights, batch.learn, dim=1)
        reference = None if reference is None else reference * weights
    aligned = None
    if outputs.log_collision is not None:
        aligned = replies.alignment(outputs.logprobs, outputs.log_collision, batch.learn)
    return Reply(
        logps,
        total,
        batch.learn.sum(1).to(total.dtype),
        None if reference is None else masked.sum(reference, batch.learn, dim=1),
        kls,
        aligned,
    )


def sequence_kl(reference: Evaluator, ours: Tensor, batch: TokenBatch) -> Tensor:
    """Sum over a reply's tokens of KL(ref || pi), [B] nats, with the gradient of `ours`.

    Args:
        ours: [N, V] log-distributions of the policy at learned tokens.
    """
    per_token = kl.exact(reference.log_distribution(batch).to(ours.device), ours)
    laid = per_token.new_zeros(batch.learn.shape).masked_scatter(batch.learn, per_token)
    return laid.sum(1)


def joined(parts: Sequence[Pairs]) -> Pairs:
    """Put pairs one after the other."""
    sides = []
    for name in ("chosen", "rejected"):
        found: dict[str, Tensor | None] = {}
        for field in fields(Reply):
            pieces = [getattr(getattr(part, name), field.name) for part in parts]
            found[field.name] = None if pieces[0] is None else torch.cat(pieces)
        sides.append(Reply(**found))  # type: ignore[arg-type]
    ps = [torch.ones_like(part.chosen.total) if part.p is None else part.p for part in parts]
    p = torch.cat([each.to(sides[0].total.dtype) for each in ps])
    return Pairs(sides[0], sides[1], None if bool((p == 1).all()) else p, {})
