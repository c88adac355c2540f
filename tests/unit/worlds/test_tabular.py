"""The exact world: its closed forms satisfy what defines them."""

import numpy as np
import pytest

from heed.errors import ConfigError
from heed.worlds.tabular import Tabular, kl_divergence, total_variation

WORLD = Tabular.random(8, 0)


def test_two_completions_by_hand():
    world = Tabular(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    odds = np.exp(1.0 / 0.5)
    np.testing.assert_allclose(world.optimum(0.5), [odds / (1 + odds), 1 / (1 + odds)])
    # Stationarity of p + beta (log p + log(1 - p)) / 2 at beta 1: 1 + 1/(2p) - 1/(2(1-p)) = 0.
    p = np.sqrt(0.5)
    np.testing.assert_allclose(world.forward_optimum(1.0), [p, 1 - p], atol=1e-12)


@pytest.mark.parametrize("beta", [0.05, 0.5, 3.0])
def test_the_optimum_maximises_reward_less_reverse_kl(beta):
    optimum = WORLD.optimum(beta)
    assert optimum.sum() == pytest.approx(1.0)
    # Lagrange: reward - beta log(policy / reference) is the same for every completion.
    multiplier = WORLD.rewards - beta * np.log(optimum / WORLD.reference)
    np.testing.assert_allclose(multiplier, multiplier[0], rtol=1e-9)
    # The objective is concave, so no other policy does better.
    best = _objective(optimum, beta)
    for other in (WORLD.reference, WORLD.forward_optimum(beta), WORLD.optimum(1.1 * beta)):
        assert _objective(other, beta) < best


def _objective(policy, beta):
    return WORLD.expected_reward(policy) - beta * kl_divergence(policy, WORLD.reference)


@pytest.mark.parametrize("beta", [0.05, 0.5, 3.0])
def test_the_forward_optimum_maximises_reward_less_forward_kl(beta):
    policy = WORLD.forward_optimum(beta)
    assert policy.sum() == pytest.approx(1.0)
    # Lagrange: reward + beta reference / policy is the same for every completion.
    multiplier = WORLD.rewards + beta * WORLD.reference / policy
    np.testing.assert_allclose(multiplier, multiplier[0], rtol=1e-9)


def test_the_two_optima_differ_and_meet_the_reference_at_large_beta():
    assert total_variation(WORLD.optimum(0.5), WORLD.forward_optimum(0.5)) > 0.05
    assert total_variation(WORLD.optimum(1e4), WORLD.reference) < 1e-3
    assert total_variation(WORLD.forward_optimum(1e4), WORLD.reference) < 1e-3


def test_small_beta_takes_the_best_completion():
    assert WORLD.optimum(1e-3).argmax() == WORLD.rewards.argmax()
    assert WORLD.optimum(1e-3).max() > 0.999


def test_a_constant_added_to_all_rewards_moves_neither_optimum():
    shifted = Tabular(WORLD.reference, WORLD.rewards + 100.0)
    np.testing.assert_allclose(shifted.optimum(0.5), WORLD.optimum(0.5))
    np.testing.assert_allclose(shifted.forward_optimum(0.5), WORLD.forward_optimum(0.5), rtol=1e-9)


def test_preferences_are_bradley_terry():
    gap = WORLD.rewards[1] - WORLD.rewards[4]
    assert WORLD.preference(1, 4) == pytest.approx(1 / (1 + np.exp(-gap)))
    assert WORLD.preference(1, 4) + WORLD.preference(4, 1) == pytest.approx(1.0)
    assert WORLD.preference(1, 4, temperature=0.1) == pytest.approx(1 / (1 + np.exp(-gap / 0.1)))


def test_distances():
    assert total_variation(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1.0
    assert kl_divergence(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("reference", "rewards"),
    [
        ([0.5, 0.4], [0, 1]),
        ([1.0, 0.0], [0, 1]),
        ([0.5, 0.5], [0, 1, 2]),
        ([0.5, 0.5], [0, np.inf]),
    ],
)
def test_impossible_worlds_are_refused(reference, rewards):
    with pytest.raises(ConfigError):
        Tabular(np.array(reference), np.array(rewards, dtype=float))


def test_beta_must_be_positive():
    for method in (WORLD.optimum, WORLD.forward_optimum):
        with pytest.raises(ConfigError, match="beta"):
            method(0.0)
