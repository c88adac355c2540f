"""Where a learned proxy and the truth part: the step after which only the proxy improves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

FEWEST_POINTS = 8
_MOST_POINTS = 300
_FALL_ERRORS = 4.0
_RISE_ERRORS = 2.0


@dataclass(frozen=True)
class Parting:
    """The point at which proxy and truth part, and by how much they do."""

    step: float
    """Step of the peak of the smoothed true quality."""
    true_peak: float
    true_end: float
    true_noise: float
    """Standard error of the fall from peak to end."""
    proxy_peak: float
    """Smoothed proxy at the step of the true peak."""
    proxy_end: float
    proxy_noise: float
    """Standard error of the rise from there to the end."""


def smooth(values: Sequence[float | None], window: int) -> list[float | None]:
    """Take the centred moving mean over `window` points (odd).

    Towards an end the window shrinks to a third, so that neither trend nor noise bends the curve.

    Unknown values (None) are left out of each mean and stay unknown in the result.
    """
    half = max(window, 1) // 2
    out: list[float | None] = []
    for i, value in enumerate(values):
        if value is None:
            out.append(None)
            continue
        reach = max(min(half, i, len(values) - 1 - i), -(-half // 3))
        near = [v for v in values[max(i - reach, 0) : i + reach + 1] if v is not None]
        out.append(sum(near) / len(near))
    return out


def window_for(num_points: int) -> int:
    """Return the odd smoothing window used for a curve of so many points: a tenth, 3 to 51."""
    return min(max(num_points // 10, 3), 51) | 1


def parting(
    steps: Sequence[float], proxy: Sequence[float | None], true: Sequence[float | None]
) -> Parting | None:
    """Find the step at which the proxy goes on rising while true quality begins to fall.

    Both curves are replaced by means over windows of w = n/6 points (3 to 25, odd). The candidate
    is the peak of the smoothed truth. It is a parting if, from there to the last window, the truth
    falls by more than 4 standard errors and the proxy rises by more than 2 (the truth needs more
    because its peak is the best of many windows). With sd and r, the standard deviation and lag-one
    correlation of what a line through each point's neighbours leaves unexplained,

        standard error = sd * sqrt(2 / w * (1 + r) / (1 - r)).

    Measured over 200 noisy simulations each (tests/unit/report/test_parting.py): a truth that
    rises by 3 and then falls by 4 noise sd is found in 99 % of runs of 60 points and 70 % of 24,
    the step off by 3 % of the run in the median. False alarms without a fall, 60 points: 0 % where
    the truth levels off, 0 % where it is flat, 1 % where it is flat and its noise correlated (0.5);
    at 10 points 0.5 %, 0.5 % and 5 %.

    Args:
        steps: steps of the measurements, rising.
        proxy: score by the learned scorer at those steps; None where not known.
        true: true quality at those steps; None where not known.

    Returns:
        The parting, or None where the curves do not part beyond their noise or fewer than 8 steps
        have both values.

    Source: the procedure is ours; the phenomenon is Gao, Schulman and Hilton 2022, figure 1.
    """
    known = [
        (s, p, t)
        for s, p, t in zip(steps, proxy, true, strict=True)
        if p is not None and t is not None and math.isfinite(p) and math.isfinite(t)
    ]
    if len(known) < FEWEST_POINTS:
        return None
    known = _thin(known)
    window = min(max(len(known) // 6, 3), 25) | 1
    half = window // 2
    proxies = [p for _, p, _ in known]
    trues = [t for _, _, t in known]
    proxy_means, true_means = _means(proxies, window), _means(trues, window)
    peak = max(range(len(true_means)), key=true_means.__getitem__)
    found = Parting(
        step=known[peak + half][0],
        true_peak=true_means[peak],
        true_end=true_means[-1],
        true_noise=_standard_error(trues, window),
        proxy_peak=proxy_means[peak],
        proxy_end=proxy_means[-1],
        proxy_noise=_standard_error(proxies, window),
    )
    falls = found.true_peak - found.true_end > _FALL_ERRORS * found.true_noise
    rises = found.proxy_end - found.proxy_peak > _RISE_ERRORS * found.proxy_noise
    return found if falls and rises else None


def _thin(points: list[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """Average neighbours so that at most 300 points remain; the work grows with their square."""
    size = -(-len(points) // _MOST_POINTS)
    if size == 1:
        return points
    groups = [points[i : i + size] for i in range(0, len(points) - size + 1, size)]
    return [
        (g[size // 2][0], sum(p for _, p, _ in g) / size, sum(t for _, _, t in g) / size)
        for g in groups
    ]


def _means(values: Sequence[float], window: int) -> list[float]:
    return [sum(values[i : i + window]) / window for i in range(len(values) - window + 1)]


def _standard_error(values: Sequence[float], window: int) -> float:
    """Standard error of the difference between two window means of a curve with its noise."""
    rest = _remainders(values, max(window, len(values) // 4))
    variance = sum(r * r for r in rest) / len(rest)
    if variance <= 0:
        return 0.0
    lagged = sum(a * b for a, b in pairwise(rest)) / (len(rest) - 1)
    correlation = min(max(lagged / variance + 2 / len(rest), 0.0), 0.9)
    return math.sqrt(variance * 2 / window * (1 + correlation) / (1 - correlation))


def _remainders(values: Sequence[float], reach: int) -> list[float]:
    """What a straight line through the neighbours, the point itself left out, does not explain."""
    rest = []
    for i, value in enumerate(values):
        low = max(0, min(i - reach // 2, len(values) - 1 - reach))
        near = [j for j in range(low, min(low + reach + 1, len(values))) if j != i]
        centre = sum(near) / len(near)
        mean = sum(values[j] for j in near) / len(near)
        spread = sum((j - centre) ** 2 for j in near)
        slope = sum((j - centre) * (values[j] - mean) for j in near) / spread
        rest.append((value - mean - slope * (i - centre)) * math.sqrt(1 - 1 / (len(near) + 1)))
    return rest
