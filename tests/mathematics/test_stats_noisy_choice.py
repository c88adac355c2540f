"""Noisy Bradley-Terry: derivatives, special cases with known answers, recovery of the planted."""

import choix
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from heed.errors import ConfigError, DataError
from heed.stats import choice, noisy_posterior
from heed.stats.noisy_choice import noisy_choice
from heed.stats.noisy_posterior import Comparisons, Priors

STRENGTH = np.array([1.2, 0.6, 0.1, -0.2, -0.6, -1.1])
RELIABILITY = np.array([0.0, 0.6, 1.0, 1.4, 2.0])
BIAS = np.array([0.3, -0.6, 0.0, 0.8, 0.0])
PLAIN = {"strength_sd": np.inf, "reliability_sd": 0.0, "bias_sd": 0.0}


def simulate(rng, num, tie=0.0, strength=STRENGTH, reliability=RELIABILITY, bias=BIAS):
    """left, right, person, outcome by the model itself."""
    size = len(strength)
    left = rng.integers(size, size=num)
    right = (left + rng.integers(1, size, size=num)) % size
    person = rng.integers(len(reliability), size=num)
    x = reliability[person] * (strength[left] - strength[right]) + bias[person]
    z = np.exp(x / 2) + np.exp(-x / 2) + tie
    win, u = np.exp(x / 2) / z, rng.random(num)
    return left, right, person, np.where(u < win, 1.0, np.where(u < win + tie / z, 0.5, 0.0))


def by_item(fit):
    return fit.strengths[np.argsort(fit.items)]


@pytest.mark.parametrize("tie", [0.0, 0.7])
def test_derivatives_are_those_of_the_posterior(tie):
    rng = np.random.default_rng(2)
    data = Comparisons(*simulate(rng, 80, tie), 6, 5)
    priors = Priors(2.0, 0.7, 1.3)
    x = rng.normal(size=data.size)

    def value(v):
        return noisy_posterior.negative_log_posterior(v, data, priors)

    slope = optimize.approx_fprime(x, lambda v: value(v)[0], 1e-6)
    np.testing.assert_allclose(value(x)[1], slope, atol=1e-4)
    step = 1e-5 * np.eye(data.size)
    curve = [(value(x + e)[1] - value(x - e)[1]) / 2e-5 for e in step]
    found = noisy_posterior.curvature(x, data, priors).toarray()
    np.testing.assert_allclose(found, curve, atol=1e-7)


def test_with_reliability_one_it_is_bradley_terry():
    left, right, person, said = simulate(np.random.default_rng(3), 400)
    fit = noisy_choice(left, right, person, said, **PLAIN)
    wins, _ = choice.count(left, right, said, 6)
    np.testing.assert_allclose(by_item(fit), choice.bradley_terry(wins).values, atol=1e-9)
    pairs = [(a, b) if y == 1 else (b, a) for a, b, y in zip(left, right, said, strict=True)]
    oracle = choix.opt_pairwise(6, pairs, method="Newton-CG", tol=1e-12)
    np.testing.assert_allclose(by_item(fit), oracle, atol=1e-6)
    assert fit.tie is None
    for one in fit.people.values():
        assert (one.reliability.low, one.reliability.high) == (1.0, 1.0)
        assert (one.left_bias.low, one.left_bias.high) == (0.0, 0.0)


def test_with_reliability_one_and_ties_it_is_davidson():
    left, right, person, said = simulate(np.random.default_rng(4), 400, 0.7)
    fit = noisy_choice(left, right, person, said, **PLAIN)
    wins, ties = choice.count(left, right, said, 6)
    oracle = choice.davidson(wins, ties)
    np.testing.assert_allclose(by_item(fit), oracle.values, atol=1e-9)
    assert fit.tie.estimate == pytest.approx(oracle.tie, abs=1e-9)


