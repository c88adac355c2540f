"""Strengths of items from who beat whom: Bradley-Terry and Davidson, with bootstrap intervals.

Strengths are log-odds in nats with mean 0: a lead of 1 wins 73 % of the decided comparisons.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heed.errors import ConfigError, DataError
from heed.stats import paired
from heed.stats.intervals import BLOCK, Interval, group_values, tail_share
from heed.stats.paired import Model

ELO_PER_NAT = 400 / np.log(10)


@dataclass(frozen=True)
class Strengths:
    """A fit. `values` [M] nats, mean 0; `tie` Davidson's log nu, None without a model of ties."""

    values: NDArray
    tie: float | None
    log_likelihood: float


def count(
    left: ArrayLike, right: ArrayLike, outcome: ArrayLike, num_items: int
) -> tuple[NDArray, NDArray]:
    """Count comparisons.

    Args:
        left, right: [N] item numbers below num_items.
        outcome: [N], 1 when left is better, 0 when right is, 0.5 for a tie.
        num_items: M.

    Returns:
        wins [M, M], entry i, j = how often i beat j; and ties [M, M], symmetric.

    Raises:
        DataError: an item is out of range or compared with itself, or an outcome is another number.
    """
    cell = _cells(left, right, outcome, num_items)
    counts = np.bincount(cell, minlength=2 * num_items**2).astype(float)
    wins, ties = _tables(counts[None], num_items)
    return wins[0], ties[0]


def bradley_terry(wins: ArrayLike, ties: ArrayLike | None = None, prior: float = 0.0) -> Strengths:
    """Fit P(i beats j) = sigmoid(s_i - s_j) by maximum likelihood; a tie is half a win for each.

    Args:
        wins: [M, M], entry i, j = how often i beat j.
        ties: [M, M] symmetric counts; None for none.
        prior: imagined comparisons added to every compared pair, split evenly over the outcomes;
            pulls strengths together.

    Raises:
        DataError: the items are not connected, or one never lost (or never won) against the rest,
            so that its strength is infinite; a prior above 0 cures the second.

    Source: Bradley and Terry 1952; condition of existence Ford 1957.
    """
    won, tied = _counts(wins, ties, prior, "bradley_terry")
    _check_exists(won, tied, "bradley_terry")
    values, likelihood = paired.fit(won, tied, "bradley_terry")
    return Strengths(values[0], None, float(likelihood[0]))


def davidson(wins: ArrayLike, ties: ArrayLike, prior: float = 0.0) -> Strengths:
    """Fit wins and ties together by maximum likelihood.

    P(i beats j) = a / Z,  P(tie) = nu / Z,  P(j beats i) = 1 / (a Z),
    with a = exp((s_i - s_j) / 2) and Z = a + 1/a + nu

    Args and errors as in `bradley_terry`; there must be ties, and the items must be connected by
    wins alone (sufficient for a finite fit).

    Source: Davidson 1970.
    """
    won, tied = _counts(wins, ties, prior, "davidson")
    _check_exists(won, tied, "davidson")
    found, likelihood = paired.fit(won, tied, "davidson")
    return Strengths(found[0, :-1], float(found[0, -1]), float(likelihood[0]))


def bootstrap(
    left: ArrayLike,
    right: ArrayLike,
    outcome: ArrayLike,
    num_items: int,
    *,
    rng: np.random.Generator,
    clusters: Sequence[Hashable] | NDArray | None = None,
    model: Model = "bradley_terry",
    level: float = 0.95,
    num_resamples: int = 1000,
    prior: float = 0.0,
    max_failed_frac: float = 0.01,
) -> list[Interval]:
    """Bound every strength by the percentile bootstrap over comparisons or clusters of them.

    Args:
        left, right, outcome, num_items: as in `count`.
        rng: the source of randomness.
        clusters: [N] labels (prompts, labellers) resampled whole; None resamples comparisons.
        model: which fit.
        level: in (0, 1).
        num_resamples: fits.
        prior: as in the fit.
        max_failed_frac: the share of resamples that may have no finite fit and are left out.

    Returns:
        M intervals; n is the number of clusters (comparisons without clusters).

    Raises:
        DataError: as the fit; or too many resamples have no finite fit (use a prior).
    """
    tail = tail_share(level)
    fit, values = resample(
        left, right, outcome, num_items, rng=rng, clusters=clusters, model=model,
        num_resamples=num_resamples, prior=prior, max_failed_frac=max_failed_frac,
    )  # fmt: skip
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    n = len(_cells(left, right, outcome, num_items)) if clusters is None else len({*clusters})
    bounds = zip(fit.values, low, high, strict=True)
    return [Interval(float(s), float(a), float(b), n) for s, a, b in bounds]


def resample(
    left: ArrayLike,
    right: ArrayLike,
    outcome: ArrayLike,
    num_items: int,
    *,
    rng: np.random.Generator,
    clusters: Sequence[Hashable] | NDArray | None = None,
    also: Sequence[Hashable] | NDArray | None = None,
    model: Model = "bradley_terry",
    num_resamples: int = 1000,
    prior: float = 0.0,
    max_failed_frac: float = 0.01,
) -> tuple[Strengths, NDArray]:
    """Fit the comparisons, and resamples of them.

    Args as in `bootstrap`, and:
        also: [N] labels of a second clustering, crossed with the first: a comparison counts as
            often as its cluster was drawn in the one times in the other.

    Returns:
        the fit, and strengths [R, M] of the resamples that have a finite fit.

    Source: two clusterings: Owen 2007, "The pigeonhole bootstrap".
    """
    cell = _cells(left, right, outcome, num_items)
    counts = np.bincount(cell, minlength=2 * num_items**2).astype(float)
    wins, ties = _tables(counts[None], num_items)
    fit = (bradley_terry if model == "bradley_terry" else davidson)(wins[0], ties[0], prior)
    by = [group_values(np.zeros(len(cell)), c)[1] for c in (clusters, also) if c is not None]
    drawn = _resample(cell, by, counts, num_resamples, rng)
    won, tied = _counts(*_tables(drawn, num_items), prior, model)
    exists = paired.exists(won, tied, model)
    failed = float((~exists).mean())
    if failed > max_failed_frac:
        raise DataError(
            f"{failed:.1%} of the resamples have no finite fit (at most {max_failed_frac:.1%} "
            "allowed), because some item hardly wins or loses; collect more comparisons of it or "
            "pass prior=0.5"
        )
    return fit, paired.fit(won[exists], tied[exists], model)[0][:, :num_items]


