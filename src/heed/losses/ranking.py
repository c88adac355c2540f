"""Plackett-Luce: the likelihood of whole rankings, with three readings of completions that tie.

A ranking is made stage by stage: the best of all is chosen, then the best of the rest, and so on;
each choice is a softmax of the scores of what remains. Completions of equal rank have no order
among them, and what that means is a choice. With two completions each reading is the one that
pairs have:

    soft       each order of the tied completions is as likely a label: the mean of their
               log-likelihoods. Of a pair: a soft label of 0.5.
    drop       the order is merely not known: the logarithm of the summed likelihood of all orders
               (the marginal of a partial ranking). Of a pair: the pair teaches nothing.
    davidson   a tie is an outcome with a probability of its own (Davidson-Luce). Of a pair:
               Davidson's model.

`soft` is what Breslow's and Efron's approximations for tied times in Cox regression approach, here
exact; it pulls tied scores together. `drop` does not.

Sources: Plackett 1975; Luce 1959; Firth, Kosmidis and Turner 2019 (Davidson-Luce); Turner et al.
2020, equation 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from heed.errors import DataError

Ties = Literal["soft", "drop", "davidson"]
MAX_TIED = 8
"""Most completions of one rank: the sums run over all their 2^8 subsets."""
MAX_RANKED = 14
"""Most completions of a ranking under `davidson`, whatever ties: C(14, 7) = 3,432 sets a stage."""
MAX_SUBSETS = 4096
"""Most sets that a stage of Davidson-Luce chooses from."""


def plackett_luce(
    scores: Tensor,
    ranks: Tensor,
    group: Tensor,
    ties: Ties = "soft",
    log_nu: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of each prompt's ranking.

    Without ties: -sum_j log( exp(s_j) / sum_{k not better than j} exp(s_k) )

    Args:
        scores: [N] nats, one forward pass per completion.
        ranks: [N], smaller is better, equal ranks are tied.
        group: [N] int64, equal for completions of the same prompt, in any order.
        ties: how equal ranks are read.
        log_nu: [D - 1], for `davidson`: the logarithm of the tie parameter of 2, 3, ... D tied
            completions (that of 1 is 0).

    Returns:
        [P] nats, one per prompt in the order of ascending group id, unreduced.

    Raises:
        DataError: shapes differ; ranks are not finite; a prompt has fewer than two completions, or
            more tied ones than `MAX_TIED` (or than `log_nu` has parameters for).
    """
    if not scores.shape == ranks.shape == group.shape or scores.dim() != 1:
        raise DataError(
            f"found shapes {tuple(scores.shape)}, {tuple(ranks.shape)}, {tuple(group.shape)}; "
            "expected the same [N] for scores, ranks and group"
        )
    if not bool(torch.isfinite(ranks.double()).all()):
        raise DataError("a rank is not finite; leave completions without a rank out")
    if ties == "davidson" and log_nu is None:
        raise DataError("ties='davidson' needs log_nu, one number for 2, 3, ... tied completions")
    losses = []
    for number in torch.unique(group).tolist():
        at = (group == number).nonzero().flatten()
        if len(at) < 2:
            raise DataError(
                f"prompt {number} has one completion, which is no ranking; leave it out before the "
                "batch is built"
            )
        tied = blocks(ranks[at].tolist())
        if ties == "davidson":
            assert log_nu is not None
            losses.append(_davidson_luce(scores[at], tied, log_nu.to(scores.dtype)))
        else:
            losses.append(_ordered(scores[at], tied, _soft if ties == "soft" else _marginal))
    return torch.stack(losses) if losses else scores.new_zeros(0)


def blocks(ranks: Sequence[float]) -> list[list[int]]:
    """Group the places of equal ranks, best first."""
    return [[i for i, r in enumerate(ranks) if r == rank] for rank in sorted(set(ranks))]


