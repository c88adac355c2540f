"""Means over seeds and prompts: textbook values, limits, and coverage by simulation."""

import numpy as np
import pytest
from scipy import stats

from heed.errors import DataError
from heed.stats.crossed import crossed_mean


def test_one_seed_is_students_interval_over_prompts():
    values = np.random.default_rng(0).normal(size=12)
    found = crossed_mean(values[None, :])
    expected = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.n == 12


def test_a_table_worked_by_hand():
    """[[1, 2, 6], [3, 6, 12]]: MS_s 24, MS_p 26, MS_e 2; var (24 + 26 - 2) / 6 = 8;
    degrees 48^2 / (24^2 / 1 + 26^2 / 2 + 2^2 / 2) = 2304 / 916."""
    found = crossed_mean([[1, 2, 6], [3, 6, 12]])
    half = stats.t.ppf(0.975, 2304 / 916) * np.sqrt(8)
    assert found.estimate == pytest.approx(5)
    assert (found.low, found.high) == pytest.approx((5 - half, 5 + half))


def test_seeds_that_differ_less_than_chance_do_not_narrow_the_interval():
    """With equal seed means the mean square of seeds counts as that of the rest."""
    found = crossed_mean([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])
    assert found.estimate == 1
    assert found.high > found.estimate
    constant = crossed_mean(np.full((3, 4), 0.7))
    assert (constant.low, constant.estimate, constant.high) == (0.7, 0.7, 0.7)


@pytest.mark.parametrize("spreads", [(0.0, 1.0), (0.5, 1.0), (1.0, 0.2)])
def test_intervals_cover_the_truth_over_seeds_and_prompts(spreads):
    """2,000 tables of 5 seeds by 40 prompts; intervals over prompts alone miss the seeds."""
    rng, covered, naive, num = np.random.default_rng(3), 0, 0, 2000
    of_seeds, of_prompts = spreads
    for _ in range(num):
        table = of_seeds * rng.normal(size=(5, 1)) + of_prompts * rng.normal(size=(1, 40))
        table = table + rng.normal(size=(5, 40))
        found, alone = crossed_mean(table), crossed_mean(table.mean(0)[None, :])
        covered += found.low <= 0 <= found.high
        naive += alone.low <= 0 <= alone.high
    assert covered / num > 0.935
    assert of_seeds < 1 or naive / num < 0.6


@pytest.mark.parametrize("values", [[1.0, 2.0], [[1.0]], [[1.0, float("nan")]], np.zeros((0, 3))])
def test_what_is_no_table_is_refused(values):
    with pytest.raises(DataError, match="expected seeds by prompts"):
        crossed_mean(values)
