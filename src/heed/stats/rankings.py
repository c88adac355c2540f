"""Agreement of people who rank the same completions: Kendall's tau-b and W, and the same best.

A ranking is [J people, K candidates] of ranks: 1 for the best, equal numbers for ties. Only their
order counts. Each prompt has a table of its own; results are means over prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from heed.errors import DataError
from heed.stats.intervals import Measured, Undefined, bootstrap_mean


def tau_b(ranks: ArrayLike) -> float | None:
    """Average Kendall's tau-b over all pairs of people who ranked one prompt's candidates.

    tau_b = (concordant - discordant) / sqrt((n0 - ties of one) (n0 - ties of the other)),
    n0 = K (K - 1) / 2.

    Args:
        ranks: [J, K].

    Returns:
        In [-1, 1]; None where no two people ranked anything apart. A person who ties everything
        has no tau with anybody and is left out.

    Source: Kendall 1945.
    """
    table = _table(ranks)
    first, second = np.triu_indices(table.shape[1], 1)
    order = np.sign(table[:, first] - table[:, second])
    order = order[(order != 0).any(1)]
    if len(order) < 2:
        return None
    length = np.sqrt((order**2).sum(1))
    tau = (order @ order.T) / np.outer(length, length)
    return float(tau[np.triu_indices(len(order), 1)].mean())


def kendall_w(ranks: ArrayLike) -> float | None:
    """Compute Kendall's coefficient of concordance, corrected for ties.

    W = 12 S / (J^2 (K^3 - K) - J sum_j T_j), S = sum_k (R_k - mean R)^2 over sums of mid-ranks,
    T_j = sum over tied groups of (t^3 - t).

    Args:
        ranks: [J, K].

    Returns:
        In [0, 1]: 1 where all rank alike, 1 / J expected by chance. None where one person ranked,
        or everybody ties everything.

    Source: Kendall and Babington Smith 1939; Siegel 1956.
    """
    table = _table(ranks)
    num_people, num_candidates = table.shape
    middle = rankdata(table, axis=1)
    sums = middle.sum(0)
    ties = sum(float((t**3 - t).sum()) for t in (_groups(row) for row in table))
    scale = num_people**2 * (num_candidates**3 - num_candidates) - num_people * ties
    if scale <= 0 or num_people < 2:
        return None
    return float(12 * ((sums - sums.mean()) ** 2).sum() / scale)


def top_one(ranks: ArrayLike) -> float | None:
    """Compute the chance that two people, picked at random, have the same best candidate.

    Tied best candidates share: |A and B| / (|A| |B|) for best sets A and B. None where one person
    ranked.
    """
    table = _table(ranks)
    if len(table) < 2:
        return None
    best = (table == table.min(1, keepdims=True)).astype(float)
    best /= best.sum(1, keepdims=True)
    same = best @ best.T
    return float(same[np.triu_indices(len(best), 1)].mean())


def over_prompts(
    rankings: Sequence[ArrayLike],
    statistic: Callable[[ArrayLike], float | None] = tau_b,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    num_resamples: int = 2000,
) -> Measured:
    """Average a statistic of one prompt over prompts, with the bootstrap over prompts.

    Args:
        rankings: one [J, K] table per prompt; J and K may differ.
        statistic: `tau_b`, `kendall_w` or `top_one`.

    Returns:
        n is the number of prompts where the statistic has a value; `Undefined` where none has.
    """
    values = [value for value in (statistic(ranks) for ranks in rankings) if value is not None]
    if not values:
        return Undefined(
            "no prompt has two people who ranked its candidates apart; collect more rankings", 0
        )
    return bootstrap_mean(values, level=level, num_resamples=num_resamples, rng=rng)


def _groups(row: NDArray) -> NDArray:
    return np.unique(row, return_counts=True)[1]


def _table(ranks: ArrayLike) -> NDArray:
    table = np.asarray(ranks, dtype=float)
    if table.ndim != 2 or not len(table) or table.shape[1] < 2 or not np.isfinite(table).all():
        raise DataError(
            f"found ranks of shape {table.shape}; expected [people, candidates], two candidates or "
            "more, all finite; leave out people who did not rank every candidate"
        )
    return table
