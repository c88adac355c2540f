"""A leaderboard of policies from who was preferred: strengths, sure ranks, win rates.

Bradley-Terry with ties over policies; intervals from resampling prompts, people, or both.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from heed.errors import DataError
from heed.stats import choice
from heed.stats.intervals import Interval, group_values, tail_share, win_rate

Ties = Literal["half", "davidson"]


@dataclass(frozen=True)
class Standing:
    """One policy: strength in nats, and the ranks it may have (1 is best).

    `rank_low` is one more than the number of policies that are surely better, `rank_high` the
    number of all less those that are surely worse: equal where the rank is sure.
    """

    policy: Hashable
    strength: Interval
    rank_low: int
    rank_high: int
    num_wins: int
    num_losses: int
    num_ties: int

    @property
    def num_comparisons(self) -> int:
        """Wins, losses and ties together."""
        return self.num_wins + self.num_losses + self.num_ties


@dataclass(frozen=True)
class Leaderboard:
    """Standings, best first, and the win rate of every policy against every other it met.

    `win_rates[a, b]` is the share that a wins against b, ties half; pairs that never met are
    absent. `tie` is Davidson's log nu, None where ties count half.
    """

    standings: tuple[Standing, ...]
    win_rates: dict[tuple[Hashable, Hashable], Interval]
    tie: float | None

    def separable(self, better: Hashable, worse: Hashable) -> bool:
        """Say whether the data tell the two apart: no rank is possible for both."""
        place = {standing.policy: standing for standing in self.standings}
        for policy in (better, worse):
            if policy not in place:
                raise DataError(f"found no policy {policy!r}; expected one of {[*place]}")
        return place[better].rank_high < place[worse].rank_low


def leaderboard(
    left: Sequence[Hashable],
    right: Sequence[Hashable],
    outcomes: ArrayLike,
    *,
    rng: np.random.Generator,
    prompts: Sequence[Hashable] | None = None,
    people: Sequence[Hashable] | None = None,
    ties: Ties = "half",
    anchor: Hashable | None = None,
    prior: float = 0.5,
    level: float = 0.95,
    num_resamples: int = 1000,
) -> Leaderboard:
    """Rank policies by pairwise preferences.

    "Surely better" means that the `level` interval of the difference of strengths, over resamples
    in which both are fitted together, lies above 0.

    Args:
        left, right: [N] policies.
        outcomes: [N] 1 where left is better, 0 where right is, 0.5 for a tie.
        rng: of the bootstrap.
        prompts, people: [N] labels resampled whole; give both to resample both (crossed).
        ties: "half" counts a tie as half a win for each; "davidson" fits their rate.
        anchor: the policy whose strength is 0; None puts the mean at 0.
        prior: imagined comparisons of every pair of policies that met, split evenly; keeps a
            policy that never lost finite.
        level: in (0, 1).
        num_resamples: fits.

    Raises:
        DataError: policies in sets that were never compared (named), an unknown anchor, or as
            `choice.bootstrap`.
    """
    if not len(left) == len(right) == np.asarray(outcomes).size:
        raise DataError(f"found {len(left)} left and {len(right)} right policies for the outcomes")
    both = [*left, *right]
    _, number = group_values(np.zeros(len(both)), both)
    names, size = tuple(dict.fromkeys(both)), len(left)
    a, b = number[:size], number[size:]
    said = np.asarray(outcomes, dtype=float)
    _check_connected(a, b, names)
    if anchor is not None and anchor not in names:
        raise DataError(f"found no policy {anchor!r} to anchor at; expected one of {names}")
    first, second = (prompts, people) if prompts is not None else (people, None)
    fit, drawn = choice.resample(
        a, b, said, len(names), rng=rng, clusters=first, also=second, prior=prior,
        model="davidson" if ties == "davidson" else "bradley_terry", num_resamples=num_resamples,
    )  # fmt: skip
    zero = None if anchor is None else names.index(anchor)
    n = min((len({*c}) for c in (prompts, people) if c is not None), default=size)
    wins, tied = choice.count(a, b, said, len(names))
    tail = tail_share(level)
    standings = _standings(
        names, _shift(fit.values, zero), _shift(drawn, zero), wins, tied, tail, n
    )
    rates = _win_rates(names, a, b, said, first, level)
    return Leaderboard(standings, rates, fit.tie)


def _check_connected(a: NDArray, b: NDArray, names: tuple[Hashable, ...]) -> None:
    met = coo_array((np.ones(len(a)), (a, b)), shape=(len(names),) * 2)
    num, part = connected_components(met, directed=False)
    if num > 1:
        groups = [[names[i] for i in np.flatnonzero(part == k)] for k in range(num)]
        shown = "; ".join(str(group[:8]) for group in groups[:8])
        raise DataError(
            f"the policies fall into {num} sets that were never compared, not even through "
            f"others: {shown}; compare across the sets, or make a leaderboard of each"
        )


def _shift(strengths: NDArray, zero: int | None) -> NDArray:
    return strengths if zero is None else strengths - strengths[..., zero, None]


def _standings(
    names: tuple[Hashable, ...],
    values: NDArray,
    drawn: NDArray,
    wins: NDArray,
    tied: NDArray,
    tail: float,
    n: int,
) -> tuple[Standing, ...]:
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    found = []
    for i in np.argsort(-values, kind="stable"):
        lead = np.quantile(drawn[:, i, None] - drawn, [tail, 1 - tail], axis=0)
        better, worse = int((lead[1] < 0).sum()), int((lead[0] > 0).sum())
        interval = Interval(float(values[i]), float(low[i]), float(high[i]), n)
        counts = int(wins[i].sum()), int(wins[:, i].sum()), int(tied[i].sum())
        found.append(Standing(names[i], interval, 1 + better, len(names) - worse, *counts))
    return tuple(found)


def _win_rates(
    names: tuple[Hashable, ...],
    a: NDArray,
    b: NDArray,
    said: NDArray,
    clusters: Sequence[Hashable] | None,
    level: float,
) -> dict[tuple[Hashable, Hashable], Interval]:
    cluster = None if clusters is None else group_values(said, clusters)[1]
    cell = np.minimum(a, b) * len(names) + np.maximum(a, b)
    order = np.argsort(cell, kind="stable")
    edges = np.flatnonzero(np.diff(cell[order])) + 1
    rates = {}
    for rows in np.split(order, edges):
        i, j = divmod(int(cell[rows[0]]), len(names))
        outcome = np.where(a[rows] == i, said[rows], 1 - said[rows])
        own = None if cluster is None else cluster[rows]
        rates[names[i], names[j]] = win_rate(outcome, own, level)
        rates[names[j], names[i]] = win_rate(1 - outcome, own, level)
    return rates