def _ordered(
    scores: Tensor, tied: list[list[int]], read: Callable[[Tensor, Tensor | None], Tensor]
) -> Tensor:
    """Add up the stages from the worst block to the best."""
    rest: Tensor | None = None
    total = scores.new_zeros(())
    for block in reversed(tied):
        part = scores[block]
        if len(block) == 1:
            whole = part[0] if rest is None else torch.logaddexp(part[0], rest)
            total = total + whole - part[0]
        else:
            if len(block) > MAX_TIED:
                raise DataError(
                    f"{len(block)} completions share a rank, and the likelihood is summed over "
                    f"their orders up to {MAX_TIED}; leave some out, or use k_wise"
                )
            total = total + read(part, rest)
            best = part.logsumexp(0)
            whole = best if rest is None else torch.logaddexp(best, rest)
        rest = whole
    return total


def _soft(part: Tensor, rest: Tensor | None) -> Tensor:
    """Minus the mean over the orders of tied completions of their log-likelihood.

    After j picks what remains is any subset of d - j of them, each as likely as the others.
    """
    total = -part.sum()
    for members, _ in _lattice(len(part)):
        total = total + _log_z(part, rest, members).mean()
    return total


def _marginal(part: Tensor, rest: Tensor | None) -> Tensor:
    """Minus the logarithm of the summed likelihood of all orders of tied completions.

    f(S) = log sum_{i in S} exp(s_i + f(S - i)) - log Z(S),  f({}) = 0
    """
    below = part.new_zeros(1)
    for members, without in _lattice(len(part)):
        at, under = members.to(part.device), without.to(part.device)
        below = (part[at] + below[under]).logsumexp(1) - _log_z(part, rest, members)
    return -below[0]


def _log_z(part: Tensor, rest: Tensor | None, members: Tensor) -> Tensor:
    """log of the summed exp scores of some tied completions and of all worse ones. [n]"""
    own = part[members.to(part.device)].logsumexp(1)
    return own if rest is None else torch.logaddexp(own, rest.expand_as(own))


@lru_cache(maxsize=16)
def _lattice(size: int) -> list[tuple[Tensor, Tensor]]:
    """For m = 1 ... size: the subsets of m members [n, m], and where each of them less its i-th
    member stands among the subsets of m - 1 [n, m]."""
    out = []
    place: dict[tuple[int, ...], int] = {(): 0}
    for m in range(1, size + 1):
        found = list(combinations(range(size), m))
        without = [[place[s[:i] + s[i + 1 :]] for i in range(m)] for s in found]
        out.append((torch.tensor(found), torch.tensor(without)))
        place = {subset: i for i, subset in enumerate(found)}
    return out


def _davidson_luce(scores: Tensor, tied: list[list[int]], log_nu: Tensor) -> Tensor:
    """Minus the log-likelihood where each stage chooses a set of tied completions.

    P(C of A) = nu_|C| exp(mean of C's scores) / sum_{S of A, |S| <= D} nu_|S| exp(mean of S's)
    """
    most = len(log_nu) + 1
    largest = max(map(len, tied))
    if largest > most:
        raise DataError(
            f"{largest} completions share a rank, and there are tie parameters for at most {most}; "
            "give more of them"
        )
    weight = torch.cat([log_nu.new_zeros(1), log_nu])
    total, remaining = scores.new_zeros(()), [i for block in tied for i in block]
    for block in tied:
        if len(remaining) == 1:
            break
        left = scores[remaining]
        sums = []
        for t in range(1, min(most, len(remaining)) + 1):
            sums.append(weight[t - 1] + left[_subsets(len(remaining), t).to(left.device)].mean(1))
        log_z = torch.cat(sums).logsumexp(0)
        total = total + log_z - weight[len(block) - 1] - scores[block].mean()
        remaining = remaining[len(block) :]
    return total


@lru_cache(maxsize=128)
def _subsets(size: int, members: int) -> Tensor:
    num = math.comb(size, members)
    if num > MAX_SUBSETS:
        raise DataError(
            f"a ranking of {size} completions with ties of {members} has {num:,} sets to choose "
            f"from (at most {MAX_SUBSETS:,}); leave some completions out, or use k_wise"
        )
    return torch.tensor(list(combinations(range(size), members)))
