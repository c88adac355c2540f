"""How often two people say the same of a pair, by the rules that papers use, named.

Answers are signed: above 0 for the first of the pair, below 0 for the second, 0 for neither. The
share runs over all pairs of answers by different people to one item, ties of three or more
answers included; the interval resamples items (Wilson's where all agree, or none).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heed.errors import DataError
from heed.stats.answers import Answers, bootstrap_patterns, collect
from heed.stats.intervals import Interval, Measured, wilson

Rule = Literal["strict", "neutral_half", "neutral_excluded"]
RULES: tuple[Rule, ...] = ("strict", "neutral_half", "neutral_excluded")


def raw_agreement(
    items: Sequence[Hashable],
    raters: Sequence[Hashable],
    signed: ArrayLike,
    rule: Rule = "strict",
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    num_resamples: int = 1000,
) -> Measured:
    """Measure the share of agreeing pairs of answers.

    Both on one side agree, on different sides disagree, in every rule. Where somebody is neutral:
    "strict" counts two neutrals as agreement and neutral against a side as disagreement;
    "neutral_half" counts two neutrals as agreement and neutral against a side as half;
    "neutral_excluded" leaves out every pair of answers with a neutral one.

    Args:
        items, raters: [N] labels; at most one answer per person and item.
        signed: [N] finite numbers, of which the sign counts.
        rule: which.
        rng, level, num_resamples: of the bootstrap over items.

    Returns:
        n is the number of items with two answers that count, or more.

    Source: "neutral_half" WebGPT 2021; "neutral_excluded" Stiennon et al. 2020.
    """
    by_side = _sides(items, raters, signed).counts()
    if rule == "neutral_excluded":
        by_side = by_side[by_side[:, 0] + by_side[:, 2] >= 2]
    else:
        by_side = by_side[by_side.sum(1) >= 2]

    def share(times: NDArray, patterns: NDArray) -> NDArray:
        second, neutral, first = patterns.T
        agree = _pairs(second) + _pairs(first)
        total = _pairs(second + first)
        if rule != "neutral_excluded":
            agree = agree + _pairs(neutral)
            total = _pairs(patterns.sum(1))
        if rule == "neutral_half":
            agree = agree + neutral * (second + first) / 2
        return (times @ agree) / (times @ total)

    found = bootstrap_patterns(
        by_side, share, "no two answers count", rng=rng, level=level, num_resamples=num_resamples
    )
    return _at_the_ends(found, level)


def agreement_with(
    items: Sequence[Hashable],
    signed: ArrayLike,
    reference: ArrayLike,
    rule: Rule = "strict",
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    num_resamples: int = 1000,
) -> Measured:
    """Measure how often answers agree with a reference: gold, a reward model, a critic.

    Rules as in `raw_agreement`, each answer against the reference of its item; the interval
    resamples items with all their answers.

    Args:
        items: [N] labels of the items.
        signed, reference: [N] finite numbers, of which the signs count.

    Returns:
        n is the number of items that count.
    """
    said, truth = _signs(signed), _signs(reference)
    if not len(items) == len(said) == len(truth):
        raise DataError(f"found {len(items)} items, {len(said)} answers, {len(truth)} references")
    credit = (said == truth).astype(float)
    if rule == "neutral_half":
        credit[(said == 0) != (truth == 0)] = 0.5
    counts = np.ones(len(said))
    if rule == "neutral_excluded":
        counts = ((said != 0) & (truth != 0)).astype(float)
    places: dict[Hashable, int] = {}
    item = np.array([places.setdefault(label, len(places)) for label in items], dtype=np.int64)
    rows = np.stack([np.bincount(item, credit * counts), np.bincount(item, counts)], 1)

    def share(times: NDArray, patterns: NDArray) -> NDArray:
        return (times @ patterns[:, 0]) / (times @ patterns[:, 1])

    found = bootstrap_patterns(
        rows[rows[:, 1] > 0], share, "no answer counts",
        rng=rng, level=level, num_resamples=num_resamples,
    )  # fmt: skip
    return _at_the_ends(found, level)


def majority_of_others(
    items: Sequence[Hashable], raters: Sequence[Hashable], signed: ArrayLike
) -> tuple[NDArray, NDArray]:
    """Find what most other people said of the item of each answer.

    Returns:
        reference [N] of -1, 0, 1, to give to `agreement_with`, and whether anybody else answered
        [N] bool; the reference is 0 where nobody did, so select by the second first.
    """
    sides = _sides(items, raters, signed)
    sign = sides.code - 1
    totals = np.bincount(sides.item, sign, minlength=len(sides.items))
    num = np.bincount(sides.item, minlength=len(sides.items))
    return np.sign(totals[sides.item] - sign).astype(int), num[sides.item] > 1


def _at_the_ends(found: Measured, level: float) -> Measured:
    """A share of 0 or 1 leaves a bootstrap no width, so its interval is Wilson's over items."""
    if isinstance(found, Interval) and found.estimate in (0.0, 1.0):
        return wilson(found.estimate * found.n, found.n, level)
    return found


def _pairs(count: NDArray) -> NDArray:
    return count * (count - 1) / 2


def _signs(signed: ArrayLike) -> NDArray:
    numbers = np.asarray(signed, dtype=float)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise DataError(
            f"found answers of shape {numbers.shape}; expected [N] finite numbers, above 0 for the "
            "first of the pair; leave out what nobody could judge"
        )
    return np.sign(numbers).astype(int)


def _sides(items: Sequence[Hashable], raters: Sequence[Hashable], signed: ArrayLike) -> Answers:
    return collect(items, raters, _signs(signed).tolist(), values=(-1, 0, 1))
