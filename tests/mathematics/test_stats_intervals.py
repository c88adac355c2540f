"""Intervals against textbook values, and their coverage by simulation."""

import numpy as np
import pytest
from scipy import stats

from heed.errors import ConfigError, DataError
from heed.stats.intervals import Interval, bootstrap_mean, wilson, win_rate


def test_wilson_is_scipys():
    for k, n, level in [(7, 10, 0.95), (0, 12, 0.9), (12, 12, 0.99), (400, 1000, 0.95)]:
        found = wilson(k, n, level)
        expected = stats.binomtest(k, n).proportion_ci(level, method="wilson")
        assert found.estimate == k / n
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_win_rate_without_ties_or_clusters_is_wilson():
    """var(mean) = p (1 - p) / (N - 1), so n_eff = N - 1, within one outcome of Wilson's N."""
    found = win_rate([1] * 60 + [0] * 40)
    expected = wilson(60 * 99 / 100, 99)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.estimate, found.n) == (0.6, 100)


def test_one_sided_and_tied_outcomes_keep_an_interval():
    all_won = win_rate([1] * 8)
    assert (all_won.estimate, all_won.high) == (1, 1)
    assert all_won.low == pytest.approx(wilson(8, 8).low)
    tied = win_rate([0.5] * 8)
    assert tied.low == pytest.approx(wilson(4, 8).low)
    assert tied.high == pytest.approx(wilson(4, 8).high)


def test_outcomes_repeated_within_clusters_add_no_certainty():
    """Ten copies of each of 40 outcomes: the interval stays that of 40 outcomes, with Student's
    quantile at 39 degrees of freedom in place of the normal one."""
    outcomes = np.array([1, 0, 1, 1] * 10)
    once = win_rate(outcomes, np.arange(40))
    copied = win_rate(np.repeat(outcomes, 10), np.repeat(np.arange(40), 10))
    assert copied == once
    naive = win_rate(np.repeat(outcomes, 10))
    assert naive.high - naive.low < 0.5 * (copied.high - copied.low)


def _clustered(rng: np.random.Generator, num_clusters: int, size: int) -> np.ndarray:
    """Win probabilities differ by cluster: Beta(3, 2), mean 0.6; a fifth of outcomes are ties
    made from one win and one loss, which leaves the mean."""
    p = rng.beta(3, 2, num_clusters)[:, None]
    first, second = rng.random((2, num_clusters, size)) < p
    tie = rng.random((num_clusters, size)) < 0.2
    return np.where(tie, (first.astype(float) + second) / 2, first).ravel()


def test_clustered_intervals_cover_the_truth_and_naive_ones_do_not():
    rng = np.random.default_rng(7)
    clusters, truth, num = np.repeat(np.arange(30), 8), 0.6, 400
    covered = {"win_rate": 0, "bootstrap": 0, "naive": 0}
    for _ in range(num):
        outcomes = _clustered(rng, 30, 8)
        found = {
            "win_rate": win_rate(outcomes, clusters),
            "bootstrap": bootstrap_mean(outcomes, clusters, num_resamples=400, rng=rng),
            "naive": win_rate(outcomes),
        }
        for name, interval in found.items():
            covered[name] += interval.low <= truth <= interval.high
    assert covered["win_rate"] >= 0.93 * num
    assert covered["bootstrap"] >= 0.91 * num  # percentile intervals run a little short at 30
    assert covered["naive"] <= 0.88 * num


def test_bootstrap_of_independent_values_is_the_normal_interval():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, 2000)
    found = bootstrap_mean(values, num_resamples=4000, rng=rng)
    half = 1.96 * values.std() / 2000**0.5
    assert found.estimate == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert found.n == 2000


def test_the_bootstrap_depends_on_its_generator_alone():
    def run() -> Interval:
        return bootstrap_mean([1.0, 2, 3, 9], list("aabb"), rng=np.random.default_rng(4))

    assert run() == run()
    assert run().n == 2


@pytest.mark.parametrize("outcomes", [[], [1, 0.3], [1, float("nan")], [[1, 0]]])
def test_missing_or_strange_outcomes_are_refused(outcomes):
    with pytest.raises(DataError):
        win_rate(outcomes)


def test_impossible_requests_are_refused():
    with pytest.raises(DataError, match="3 successes of 2"):
        wilson(3, 2)
    with pytest.raises(DataError, match="cluster labels"):
        win_rate([1, 0], ["a"])
    with pytest.raises(ConfigError, match="level"):
        wilson(1, 2, 95)
