"""Losses of pairs: golden values and gradients, finite differences, values at the origin.

The golden table is in float64 for two pairs: log-probabilities chosen (-20, -35) and rejected
(-25, -30), of the reference (-22, -33) and (-24, -31), 10 and 20 against 12 and 15 tokens, beta
0.1. Half of its rows come from TRL's own loss block, the rest from the printed formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from heed.algorithms.preference_pairs import Pairs, Reply
from heed.algorithms.preference_rows import ROWS
from heed.algorithms.preference_settings import PairLossSettings
from heed.losses import preference as pairs
from heed.losses import reference_free as free
from heed.losses import replies

BETA = 0.1


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


CHOSEN, REJECTED = vector(-20, -35), vector(-25, -30)
REF_CHOSEN, REF_REJECTED = vector(-22, -33), vector(-24, -31)
CHOSEN_TOKENS, REJECTED_TOKENS = vector(10, 20), vector(12, 15)

Loss = Callable[[Tensor, Tensor], Tensor]


def ratios(loss: Callable[..., Tensor], **how: object) -> Loss:
    """A loss of log-ratios as one of log-probabilities."""
    return lambda w, x: loss(w - REF_CHOSEN, x - REF_REJECTED, BETA, **how)


def means(loss: Callable[..., Tensor], *how: object) -> Loss:
    return lambda w, x: loss(w / CHOSEN_TOKENS, x / REJECTED_TOKENS, *how)


def mean_ratios(loss: Callable[..., Tensor]) -> Loss:
    def found(w: Tensor, x: Tensor) -> Tensor:
        return loss((w - REF_CHOSEN) / CHOSEN_TOKENS, (x - REF_REJECTED) / REJECTED_TOKENS, BETA)

    return found


def bent(divergence: str) -> Loss:
    def found(w: Tensor, x: Tensor) -> Tensor:
        sides = [replies.bend(a, divergence) for a in (w - REF_CHOSEN, x - REF_REJECTED)]  # type: ignore[arg-type]
        return pairs.dpo(*sides, BETA)

    return found


def aot(w: Tensor, x: Tensor) -> Tensor:
    spread, reference = w - x, REF_CHOSEN - REF_REJECTED
    return pairs.aot(spread, pairs.same_rank(spread.detach(), reference), BETA)


def aot_unpaired(w: Tensor, x: Tensor) -> Tensor:
    a, b = w - REF_CHOSEN, x - REF_REJECTED
    partners = pairs.same_rank(a, b), pairs.same_rank(b, a)
    return pairs.aot_unpaired(a, b, *partners, BETA)


GOLDEN: dict[str, tuple[Loss, list[float]]] = {
    "sigmoid": (
        ratios(pairs.dpo),
        [0.554355, 0.854355, -0.042556, -0.057444, 0.042556, 0.057444],
    ),
    "cdpo": (
        ratios(pairs.dpo, label_smoothing=0.1),
        [0.584355, 0.824355, -0.032556, -0.047444, 0.032556, 0.047444],
    ),
    "robust": (
        ratios(pairs.robust, label_smoothing=0.1),
        [0.516855, 0.891855, -0.055056, -0.069944, 0.055056, 0.069944],
    ),
    "hinge": (ratios(pairs.hinge), [0.7, 1.3, -0.1, -0.1, 0.1, 0.1]),
    "ipo, sums": (ratios(pairs.ipo), [4.0, 64.0, -4.0, -16.0, 4.0, 16.0]),
    "ipo, means": (
        mean_ratios(pairs.ipo),
        [22.246944, 26.694444, -0.943333, -0.516667, 0.786111, 0.688889],
    ),
    "exo": (
        ratios(pairs.exo, label_smoothing=1e-3),
        [2.258199, 3.286512, -0.161508, -0.176175, 0.161508, 0.176175],
    ),
    "nca": (
        ratios(pairs.nca),
        [1.319407, 1.469407, -0.017525, -0.032475, 0.023751, 0.026249],
    ),
    "bco_pair": (
        ratios(pairs.bco_pair),
        [1.242536, 1.542536, -0.045017, -0.054983, 0.047502, 0.052498],
    ),
    "sppo_hard": (ratios(pairs.sppo), [25.0, 85.0, -6.0, -14.0, 8.0, 12.0]),
    "apo_zero": (
        ratios(pairs.apo_zero),
        [0.925187, 1.074813, -0.024752, -0.024752, 0.024938, 0.024938],
    ),
    "apo_down": (
        ratios(pairs.apo_down),
        [0.975391, 1.024609, 0.000306, 0.000306, 0.024446, 0.024446],
    ),
    "discopop": (
        ratios(pairs.discopop),
        [0.740357, 0.855580, -0.073084, -0.055192, 0.073084, 0.055192],
    ),
    "sigmoid_norm": (
        mean_ratios(pairs.dpo),
        [0.679081, 0.701515, -0.004929, -0.002521, 0.004108, 0.003361],
    ),
    # The table has these in sorted order: the smallest spread, pair 2, first.
    "aot": (aot, [0.554355, 0.854355, -0.042556, -0.057444, 0.042556, 0.057444]),
    "aot_unpaired": (
        aot_unpaired,
        [0.644397, 0.744397, -0.047502, -0.052498, 0.052498, 0.047502],
    ),
    "forward_kl": (
        bent("forward_kl"),
        [0.572316, 1.104602, -0.005898, -0.494074, 0.118458, 0.024599],
    ),
    "js_divergence": (
        bent("js_divergence"),
        [0.635589, 0.787937, -0.005607, -0.048023, 0.034387, 0.014663],
    ),
    "alpha_divergence": (
        bent("alpha_divergence"),
        [0.573243, 0.926456, -0.016051, -0.164197, 0.071935, 0.036637],
    ),
    "cpo": (
        lambda w, x: pairs.dpo(w, x, BETA),
        [0.474077, 0.974077, -0.037754, -0.062246, 0.037754, 0.062246],
    ),
    "simpo": (
        means(free.simpo, 2.0, 1.0),
        [1.194218, 0.974077, -0.139412, -0.062246, 0.116177, 0.082995],
    ),
    "orpo, odds": (
        lambda w, x: 0.1 * means(free.odds_ratio)(w, x),
        [0.064641, 0.055628, -0.005506, -0.002582, 0.004532, 0.003290],
    ),
    "slic": (lambda w, x: pairs.hinge(w, x, 1.0), [0.0, 6.0, 0.0, -1.0, 0.0, 1.0]),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values_and_gradients(name: str) -> None:
    loss, (one, two, *gradients) = GOLDEN[name]
    w, x = CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_()
    values = loss(w, x)
    torch.testing.assert_close(values.detach(), vector(one, two), atol=1e-6, rtol=0)
    values.sum().backward()
    assert w.grad is not None
    assert x.grad is not None
    found = torch.cat([w.grad, x.grad])
    torch.testing.assert_close(found, vector(*gradients), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", GOLDEN)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """At another point than the golden one, away from the kinks of the hinges and of the ranks."""
    loss = GOLDEN[name][0]
    shifts = vector(0.37, -0.21), vector(-0.43, 0.64)
    w = (CHOSEN + shifts[0]).requires_grad_()
    x = (REJECTED + shifts[1]).requires_grad_()
    total = loss(w, x).sum() if not name.startswith("aot_") else _sorted_total(w, x)
    total.backward()
    for side, other, first in ((w, x, True), (x, w, False)):
        assert side.grad is not None
        for i in range(2):
            step = torch.zeros_like(side)
            step[i] = 1e-5
            ends = [
                (loss(x, other) if first else loss(other, x)).sum().item()
                for x in (side.detach() + step, side.detach() - step)
            ]
            slope = (ends[0] - ends[1]) / 2e-5
            assert side.grad[i].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


def _sorted_total(w: Tensor, x: Tensor) -> Tensor:
    return aot_unpaired(w, x).sum()


# -- sums with a likelihood, as the table of losses makes them ------------------------------------


def test_rpo_is_dpo_and_the_likelihood_of_the_chosen_reply_by_its_tokens() -> None:
    """DPO's golden values, plus 1.5 times 20 / 10 and 35 / 20 nats a token."""
    w, x = CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_()
    sides = (
        Reply(w, w, CHOSEN_TOKENS, REF_CHOSEN), Reply(x, x, REJECTED_TOKENS, REF_REJECTED),
    )  # fmt: skip
    config = PairLossSettings(loss_type="rpo", rpo_alpha=1.5)
    found = ROWS["rpo"].values(Pairs(*sides, None, {}), config, BETA)
    assert found.tolist() == pytest.approx([0.554355 + 3.0, 0.854355 + 2.625], abs=1e-6)
    found.sum().backward()
    assert w.grad is not None
    assert x.grad is not None
    golden = GOLDEN["sigmoid"][1]
    expected = [golden[2] - 1.5 / 10, golden[3] - 1.5 / 20]
    assert w.grad.tolist() == pytest.approx(expected, abs=1e-6)
    assert x.grad.tolist() == pytest.approx(golden[4:], abs=1e-6)


