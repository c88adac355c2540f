"""Fits of over-optimisation: planted curves, published peaks, and a world that over-optimises."""

import math

import numpy as np
import pytest
from scipy import integrate, optimize, stats
from scipy.special import expit, log_expit

from heed.errors import DataError
from heed.stats import best_of_n, scaling

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
KL = np.array([best_of_n.kl(n) for n in COUNTS])


def curve(d, alpha, beta, form):
    lost = d if form == "best_of_n" else np.log(np.where(d > 0, d, 1.0))
    return d * (alpha - beta * lost)


@pytest.mark.parametrize("form", ["best_of_n", "rl"])
@pytest.mark.parametrize(("alpha", "beta"), [(1.31, 0.14), (0.62, 0.127), (0.35, 0.175)])
def test_a_planted_curve_is_recovered(form, alpha, beta):
    fit = scaling.fit(KL, curve(np.sqrt(KL), alpha, beta, form), form)
    assert fit.alpha.estimate == pytest.approx(alpha, abs=1e-9)
    assert fit.beta.estimate == pytest.approx(beta, abs=1e-9)
    assert fit.r_squared == pytest.approx(1)
    near = curve(fit.peak.distance * np.array([0.99, 1, 1.01]), alpha, beta, form)
    assert near[1] > max(near[0], near[2])
    assert fit.peak.score == pytest.approx(near[1], rel=1e-7)
    assert fit.peak.kl == pytest.approx(fit.peak.distance**2)
    expected = curve(np.array([0, 2.0]), alpha, beta, form)
    np.testing.assert_allclose(fit.predict([0, 2.0]), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("alpha", "beta", "peak"),
    [(0.490, 0.120, 2.04), (0.599, 0.106, 2.83), (0.633, 0.0995, 3.18), (0.662, 0.090, 3.68)],
)
def test_peaks_of_published_coefficients(alpha, beta, peak):
    """Gao et al. 2022, best of n, proxies of 3M, 85M, 300M and 3B parameters."""
    fit = scaling.fit(KL, curve(np.sqrt(KL), alpha, beta, "best_of_n"), "best_of_n")
    assert fit.peak.distance == pytest.approx(peak, abs=0.006)


def test_noise_is_ordinary_least_squares():
    rng = np.random.default_rng(0)
    gold = curve(np.sqrt(KL), 1.3, 0.15, "best_of_n") + rng.normal(0, 0.05, len(KL))
    fit = scaling.fit(KL, gold, "best_of_n")
    d = np.sqrt(KL)
    found, covariance = optimize.curve_fit(lambda x, a, b: x * (a - b * x), d, gold)
    half = stats.t.ppf(0.975, len(d) - 2) * np.sqrt(np.diag(covariance))
    for one, value, width in zip((fit.alpha, fit.beta), found, half, strict=True):
        assert one.estimate == pytest.approx(value, abs=1e-6)
        assert one.high - one.estimate == pytest.approx(width, rel=1e-4)
        assert one.n == len(KL)


@pytest.mark.parametrize("form", ["best_of_n", "rl"])
@pytest.mark.parametrize("seeds", [1, 4])
def test_intervals_cover_what_is_planted(form, seeds):
    """300 studies: noise of points for one curve; coefficients that differ by seed for several."""
    rng, held, d = np.random.default_rng(1), 0, np.sqrt(KL)
    for _ in range(300):
        own = rng.normal([1.3, 0.15], [0.1, 0.02] if seeds > 1 else [0, 0], (seeds, 2))
        gold = [curve(d, a, b, form) + rng.normal(0, 0.05, len(d)) for a, b in own]
        fit = scaling.fit(KL, gold if seeds > 1 else gold[0], form)
        held += fit.alpha.low <= 1.3 <= fit.alpha.high
        held += fit.beta.low <= 0.15 <= fit.beta.high
    assert held >= 0.93 * 600


