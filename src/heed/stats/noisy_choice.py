"""Noisy Bradley-Terry: strengths of items, and how reliable and how one-sided each person is.

    x = reliability_a (s_left - s_right) + bias_a
    P(left) = e^(x/2) / Z,  P(tie) = nu / Z,  P(right) = e^(-x/2) / Z,  Z = e^(x/2) + e^(-x/2) + nu

left and right as on the screen. Reliability 0 answers by bias alone; the mean reliability is 1, so
strengths are in nats of the average person. Without ties nu is 0 and this is logistic.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, stats
from scipy.sparse.csgraph import connected_components

from heed.errors import ConfigError, DataError
from heed.stats import noisy_posterior
from heed.stats.intervals import Interval, group_values, tail_share
from heed.stats.noisy_posterior import Comparisons, Mode, Priors


@dataclass(frozen=True)
class Person:
    """One person: reliability (1 on average, 0 random), left bias in nats; n is their answers."""

    reliability: Interval
    left_bias: Interval


@dataclass(frozen=True)
class NoisyChoice:
    """A fit. `strengths` [items] in nats, mean 0; `tie` is log nu.

    `errors` [items] are standard errors; None above 3,000 parameters, where they cost too much.
    """

    items: tuple[Hashable, ...]
    strengths: NDArray
    errors: NDArray | None
    people: dict[Hashable, Person]
    tie: Interval | None
    log_posterior: float

    def p_left(self, left: Sequence[Hashable], right: Sequence[Hashable]) -> NDArray:
        """Predict that left is better, by the average person without bias, ties aside. [N]."""
        place = {item: number for number, item in enumerate(self.items)}
        gap = [self.strengths[place[a]] - self.strengths[place[b]]
               for a, b in zip(left, right, strict=True)]  # fmt: skip
        return np.asarray(1 / (1 + np.exp(-np.array(gap))))


def noisy_choice(
    left: Sequence[Hashable],
    right: Sequence[Hashable],
    raters: Sequence[Hashable],
    outcomes: ArrayLike,
    *,
    strength_sd: float = 2.0,
    reliability_sd: float = 1.0,
    bias_sd: float = 1.0,
    level: float = 0.95,
) -> NoisyChoice:
    """Fit the most probable strengths, reliabilities and biases, with Laplace intervals.

    Priors: s ~ N(0, strength_sd^2); reliability ~ N(1, reliability_sd^2), cut at 0;
    bias ~ N(0, bias_sd^2); log nu flat. The priors keep an item that never lost, or a person who
    never erred, finite. A standard deviation of 0 fixes reliability at 1 or bias at 0; with both 0
    and strength_sd infinite this is maximum likelihood of Bradley-Terry or Davidson.

    The strengths are part of the joint mode, which makes the intervals of reliabilities too narrow
    where items have few comparisons: of 95 % intervals, 46 % held the truth with 3 comparisons of
    each item, 82 % with 10, 89 % with 30, 94 % with 200 (five people, ties). Left biases are not
    concerned. Where items have few comparisons read `one_coin`.

    Args:
        left, right: [N] items as on the screen.
        raters: [N] people.
        outcomes: [N] 1 where the left of the screen was chosen, 0 the right, 0.5 a tie.
        strength_sd, reliability_sd, bias_sd: nats; no unit; nats.
        level: of the intervals, in (0, 1).

    Raises:
        ConfigError: a standard deviation out of range.
        DataError: lists of different lengths, an item against itself, another outcome, nothing but
            ties; or, with strength_sd infinite, items that are not connected or never lost.

    Source: Chen et al. 2013 (reliability per person), Davidson 1970 (ties), with a position term.
    """
    tail = tail_share(level)
    if not (strength_sd > 0 and reliability_sd >= 0 and bias_sd >= 0):
        raise ConfigError(
            f"found strength_sd {strength_sd}, reliability_sd {reliability_sd}, bias_sd {bias_sd}; "
            "expected above 0, and 0 or above for the others"
        )
    data, items, people = _comparisons(left, right, raters, outcomes)
    priors = Priors(strength_sd, reliability_sd, bias_sd)
    if np.isinf(strength_sd):
        _check_exists(data, items)
    return _summarise(data, noisy_posterior.maximise(data, priors), items, people, tail)


def _comparisons(
    left: Sequence[Hashable],
    right: Sequence[Hashable],
    raters: Sequence[Hashable],
    outcomes: ArrayLike,
) -> tuple[Comparisons, tuple[Hashable, ...], tuple[Hashable, ...]]:
    said, rater = group_values(outcomes, raters)
    if not len(left) == len(right) == len(said):
        raise DataError(f"found {len(left)} left, {len(right)} right and {len(said)} outcomes")
    if not np.isin(said, (0.0, 0.5, 1.0)).all():
        raise DataError("an outcome is neither 0, 0.5 nor 1; leave failed judgements out")
    if (said == 0.5).all():
        raise DataError("every comparison is a tie, so no strength has an estimate")
    both = [*left, *right]
    _, number = group_values(np.zeros(len(both)), both)
    first, second = number[: len(left)], number[len(left) :]
    if (first == second).any():
        raise DataError("an item is compared with itself; leave such comparisons out")
    items, people = tuple(dict.fromkeys(both)), tuple(dict.fromkeys(raters))
    data = Comparisons(first, second, rater, said, len(items), len(people))
    return data, items, people


def _check_exists(data: Comparisons, items: tuple[Hashable, ...]) -> None:
    """Without a prior every item must reach every other along wins (a tie is both)."""
    won, lost = data.said > 0, data.said < 1
    winner = np.concatenate([data.left[won], data.right[lost]])
    loser = np.concatenate([data.right[won], data.left[lost]])
    edges = sparse.coo_array((np.ones(len(winner)), (winner, loser)), shape=(data.num_items,) * 2)
    num, part = connected_components(edges, directed=True, connection="weak")
    if num > 1:
        alone = [items[i] for i in np.flatnonzero(part != part[0])[:8]]
        raise DataError(
            f"items {alone} were never compared, not even through others, with {items[0]!r}; "
            "compare across, or pass a finite strength_sd"
        )
    if connected_components(edges, directed=True, connection="strong")[0] > 1:
        raise DataError(
            "some items never lost to the rest (or never won), so their strength is infinite; "
            "collect more comparisons of them, or pass a finite strength_sd"
        )


def _summarise(
    data: Comparisons,
    mode: Mode,
    items: tuple[Hashable, ...],
    people: tuple[Hashable, ...],
    tail: float,
) -> NoisyChoice:
    """Move to mean strength 0 and mean reliability 1, and bound what results (delta method)."""
    s, reliability, bias, tie = mode.parts(data)
    z = float(stats.norm.ppf(1 - tail))
    scale = float(reliability.mean())
    variance = noisy_posterior.variances(data, mode)
    num = np.bincount(data.rater, minlength=data.num_people)
    found = {}
    for a, name in enumerate(people):
        rel = _above_zero(reliability[a] / scale, mode.beyond[a] / scale,
                          float(np.sqrt(variance.reliability[a])), tail, int(num[a]))  # fmt: skip
        half = z * float(np.sqrt(variance.bias[a]))
        here = float(bias[a])
        found[name] = Person(rel, Interval(here, here - half, here + half, int(num[a])))
    ties = None
    if tie is not None:
        half = z * float(np.sqrt(variance.tie))
        ties = Interval(tie, tie - half, tie + half, len(data.said))
    strengths = (s - s.mean()) * scale
    errors = None if variance.strength is None else np.sqrt(variance.strength)
    return NoisyChoice(items, strengths, errors, found, ties, mode.log_posterior)


def _above_zero(estimate: float, centre: float, error: float, tail: float, n: int) -> Interval:
    """Bound a number that cannot fall below 0 by its normal, cut there.

    Where the interval would reach below 0 it begins at 0, and holds the level of what is left.
    """
    if error == 0:
        return Interval(estimate, estimate, estimate, n)
    z = float(stats.norm.ppf(1 - tail))
    low, high = centre - z * error, centre + z * error
    if low <= 0:
        cut = stats.truncnorm(-centre / error, np.inf, loc=centre, scale=error)
        low, high = 0.0, float(cut.ppf(1 - 2 * tail))
    return Interval(float(estimate), float(min(low, estimate)), float(max(high, estimate)), n)
