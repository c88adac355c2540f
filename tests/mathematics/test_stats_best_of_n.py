"""Best of n: the closed-form KL, and the estimator against every subset."""

import itertools

import numpy as np
import pytest

from heed.errors import DataError
from heed.stats import best_of_n

KL = {
    1: 0.0, 2: 0.193, 4: 0.636, 8: 1.204, 16: 1.835, 32: 2.497, 64: 3.175, 128: 3.860,
    256: 4.549, 512: 5.240, 1_000: 5.909, 4_096: 7.318, 10_000: 8.210, 60_000: 10.002,
}  # fmt: skip


@pytest.mark.parametrize("n", KL)
def test_kl_gives_the_golden_values(n):
    assert best_of_n.kl(n) == pytest.approx(KL[n], abs=5e-4)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_kl_is_that_of_the_distribution_of_the_best(n):
    """The best of n uniform scores has density n u^(n-1): KL = integral of that times its log."""
    u = (np.arange(400_000) + 0.5) / 400_000
    density = n * u ** (n - 1)
    assert best_of_n.kl(n) == pytest.approx(float((density * np.log(density)).mean()), abs=1e-5)


@pytest.mark.parametrize(("n", "expected"), [(1, 4.0), (2, 6.0), (3, 7.5), (4, 8.8), (5, 10.0)])
def test_estimator_gives_the_golden_values(n, expected):
    assert best_of_n.score([10, 2, 1, 4, 3], n) == pytest.approx(expected, abs=1e-12)


def _brute_force(proxy: np.ndarray, n: int, gold: np.ndarray) -> float:
    chosen = []
    for subset in itertools.combinations(range(len(proxy)), n):
        best = proxy[list(subset)].max()
        chosen.append(np.mean([gold[i] for i in subset if proxy[i] == best]))
    return float(np.mean(chosen))


@pytest.mark.parametrize("n", range(1, 10))
@pytest.mark.parametrize("tied", [False, True])
def test_estimator_is_the_mean_over_every_subset(n, tied):
    """Ties are broken by lot, as the mean over the tied best shows."""
    rng = np.random.default_rng(n)
    proxy, gold = rng.normal(size=(2, 9))
    if tied:
        proxy = np.round(proxy)
    found = best_of_n.score(proxy, n, gold)
    assert found == pytest.approx(_brute_force(proxy, n, gold), abs=1e-12)


@pytest.mark.parametrize(("num_samples", "n"), [(1, 1), (12, 5), (12_600, 12_500), (60_000, 1_000)])
def test_weights_add_up_to_one(num_samples, n):
    weights = best_of_n.weights(num_samples, n)
    assert weights.shape == (num_samples,)
    assert weights.sum() == pytest.approx(1, abs=1e-9)
    assert (weights >= 0).all()


def test_the_proxy_itself_never_falls():
    scores = np.random.default_rng(2).normal(size=50)
    curve = [best_of_n.score(scores, n) for n in range(1, 51)]
    assert np.all(np.diff(curve) > 0)
    assert curve[-1] == pytest.approx(scores.max())


def test_impossible_requests_are_refused():
    with pytest.raises(DataError, match="best of 4 was asked of 3"):
        best_of_n.score([1, 2, 3], 4)
    with pytest.raises(DataError, match="not finite"):
        best_of_n.score([1, float("nan")], 1)
    with pytest.raises(DataError, match="expected"):
        best_of_n.score([1, 2], 1, gold=[1])
