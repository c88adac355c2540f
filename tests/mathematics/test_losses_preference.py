"""Losses of pairs and of single replies: soft labels, optima, sorted losses, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from heed.errors import ConfigError, DataError
from heed.losses import preference as pairs
from heed.losses import reference_free as free
from heed.losses import replies, unpaired

BETA = 0.1


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# -- soft labels ----------------------------------------------------------------------------------

SOFT: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "dpo": lambda w, x, p: pairs.dpo(w, x, 0.3, p),
    "cdpo": lambda w, x, p: pairs.dpo(w, x, 0.3, p, label_smoothing=0.1),
    "robust": lambda w, x, p: pairs.robust(w, x, 0.3, 0.1, p),
    "hinge": lambda w, x, p: pairs.hinge(w, x, 0.3, p),
    "ipo": lambda w, x, p: pairs.ipo(w, x, 0.3, p),
    "exo": lambda w, x, p: pairs.exo(w, x, 0.3, 0.01, p),
    "nca": lambda w, x, p: pairs.nca(w, x, 0.3, p),
    "bco_pair": lambda w, x, p: pairs.bco_pair(w, x, 0.3, p),
    "sppo": lambda w, x, p: pairs.sppo(w, x, 0.3, p),
    "apo_zero": lambda w, x, p: pairs.apo_zero(w, x, 0.3, p),
    "apo_down": lambda w, x, p: pairs.apo_down(w, x, 0.3, p),
    "discopop": lambda w, x, p: pairs.discopop(w, x, 0.3, 0.05, p),
    "tdpo1": lambda w, x, p: pairs.tdpo(w, x, w.square(), x.square(), 0.3, None, p),
    "tdpo2": lambda w, x, p: pairs.tdpo(w, x, w.square(), x.square(), 0.3, 0.5, p),
    "simpo": lambda w, x, p: free.simpo(w, x, 2.0, 0.7, p),
    "odds": lambda w, x, p: free.odds_ratio(-w.exp(), -x.exp(), p),
}


@pytest.mark.parametrize("name", SOFT)
def test_a_turned_pair_with_the_other_probability_is_the_same(name: str) -> None:
    loss, p = SOFT[name], vector(0.5, 0.9, 0.0, 0.3)
    w, x = vector(0.3, -1.0, 2.0, 0.1), vector(-0.2, 0.4, 0.6, 0.8)
    torch.testing.assert_close(loss(w, x, p), loss(x, w, 1 - p))
    torch.testing.assert_close(loss(w, x, torch.ones_like(p)), loss(w, x, None))


@pytest.mark.parametrize("name", [name for name in SOFT if name not in ("sppo", "exo")])
def test_a_soft_label_is_the_mean_over_hard_ones(name: str) -> None:
    """What labellers who disagree give on average; but for a constant in SPPO, and EXO's KL."""
    loss, p = SOFT[name], vector(0.8)
    w, x, one = vector(0.3), vector(-0.2), vector(1.0)
    found = loss(w, x, p)
    torch.testing.assert_close(found, 0.8 * loss(w, x, one) + 0.2 * loss(w, x, 0 * one))


def test_soft_sppo_is_the_mean_but_for_a_constant() -> None:
    p = vector(0.8)
    gaps = [
        pairs.sppo(w, x, 0.3, p) - 0.8 * pairs.sppo(w, x, 0.3) - 0.2 * pairs.sppo(x, w, 0.3)
        for w, x in ((vector(0.3), vector(-0.2)), (vector(2.0), vector(1.5)))
    ]
    torch.testing.assert_close(gaps[0], gaps[1])


@pytest.mark.parametrize("name", ["dpo", "ipo", "hinge", "nca", "sppo", "discopop", "simpo"])
def test_a_tie_favours_neither_side(name: str) -> None:
    w, x = vector(0.4).requires_grad_(), vector(0.4).requires_grad_()
    SOFT[name](w, x, vector(0.5)).sum().backward()
    assert w.grad is not None
    assert x.grad is not None
    torch.testing.assert_close(w.grad, x.grad)