def elo(strength: ArrayLike, anchor: float = 1000.0) -> NDArray:
    """Convert strengths in nats to Elo points: anchor + 400 / ln 10 * strength.

    A lead of 400 points is odds of 10 to 1.
    """
    return anchor + ELO_PER_NAT * np.asarray(strength, dtype=float)


def strength(points: ArrayLike, anchor: float = 1000.0) -> NDArray:
    """Convert Elo points back to nats."""
    return (np.asarray(points, dtype=float) - anchor) / ELO_PER_NAT


def _cells(left: ArrayLike, right: ArrayLike, outcome: ArrayLike, num_items: int) -> NDArray:
    """Number each comparison's cell: winner * M + loser, and M^2 more for a tie (i < j)."""
    a, b = np.asarray(left), np.asarray(right)
    y = np.asarray(outcome, dtype=float)
    if not (a.shape == b.shape == y.shape and a.ndim == 1 and len(a)):
        raise DataError(f"found shapes {a.shape}, {b.shape}, {y.shape}; expected the same [N]")
    if min(a.min(), b.min()) < 0 or max(a.max(), b.max()) >= num_items or (a == b).any():
        raise DataError(f"expected two different items below {num_items} in every comparison")
    if not np.isin(y, (0.0, 0.5, 1.0)).all():
        raise DataError("an outcome is neither 0, 0.5 nor 1; leave failed judgements out")
    tie = y == 0.5
    first = np.where(tie, np.minimum(a, b), np.where(y == 1, a, b))
    second = a + b - first
    return (first * num_items + second + tie * num_items**2).astype(np.int64)


def _tables(cells: NDArray, num_items: int) -> tuple[NDArray, NDArray]:
    both = cells.reshape(-1, 2, num_items, num_items)
    return both[:, 0], both[:, 1] + both[:, 1].swapaxes(1, 2)


def _resample(
    cell: NDArray, by: list[NDArray], counts: NDArray, num: int, rng: np.random.Generator
) -> NDArray:
    """Count cells [num, cells] in resamples of clusters; of comparisons where there are none."""
    if not by:
        return rng.multinomial(len(cell), counts / len(cell), size=num).astype(float)
    drawn = np.empty((num, len(counts)))
    block = max(1, BLOCK // (max(int(index.max()) for index in by) + 1))
    for start in range(0, num, block):
        size = min(block, num - start)
        times = [_draw(index, size, rng) for index in by]
        for row in range(size):
            weight = np.prod([t[row][index] for t, index in zip(times, by, strict=True)], axis=0)
            drawn[start + row] = np.bincount(cell, weight, minlength=len(counts))
    return drawn


def _draw(index: NDArray, size: int, rng: np.random.Generator) -> NDArray:
    num_clusters = int(index.max()) + 1
    return rng.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=size)


def _counts(
    wins: ArrayLike, ties: ArrayLike | None, prior: float, model: Model
) -> tuple[NDArray, NDArray]:
    """Return wins and ties as [R, M, M] with the prior added."""
    won = np.asarray(wins, dtype=float)
    tied = np.zeros_like(won) if ties is None else np.asarray(ties, dtype=float)
    if won.ndim == 2:
        won, tied = won[None], tied[None]
    if won.ndim != 3 or won.shape[1] != won.shape[2] or won.shape != tied.shape:
        raise DataError(f"found wins {won.shape} and ties {tied.shape}; expected both [M, M]")
    if (won < 0).any() or (tied < 0).any():
        raise DataError("a count of wins or ties is negative")
    if not np.array_equal(tied, tied.swapaxes(1, 2)):
        raise DataError("the table of ties is not symmetric; entry i, j counts a tie of i and j")
    if not prior >= 0:
        raise ConfigError(f"prior is {prior}, expected 0 or above")
    met = (won + won.swapaxes(1, 2) + tied) > 0
    share = prior / 2 if model == "bradley_terry" else prior / 3
    won = won + share * met
    return won, tied + share * met if model == "davidson" else tied


def _check_exists(won: NDArray, tied: NDArray, model: Model) -> None:
    if paired.exists(won, tied, model)[0]:
        return
    met = won + won.swapaxes(1, 2) + tied > 0
    if not paired.reach(met)[0].all():
        alone = np.flatnonzero(~paired.reach(met)[0, 0]).tolist()
        raise DataError(
            f"items {alone[:8]} were never compared, not even through others, with item 0; "
            "fit each connected set alone, or compare across"
        )
    if model == "davidson" and tied.sum() == 0:
        raise DataError("there are no ties, so their rate has no estimate; use bradley_terry")
    raise DataError(
        "some items never lost to the rest (or never won), so their strength is infinite; "
        "collect more comparisons of them, or pass prior=0.5"
    )