def test_bradley_terry_itself_is_choix():
    left, right, _, said = simulate(np.random.default_rng(5), 500)
    wins, _ = choice.count(left, right, said, 6)
    oracle = choix.mm_pairwise(
        6, [(a, b) if y == 1 else (b, a) for a, b, y in zip(left, right, said, strict=True)],
        max_iter=100_000, tol=1e-13,
    )  # fmt: skip
    np.testing.assert_allclose(choice.bradley_terry(wins).values, oracle, atol=1e-9)


def test_standard_errors_are_those_of_the_information():
    """Two items, no prior: var(s0 - s1) = 1 / (N p (1 - p)), and each strength is half of it."""
    fit = noisy_choice(["a"] * 30, ["b"] * 30, ["x"] * 30, [1] * 20 + [0] * 10, **PLAIN)
    spread = 1 / (30 * (20 / 30) * (10 / 30))
    np.testing.assert_allclose(fit.strengths, np.array([1, -1]) * np.log(2) / 2, atol=1e-9)
    np.testing.assert_allclose(fit.errors, np.sqrt(spread) / 2, rtol=1e-6)


@pytest.mark.parametrize("tie", [0.7, pytest.param(0.0, marks=pytest.mark.slow)])
def test_planted_reliabilities_and_biases_are_within_their_intervals(tie):
    """300 studies of 600 comparisons, five people of whom one answers at random: at least 93 % of
    the intervals hold the truth, for reliabilities, biases and strengths each."""
    rng = np.random.default_rng(6)
    held = {"reliability": 0, "bias": 0, "strength": 0, "tie": 0}
    for _ in range(300):
        fit = noisy_choice(*simulate(rng, 600, tie))
        for name, one in fit.people.items():
            held["reliability"] += one.reliability.low <= RELIABILITY[name] <= one.reliability.high
            held["bias"] += one.left_bias.low <= BIAS[name] <= one.left_bias.high
        error = fit.errors[np.argsort(fit.items)]
        held["strength"] += int((np.abs(by_item(fit) - STRENGTH) <= 1.96 * error).sum())
        held["tie"] += tie == 0 or fit.tie.low <= np.log(tie) <= fit.tie.high
    assert held["reliability"] >= 0.93 * 300 * 5
    assert held["bias"] >= 0.93 * 300 * 5
    assert held["strength"] >= 0.93 * 300 * 6
    assert held["tie"] >= 0.93 * 300


def test_two_reliabilities_of_mean_one_are_equally_sure():
    """They add up to 2, so what is not known of one is not known of the other."""
    both = {"reliability": np.array([0.8, 1.2]), "bias": np.zeros(2)}
    fit = noisy_choice(*simulate(np.random.default_rng(12), 3000, 0.7, **both))
    one, other = (fit.people[a].reliability for a in (0, 1))
    assert one.estimate + other.estimate == pytest.approx(2)
    assert one.low + other.high == pytest.approx(2)
    assert one.low > 0.5


def test_many_answers_give_the_planted_numbers():
    fit = noisy_choice(*simulate(np.random.default_rng(7), 60_000, 0.7))
    people = [fit.people[a] for a in range(5)]
    np.testing.assert_allclose([p.reliability.estimate for p in people], RELIABILITY, atol=0.06)
    np.testing.assert_allclose([p.left_bias.estimate for p in people], BIAS, atol=0.06)
    np.testing.assert_allclose(by_item(fit), STRENGTH, atol=0.06)
    assert fit.tie.estimate == pytest.approx(np.log(0.7), abs=0.05)
    assert np.mean([p.reliability.estimate for p in people]) == pytest.approx(1)


def test_one_who_clicks_at_random_weighs_nothing():
    """Strengths are nearer the truth than those of plain Bradley-Terry, which trusts everybody."""
    rng, gain = np.random.default_rng(8), []
    for _ in range(20):
        reliability = np.array([0.0, 0.0, 0.0, 2.0, 3.0])
        left, right, person, said = simulate(rng, 300, reliability=reliability)
        noisy = np.corrcoef(by_item(noisy_choice(left, right, person, said)), STRENGTH)[0, 1]
        wins, _ = choice.count(left, right, said, 6)
        plain = np.corrcoef(choice.bradley_terry(wins, prior=0.5).values, STRENGTH)[0, 1]
        gain.append(noisy - plain)
    assert np.mean(gain) > 0.02
    assert np.mean(np.array(gain) > 0) >= 0.8