@pytest.mark.parametrize(
    ("loss", "optimum"),
    [
        (lambda gap, p: pairs.dpo(gap, 0 * gap, 0.3, p), lambda p: p.logit() / 0.3),
        (lambda gap, p: pairs.ipo(gap, 0 * gap, 0.3, p), lambda p: (p - 0.5) / 0.3),
        (
            lambda gap, p: pairs.dpo(gap, 0 * gap, 0.3, p, label_smoothing=0.1),
            lambda p: (0.8 * p + 0.1).logit() / 0.3,
        ),
        (
            lambda gap, p: pairs.exo(gap, 0 * gap, 0.3, 0.1, p),
            lambda p: (0.8 * p + 0.1).logit() / 0.3,
        ),
        # Labels flipped with rate 0.1: the loss that knows it finds the clean optimum.
        (
            lambda gap, p: pairs.robust(gap, 0 * gap, 0.3, 0.1, 0.8 * p + 0.1),
            lambda p: p.logit() / 0.3,
        ),
    ],
)
def test_the_optimum_of_one_pair(loss: Callable, optimum: Callable) -> None:
    p = vector(0.25, 0.5, 0.7, 0.9)
    gap = optimum(p).requires_grad_()
    loss(gap, p).sum().backward()
    assert gap.grad is not None
    torch.testing.assert_close(gap.grad, torch.zeros_like(p), atol=1e-12, rtol=0)
    for step in (-0.1, 0.1):
        assert bool((loss(gap.detach() + step, p) > loss(gap.detach(), p)).all())


@pytest.mark.parametrize("tau", [0.05, (1 - math.log(2)) / 3, 0.5])
def test_discopop_begins_upwards_where_tau_is_small(tau: float) -> None:
    """Slope of the loss by beta Delta where the policy is the reference."""
    gap = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    pairs.discopop(gap, torch.zeros_like(gap), 1.0, tau).sum().backward()
    assert gap.grad is not None
    assert gap.grad.item() == pytest.approx((1 - math.log(2)) / (4 * tau) - 0.75, abs=1e-12)
    assert (tau < 0.1) == (gap.grad.item() > 1e-9)


def test_cdpo_stops_where_the_notes_say() -> None:
    for e, stop in ((0.05, 2.944), (0.1, 2.197), (0.2, 1.386), (0.3, 0.847)):
        gap = vector(stop / BETA).requires_grad_()
        pairs.dpo(gap, vector(0.0), BETA, label_smoothing=e).sum().backward()
        assert gap.grad is not None
        torch.testing.assert_close(gap.grad, vector(0.0), atol=1e-5, rtol=0)


# -- whole-batch losses ---------------------------------------------------------------------------


def test_sorted_losses_equal_the_sorted_formulas_in_value_and_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randn(7, dtype=torch.float64, generator=generator) for _ in range(4)]
    sides = [t.clone().requires_grad_() for t in draw[:2]]
    again = [t.clone().requires_grad_() for t in draw[:2]]

    def smoothed(z: Tensor) -> Tensor:
        return pairs.aot(z, 0 * z, 0.5, 0.1).sum()

    def gradients(total: Tensor, of: list[Tensor]) -> Tensor:
        return torch.cat(torch.autograd.grad(total, of))

    u = (sides[0] - sides[1]).sort().values
    plain = smoothed(u - (draw[2] - draw[3]).sort().values)
    spread = again[0] - again[1]
    partner = pairs.same_rank(spread.detach(), draw[2] - draw[3])
    ours = pairs.aot(spread, partner, 0.5, 0.1).sum()
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(gradients(ours, again), gradients(plain, sides))

    plain = smoothed(sides[0].sort().values - sides[1].sort().values)
    a, b = again
    partners = pairs.same_rank(a.detach(), b.detach()), pairs.same_rank(b.detach(), a.detach())
    ours = pairs.aot_unpaired(a, b, *partners, 0.5, 0.1).sum()
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(gradients(ours, again), gradients(plain, sides))


