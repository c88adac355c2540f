"""KL estimators against golden values and exact sums; controllers by their step response."""

import json
import math

import pytest
import torch

from heed import kl
from heed.errors import ConfigError, DataError

POLICY = torch.tensor([-0.6, -2.3, -0.5, -0.9, -0.9, -3.4, -0.25, -1.0], dtype=torch.float64)
REFERENCE = torch.tensor([-0.8, -2.0, -0.6, -0.8, -1.4, -3.1, -0.2, -1.2], dtype=torch.float64)


@pytest.mark.parametrize(
    ("estimate", "total"), [(kl.k1, 0.25), (kl.k2, 0.26625), (kl.k3, 0.254989)]
)
def test_estimators_give_the_golden_sums(estimate, total):
    assert estimate(POLICY, REFERENCE).sum().item() == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize("estimate", [kl.k1, kl.k2, kl.k3, kl.loss])
def test_estimators_pass_finite_differences(estimate):
    policy = POLICY.clone().requires_grad_()
    if estimate is kl.loss:  # its value and its gradient are two functions, on purpose
        (grad,) = torch.autograd.grad(kl.loss(policy, REFERENCE).sum(), policy)
        torch.testing.assert_close(grad, POLICY - REFERENCE)
        torch.testing.assert_close(kl.loss(policy, REFERENCE), POLICY - REFERENCE)
    else:
        assert torch.autograd.gradcheck(lambda p: estimate(p, REFERENCE), policy)


def _tabular() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 6, dtype=torch.float64, generator=generator)
    return logits[0].requires_grad_(), logits[1]


def test_k1_and_k3_average_to_the_exact_kl():
    """The mean over samples is the sum over actions weighted by p, which is computed in full."""
    logits, reference = _tabular()
    log_p, log_q = logits.log_softmax(-1), reference.log_softmax(-1)
    truth = kl.exact(logits, reference)
    torch.testing.assert_close(truth, (log_p.exp() * (log_p - log_q)).sum())
    for estimate in (kl.k1, kl.k3):
        torch.testing.assert_close((log_p.exp() * estimate(log_p, log_q)).sum(), truth)


def test_expected_gradients_of_the_estimators_as_losses():
    """E_p[grad k(log p)] with p held fixed as the sampler, summed over every action.

    k2 and `loss`: sum p d grad log p = grad KL(p||q).  k1: sum p grad log p = 0.
    k3: sum p (1 - q/p) grad log p = -sum q grad log p = grad KL(q||p).
    """
    logits, reference = _tabular()
    log_q = reference.log_softmax(-1)

    def expected(estimate):
        log_p = logits.log_softmax(-1)
        total = (log_p.detach().exp() * estimate(log_p, log_q)).sum()
        return torch.autograd.grad(total, logits)[0]

    (reverse,) = torch.autograd.grad(kl.exact(logits, reference), logits)
    (forward,) = torch.autograd.grad(kl.exact(reference, logits), logits)
    torch.testing.assert_close(expected(kl.k2), reverse)
    torch.testing.assert_close(expected(kl.loss), reverse)
    torch.testing.assert_close(expected(kl.k3), forward)
    torch.testing.assert_close(expected(kl.k1), torch.zeros_like(reverse))
    assert (forward - reverse).abs().max() > 0.05


def test_exact_kl_of_excluded_ids():
    inf = float("inf")
    half = torch.tensor([0.0, 0.0, -inf], dtype=torch.float64)
    whole = torch.zeros(3, dtype=torch.float64)
    assert kl.exact(half, whole).item() == pytest.approx(math.log(1.5))
    assert kl.exact(half, half).item() == 0
    assert kl.exact(whole, half).item() == inf


def test_the_penalty_stands_on_learned_tokens_only():
    per_token = torch.tensor([[0.5, -0.25, 2.0]], requires_grad=True)
    learn = torch.tensor([[False, True, True]])
    penalty = kl.reward_penalty(per_token, 0.1, learn)
    torch.testing.assert_close(penalty, torch.tensor([[0.0, 0.025, -0.2]]))
    assert not penalty.requires_grad
    with pytest.raises(ConfigError, match="0 or above"):
        kl.reward_penalty(per_token, -0.1, learn)


