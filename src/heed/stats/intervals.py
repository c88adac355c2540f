"""Intervals of confidence for shares, means and win rates, with clusters where answers depend."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from heed.errors import ConfigError, DataError

BLOCK = 2**22
"""Numbers drawn at once while resampling."""


@dataclass(frozen=True)
class Interval:
    """An estimate, the interval around it, and the number of independent units behind it."""

    estimate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


@dataclass(frozen=True)
class Undefined:
    """A number that does not exist for these data: why, and how many units there were.

    It stands where an `Interval` would, so that nobody reads a NaN, a 0 or a 1 in its place.
    """

    reason: str
    n: int

    def __str__(self) -> str:
        return f"undefined, because {self.reason} (n={self.n})"


Measured = Interval | Undefined


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Bound a share of independent yes-or-no outcomes by Wilson's score interval.

    centre = (k + z^2/2) / (n + z^2);  half = z sqrt(k (n - k) / n + z^2/4) / (n + z^2)

    Args:
        successes: k in [0, n]; ties may count as half.
        n: outcomes, at least 1.
        level: in (0, 1).

    Raises:
        DataError: n is below 1 or successes outside [0, n].

    Source: Wilson 1927.
    """
    if n < 1 or not 0 <= successes <= n:
        raise DataError(f"found {successes} successes of {n}, expected 0 <= successes <= n, n >= 1")
    low, high = _wilson_bounds(successes / n, float(n), _quantile(level))
    return Interval(successes / n, low, high, int(n))


def bootstrap_mean(
    values: ArrayLike,
    clusters: Sequence[Hashable] | NDArray | None = None,
    level: float = 0.95,
    num_resamples: int = 2000,
    *,
    rng: np.random.Generator,
) -> Interval:
    """Bound a mean by the percentile bootstrap, resampling whole clusters.

    Values that share a prompt (or a labeller) are not independent: give them one cluster, or the
    interval is too narrow.

    Args:
        values: [N] finite numbers.
        clusters: [N] labels; None makes every value its own cluster.
        level: in (0, 1).
        num_resamples: how often the clusters are drawn anew.
        rng: the source of randomness.

    Returns:
        n is the number of clusters.

    Raises:
        DataError: no values, a value that is not finite, or clusters of another length.
    """
    numbers, index = group_values(values, clusters)
    tail = tail_share(level)
    sums, sizes = np.bincount(index, numbers), np.bincount(index).astype(float)
    num_clusters, means = len(sizes), []
    uniform = np.full(num_clusters, 1.0 / num_clusters)
    block = max(1, BLOCK // num_clusters)
    for start in range(0, num_resamples, block):
        times = rng.multinomial(num_clusters, uniform, size=min(block, num_resamples - start))
        means.append((times @ sums) / (times @ sizes))
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(float(numbers.mean()), float(low), float(high), num_clusters)


def win_rate(
    outcomes: ArrayLike,
    clusters: Sequence[Hashable] | NDArray | None = None,
    level: float = 0.95,
) -> Interval:
    """Bound a win rate: 1 a win, 0.5 a tie, 0 a loss.

    The variance is measured between clusters and turned into the number of independent yes-or-no
    outcomes with the same variance, which enters Wilson's interval:
    n_eff = p (1 - p) / var(mean), between 1 and N. With clusters Student's quantile is used.

    Args:
        outcomes: [N] of 0, 0.5 or 1.
        clusters: [N] labels, for example prompt ids; None makes every outcome its own cluster.
        level: in (0, 1).

    Returns:
        n is the number of clusters.

    Raises:
        DataError: no outcomes, or another number among them. Leave failed judgements out.
    """
    numbers, index = group_values(outcomes, clusters)
    if not np.isin(numbers, (0.0, 0.5, 1.0)).all():
        raise DataError("an outcome is neither 0, 0.5 nor 1; leave failed judgements out")
    rate, size = float(numbers.mean()), float(len(numbers))
    num_clusters = int(index.max()) + 1
    critical, effective = _quantile(level), float(num_clusters)
    if num_clusters > 1:
        residuals = np.bincount(index, numbers - rate)
        variance = float(residuals @ residuals) / size**2 * num_clusters / (num_clusters - 1)
        if 0 < rate < 1:
            effective = size if variance == 0 else rate * (1 - rate) / variance
        if clusters is not None:
            critical = float(stats.t.ppf(1 - tail_share(level), num_clusters - 1))
    effective = min(max(effective, 1.0), size)
    low, high = _wilson_bounds(rate, effective, critical)
    return Interval(rate, low, high, num_clusters)


def _wilson_bounds(share: float, n: float, z: float) -> tuple[float, float]:
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Rounding would otherwise leave the bounds of 0 and 1 a hair outside the estimate.
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return float(low), float(high)


def tail_share(level: float) -> float:
    """Return the share outside a central interval on one side: (1 - level) / 2."""
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}, expected in (0, 1), for example 0.95")
    return (1 - level) / 2


def _quantile(level: float) -> float:
    return float(stats.norm.ppf(1 - tail_share(level)))


def group_values(
    values: ArrayLike, clusters: Sequence[Hashable] | NDArray | None
) -> tuple[NDArray, NDArray]:
    """Check values [N] and number their clusters in order of first appearance.

    Returns:
        values [N] float and cluster numbers [N].

    Raises:
        DataError: no values, a value that is not finite, or clusters of another length.
    """
    numbers = np.asarray(values, dtype=float)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise DataError(
            f"found values of shape {numbers.shape}, expected at least one number, all finite; "
            "leave missing values out"
        )
    if clusters is None:
        return numbers, np.arange(len(numbers))
    if len(clusters) != len(numbers):
        raise DataError(f"found {len(clusters)} cluster labels for {len(numbers)} values")
    places: dict[Hashable, int] = {}
    return numbers, np.array([places.setdefault(label, len(places)) for label in clusters])
