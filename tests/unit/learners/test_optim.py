import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heed.learners.local import LocalLearner
from heed.learners.optim import (
    MasterWeights,
    clip_gradients,
    lr_at,
    make_optimizer,
    non_finite,
    set_rate,
)
from heed.models.heads import PolicyHead
from heed.settings import LearnerSettings, OptimSettings

from .conftest import causal, gradient, largest_difference, make_batch, token_loss


def one_step(gradient: float, settings: OptimSettings, steps: int = 1) -> list[float]:
    """How far a single weight moves in each step under a constant gradient."""
    weight = torch.zeros(1, dtype=torch.float64)
    optimizer = make_optimizer([weight], settings)
    moved = []
    for update in range(1, steps + 1):
        before = float(weight)
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        set_rate(optimizer, settings.lr, update, settings)
        optimizer.step()
        moved.append(before - float(weight))
    return moved


@pytest.mark.parametrize(("placement", "expected"), [("torch", 5.000e-6), ("tensorflow", 3.065e-7)])
def test_the_first_step_is_as_far_as_each_framework_moves(placement: str, expected: float) -> None:
    settings = OptimSettings(lr=1e-5, eps=1e-5, eps_placement=placement)
    assert one_step(1e-5, settings)[0] == pytest.approx(expected, rel=2e-4)


def test_the_gap_between_the_frameworks_closes_as_published() -> None:
    # Ratios of cumulated moves after 100 steps and of first moves, by size of the gradient.
    for size, first, later in ((1e-3, 1.30, 1.05), (1e-5, 16.3, 2.94), (1e-6, 28.8, 4.45)):
        moved = {
            placement: one_step(
                size, OptimSettings(lr=1e-5, eps=1e-5, eps_placement=placement), 100
            )
            for placement in ("torch", "tensorflow")
        }
        ratio = moved["torch"][0] / moved["tensorflow"][0]
        assert ratio == pytest.approx(first, rel=0.005)
        last = moved["torch"][-1] / moved["tensorflow"][-1]
        total = sum(moved["torch"]) / sum(moved["tensorflow"])
        assert min(abs(last / later - 1), abs(total / later - 1)) < 0.01


@given(
    size=st.floats(1e-6, 1.0),
    beta=st.floats(0.5, 0.9999),
    eps=st.floats(1e-8, 1e-3),
)
def test_tensorflows_formula_is_met_step_by_step(size: float, beta: float, eps: float) -> None:
    settings = OptimSettings(lr=0.01, eps=eps, betas=(0.9, beta), eps_placement="tensorflow")
    m = v = 0.0
    expected = []
    for t in range(1, 6):
        m = 0.9 * m + 0.1 * size
        v = beta * v + (1 - beta) * size**2
        rate = 0.01 * math.sqrt(1 - beta**t) / (1 - 0.9**t)
        expected.append(rate * m / (math.sqrt(v) + eps))
    assert one_step(size, settings, 5) == pytest.approx(expected, rel=1e-6)


def test_only_matrices_decay() -> None:
    matrix, vector = torch.ones(2, 3), torch.ones(3)
    settings = OptimSettings(lr=0.1, weight_decay=0.5)
    optimizer = make_optimizer([matrix, vector], settings)
    matrix.grad, vector.grad = torch.zeros(2, 3), torch.zeros(3)
    optimizer.step()
    torch.testing.assert_close(matrix, torch.full((2, 3), 1 - 0.1 * 0.5))
    assert torch.equal(vector, torch.ones(3))


def test_schedules_at_their_corners() -> None:
    def rates(schedule: str, warmup: float, total: int) -> list[float]:
        settings = OptimSettings(lr=2.0, schedule=schedule, warmup_frac=warmup)
        return [lr_at(step, total, settings) for step in range(total + 3)]

    assert rates("constant", 0.0, 3) == [2.0] * 6
    assert rates("linear", 0.0, 4) == pytest.approx([2.0, 1.5, 1.0, 0.5, 0, 0, 0])
    assert rates("linear", 0.2, 10)[:4] == pytest.approx([1.0, 2.0, 2.0, 1.75])
    assert rates("constant", 0.5, 4)[:4] == pytest.approx([1.0, 2.0, 2.0, 2.0])
    cosine = rates("cosine", 0.0, 4)
    assert cosine[0] == pytest.approx(2.0)
    assert cosine[2] == pytest.approx(2.0 * 0.55)
    assert cosine[4:] == pytest.approx([0.2] * 3)


