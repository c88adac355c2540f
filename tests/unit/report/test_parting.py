"""Parting finds planted over-optimisation and stays silent without it, at the stated rates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from heed.report.parting import parting, smooth

Curve = Callable[[np.ndarray], np.ndarray]
NUM_SIMULATIONS = 200


def noise(rng: np.random.Generator, num: int, correlation: float) -> np.ndarray:
    """Noise of standard deviation 1, with a lag-one correlation."""
    fresh = rng.normal(size=num)
    out = fresh.copy()
    for i in range(1, num):
        out[i] = correlation * out[i - 1] + np.sqrt(1 - correlation**2) * fresh[i]
    return out


def simulate(proxy: Curve, true: Curve, num: int, correlation: float = 0.0) -> list[float]:
    """Steps of the partings found in 200 noisy runs, as fractions of the run."""
    t = np.linspace(0, 1, num)
    found = []
    for seed in range(NUM_SIMULATIONS):
        rng = np.random.default_rng(seed)
        curves = [curve(t) + noise(rng, num, correlation) for curve in (proxy, true)]
        result = parting(range(num), *(list(map(float, curve)) for curve in curves))
        found += [] if result is None else [result.step / (num - 1)]
    return found


def rising(t: np.ndarray) -> np.ndarray:
    return 4 * t


def levelling(t: np.ndarray) -> np.ndarray:
    return 4 * (1 - np.exp(-4 * t))


def flat(t: np.ndarray) -> np.ndarray:
    return 0 * t


def peaked(t: np.ndarray) -> np.ndarray:
    """Rises by 3 noise sd until 0.4 of the run, then falls by 4."""
    return np.where(t < 0.4, 3 * t / 0.4, 3 - 4 * (t - 0.4) / 0.6)


@pytest.mark.parametrize(("num", "at_least"), [(60, 0.97), (24, 0.62)])
def test_planted_parting_is_found_where_it_was_planted(num: int, at_least: float) -> None:
    found = simulate(rising, peaked, num)
    assert len(found) / NUM_SIMULATIONS >= at_least
    assert np.median(np.abs(np.array(found) - 0.4)) <= 0.05


@pytest.mark.parametrize(
    ("true", "num", "correlation", "at_most"),
    [
        (levelling, 60, 0.0, 0.005),
        (flat, 60, 0.0, 0.005),
        (flat, 60, 0.5, 0.02),
        (levelling, 10, 0.0, 0.005),
        (flat, 10, 0.0, 0.01),
        (flat, 10, 0.5, 0.06),
    ],
)
def test_no_parting_is_found_where_the_truth_does_not_fall(
    true: Curve, num: int, correlation: float, at_most: float
) -> None:
    assert len(simulate(rising, true, num, correlation)) / NUM_SIMULATIONS <= at_most


def test_falling_proxy_is_no_parting() -> None:
    assert simulate(lambda t: -rising(t), peaked, 60) == []


def test_exact_curves_part_at_the_peak() -> None:
    steps = [float(i) for i in range(0, 120, 3)]
    found = parting(steps, [0.1 * s for s in steps], [-((s - 60) ** 2) for s in steps])
    assert found is not None
    assert found.step == 60
    assert found.proxy_end > found.proxy_peak
    assert found.true_end < found.true_peak


def test_unknown_and_few_values_give_none() -> None:
    steps = list(range(40))
    true: list[float | None] = [-abs(s - 15.0) for s in steps]
    proxy: list[float | None] = [float(s) for s in steps]
    assert parting(steps, proxy, true) is not None
    assert parting(steps, [None] * 33 + proxy[33:], true) is None
    assert parting(steps[:7], proxy[:7], true[:7]) is None
    assert parting(steps, proxy, [float("nan")] * 40) is None


def test_thousands_of_points_are_thinned_to_the_same_answer() -> None:
    steps = list(range(9000))
    found = parting(steps, [s / 9000 for s in steps], [-abs(s / 9000 - 0.3) for s in steps])
    assert found is not None
    assert abs(found.step - 2700) < 60


def test_smoothing_keeps_lines_gaps_and_lengths() -> None:
    line = [2.0 * i for i in range(30)]
    assert smooth(line, 7)[3:-3] == pytest.approx(line[3:-3])
    assert smooth([1.0, None, 3.0], 3) == [1.0, None, 3.0]
    assert smooth([5.0, 1.0], 1) == [5.0, 1.0]
