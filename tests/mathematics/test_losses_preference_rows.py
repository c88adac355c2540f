"""Every row of the table of losses against its printed formula, in value and gradient, in float64.

The formulas stand here a second time, with floats and `math` alone, on the two pairs of the golden
table, and with settings that are nobody's default; their slopes are central differences.
`test_losses_preference_golden` holds the functions below the table to golden numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log

import pytest
import torch
from tests.mathematics.test_losses_preference_golden import (
    BETA,
    CHOSEN,
    CHOSEN_TOKENS,
    REF_CHOSEN,
    REF_REJECTED,
    REJECTED,
    REJECTED_TOKENS,
    vector,
)
from torch import Tensor

from heed.algorithms.preference_pairs import Pairs, Reply
from heed.algorithms.preference_rows import ROWS
from heed.algorithms.preference_settings import PairLossSettings

SETTINGS = PairLossSettings(
    label_smoothing=0.1, rdpo_alpha=0.05, alphapo_alpha=0.25, simpo_gamma=1.0, tdpo_alpha=0.3,
    slic_lambda=0.2, cpo_alpha=0.7, rpo_alpha=1.5, slic_delta=1.5, discopop_tau=0.2,
)  # fmt: skip
CHOSEN_KL, REJECTED_KL = [3.0, 1.0], [2.0, 5.0]
WIN = [0.8, 0.35]
"""Probabilities that the chosen reply wins, for the loss that fits them."""
C, R = REF_CHOSEN.tolist(), REF_REJECTED.tolist()
M, N = CHOSEN_TOKENS.tolist(), REJECTED_TOKENS.tolist()
MEAN_TOKENS = sum(M) / len(M)

Formula = Callable[[list[float], list[float], int], float]


def sig(z: float) -> float:
    return 1 / (1 + exp(-z))


def margin(w: list[float], x: list[float], i: int) -> float:
    """beta Delta."""
    return BETA * ((w[i] - C[i]) - (x[i] - R[i]))


def of_margin(loss: Callable[[float], float]) -> Formula:
    return lambda w, x, i: loss(margin(w, x, i))


def of_rewards(loss: Callable[[float, float], float]) -> Formula:
    return lambda w, x, i: loss(BETA * (w[i] - C[i]), BETA * (x[i] - R[i]))


def smooth(z: float, e: float = 0.1) -> float:
    return -(1 - e) * log(sig(z)) - e * log(sig(-z))


def exo(z: float, e: float = 0.1) -> float:
    p = sig(z)
    return p * (log(p) - log(1 - e)) + (1 - p) * (log(1 - p) - log(e))


def nca(a: float, b: float) -> float:
    return -log(sig(a)) - 0.5 * log(sig(-a)) - 0.5 * log(sig(-b))


def discopop(z: float) -> float:
    blend = sig(z / 0.2)
    return (1 - blend) * -log(sig(z)) + blend * exp(-z)


def means_margin(w: list[float], x: list[float], i: int) -> float:
    return (w[i] - C[i]) / M[i] - (x[i] - R[i]) / N[i]


def nll(w: list[float], i: int) -> float:
    return -w[i] / M[i]


def alpha_reward(mean: float, alpha: float = 0.25) -> float:
    return (1 - exp(mean) ** -alpha) / alpha


def log_odds(mean: float) -> float:
    return log(exp(mean) / (1 - exp(mean)))


def apo(a: float, b: float, *, down: bool) -> float:
    return sig(a) + 1 - sig(a - b) if down else 1 - sig(a) + sig(b)


def of_ranks(pairs: list[tuple[float, float]]) -> float:
    """The smallest with the smallest, and so on: the whole loss of both pairs."""
    return sum(smooth(BETA * (u - v)) for u, v in pairs)


def aot(w: list[float], x: list[float]) -> float:
    ours = sorted(a - b for a, b in zip(w, x, strict=True))
    theirs = sorted(a - b for a, b in zip(C, R, strict=True))
    return of_ranks(list(zip(ours, theirs, strict=True)))


def aot_unpaired(w: list[float], x: list[float]) -> float:
    chosen = sorted(a - b for a, b in zip(w, C, strict=True))
    rejected = sorted(a - b for a, b in zip(x, R, strict=True))
    return of_ranks(list(zip(chosen, rejected, strict=True)))


FORMULAS: dict[str, Formula] = {
    "sigmoid": of_margin(lambda z: -log(sig(z))),
    "cdpo": of_margin(smooth),
    "robust": of_margin(lambda z: (-0.9 * log(sig(z)) + 0.1 * log(sig(-z))) / 0.8),
    "hinge": of_margin(lambda z: max(0.0, 1 - z)),
    "ipo": lambda w, x, i: (means_margin(w, x, i) - 1 / (2 * BETA)) ** 2,
    "ipo_sum": of_margin(lambda z: (z / BETA - 1 / (2 * BETA)) ** 2),
    "exo_pair": of_margin(exo),
    "nca_pair": of_rewards(nca),
    "bco_pair": of_rewards(lambda a, b: -log(sig(a)) - log(sig(-b))),
    "sppo_hard": of_rewards(lambda a, b: (a / BETA - 5) ** 2 + (b / BETA + 5) ** 2),
    "sppo": lambda w, x, i: (
        (w[i] - C[i] - (WIN[i] - 0.5) / BETA) ** 2 + (x[i] - R[i] + (WIN[i] - 0.5) / BETA) ** 2
    ),
    "apo_zero": of_rewards(lambda a, b: apo(a, b, down=False)),
    "apo_down": of_rewards(lambda a, b: apo(a, b, down=True)),
    "discopop": of_margin(discopop),
    "sigmoid_norm": lambda w, x, i: -log(sig(BETA * means_margin(w, x, i))),
    "rpo": lambda w, x, i: -log(sig(margin(w, x, i))) + 1.5 * nll(w, i),
    "rdpo": lambda w, x, i: -log(sig(margin(w, x, i) + 0.05 * (M[i] - N[i]))),
    "tdpo1": lambda w, x, i: -log(sig(margin(w, x, i) - BETA * (REJECTED_KL[i] - CHOSEN_KL[i]))),
    "tdpo2": lambda w, x, i: (
        -log(sig(margin(w, x, i) - 0.3 * BETA * (REJECTED_KL[i] - CHOSEN_KL[i])))
    ),
    "slic": lambda w, x, i: max(0.0, 1.5 - w[i] + x[i]) - 0.2 * w[i],
    "cpo": lambda w, x, i: smooth(BETA * (w[i] - x[i])) - 0.7 * w[i] / MEAN_TOKENS,
    "simpo": lambda w, x, i: -log(sig(BETA * (w[i] / M[i] - x[i] / N[i]) - 1)),
    "alphapo": lambda w, x, i: (
        -log(sig(BETA * (alpha_reward(w[i] / M[i]) - alpha_reward(x[i] / N[i])) - 1))
    ),
    "orpo": lambda w, x, i: (
        nll(w, i) - BETA * log(sig(log_odds(w[i] / M[i]) - log_odds(x[i] / N[i])))
    ),
    "sft": lambda w, x, i: -w[i] / MEAN_TOKENS,
}
"""Row -> the loss of pair i."""
SORTED = {"aot": aot, "aot_unpaired": aot_unpaired}
"""Row -> the sum of both losses, which are of ranks and not of pairs."""


def through_the_table(name: str, w: Tensor, x: Tensor) -> Tensor:
    sides = (
        Reply(w, w, CHOSEN_TOKENS, REF_CHOSEN, vector(*CHOSEN_KL)),
        Reply(x, x, REJECTED_TOKENS, REF_REJECTED, vector(*REJECTED_KL)),
    )
    row, p = ROWS[name], vector(*WIN) if name == "sppo" else None
    whole = {"mean_tokens": vector(MEAN_TOKENS, MEAN_TOKENS)}
    if row.whole_batch is not None:
        whole |= row.whole_batch(Pairs(*sides, p, whole))
    whole = {key: value.detach() for key, value in whole.items()}
    return row.values(Pairs(*sides, p, whole), SETTINGS, BETA)


def test_every_row_has_its_formula_here() -> None:
    assert {*FORMULAS, *SORTED} == {*ROWS} - {"dpo"}
    assert ROWS["dpo"] is ROWS["sigmoid"]


@pytest.mark.parametrize("name", [*FORMULAS, *SORTED])
def test_value_and_gradient_are_those_of_the_formula(name: str) -> None:
    # Away from the kinks of the hinges and of the ranks.
    w = (CHOSEN + vector(0.37, -0.21)).requires_grad_()
    x = (REJECTED + vector(-0.43, 0.64)).requires_grad_()
    found = through_the_table(name, w, x)
    slopes = torch.autograd.grad(found.sum(), (w, x), materialize_grads=True)

    def total(numbers: list[float]) -> float:
        sides = numbers[:2], numbers[2:]
        if name in SORTED:
            return SORTED[name](*sides)
        return sum(FORMULAS[name](*sides, i) for i in range(2))

    point = [*w.tolist(), *x.tolist()]
    if name in FORMULAS:
        each = [FORMULAS[name](point[:2], point[2:], i) for i in range(2)]
        assert found.tolist() == pytest.approx(each, rel=1e-12)
    else:
        assert found.sum().item() == pytest.approx(total(point), rel=1e-12)
    for i, slope in enumerate(torch.cat(slopes).tolist()):
        ends = [total([v + (k == i) * step for k, v in enumerate(point)]) for step in (1e-5, -1e-5)]
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6, abs=1e-8)
