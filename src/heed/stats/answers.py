"""Who answered what about which item, as the tables that agreement is counted from."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heed.errors import ConfigError, DataError
from heed.stats.intervals import BLOCK, Interval, Measured, Undefined, tail_share

Statistic = Callable[[NDArray, NDArray], NDArray]
"""(times [R, P], patterns [P, C]) -> [R], NaN where it has no value."""

MIN_ITEMS = 5
"""Fewer items give no interval: resamples of so few are too much alike."""
MAX_UNDEFINED_FRAC = 0.05
"""The share of resamples that may have no value before the interval has none."""


@dataclass(frozen=True)
class Answers:
    """Answers to items, at most one per person and item.

    `item`, `rater` and `code` are [N] numbers of places in `items`, `raters` and `values`;
    `values` are the answers that could be given, in their order.
    """

    item: NDArray
    rater: NDArray
    code: NDArray
    items: tuple[Hashable, ...]
    raters: tuple[Hashable, ...]
    values: tuple[Hashable, ...]

    def counts(self) -> NDArray:
        """Count how often each value was given to each item. [items, values]."""
        size = len(self.items), len(self.values)
        cell = self.item * size[1] + self.code
        return np.bincount(cell, minlength=size[0] * size[1]).reshape(size)

    def of(self, rater: Hashable) -> tuple[NDArray, NDArray]:
        """Return the items that one person answered, ascending, and their codes."""
        if rater not in self.raters:
            raise DataError(f"found no answer by {rater!r}; expected one of {self.raters[:8]}")
        own = self.rater == self.raters.index(rater)
        order = np.argsort(self.item[own])
        return self.item[own][order], self.code[own][order]


def collect(
    items: Sequence[Hashable],
    raters: Sequence[Hashable],
    answers: Sequence[Hashable | None],
    values: Sequence[Hashable] | None = None,
) -> Answers:
    """Number items, persons and answers.

    Args:
        items, raters: [N] labels.
        answers: [N], None where nothing was answered (left out).
        values: every answer that could be given, in its order; by default those that were given,
            sorted. Ordinal and weighted statistics read the order, Gwet's the number.

    Raises:
        DataError: lists of different lengths, a NaN, a person who answered an item twice (a
            repeated pair belongs in `annotators.self_consistency`), or an answer that is not
            among `values`.
    """
    if not len(items) == len(raters) == len(answers):
        raise DataError(
            f"found {len(items)} items, {len(raters)} raters and {len(answers)} answers; "
            "expected one of each per answer"
        )
    said = [_plain(answer) for answer in answers]
    kept = [i for i, answer in enumerate(said) if answer is not None]
    if any(answer != answer for answer in said):
        raise DataError("an answer is NaN; give None where nothing was answered")
    order = tuple(_sorted({said[i] for i in kept})) if values is None else tuple(values)
    code = {value: place for place, value in enumerate(_plain(value) for value in order)}
    strange = {said[i] for i in kept if said[i] not in code}
    if strange or len(code) != len(order):
        raise DataError(
            f"found answers {sorted(map(repr, strange))[:8]} and values {order[:16]}; expected "
            "every answer among different values"
        )
    item, item_names = _numbered([items[i] for i in kept])
    rater, rater_names = _numbered([raters[i] for i in kept])
    cell = item * max(len(rater_names), 1) + rater
    if len(np.unique(cell)) != len(cell):
        first = int(np.flatnonzero(np.bincount(cell) > 1)[0])
        who, what = rater_names[first % len(rater_names)], item_names[first // len(rater_names)]
        raise DataError(
            f"{who!r} answered {what!r} more than once; keep the answer that stands, and read "
            "repeated pairs with annotators.self_consistency"
        )
    codes = np.array([code[said[i]] for i in kept], dtype=np.int64)
    return Answers(item, rater, codes, item_names, rater_names, order)


def bootstrap_patterns(
    rows: NDArray,
    statistic: Statistic,
    reason: str,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    num_resamples: int = 1000,
    n: int | None = None,
) -> Measured:
    """Bound a statistic of items by the percentile bootstrap over them.

    Items with equal rows are interchangeable, so resampling items is drawing how often each
    distinct row occurs: the cost depends on the distinct rows, not on the items.

    Args:
        rows: [U, C], what the statistic reads of each item.
        statistic: of how often each distinct row occurs.
        reason: why the statistic has no value where it is NaN.
        rng: the source of randomness.
        level: in (0, 1).
        num_resamples: at least 1.
        n: the number of items to report; by default U.

    Returns:
        `Undefined` where the statistic has no value, where more than 5 % of the resamples have
        none, or with fewer than 5 items. Perfect agreement gives an interval without width: no
        resample can show what was never seen.
    """
    tail, n = tail_share(level), len(rows) if n is None else n
    if num_resamples < 1:
        raise ConfigError(f"num_resamples is {num_resamples}, expected at least 1")
    if n == 0:
        return Undefined("no item has two answers; ask a second person about some items", 0)
    patterns, times = np.unique(rows, axis=0, return_counts=True)
    estimate = float(statistic(times[None].astype(float), patterns)[0])
    if np.isnan(estimate):
        return Undefined(reason, n)
    if n < MIN_ITEMS:
        return Undefined(
            f"the estimate {estimate:.3f} has no interval: it stands on {n} items and needs "
            f"{MIN_ITEMS}; label more items",
            n,
        )
    block, parts = max(1, BLOCK // max(patterns.size, 1)), []
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        drawn = rng.multinomial(len(rows), times / len(rows), size=size).astype(float)
        parts.append(statistic(drawn, patterns))
    values = np.concatenate(parts)
    missing = float(np.isnan(values).mean())
    if missing > MAX_UNDEFINED_FRAC:
        return Undefined(
            f"the estimate {estimate:.3f} has no interval: {missing:.0%} of the resamples have no "
            f"value ({reason}); label more items",
            n,
        )
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high), n)


def _plain(value: Hashable) -> Hashable:
    """Numpy's scalars become Python's, so that 1, 1.0 and np.int64(1) are one answer."""
    return value.item() if isinstance(value, np.generic) else value


def _sorted(values: set[Hashable]) -> list[Hashable]:
    try:
        return sorted(values)  # type: ignore[type-var]
    except TypeError as error:
        raise DataError(
            f"the answers {sorted(map(repr, values))[:8]} have no common order; pass values="
        ) from error


def _numbered(labels: Sequence[Hashable]) -> tuple[NDArray, tuple[Hashable, ...]]:
    places: dict[Hashable, int] = {}
    numbers = np.array([places.setdefault(label, len(places)) for label in labels], dtype=np.int64)
    return numbers, tuple(places)
