"""Credit without a value model: golden values, identities, unbiasedness, and edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.unit.algorithms.handmade import LENGTHS, ToldLearner, experience, noise, parts

from heed.algorithms.advantages import credited, shaped_scores, without_values
from heed.algorithms.method import Method
from heed.algorithms.online_config import OnlineConfig
from heed.algorithms.updates import policy_loss
from heed.data.batch import Row, TokenBatch, collate
from heed.errors import DataError
from heed.learners.base import Outputs

PLAIN = Method(beta=0.0, baseline="none")
SCORES = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)
ONE_GROUP = torch.zeros(4, dtype=torch.long)
LEARN = torch.tensor([[False, True, True]] * 4)


def online(**changes: object) -> OnlineConfig:
    values = {
        "run": {"folder": "nowhere"},
        "model": {"path": "nothing"},
        "data": {"path": "nothing"},
        "reward_funcs": ("nothing",),
        "beta": 0.1,
        "batch_size": 4,
        "num_generations": 2,
        "total_episodes": 4,
    }
    return OnlineConfig.model_validate(values | changes)


def per_completion(method: Method, scores: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """The advantage of each completion, whose reward stands on its last token."""
    rewards = torch.zeros(LEARN.shape, dtype=scores.dtype)
    rewards[:, -1] = scores
    found = without_values(method, rewards, scores, LEARN, group, greedy=torch.full((4,), 2.0))
    assert torch.equal(found[:, 1], found[:, 2])
    assert bool((found[:, 0] == 0).all())
    return found[:, 1]


@pytest.mark.parametrize(
    ("baseline", "scale", "expected"),
    [
        ("none", "none", [1, 2, 3, 6]),
        ("batch", "none", [-2, -1, 0, 3]),
        ("group", "none", [-2, -1, 0, 3]),
        ("leave_one_out", "none", [-8 / 3, -4 / 3, 0, 4]),
        ("group", "group", [-0.92578, -0.46289, 0, 1.38867]),
        ("group", "batch", [-0.92578, -0.46289, 0, 1.38867]),
        ("group", "mean", [-2 / 3, -1 / 3, 0, 1]),
        ("group", "varied", [-2, -1, 0, 3]),
        ("greedy", "none", [-1, 0, 1, 4]),
        ("best", "none", [0, 0, 0, 1]),
        ("above", "none", [1, 1, 1, 1]),
        ("softmax", "none", [0.025075, 0.068161, 0.185282, 3.721482]),
    ],
)
def test_golden_advantages(baseline: str, scale: str, expected: list[float]) -> None:
    method = replace(PLAIN, baseline=baseline, scale_rewards=scale)
    found = per_completion(method, SCORES, ONE_GROUP)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_leave_one_out_is_the_centred_reward_times_k_over_k_minus_one() -> None:
    centred = per_completion(replace(PLAIN, baseline="group"), SCORES, ONE_GROUP)
    loo = per_completion(replace(PLAIN, baseline="leave_one_out"), SCORES, ONE_GROUP)
    torch.testing.assert_close(loo, 4 / 3 * centred)


def test_gpg_weighs_by_the_groups_that_vary() -> None:
    """Two groups, one of equal scores: B / (B - M) = 2."""
    scores = torch.tensor([1.0, 1.0, 0.0, 4.0])
    group = torch.tensor([7, 7, 3, 3])
    method = replace(PLAIN, baseline="group", scale_rewards="varied")
    assert per_completion(method, scores, group).tolist() == [0.0, 0.0, -4.0, 4.0]


@pytest.mark.parametrize("scale", ["none", "group", "mean", "varied"])
@pytest.mark.parametrize("baseline", ["group", "leave_one_out", "batch"])
def test_equal_scores_teach_exactly_nothing(baseline: str, scale: str) -> None:
    scores = torch.full((4,), 0.1 + 0.2)
    method = replace(PLAIN, baseline=baseline, scale_rewards=scale)
    assert per_completion(method, scores, ONE_GROUP).tolist() == [0.0] * 4


def test_a_completion_whose_siblings_failed_learns_nothing() -> None:
    group = torch.tensor([0, 0, 0, 5])
    for scale in ("none", "group"):
        method = replace(PLAIN, baseline="leave_one_out", scale_rewards=scale)
        found = per_completion(method, SCORES, group)
        assert found[3] == 0
        assert float(found[:3].abs().max()) > 0


def test_maxrl_needs_scores_of_zero_and_above() -> None:
    method = replace(PLAIN, baseline="group", scale_rewards="mean")
    with pytest.raises(DataError, match=r"lowest score is -1.*0 and above"):
        per_completion(method, SCORES - 2, ONE_GROUP)
    assert per_completion(method, SCORES * 0, ONE_GROUP).tolist() == [0.0] * 4


def test_credit_from_each_token_on() -> None:
    """REINFORCE++: return to go; a token is not charged for the KL before it."""
    rewards = torch.tensor([[0.0, -1.0, 2.0], [0.0, 0.5, 0.25]])
    learn = LEARN[:2]
    method = replace(PLAIN, credit="token")
    found = without_values(method, rewards, rewards.sum(1), learn, torch.arange(2))
    assert found.tolist() == [[0.0, 1.0, 2.0], [0.0, 0.75, 0.25]]
    half = replace(method, gamma=0.5)
    found = without_values(half, rewards, rewards.sum(1), learn, torch.arange(2))
    assert found.tolist() == [[0.0, 0.0, 2.0], [0.0, 0.625, 0.25]]
    greedy = replace(method, baseline="greedy")
    found = without_values(
        greedy, rewards, rewards.sum(1), learn, torch.arange(2), torch.tensor([1.0, 0.25])
    )
    assert found.tolist() == [[0.0, 0.0, 1.0], [0.0, 0.5, 0.0]]


# -- the gradient is the policy gradient ----------------------------------------------------------


@pytest.mark.parametrize("baseline", ["none", "leave_one_out", "greedy"])
def test_the_gradient_is_unbiased(baseline: str) -> None:
    """Mean of many draws against the exact gradient of E[r] on a softmax over five completions."""
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.normal(size=5), requires_grad=True)
    rewards = torch.tensor(rng.normal(size=5))
    probabilities = logits.softmax(0)
    exact = torch.autograd.grad((probabilities * rewards).sum(), logits)[0]
    k, draws = 4, 4000
    drawn = torch.tensor(rng.choice(5, (draws, k), p=probabilities.detach().numpy()))
    group = torch.arange(draws).repeat_interleave(k)
    scores = rewards[drawn].flatten()
    learn = torch.tensor([[False, True]]).expand(draws * k, 2)
    given = torch.stack([torch.zeros_like(scores), scores], 1)
    best = torch.full_like(scores, float(rewards[probabilities.argmax()]))
    advantage = without_values(replace(PLAIN, baseline=baseline), given, scores, learn, group, best)
    # grad log softmax = onehot - p; one estimate for each group.
    onehot = torch.nn.functional.one_hot(drawn.flatten(), 5).double()
    each = (advantage[:, 1, None] * (onehot - probabilities.detach())).view(draws, k, 5).mean(1)
    z = (each.mean(0) - exact) / (each.std(0) / draws**0.5)
    assert float(z.abs().max()) < 4
    assert float(exact.abs().max()) > 0.05


def test_the_group_mean_is_biased_by_one_minus_one_over_k() -> None:
    """Its own score stands in its baseline: the gradient is (k - 1) / k of the exact one."""
    centred = per_completion(replace(PLAIN, baseline="group"), SCORES, ONE_GROUP)
    loo = per_completion(replace(PLAIN, baseline="leave_one_out"), SCORES, ONE_GROUP)
    torch.testing.assert_close(centred, loo * (1 - 1 / 4))


# -- from a score to the streams ------------------------------------------------------------------


def test_the_kl_stands_where_it_is_put() -> None:
    seen = replace(experience(), group=torch.tensor([0, 0, 1, 1]))
    reference = noise(seen.batch, 2)
    for place in ("reward", "loss"):
        settings = online(kl_place=place, kl_estimator="k1", scale_rewards="none")
        batch, scores, rewards = credited(settings, parts(reference, reference), seen, 0.1)
        penalty = rewards.sum(1) - scores
        assert bool((penalty != 0).all()) == (place == "reward")
        gap = (seen.batch.stream("behaviour_logprobs") - reference) * seen.batch.learn
        whole = scores - (0.1 * gap.sum(1) if place == "reward" else 0.0)
        means = torch.stack([whole[:2].mean(), whole[2:].mean()]).repeat_interleave(2)
        first = seen.batch.learn.float().argmax(1)
        found = batch.stream("advantages").gather(1, first[:, None]).squeeze(1)
        torch.testing.assert_close(found, whole - means)


def test_overlong_completions_lose_score_linearly() -> None:
    """DAPO: nothing up to longest - cache, then linearly to -1 at the longest length."""
    seen = experience(scores=(1.0,) * 4)
    settings = online(preset="grpo", overlong_frac=0.5, sampling={"max_tokens": 8})
    assert LENGTHS == (4, 2, 5, 1)
    assert shaped_scores(settings, seen).tolist() == [1.0, 1.0, 0.75, 1.0]
    twice = online(overlong_frac=0.8, overlong_penalty=2.0, sampling={"max_tokens": 5})
    assert shaped_scores(twice, seen).tolist() == pytest.approx([-0.5, 0.5, -1.0, 1.0])


def test_importance_weights_stand_beside_the_learners_own_logprobs() -> None:
    seen = replace(experience(), group=torch.tensor([0, 0, 1, 1]))
    sampled = seen.batch.stream("behaviour_logprobs")
    own = sampled + 0.5 * noise(seen.batch, 5)
    settings = online(importance_sampling="token_truncate", importance_sampling_cap=1.2)
    made = parts(noise(seen.batch, 2), own, policy=ToldLearner(logprobs=own))
    batch, _, _ = credited(settings, made, seen, 0.1)
    assert torch.equal(batch.stream("behaviour_logprobs"), own)
    assert torch.equal(batch.stream("sampled_logprobs"), sampled)
    expected = (own - sampled).exp().clamp(max=1.2)[batch.learn]
    torch.testing.assert_close(batch.stream("weights")[batch.learn], expected)
    outputs = Outputs(logprobs=own.clone().requires_grad_())
    with_weights = policy_loss(settings.method, 0.0)(outputs, batch).values
    plain = policy_loss(online().method, 0.0)(outputs, batch).values
    torch.testing.assert_close(with_weights, plain * batch.stream("weights"))


def test_the_kl_in_the_loss_has_its_coefficient_and_its_estimator() -> None:
    batch = _row_batch()
    reference = batch.stream("reference_logprobs")
    for name, value in (("k1", 0.5), ("k2", 0.125), ("k3", float(np.expm1(-0.5) + 0.5))):
        method = replace(PLAIN, kl_place="loss", kl_estimator=name, average="token")
        logprobs = (reference + 0.5).requires_grad_()
        bare = policy_loss(replace(method, kl_place="reward"), 2.0)(
            Outputs(logprobs=logprobs), batch
        ).values
        found = policy_loss(method, 2.0)(Outputs(logprobs=logprobs), batch).values
        torch.testing.assert_close((found - bare)[batch.learn], torch.full((2,), 2.0 * value))


def _row_batch() -> TokenBatch:
    batch = collate([Row("a", (1, 2, 3), (False, True, True))])
    minus = torch.full((1, 3), -1.0)
    return batch.with_streams(
        behaviour_logprobs=minus, reference_logprobs=minus, advantages=torch.ones(1, 3)
    )


def test_division_by_the_groups_deviation_favours_the_extremes() -> None:
    """Dr. GRPO's bias of difficulty: of prompts solved 1, 4 and 7 times in 8, the deviation gives
    the extremes more weight, next to the centred reward."""
    weight = {}
    for solved in (1, 4, 7):
        scores = torch.tensor([1.0] * solved + [0.0] * (8 - solved))
        rewards = torch.stack([torch.zeros(8), scores], 1)
        learn = torch.tensor([[False, True]]).expand(8, 2)
        group = torch.zeros(8, dtype=torch.long)
        norms = [
            without_values(
                replace(PLAIN, baseline="group", scale_rewards=scale), rewards, scores, learn, group
            ).norm()
            for scale in ("group", "none")
        ]
        weight[solved] = float(norms[0] / norms[1])
    assert weight[1] == pytest.approx(weight[7], rel=1e-5)
    assert weight[1] > 1.4 * weight[4]