# -- single replies -------------------------------------------------------------------------------


def test_golden_kto_and_bco() -> None:
    a_w, a_l = vector(2, -2).requires_grad_(), vector(-1, 1).requires_grad_()
    good, bad = torch.ones(2), torch.zeros(2)
    table = [
        (unpaired.kto(a_w, good, 0.3, BETA), a_w, [0.457602, 0.557248, -0.024820, -0.024672]),
        (unpaired.kto(a_l, bad, 0.3, BETA), a_l, [0.467546, 0.517493, 0.024895, 0.024969]),
        (unpaired.bco(a_w, good, 0.05, BETA), a_w, [0.620957, 0.825939, -0.046257, -0.056218]),
        (unpaired.bco(a_l, bad, 0.05, BETA), a_l, [0.620957, 0.718460, 0.046257, 0.051250]),
    ]
    for values, side, expected in table:
        (gradient,) = torch.autograd.grad(values.sum(), side)
        found = torch.cat([values.detach(), gradient])
        torch.testing.assert_close(found, vector(*expected), atol=1e-6, rtol=0)


def test_ktos_pull_is_largest_at_the_baseline_and_symmetric() -> None:
    a = torch.linspace(-20, 20, 41, dtype=torch.float64) + 0.7
    a.requires_grad_()
    for label in (1.0, 0.0):
        values = unpaired.kto(a, torch.full((41,), label), 0.7, 0.3)
        (pull,) = torch.autograd.grad(values.sum(), a)
        torch.testing.assert_close(pull, pull.flip(0))
        assert int(pull.abs().argmax()) == 20


def test_kto_weights_baseline_and_soft_labels() -> None:
    a, p = vector(1.0, -2.0), vector(0.3, 0.3)
    mixed = unpaired.kto(a, p, 0.2, 0.5, 1.5, 0.5)
    good = unpaired.kto(a, torch.ones(2), 0.2, 0.5)
    bad = unpaired.kto(a, torch.zeros(2), 0.2, 0.5)
    torch.testing.assert_close(mixed, 0.3 * 1.5 * good + 0.7 * 0.5 * bad)
    torch.testing.assert_close(unpaired.kto_baseline(vector(1.0, 2.0)), torch.tensor(1.5).double())
    assert float(unpaired.kto_baseline(vector(-1.0, 0.5))) == 0.0  # never below 0
    torch.testing.assert_close(
        unpaired.kto(a, torch.ones(2), 0.0, 0.5), 1 - (0.5 * a).sigmoid()
    )  # APO-zero


# -- numbers of a reply ---------------------------------------------------------------------------


def test_length_weights_keep_the_shared_beginning() -> None:
    learn = torch.tensor([[0, 1, 1, 1, 1], [0, 0, 1, 1, 0]], dtype=torch.bool)
    weights = replies.length_weights(learn, torch.tensor([2, 2]), 0.25)
    expected = [[0, 1, 1, 0.25, 0.25], [0, 0, 1, 1, 0]]
    torch.testing.assert_close(weights, torch.tensor(expected))


def test_divergences_agree_to_first_order_and_do_not_overflow() -> None:
    a = vector(-1e-4, 0.0, 1e-4)
    for name in ("forward_kl", "js_divergence", "alpha_divergence"):
        bent_ratio = replies.bend(a, name)  # type: ignore[arg-type]
        slope = 0.5 if name == "js_divergence" else 1.0
        torch.testing.assert_close(bent_ratio, slope * a, atol=1e-7, rtol=0)
        wide = replies.bend(torch.tensor([-500.0, 500.0]), name)  # type: ignore[arg-type]
        assert bool(torch.isfinite(wide).all())
    assert torch.equal(replies.bend(a, "alpha_divergence", 1.0), a)