# -- at the origin, where the policy is the reference ---------------------------------------------

ORIGINS: dict[str, tuple[Loss, float]] = {
    "sigmoid": (lambda w, x: pairs.dpo(w, x, 0.3), math.log(2)),
    "cdpo": (lambda w, x: pairs.dpo(w, x, 0.3, label_smoothing=0.2), math.log(2)),
    "robust": (lambda w, x: pairs.robust(w, x, 0.3, 0.2), math.log(2)),
    "hinge": (lambda w, x: pairs.hinge(w, x, 0.3), 1.0),
    "nca": (lambda w, x: pairs.nca(w, x, 0.3), 2 * math.log(2)),
    "bco_pair": (lambda w, x: pairs.bco_pair(w, x, 0.3), 2 * math.log(2)),
    "apo_zero": (lambda w, x: pairs.apo_zero(w, x, 0.3), 1.0),
    "apo_down": (lambda w, x: pairs.apo_down(w, x, 0.3), 1.0),
    "ipo": (lambda w, x: pairs.ipo(w, x, 0.1), 25.0),
    "sppo_hard": (lambda w, x: pairs.sppo(w, x, 0.1), 50.0),
    "exo": (
        lambda w, x: pairs.exo(w, x, 0.3, 1e-3),
        -0.5 * math.log(1e-3 * (1 - 1e-3)) - math.log(2),
    ),
    "discopop": (lambda w, x: pairs.discopop(w, x, 0.3), 0.5 * (math.log(2) + 1)),
    "tdpo1": (lambda w, x: pairs.tdpo(w, x, 0 * w, 0 * x, 0.3), math.log(2)),
    "aot": (lambda w, x: pairs.aot(w - x, 0 * w, 0.3, 0.1), math.log(2)),
    "aot_unpaired": (lambda w, x: pairs.aot_unpaired(w, x, 0 * w, 0 * w, 0.3), math.log(2)),
    **{
        name: (
            lambda w, x, n=name: pairs.dpo(*(replies.bend(a, n) for a in (w, x)), 0.3),
            math.log(2),
        )
        for name in ("forward_kl", "js_divergence", "alpha_divergence")
    },
}


@pytest.mark.parametrize("name", ORIGINS)
def test_the_origin_has_the_known_value(name: str) -> None:
    loss, value = ORIGINS[name]
    torch.testing.assert_close(loss(vector(0, 0), vector(0, 0)), vector(value, value))


def test_which_way_each_side_is_pushed_at_the_origin() -> None:
    """APO-down has no pull on chosen there, and pushes it down once the pair is right."""
    for a, sign in ((0.0, 0), (1.0, 1)):
        w = vector(a).requires_grad_()
        pairs.apo_down(w, vector(-a), 0.3).sum().backward()
        assert w.grad is not None
        assert float(w.grad.sign()) == sign
    w = vector(math.log(2) / 0.3).requires_grad_()
    pairs.nca(w, vector(0.0), 0.3).sum().backward()
    assert w.grad is not None
    torch.testing.assert_close(w.grad, vector(0.0))  # NCA's finite height of chosen: beta a = log 2