def test_a_gaussian_proxy_never_turns_as_far_as_it_is_drawn():
    """Regressional error alone: gold is rho E[max of n normals], which rises for ever. The form
    fits it well with alpha near 1.3 rho, so a much larger alpha means an error of units."""

    def most(n):
        return integrate.quad(
            lambda x: x * n * stats.norm.pdf(x) * stats.norm.cdf(x) ** (n - 1), -8, 10
        )[0]

    gold = 0.8 * np.array([most(n) for n in COUNTS])
    fit = scaling.fit(KL, gold, "best_of_n")
    assert gold[4] == pytest.approx(0.8 * 1.766, abs=1e-3)
    assert fit.r_squared > 0.99
    assert 1.2 * 0.8 < fit.alpha.estimate < 1.45 * 0.8
    assert fit.peak is None or fit.peak.distance > np.sqrt(KL[-1])


def world(seed, num_samples=60_000, num_comparisons=3000):
    """A policy that writes 24 of 16 words at random; gold that dislikes too many of one word; and a
    linear proxy fitted to comparisons. Proxy and gold of the samples, gold standardised."""
    rng = np.random.default_rng(seed)
    like, cap = rng.normal(size=16), rng.uniform(2.5, 4.5, 16)
    cross = 0.08 * rng.normal(size=(16, 16))

    def gold(c):
        soft = np.tanh(c / 2)
        own = c @ like - (c**2) @ (np.abs(like) / (2 * cap))
        return own + np.einsum("ni,ij,nj->n", soft, cross, soft)

    def sample(size):
        return rng.multinomial(24, np.full(16, 1 / 16), size=size).astype(float)

    left, right = sample(num_comparisons), sample(num_comparisons)
    x = (left - right) * np.sign(gold(left) - gold(right))[:, None]

    def loss(w):
        return -log_expit(x @ w).sum() + w @ w / 2, -(x.T @ expit(-x @ w)) + w

    weights = optimize.minimize(loss, np.zeros(16), jac=True).x
    counts = sample(num_samples)
    values = gold(counts)
    return counts @ weights, (values - values.mean()) / values.std()


def test_a_misspecified_proxy_over_optimises_as_the_form_says():
    """The quadratic fits with R^2 above 0.99, and fitted to n <= 1,000 it predicts n = 10,000
    within a tenth."""
    curves, beyond = [], []
    for seed in range(4):
        proxy, gold = world(seed)
        curves.append([best_of_n.score(proxy, n, gold) for n in COUNTS])
        beyond.append(best_of_n.score(proxy, 10_000, gold))
    fit = scaling.fit(KL, curves, "best_of_n")
    assert fit.r_squared > 0.99
    assert 1.0 < fit.alpha.estimate < 1.5
    assert 0.1 < fit.beta.estimate < 0.3
    assert fit.alpha.n == 4
    far = float(fit.predict(math.sqrt(best_of_n.kl(10_000))))
    assert far == pytest.approx(np.mean(beyond), rel=0.1)
    assert fit.peak.distance < 6
    straight = fit.alpha.estimate * math.sqrt(best_of_n.kl(10_000))
    assert straight > 1.5 * np.mean(beyond)


def test_forms_are_compared_by_aic():
    rng = np.random.default_rng(2)
    gold = curve(np.sqrt(KL), 1.3, 0.25, "rl") + rng.normal(0, 0.01, len(KL))
    right, wrong = (scaling.fit(KL, gold, form) for form in ("rl", "best_of_n"))
    assert right.aic < wrong.aic


def test_a_curve_that_does_not_turn_has_no_peak():
    for form in ("best_of_n", "rl"):
        assert scaling.fit(KL, 1.2 * np.sqrt(KL) + 0.05 * KL, form).peak is None


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="three different KL"):
        scaling.fit([0, 1, 1, 2], [0, 1, 1, 2], "rl")
    with pytest.raises(DataError, match="below 0"):
        scaling.fit([-1, 1, 2, 3], [0, 1, 1, 2], "rl")
    with pytest.raises(DataError, match="seeds, N"):
        scaling.fit([1, 2, 3], [0, 1], "rl")