@pytest.mark.parametrize(("kl_over_target", "sign"), [(2.0, 1), (1.0, 0), (0.0, -1), (9.0, 1)])
@pytest.mark.parametrize(
    ("options", "rate"), [({"gain": 0.1}, 0.1), ({"horizon": 10_000}, 512 / 10_000)]
)
def test_adaptive_step_response(options, rate, kl_over_target, sign):
    """KL held at a multiple of the target: error clips to 0.2, so each batch multiplies the
    coefficient by 1 + 0.2 rate; 1.02 for the paper's gain, 1.01024 for the code at batch 512."""
    controller = kl.AdaptiveController(0.15, 6.0, **options)
    for batch in range(1, 6):
        error = controller.update(6.0 * kl_over_target, 512)
        assert error == pytest.approx(0.2 * sign)
        assert controller.coef == pytest.approx(0.15 * (1 + 0.2 * rate * sign) ** batch)


@pytest.mark.parametrize(("options", "batches"), [({"gain": 0.1}, 36), ({"horizon": 1e4}, 69)])
def test_batches_to_double_the_coefficient(options, batches):
    controller = kl.AdaptiveController(1.0, 6.0, **options)
    count = 0
    while controller.coef < 2.0:
        controller.update(1.2 * 6.0, 512)
        count += 1
    # ln 2 / ln(1.02) = 35.003 and ln 2 / ln(1.01024) = 68.04, rounded up.
    assert count == batches


def test_small_errors_are_not_clipped():
    controller = kl.AdaptiveController(1.0, 10.0, gain=0.1)
    assert controller.update(10.5, 1) == pytest.approx(0.05)
    assert controller.coef == pytest.approx(1.005)


def test_a_kl_that_is_not_finite_never_reaches_the_coefficient():
    controller = kl.AdaptiveController(1.0, 10.0, gain=0.1)
    with pytest.raises(DataError, match="finite"):
        controller.update(float("nan"), 1)
    assert controller.coef == 1.0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"horizon": 10, "gain": 0.1},
        {"gain": 0.0},
        {"horizon": -1},
        {"gain": 0.1, "coef": 0.0},
        {"gain": 0.1, "target": 0.0},
    ],
)
def test_impossible_controllers_are_refused(options):
    with pytest.raises(ConfigError):
        kl.AdaptiveController(**{"coef": 0.1, "target": 6.0, **options})


def test_controllers_continue_from_their_state():
    first = kl.AdaptiveController(0.15, 6.0, gain=0.1)
    first.update(12.0, 8)
    saved = json.loads(json.dumps(first.state()))
    second = kl.AdaptiveController(0.15, 6.0, gain=0.1).load_state(saved)
    assert second.update(3.0, 8) == first.update(3.0, 8)
    assert second.coef == first.coef
    fixed = kl.FixedController(0.05)
    assert fixed.update(100.0, 8) is None
    assert kl.FixedController(1.0).load_state(fixed.state()).coef == 0.05


def test_diagnosis_is_silent_on_samples_of_the_policy():
    assert kl.diagnose(0.5, 0.5, 0.1) is None
    assert kl.diagnose(-0.29, 0.0, 0.1) is None


def test_diagnosis_names_the_swap_that_made_the_kl_negative():
    """Tokens drawn from the reference: mean k1 = -KL(q||p), and k3 is about its size."""
    logits, reference = _tabular()
    log_q = reference.log_softmax(-1)
    log_p = (0.8 * reference + 0.2 * logits.detach()).log_softmax(-1)
    q = log_q.exp()
    k1, k3 = (q * kl.k1(log_p, log_q)).sum(), (q * kl.k3(log_p, log_q)).sum()
    sentence = kl.diagnose(k1.item(), k3.item(), 1e-4)
    assert sentence is not None
    assert "swapped" in sentence


def test_diagnosis_uses_the_evidence_it_is_given():
    sentence = kl.diagnose(-1.0, 0.1, 0.1, behaviour_gap=0.2, truncated_sampling=True)
    assert "0.2 nats a token" in sentence
    assert "top-k or top-p" in sentence
    assert "did not choose" in kl.diagnose(-1.0, 30.0, 0.1)
    assert "temperature" in kl.diagnose(-1.0, 0.1, 0.1)
