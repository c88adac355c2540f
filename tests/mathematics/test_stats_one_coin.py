"""One-coin Dawid-Skene against the definition, its limits, and people who are known."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from heed.errors import ConfigError, DataError
from heed.stats.one_coin import one_coin

ACCURACY = np.array([0.95, 0.85, 0.75, 0.6, 0.5])


def simulate(rng, num_pairs, bias=None):
    """Every person answers every pair: pairs, people, outcomes, shown_left, truth."""
    truth = rng.random(num_pairs) < 0.5
    size = num_pairs * len(ACCURACY)
    pair, person = np.divmod(np.arange(size), len(ACCURACY))
    shown_left = rng.random(size) < 0.5
    log_odds = np.log(ACCURACY / (1 - ACCURACY))[person]
    left_is_better = truth[pair] == shown_left
    x = np.where(left_is_better, log_odds, -log_odds)
    x = x + (0 if bias is None else np.asarray(bias)[person])
    chose_left = rng.random(size) < 1 / (1 + np.exp(-x))
    said = np.where(shown_left, chose_left, ~chose_left).astype(float)
    return pair.tolist(), person.tolist(), said, shown_left, truth


def slow_log_posterior(rates, rows, num_pairs, prior=(2.0, 1.0)):
    """Sum over every possible truth: rates [people, 2] of "left" where it is better and not."""
    total = -np.inf
    for truth in product((0, 1), repeat=num_pairs):
        log_p = -num_pairs * np.log(2)
        for pair, person, said, shown in rows:
            chose = said == shown
            rate = rates[person][0] if truth[pair] == shown else rates[person][1]
            log_p += np.log(rate if chose else 1 - rate)
        total = np.logaddexp(total, log_p)
    (right, wrong), h, g = prior, rates[:, 0], rates[:, 1]
    return (
        total
        + (right * np.log(h) + wrong * np.log(1 - h)).sum()
        + (wrong * np.log(g) + right * np.log(1 - g)).sum()
    )


def test_the_fit_is_a_mode_of_the_posterior():
    rng = np.random.default_rng(1)
    pair, person, said, shown, _ = simulate(rng, 6)
    rows = [(p, a, y, s) for p, a, y, s in zip(pair, person, said, shown, strict=True) if a < 3]
    pair, person, said, shown = zip(*rows, strict=True)
    fit = one_coin(pair, person, said, shown)
    odds = np.log(fit.accuracy / (1 - fit.accuracy))
    assert fit.converged

    def value(x):
        return slow_log_posterior(1 / (1 + np.exp(-x.reshape(3, 2))), rows, 6)

    found = optimize.minimize(lambda x: -value(x), np.stack([odds, -odds], 1).ravel(), tol=1e-10)
    rates = 1 / (1 + np.exp(-found.x.reshape(3, 2)))
    assert fit.log_posterior == pytest.approx(-found.fun, abs=1e-7)
    np.testing.assert_allclose(fit.accuracy, (rates[:, 0] + 1 - rates[:, 1]) / 2, atol=1e-4)


def test_one_coin_without_positions_is_its_fixed_point():
    """Written out: posterior log-odds add signed logit accuracies, accuracies count the expected
    right answers with two right and one wrong imagined."""
    pair, person, said, _, _ = simulate(np.random.default_rng(2), 40)
    fit = one_coin(pair, person, said)
    odds = np.zeros(40)
    for p, a, y in zip(pair, person, said, strict=True):
        odds[p] += (2 * y - 1) * np.log(fit.accuracy[a] / (1 - fit.accuracy[a]))
    np.testing.assert_allclose(fit.p_left, 1 / (1 + np.exp(-odds)), atol=1e-8)
    for a in range(5):
        right = [fit.p_left[p] if y else 1 - fit.p_left[p]
                 for p, b, y in zip(pair, person, said, strict=True) if a == b]  # fmt: skip
        assert fit.accuracy[a] == pytest.approx((sum(right) + 2) / (40 + 3), abs=1e-8)
    assert fit.left_bias is None


def test_known_people_are_found_and_beat_the_majority():
    rng = np.random.default_rng(3)
    bias = [0.0, 0.8, -0.8, 0.0, 1.5]
    pair, person, said, shown, truth = simulate(rng, 3000, bias)
    fit = one_coin(pair, person, said, shown)
    expected = [np.mean(said.reshape(-1, 5)[:, a] == truth) for a in range(5)]
    np.testing.assert_allclose(fit.accuracy, expected, atol=0.03)
    np.testing.assert_allclose(fit.left_bias, bias, atol=0.25)
    majority = said.reshape(-1, 5).mean(1) > 0.5
    ours = np.mean((fit.p_left > 0.5) == truth)
    assert ours > np.mean(majority == truth) + 0.02
    # Posteriors mean what they say.
    sure = np.maximum(fit.p_left, 1 - fit.p_left)
    assert sure.mean() == pytest.approx(ours, abs=0.02)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_swapping_candidates_with_their_labels_and_order_mirrors_the_fit(seed):
    rng = np.random.default_rng(seed)
    pair, person, said, shown, _ = simulate(rng, 12)
    fit = one_coin(pair, person, said, shown)
    turned = rng.random(12) < 0.5
    flip = turned[np.array(pair)]
    other = one_coin(pair, person, np.where(flip, 1 - said, said), np.where(flip, ~shown, shown))
    np.testing.assert_allclose(other.accuracy, fit.accuracy, atol=1e-7)
    np.testing.assert_allclose(other.left_bias, fit.left_bias, atol=1e-6)
    np.testing.assert_allclose(
        other.p_left, np.where(turned, 1 - fit.p_left, fit.p_left), atol=1e-7
    )


def test_ties_say_nothing_of_which_side_is_better():
    pair, person, said, shown, _ = simulate(np.random.default_rng(4), 30)
    fit = one_coin(pair, person, said, shown)
    more = one_coin([*pair, 0, "tied"], [*person, 9, 9], [*said, 0.5, 0.5], [*shown, True, True])
    np.testing.assert_allclose(more.p_left[:30], fit.p_left, atol=1e-9)
    assert more.p_left[-1] == 0.5
    assert more.num_decided.tolist() == [30] * 5 + [0]
    assert more.accuracy[-1] == pytest.approx(2 / 3)  # the prior


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="more right than wrong"):
        one_coin(["a"], ["x"], [1], prior=(1, 1))
    with pytest.raises(DataError, match="neither"):
        one_coin(["a"], ["x"], [0.2])
    with pytest.raises(DataError, match="shown_left"):
        one_coin(["a"], ["x"], [1], [True, False])
    with pytest.raises(DataError, match="cluster labels"):
        one_coin(["a", "b"], ["x"], [1, 1])
