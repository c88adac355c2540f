"""Losses that fit scores: closed-form optima, exact identities, finite differences."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heed.errors import ConfigError, DataError
from heed.losses import reward

numbers = st.floats(-20, 20)


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def minimise(loss, start: torch.Tensor) -> torch.Tensor:
    point = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [point],
        max_iter=200,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-12,
        tolerance_change=1e-15,
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss(point)
        value.backward()
        return value

    optimiser.step(closure)
    return point.detach()


def test_bradley_terry_by_hand():
    """A difference of 1 is a probability of 0.731, so the loss is -log 0.731."""
    found = reward.bradley_terry(vector(1.0, 2.0), vector(0.0, 2.0))
    torch.testing.assert_close(found, -vector(1 / (1 + math.exp(-1)), 0.5).log())


def test_soft_labels_are_fitted_at_the_logit_of_p():
    """d/dz [-p log s(z) - (1-p) log s(-z)] = s(z) - p, which is 0 at z = log(p / (1-p))."""
    p = vector(0.05, 0.3, 0.5, 0.731, 0.99)
    gap = minimise(lambda z: reward.bradley_terry(z, 0 * z, p).sum(), torch.zeros_like(p))
    torch.testing.assert_close(gap, p.logit(), atol=1e-5, rtol=0)


def test_smoothing_and_margin_move_the_optimum_as_stated():
    """Smoothing e makes the target q = p(1-e) + (1-p)e; a margin m moves the optimum by m."""
    p, margin, e = vector(1.0, 0.8, 0.2), vector(0.5, 1.0, -0.3), 0.1
    gap = minimise(
        lambda z: reward.bradley_terry(z, 0 * z, p, margin, e).sum(), torch.zeros_like(p)
    )
    q = p * (1 - e) + (1 - p) * e
    torch.testing.assert_close(gap, q.logit() + margin, atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(numbers, numbers, st.floats(0, 1), numbers, st.floats(0, 0.49))
def test_swapping_the_pair_and_its_label_changes_nothing(left, right, p, constant, smoothing):
    a, b, q = vector(left), vector(right), vector(p)
    found = reward.bradley_terry(a, b, q, label_smoothing=smoothing)
    swapped = reward.bradley_terry(b, a, 1 - q, label_smoothing=smoothing)
    moved = reward.bradley_terry(a + constant, b + constant, q, label_smoothing=smoothing)
    torch.testing.assert_close(found, swapped, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(found, moved, atol=1e-9, rtol=1e-9)


def test_huge_differences_stay_finite():
    far = vector(1e4, -1e4).requires_grad_()
    loss = reward.bradley_terry(far, vector(0.0, 0.0), vector(0.0, 1.0))
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), vector(1e4, 1e4))
    torch.testing.assert_close(far.grad, vector(1.0, -1.0))


SCORES = vector(0.3, -1.2, 2.0, 0.7, 1.1, -0.4, 0.9)
RANKS = torch.tensor([2, 4, 1, 3, 1, 2, 1])
GROUP = torch.tensor([5, 5, 5, 5, 2, 2, 2])
PROMPTS = (slice(4, 7), slice(0, 4))  # in the order of their group ids


def by_pairs(scores: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    pairs = [
        reward.bradley_terry(scores[[i]], scores[[j]])
        for i, j in itertools.permutations(range(len(scores)), 2)
        if ranks[i] < ranks[j]
    ]
    return torch.cat(pairs).mean()


def test_k_wise_is_the_mean_over_each_prompts_pairs():
    """K = 4 gives 6 pairs; the other prompt has a tie at rank 1 and so only 2 ordered pairs."""
    found = reward.k_wise(SCORES, RANKS, GROUP)
    assert found.shape == (2,)
    expected = [by_pairs(SCORES[one], RANKS[one]) for one in PROMPTS]
    torch.testing.assert_close(found, torch.stack(expected))


def test_k_wise_gradient_is_that_of_its_pairs():
    scores = SCORES.clone().requires_grad_()
    (found,) = torch.autograd.grad(reward.k_wise(scores, RANKS, GROUP).sum(), scores)
    total = sum(by_pairs(scores[one], RANKS[one]) for one in PROMPTS)
    (expected,) = torch.autograd.grad(total, scores)
    torch.testing.assert_close(found, expected)


def test_a_prompt_that_orders_nothing_is_refused():
    with pytest.raises(DataError, match="1 of 2 prompts"):
        reward.k_wise(vector(1, 2, 3, 4), torch.tensor([1, 2, 1, 1]), torch.tensor([0, 0, 1, 1]))


def test_best_of_k_is_a_softmax_over_the_candidates():
    scores = vector(0.0, math.log(2), math.log(3), math.log(4)).expand(2, 4)
    found = reward.best_of_k(scores, torch.tensor([3, 0]))
    torch.testing.assert_close(found, -vector(0.4, 0.1).log())


def test_best_of_two_is_bradley_terry():
    pair = vector(0.3, -0.8)
    found = reward.best_of_k(pair.unsqueeze(0), torch.tensor([0]))
    torch.testing.assert_close(found, reward.bradley_terry(pair[:1], pair[1:]))


def test_centring_and_regression_by_hand():
    assert reward.centring(vector(2.0, 1.0), vector(-0.5, -1.0)).tolist() == [2.25, 0]
    assert reward.regression(vector(2.0), vector(-1.0)).tolist() == [9]


def test_losses_pass_finite_differences():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, dtype=torch.float64, generator=generator)
    p = torch.rand(5, dtype=torch.float64, generator=generator)
    margin = b.clone()
    a.requires_grad_()
    b.requires_grad_()
    check = torch.autograd.gradcheck
    assert check(lambda x, y: reward.bradley_terry(x, y, p, margin, 0.2), (a, b))
    assert check(reward.centring, (a, b))
    assert check(reward.regression, (a, b))
    assert check(lambda x: reward.k_wise(x, torch.arange(5), torch.zeros(5).long()), (a,))
    assert check(lambda x: reward.best_of_k(x.view(1, 5), torch.tensor([2])), (a,))


def test_inputs_that_do_not_fit_are_refused():
    one, two = vector(1.0), vector(1.0, 2.0)
    with pytest.raises(DataError, match="expected the same"):
        reward.bradley_terry(one, two)
    with pytest.raises(DataError, match="outside"):
        reward.bradley_terry(one, one, vector(1.2))
    with pytest.raises(DataError, match="outside"):
        reward.bradley_terry(one, one, vector(float("nan")))
    with pytest.raises(ConfigError, match="label_smoothing"):
        reward.bradley_terry(one, one, label_smoothing=0.5)
    with pytest.raises(DataError, match="expected"):
        reward.best_of_k(two, torch.tensor([0]))


def test_attributes_that_are_not_known_enter_nothing():
    """Mean over the known ones; a row without any gives 0 and no gradient."""
    scores = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, 1.0], [9.0, 9.0, 9.0]]).double()
    scores.requires_grad_()
    none = math.nan
    targets = torch.tensor([[0.0, none, 1.0], [none, 2.0, none], [none, none, none]]).double()
    found = reward.attribute_regression(scores, targets)
    torch.testing.assert_close(found.detach(), vector((1 + 4) / 2, 4.0, 0.0))
    found.sum().backward()
    expected = torch.tensor([[1.0, 0.0, 2.0], [0.0, -4.0, 0.0], [0.0, 0.0, 0.0]]).double()
    torch.testing.assert_close(scores.grad, expected)
    one = reward.attribute_regression(scores[:, :1].detach(), targets[:1, :1].expand(3, 1))
    torch.testing.assert_close(
        one, reward.regression(scores[:, 0].detach(), torch.zeros(3).double())
    )


def test_steps_are_judged_at_their_ends_only():
    """The two-class softmax of a token classifier is the same as the sigmoid of the difference."""
    logits = torch.tensor([[0.3, -1.2, 5.0], [2.0, 0.0, 0.7]]).double()
    labels = torch.tensor([[1.0, 0.0, math.nan], [math.nan, 1.0, 0.25]]).double()
    learn = ~labels.isnan()
    found = reward.step_correctness(logits, labels, learn)
    two = torch.stack([-logits / 2, logits / 2], -1)[learn]
    hard = torch.stack([1 - labels, labels], -1)[learn]
    expected = torch.nn.functional.cross_entropy(two, hard, reduction="none")
    torch.testing.assert_close(found[learn], expected)
    assert not found[~learn].any()
    point = torch.randn(2, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reward.step_correctness(x, labels, learn), (point,))


def test_the_mean_of_a_group_is_over_its_own_values():
    found = reward.group_mean(vector(1, 2, 3, 10), torch.tensor([0, 2, 0, 2]), 4)
    assert found.tolist() == [2, 0, 6, 0]


def test_numbers_that_are_no_labels_are_refused():
    with pytest.raises(DataError, match="infinite"):
        reward.attribute_regression(torch.zeros(1, 1), torch.full((1, 1), math.inf))
    with pytest.raises(DataError, match=r"\[B, K\]"):
        reward.attribute_regression(torch.zeros(1, 2), torch.zeros(1, 1))
    on = torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(DataError, match="outside"):
        reward.step_correctness(torch.zeros(1, 1), torch.full((1, 1), 1.5), on)
    with pytest.raises(DataError, match="outside"):
        reward.step_correctness(torch.zeros(1, 1), torch.full((1, 1), math.nan), on)