@given(st.sampled_from(["constant", "linear", "cosine"]), st.floats(0, 0.9), st.integers(1, 300))
def test_every_step_of_a_run_has_a_rate_above_zero_and_never_above_the_peak(
    schedule: str, warmup: float, total: int
) -> None:
    settings = OptimSettings(lr=1.0, schedule=schedule, warmup_frac=warmup)
    rates = [lr_at(step, total, settings) for step in range(total)]
    assert all(0 < rate <= 1.0 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_clipping_scales_all_gradients_together() -> None:
    weights = [torch.zeros(3), torch.zeros(2, 2), torch.zeros(5)]
    weights[0].grad, weights[1].grad = torch.full((3,), 2.0), torch.full((2, 2), -1.0)
    assert clip_gradients(weights, 0.5) == pytest.approx(4.0)
    assert clip_gradients(weights, 0.0) == pytest.approx(0.5, rel=1e-4)
    assert weights[0].grad is not None
    assert weights[0].grad.tolist() == pytest.approx([0.25] * 3, rel=1e-4)
    assert weights[2].grad is None
    assert clip_gradients([torch.zeros(2)], 1.0) == 0.0


def test_clipping_leaves_sound_gradients_alone_where_the_norm_is_not_finite() -> None:
    weights = {"a": torch.zeros(3), "b": torch.zeros(2)}
    weights["a"].grad = torch.tensor([1.0, float("inf"), 2.0])
    weights["b"].grad = torch.ones(2)
    assert clip_gradients(weights.values(), 1.0) == float("inf")
    assert torch.equal(weights["b"].grad, torch.ones(2))
    assert non_finite(weights) == ["a"]


def test_masters_keep_steps_that_bf16_would_lose() -> None:
    parameter = torch.nn.Parameter(torch.ones(4))
    masters = MasterWeights({"w": parameter})
    optimizer = make_optimizer(masters.weights.values(), OptimSettings(lr=1e-4, eps=1e-12))
    for _ in range(100):
        parameter.sum().backward()
        assert parameter.grad is None
        optimizer.step()
        optimizer.zero_grad()
        masters.refresh()
    # Each step is below half the spacing of bf16 at 1, 2**-8, so rounding each would stay at 1.
    torch.testing.assert_close(masters.weights["w"], torch.full((4,), 0.99), atol=1e-5, rtol=0)
    assert parameter.dtype == torch.bfloat16
    assert torch.equal(parameter.detach(), masters.weights["w"].bfloat16())
    assert float(parameter[0].detach()) < 1


def test_masters_sum_micro_batches_in_fp32() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    masters = MasterWeights({"w": parameter})
    (parameter * 256.0).sum().backward()
    for _ in range(64):
        (parameter * 0.25).sum().backward()
    assert masters.weights["w"].grad is not None
    assert float(masters.weights["w"].grad) == 256.0 + 64 * 0.25


def test_bf16_stays_near_fp32() -> None:
    batch = make_batch(16, 2)
    size = {"hidden_size": 64, "num_layers": 2, "num_heads": 4}
    learners = {
        precision: LocalLearner(
            PolicyHead(causal(**size)),
            OptimSettings(lr=1e-3, schedule="constant", max_grad_norm=0.0),
            20,
            LearnerSettings(precision=precision, device="cpu", micro_batch_tokens=64),
        )
        for precision in ("fp32", "bf16")
    }
    exact, rounded = (learners[p].forward(batch).logprobs for p in ("fp32", "bf16"))
    assert exact is not None
    assert rounded is not None
    assert rounded.dtype == torch.float32
    difference = (exact - rounded)[batch.learn].abs()
    assert 0 < float(difference.mean()) < 5e-3
    assert float(difference.max()) < 3e-2
    for one in learners.values():
        one.backward(batch, token_loss, batch.num_learned)
    assert learners["bf16"]._masters is not None
    masters = {n: w.grad for n, w in learners["bf16"]._masters.weights.items()}
    assert largest_difference(gradient(learners["fp32"].head), masters) < 0.03
    losses = {name: [] for name in learners}
    for name, one in learners.items():
        one.step()
        for _ in range(15):
            terms = one.backward(batch, token_loss, batch.num_learned)
            losses[name].append(float(terms["loss"].sum()))
            one.step()
    assert losses["fp32"][-1] < 0.9 * losses["fp32"][0]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    for parameter in learners["bf16"].head.parameters():
        assert parameter.dtype == torch.bfloat16
    angles = [b for n, b in learners["bf16"].head.named_buffers() if "inv_freq" in n]
    assert angles
    assert all(b.dtype == torch.float32 for b in angles)
