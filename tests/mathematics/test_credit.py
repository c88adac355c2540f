"""Credit assignment: golden values, closed forms, and tokens that take no time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heed import credit, masked
from heed.errors import ConfigError, DataError


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def where(*values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool)


REWARDS, VALUES = rows([-0.1, 0.2, -0.05, 1.0]), rows([0.5, 0.4, 0.3, 0.2])
ADVANTAGES, RETURNS = rows([0.445525, 0.6795, 0.61, 0.8]), rows([0.945525, 1.0795, 0.91, 1.0])


def test_gae_gives_the_golden_values():
    advantages, returns = credit.gae(REWARDS, VALUES, where([1, 1, 1, 1]), 1.0, 0.95)
    torch.testing.assert_close(advantages, ADVANTAGES)
    torch.testing.assert_close(returns, RETURNS)


def test_gae_skips_tokens_that_are_not_learned():
    """Golden row spread out with prompt, forced tool text in the middle, and padding behind."""
    learn = where([0, 1, 0, 0, 1, 1, 0, 1, 0])
    rewards, values = torch.zeros(1, 9).double(), torch.full((1, 9), 77.0).double()
    values[0, 0] = float("nan")
    rewards[learn], values[learn] = REWARDS[0], VALUES[0]
    advantages, returns = credit.gae(rewards, values, learn, 1.0, 0.95)
    torch.testing.assert_close(advantages[learn], ADVANTAGES[0])
    torch.testing.assert_close(returns[learn], RETURNS[0])
    assert advantages[~learn].eq(0).all()
    assert returns[~learn].eq(0).all()


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    st.integers(0, 2**31),
    st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    st.sampled_from([0.0, 0.3, 0.95, 1.0]),
)
def test_gae_is_the_sum_of_its_definition(seed, gamma, lam):
    """A_t = sum_k (gamma lam)^k delta_{t+k}, over the learned tokens alone."""
    generator = torch.Generator().manual_seed(seed)
    learn = torch.rand(3, 6, generator=generator) < 0.6
    rewards = torch.randn(3, 6, dtype=torch.float64, generator=generator) * learn
    values = torch.randn(3, 6, dtype=torch.float64, generator=generator)
    advantages, _ = credit.gae(rewards, values, learn, gamma, lam)
    for row in range(3):
        r, v = rewards[row][learn[row]], values[row][learn[row]]
        following = torch.cat([v[1:], v.new_zeros(1)])[: len(v)]
        delta = r + gamma * following - v
        found = advantages[row][learn[row]]
        for t in range(len(v)):
            powers = rows([(gamma * lam) ** k for k in range(len(v) - t)])[0]
            torch.testing.assert_close(found[t], (powers * delta[t:]).sum())


def test_lambda_one_makes_returns_the_discounted_rewards():
    learn = where([1, 1, 1, 1])
    for gamma in (1.0, 0.9):
        _, returns = credit.gae(REWARDS, VALUES, learn, gamma, 1.0)
        torch.testing.assert_close(returns, credit.discounted_returns(REWARDS, learn, gamma))
    found = credit.discounted_returns(rows([1, 0, 2]), where([1, 1, 1]), 0.5)
    torch.testing.assert_close(found, rows([1.5, 1, 2]))


def test_credit_has_no_gradient():
    values = VALUES.clone().requires_grad_()
    advantages, returns = credit.gae(REWARDS, values, where([1, 1, 1, 1]), 1.0, 0.95)
    assert not advantages.requires_grad
    assert not returns.requires_grad


def test_a_reward_that_would_be_lost_is_refused():
    with pytest.raises(DataError, match="1 rewards stand on tokens that are not learned"):
        credit.gae(REWARDS, VALUES, where([1, 0, 1, 1]) & where([1, 1, 1, 1]), 1.0, 0.95)
    with pytest.raises(ConfigError, match="lam"):
        credit.gae(REWARDS, VALUES, where([1, 1, 1, 1]), 1.0, 1.5)


def test_the_score_stands_on_the_last_learned_token():
    learn = where([0, 1, 1, 0], [0, 0, 1, 1], [0, 1, 0, 1])
    rewards = credit.place_score(torch.tensor([1.0, -2.0, 3.0]), learn)
    assert rewards.tolist() == [[0, 0, 1, 0], [0, 0, 0, -2], [0, 0, 0, 3]]
    with pytest.raises(DataError):
        credit.place_score(torch.tensor([1.0]), where([0, 0]))


def test_broadcast_reaches_learned_tokens_only():
    found = credit.broadcast(torch.tensor([2.0, -1.0]), where([0, 1, 1], [1, 0, 0]))
    assert found.tolist() == [[0, 2, 2], [-1, 0, 0]]


SCORES, ONE_GROUP = rows([1, 2, 3, 6])[0], torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        (credit.group_centred, {}, [-2, -1, 0, 3]),
        (credit.leave_one_out, {}, [-2.6667, -1.3333, 0, 4]),
        (credit.group_scaled, {}, [-0.92578, -0.46289, 0, 1.38867]),
        (credit.group_scaled, {"unbiased": False}, [-1.06899, -0.53449, 0, 1.60348]),
    ],
)
def test_group_advantages_give_the_golden_values(method, options, expected):
    found = method(SCORES, ONE_GROUP, **options)
    torch.testing.assert_close(found, rows(expected)[0], atol=5e-5, rtol=0)


@pytest.mark.parametrize(
    "method", [credit.group_centred, credit.leave_one_out, credit.group_scaled]
)
def test_groups_may_stand_in_any_order_and_do_not_mix(method):
    other = rows([10, 0.5])[0]
    scores = torch.stack([SCORES[0], other[0], SCORES[1], SCORES[2], other[1], SCORES[3]])
    group = torch.tensor([7, -3, 7, 7, -3, 7])
    found = method(scores, group)
    torch.testing.assert_close(found[group == 7], method(SCORES, ONE_GROUP))
    torch.testing.assert_close(found[group == -3], method(other, ONE_GROUP[:2]))


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=8), st.floats(-100, 100))
def test_leave_one_out_is_the_mean_of_the_others(scores, shift):
    values = torch.tensor(scores, dtype=torch.float64)
    group = torch.zeros(len(scores), dtype=torch.int64)
    others = [(values.sum() - value) / (len(scores) - 1) for value in values]
    found = credit.leave_one_out(values, group)
    torch.testing.assert_close(found, values - torch.stack(others), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(
        found, credit.leave_one_out(values + shift, group), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize(
    "method", [credit.group_centred, credit.leave_one_out, credit.group_scaled]
)
@pytest.mark.parametrize("score", [0.1, 1 / 3, -7.3])
def test_a_group_of_equal_scores_learns_exactly_nothing(method, score):
    scores = torch.full((7,), score)
    assert method(scores, torch.zeros(7, dtype=torch.int64)).eq(0).all()


def test_the_share_of_groups_that_teach_nothing():
    scores = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.1, 0.1, 0.1, 2.0])
    group = torch.tensor([0, 0, 1, 1, 2, 2, 2, 3])
    assert credit.constant_group_frac(scores, group) == 0.75


@pytest.mark.parametrize("method", [credit.leave_one_out, credit.group_scaled])
def test_a_group_of_one_has_no_baseline(method):
    with pytest.raises(DataError, match="one completion"):
        method(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 1]))


def test_a_score_that_failed_is_not_averaged():
    with pytest.raises(DataError, match="not finite"):
        credit.group_centred(torch.tensor([1.0, float("nan")]), torch.tensor([0, 0]))


def test_batch_whitened_returns_are_reinforce_plus_plus():
    """Global whitening of the returns-to-go: mean 0, variance 1 over all learned tokens."""
    learn = where([0, 1, 1, 1], [0, 1, 1, 0])
    returns = credit.discounted_returns(rows([0, 0, 0, 2], [0, -1, 0.5, 0]), learn)
    advantages = masked.whiten(returns, learn)
    assert masked.mean(advantages, learn).item() == pytest.approx(0, abs=1e-12)
    assert masked.std(advantages, learn).item() == pytest.approx(1, abs=1e-6)


def test_overlong_completions_are_penalised_as_in_dapo():
    """Expected length 16,384, cache 4,096, hard maximum 20,480."""
    lengths = torch.tensor([1.0, 16_384.0, 18_432.0, 20_480.0, 30_000.0])
    found = credit.overlong_penalty(lengths, 20_480, 4_096)
    assert found.tolist() == [0.0, 0.0, -0.5, -1.0, -1.0]
    for last in (0, 20_481):
        with pytest.raises(ConfigError, match="from 1 to the longest length"):
            credit.overlong_penalty(lengths, 20_480, last)


def test_group_sizes_means_and_deviations():
    scores = torch.tensor([1.0, 5.0, 3.0, 7.0])
    group = torch.tensor([4, 9, 4, 9])
    assert credit.group_mean(scores, group).tolist() == [2.0, 6.0, 2.0, 6.0]
    assert credit.group_std(scores, group).tolist() == pytest.approx([2**0.5] * 4)
    assert credit.group_std(scores, group, unbiased=False).tolist() == [1.0] * 4
    assert credit.group_size(torch.tensor([4, 9, 4, 1])).tolist() == [2, 1, 2, 1]


def test_the_best_of_a_group_has_weight_one():
    scores = torch.tensor([1.0, 3.0, 3.0, -2.0, -1.0, 5.0])
    group = torch.tensor([7, 7, 7, 2, 2, 9])
    assert credit.best_of_group(scores, group).tolist() == [0, 1, 0, 0, 1, 1]


def test_softmax_weights_lead_to_the_tilted_policy():
    """E[w f] of many draws is E[f] under policy * exp(r / T) / Z; small T leaves the best."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5))
    r = torch.tensor(rng.normal(size=5))
    drawn = torch.tensor(rng.choice(5, 40_000, p=p))
    weights = credit.softmax_of_group(r[drawn], torch.zeros_like(drawn), 0.7)
    assert weights.sum().item() == pytest.approx(len(drawn))
    found = torch.zeros(5, dtype=torch.float64).index_add(0, drawn, weights) / len(drawn)
    tilted = torch.tensor(p) * (r / 0.7).exp()
    tilted = tilted / tilted.sum()
    assert float((found - tilted).abs().sum() / 2) < 0.01
    sharp = credit.softmax_of_group(torch.tensor([1.0, 2.0]), torch.zeros(2).long(), 1e-3)
    assert sharp.tolist() == pytest.approx([0.0, 2.0])
    with pytest.raises(ConfigError, match="above 0"):
        credit.softmax_of_group(r, torch.zeros(5).long(), 0.0)
