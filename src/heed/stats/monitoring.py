"""Time on task and drift over weeks: what is flagged, at a known rate of false alarms."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heed.errors import ConfigError, DataError
from heed.stats.annotators import Alert
from heed.stats.intervals import group_values, wilson


@dataclass(frozen=True)
class Times:
    """Flags of answers [N]: fast for the project, and fast for the person who gave them.

    `floor_project` [N] is the time in seconds below which the first is set; `own_known` [N] whether
    a person has enough answers to such items for the second, which is not set where not.
    """

    fast_for_project: NDArray
    fast_for_self: NDArray
    floor_project: NDArray
    own_known: NDArray


def answer_times(
    seconds: ArrayLike,
    people: Sequence[Hashable],
    lengths: ArrayLike,
    *,
    num_bins: int = 5,
    project_share: float = 0.25,
    own_quantile: float = 0.1,
    min_answers: int = 10,
) -> Times:
    """Flag answers that came fast for items of their length.

    Items are sorted into bins of length that hold equally many. In a bin, the project's floor is
    `project_share` of its median time, and a person's own floor their `own_quantile`. A tenth of a
    person's answers lies below the own floor by construction: read it beside the project's.

    Args:
        seconds: [N] above 0.
        people: [N] labels.
        lengths: [N], in one unit, for example words shown.
        num_bins: at least 1.
        project_share, own_quantile: in (0, 1).
        min_answers: a person's own floor needs so many answers in the bin.

    Raises:
        DataError: lists of different lengths, or times that are not above 0.
    """
    time, person = group_values(seconds, people)
    length, _ = group_values(lengths, None)
    if time.shape != length.shape or (time <= 0).any():
        raise DataError(
            f"found {len(time)} times from {time.min():.3g} s and {len(length)} lengths; expected "
            "as many of each, times above 0"
        )
    if num_bins < 1 or not (0 < project_share < 1 and 0 < own_quantile < 1):
        raise ConfigError("expected num_bins of 1 or more, project_share and own_quantile in (0,1)")
    edges = np.unique(np.quantile(length, np.linspace(0, 1, num_bins + 1)[1:-1]))
    place = np.searchsorted(edges, length, side="right")
    project, own = np.empty_like(time), np.zeros_like(time)
    for b in np.unique(place):
        project[place == b] = project_share * np.median(time[place == b])
    cell = person * (len(edges) + 1) + place
    order = np.argsort(cell, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(cell[order])) + 1):
        if len(rows) >= min_answers:
            own[rows] = np.quantile(time[rows], own_quantile)
    return Times(time < project, time < own, project, own > 0)


def time_alert(fast: ArrayLike, expected: float = 0.05, level: float = 0.999) -> Alert | None:
    """Alert when more of one person's answers are fast than a busy but honest person's would be.

    Args:
        fast: [N] bool, the flags `fast_for_project` of one person.
        expected: the share that calls for no attention.
        level: an alert when the whole interval of the share lies above `expected`.
    """
    flags = np.asarray(fast, dtype=bool)
    if not len(flags):
        return None
    share = wilson(int(flags.sum()), len(flags), level)
    if share.low <= expected:
        return None
    return Alert("time", f"answers are fast for their length in {share}", share.n)


@dataclass(frozen=True)
class Chart:
    """A control chart of answers to the same pairs over time.

    `evidence` [N] in nats that the rate has fallen from `expected`, `limit` what counts as an
    alarm; `alarm` the number of the first answer at which it does, None where none does.
    """

    evidence: NDArray
    limit: float
    expected: float
    alarm: int | None


def drift(
    agrees: ArrayLike,
    expected: float,
    *,
    fallen: float | None = None,
    false_alarm: float = 0.05,
    horizon: int = 200,
) -> Chart:
    """Watch a person's answers to anchor pairs for a fall in agreement, by cumulative sums.

    S_t = max(0, S_{t-1} + log P(x_t | fallen) / P(x_t | expected)), an alarm at
    S_t >= log(horizon / false_alarm). A person who never changes has an alarm within `horizon`
    anchors with probability below `false_alarm`, whatever the rates, since each start of the sum
    crosses the limit with probability at most exp(-limit).

    Args:
        agrees: [N] in order of time: 1 where an answer is what it was for that anchor at first (or
            what gold says), 0 where it is not, 0.5 where one of the two is neutral.
        expected: the rate without drift, in (0, 1), for example the project's.
        fallen: the rate to watch for, below `expected`; by default 0.3 below it, or half
            of it where that is more.
        false_alarm: in (0, 1).
        horizon: anchors for which `false_alarm` holds, at least 1.

    Source: Page 1954; Lorden 1971 (the bound).
    """
    low = max(expected - 0.3, expected / 2) if fallen is None else fallen
    if not (0 < low < expected < 1 and 0 < false_alarm < 1 and horizon >= 1):
        raise ConfigError(
            f"found expected {expected}, fallen {low}, false_alarm {false_alarm}, horizon "
            f"{horizon}; expected 0 < fallen < expected < 1, a false_alarm in (0, 1), a horizon of "
            "1 or more"
        )
    x = np.asarray(agrees, dtype=float)
    if x.ndim != 1 or not np.isin(x, (0.0, 0.5, 1.0)).all():
        raise DataError("an entry of agrees is neither 0, 0.5 nor 1")
    ratio = x * np.log(low / expected) + (1 - x) * np.log((1 - low) / (1 - expected))
    # The sum since its last visit to 0 is the total less its lowest value so far.
    total = np.concatenate([[0.0], np.cumsum(ratio)])
    evidence = (total - np.minimum.accumulate(total))[1:]
    limit = float(np.log(horizon / false_alarm))
    out = np.flatnonzero(evidence >= limit)
    return Chart(evidence, limit, expected, int(out[0]) if len(out) else None)


def drift_alert(chart: Chart) -> Alert | None:
    """Alert where a chart has an alarm."""
    if chart.alarm is None:
        return None
    n = len(chart.evidence)
    text = f"agreement on anchors has fallen from {chart.expected:.2f} by anchor {chart.alarm + 1}"
    return Alert("drift", f"{text} of {n}", n)
