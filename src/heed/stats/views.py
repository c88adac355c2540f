"""Views: one label per pair from what several people said, by a named and versioned rule.

Outcomes are in the order of the pair: 1 where its left is better, 0 its right, 0.5 neither. A view
never changes what was said; it is computed anew from it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr

from heed.errors import ConfigError, DataError
from heed.stats import one_coin as coin
from heed.stats.intervals import Interval, group_values, win_rate


@dataclass(frozen=True)
class View:
    """Labels of pairs under one rule.

    `p_left` [pairs] in [0, 1]; `num` [pairs] answers behind each; `left_out` pairs to which the
    rule gives no label. Equal name, version and parameters give equal labels of equal answers.
    """

    name: str
    version: int
    parameters: tuple[tuple[str, object], ...]
    pairs: tuple[Hashable, ...]
    p_left: NDArray
    num: NDArray
    left_out: tuple[Hashable, ...] = ()


def majority(pairs: Sequence[Hashable], outcomes: ArrayLike) -> View:
    """Label each pair by most votes: 1 or 0, and 0.5 where as many chose each side.

    Neutral answers count for neither side.
    """
    said, pair, names = _votes(pairs, outcomes)
    lead = np.bincount(pair, said - 0.5, minlength=len(names))
    return View("majority", 1, (), names, (np.sign(lead) + 1) / 2, np.bincount(pair))


def soft(pairs: Sequence[Hashable], outcomes: ArrayLike, smoothing: float = 0.0) -> View:
    """Label each pair by its share of votes, a neutral answer half for each side.

    (left votes + smoothing) / (votes + 2 smoothing).

    Args:
        smoothing: imagined votes for each side, 0 or above.
    """
    if not smoothing >= 0:
        raise ConfigError(f"smoothing is {smoothing}, expected 0 or above")
    said, pair, names = _votes(pairs, outcomes)
    num = np.bincount(pair)
    share = (np.bincount(pair, said) + smoothing) / (num + 2 * smoothing)
    return View("soft", 1, (("smoothing", smoothing),), names, share, num)


def weighted(
    pairs: Sequence[Hashable],
    raters: Sequence[Hashable],
    outcomes: ArrayLike,
    weights: Mapping[Hashable, float],
) -> View:
    """Label each pair by its share of votes, each by the weight of who gave it.

    Args:
        weights: 0 or above for every person, for example `annotators.gold_weight`. A pair that has
            votes of weight 0 only is left out.

    Raises:
        DataError: a person without a weight, or a weight below 0.
    """
    said, pair, names = _votes(pairs, outcomes)
    missing = sorted({repr(rater) for rater in raters if rater not in weights})
    if len(raters) != len(said) or missing or min(weights.values(), default=0.0) < 0:
        raise DataError(
            f"found {len(raters)} raters for {len(said)} votes, no weight of {missing[:8]}; "
            "expected one rater per vote, and a weight of 0 or above for each"
        )
    weight = np.array([weights[rater] for rater in raters], dtype=float)
    total = np.bincount(pair, weight, minlength=len(names))
    kept = total > 0
    share = np.bincount(pair, weight * said, minlength=len(names))[kept] / total[kept]
    return View(
        "weighted", 1, tuple(sorted(weights.items(), key=repr)),  # type: ignore[arg-type]
        tuple(name for name, k in zip(names, kept, strict=True) if k), share,
        np.bincount(pair)[kept], tuple(name for name, k in zip(names, kept, strict=True) if not k),
    )  # fmt: skip


def one_coin(
    pairs: Sequence[Hashable],
    raters: Sequence[Hashable],
    outcomes: ArrayLike,
    shown_left: Sequence[bool] | NDArray | None = None,
    prior: tuple[float, float] = (2.0, 1.0),
) -> View:
    """Label each pair by the posterior of one-coin Dawid-Skene; see `one_coin.one_coin`."""
    fit = coin.one_coin(pairs, raters, outcomes, shown_left, prior)
    _, pair, _ = _votes(pairs, outcomes)
    parameters = (("prior", prior), ("positions", shown_left is not None))
    return View("one_coin", 1, parameters, fit.pairs, fit.p_left, np.bincount(pair))


@dataclass(frozen=True)
class Cohorts:
    """Accuracy overall, of each cohort, and of the cohort where it is lowest.

    The lowest of several is low by chance too: read its interval.
    """

    overall: Interval
    by: dict[Hashable, Interval]
    worst: Hashable


def by_cohort(
    correct: ArrayLike,
    cohorts: Sequence[Hashable],
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Cohorts:
    """Measure how often a model is right about each cohort of people, and about the worst served.

    Args:
        correct: [N] 1 where the model agrees with an answer, 0 where not, 0.5 for half.
        cohorts: [N] the cohort of who gave the answer.
        clusters: [N] labels, for example prompts.
        level: of the intervals.
    """
    right, number = group_values(correct, cohorts)
    own = None if clusters is None else group_values(correct, clusters)[1]
    by = {}
    for k, name in enumerate(dict.fromkeys(cohorts)):
        rows = number == k
        by[name] = win_rate(right[rows], None if own is None else own[rows], level)
    worst = min(by, key=lambda name: by[name].estimate)
    return Cohorts(win_rate(right, own, level), by, worst)


@dataclass(frozen=True)
class Contested:
    """A pair that people answer differently: votes, and their entropy as a share of the most."""

    pair: Hashable
    entropy: float
    num_left: int
    num_neutral: int
    num_right: int


def contested(
    pairs: Sequence[Hashable], outcomes: ArrayLike, min_answers: int = 3
) -> list[Contested]:
    """List pairs by how much people disagree, most first; unanimous ones are absent.

    -sum p log p / log 3 over left, neutral and right. Give the answers of people with good gold
    records, or noise looks like a difference of values.
    """
    said, pair, names = _votes(pairs, outcomes)
    side = (2 * said).astype(int)
    counts = np.bincount(pair * 3 + side, minlength=3 * len(names)).reshape(-1, 3)
    total = counts.sum(1)
    spread = entr(counts / total[:, None]).sum(1) / np.log(3)
    rows = np.flatnonzero((total >= min_answers) & (counts.max(1) < total))
    rows = rows[np.argsort(-spread[rows], kind="stable")]
    return [
        Contested(names[i], float(spread[i]), *(int(counts[i, k]) for k in (2, 1, 0))) for i in rows
    ]


def _votes(
    pairs: Sequence[Hashable], outcomes: ArrayLike
) -> tuple[NDArray, NDArray, tuple[Hashable, ...]]:
    said, pair = group_values(outcomes, pairs)
    if not np.isin(said, (0.0, 0.5, 1.0)).all():
        raise DataError("an outcome is neither 0, 0.5 nor 1; leave out what nobody could judge")
    return said, pair, tuple(dict.fromkeys(pairs))