def test_wpo_weights_with_and_without_the_authors_clamp() -> None:
    """TRL does not clamp: a pair that the policy is surer of than of its samples counts more."""
    w, x = vector(0.2, -1.0), vector(0.3, -0.5)
    torch.testing.assert_close(replies.wpo_weights(w, x), vector(1.0, math.exp(-1.5)))
    unclamped = replies.wpo_weights(w, x, clamped=False)
    torch.testing.assert_close(unclamped, vector(math.exp(0.5), math.exp(-1.5)))
    learn = torch.tensor([[False, True, True], [False, False, False]])
    logprobs = torch.tensor([[9.0, -1.0, -3.0], [9.0, 9.0, 9.0]])
    found = replies.alignment(logprobs, -torch.ones(2, 3), learn)
    torch.testing.assert_close(found, torch.tensor([-1.0, 0.0]))


def test_tdpo_as_printed() -> None:
    w, x, kw, kl = vector(0.5), vector(-0.4), vector(0.3).requires_grad_(), vector(0.8)
    first = pairs.tdpo(w, x, kw, kl, 0.5)
    second = pairs.tdpo(w, x, kw, kl, 0.5, 0.7)
    logsig = torch.nn.functional.logsigmoid
    torch.testing.assert_close(first.detach(), -logsig(vector(0.5 * (0.9 - 0.5))))
    torch.testing.assert_close(second.detach(), -logsig(vector(0.5 * (0.9 - 0.7 * 0.5))))
    (pull,) = torch.autograd.grad(first.sum(), kw)
    assert float(pull) < 0  # TDPO1 lets chosen drift
    assert torch.autograd.grad(second.sum() + 0 * kw.sum(), kw)[0] == 0  # TDPO2 does not ask it to


def test_alphapo_is_simpo_in_the_limit_and_log_odds_are_exact_near_zero() -> None:
    m = vector(-2.0, -0.3)
    torch.testing.assert_close(free.alpha_reward(m, 0.0), m)
    torch.testing.assert_close(free.alpha_reward(m, 1e-7), m, atol=1e-6, rtol=0)
    torch.testing.assert_close(free.alpha_reward(m, 0.25), (1 - m.exp() ** -0.25) / 0.25)
    x = torch.tensor([-1e-6, -0.69, -0.7, -40.0], dtype=torch.float64).requires_grad_()
    found = free.log_odds(x)
    torch.testing.assert_close(found, x - torch.log(-torch.expm1(x)))
    (slope,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(slope, -1 / torch.expm1(x.detach()))


# -- bad input ------------------------------------------------------------------------------------


def test_impossible_numbers_are_refused() -> None:
    a, b = vector(0.0, 1.0), vector(1.0, 2.0)
    for call, words in (
        (lambda: pairs.dpo(a, b, 0.0), "beta is 0.0"),
        (lambda: pairs.robust(a, b, 0.1, 0.5), "label_smoothing is 0.5"),
        (lambda: pairs.exo(a, b, 0.1, 0.0), "such as 0.001"),
        (lambda: pairs.discopop(a, b, 0.1, 0.0), "discopop_tau"),
        (lambda: replies.length_weights(torch.ones(1, 2).bool(), a[:1], 1.5), "ld_alpha is 1.5"),
        (lambda: replies.bend(a, "kl"), "reverse_kl"),  # type: ignore[arg-type]
        (lambda: free.simpo(a, b, -1.0, 0.5), "beta is -1.0"),
        (lambda: unpaired.kto(a, b / 2, 0.0, 0.0), "beta is 0.0"),
    ):
        with pytest.raises(ConfigError, match=words):
            call()
    for call, words in (
        (lambda: pairs.ipo(a, b[:1], 0.1), r"\(2,\), \(1,\)"),
        (lambda: pairs.nca(a, b, 0.1, 2 * b), "outside"),
        (lambda: unpaired.bco(a, b, 0.0, 0.1), "outside"),
        (lambda: unpaired.bco(a, b[:1], 0.0, 0.1), r"\(1,\)"),
    ):
        with pytest.raises(DataError, match=words):
            call()