def test_priors_keep_what_never_lost_or_erred_finite():
    fit = noisy_choice([0, 0, 1], [1, 2, 2], ["x"] * 3, [1, 1, 1])
    assert np.abs(fit.strengths).max() < 5
    assert by_item(fit)[0] > by_item(fit)[1] > by_item(fit)[2]
    with pytest.raises(DataError, match="never lost"):
        noisy_choice([0, 0, 1], [1, 2, 2], ["x"] * 3, [1, 1, 1], **PLAIN)
    apart = noisy_choice([0, 2], [1, 3], ["x"] * 2, [1, 0])
    assert np.isfinite(apart.errors).all()
    with pytest.raises(DataError, match="never compared"):
        noisy_choice([0, 0, 2, 2], [1, 1, 3, 3], ["x"] * 4, [1, 0, 1, 0], **PLAIN)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_names_order_and_the_mirror_change_nothing(seed):
    """The mirror: everything shown on the other side and answered there turns the biases alone."""
    rng = np.random.default_rng(seed)
    left, right, person, said = simulate(rng, 120, 0.7)
    fit = noisy_choice(left, right, person, said)
    order = rng.permutation(120)
    moved = noisy_choice(
        left[order], right[order], [f"p{4 - a}" for a in person[order]], said[order]
    )
    mirrored = noisy_choice(right, left, person, 1 - said)
    np.testing.assert_allclose(by_item(moved), by_item(fit), atol=1e-5)
    np.testing.assert_allclose(by_item(mirrored), by_item(fit), atol=1e-5)
    for a, one in fit.people.items():
        other, turned = moved.people[f"p{4 - a}"], mirrored.people[a]
        assert other.reliability.estimate == pytest.approx(one.reliability.estimate, abs=1e-5)
        assert turned.left_bias.estimate == pytest.approx(-one.left_bias.estimate, abs=1e-5)


def test_a_large_fit_equals_the_dense_one(monkeypatch):
    data = simulate(np.random.default_rng(9), 1000, 0.7)
    dense = noisy_choice(*data)
    monkeypatch.setattr(noisy_posterior, "DENSE", 1)
    large = noisy_choice(*data)
    assert large.errors is None
    np.testing.assert_allclose(by_item(large), by_item(dense), atol=1e-6)
    for a, one in dense.people.items():
        other = large.people[a]
        assert other.reliability.high == pytest.approx(one.reliability.high, abs=1e-4)
        assert other.left_bias.low == pytest.approx(one.left_bias.low, abs=1e-4)
    assert large.tie.low == pytest.approx(dense.tie.low, abs=1e-4)


def test_predictions_are_those_of_the_average_person():
    fit = noisy_choice(["a", "a", "b"], ["b", "b", "a"], ["x"] * 3, [1, 1, 0])
    gap = fit.strengths[0] - fit.strengths[1]
    assert fit.p_left(["a", "b"], ["b", "a"]) == pytest.approx(
        [1 / (1 + np.exp(-gap)), 1 / (1 + np.exp(gap))]
    )


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="strength_sd 0"):
        noisy_choice([0], [1], ["x"], [1], strength_sd=0)
    with pytest.raises(DataError, match="itself"):
        noisy_choice([0], [0], ["x"], [1])
    with pytest.raises(DataError, match="neither"):
        noisy_choice([0], [1], ["x"], [0.3])
    with pytest.raises(DataError, match="every comparison is a tie"):
        noisy_choice([0], [1], ["x"], [0.5])
    with pytest.raises(DataError, match="2 right"):
        noisy_choice([0], [1, 2], ["x"], [1])
