"""The price of a cost: derived arithmetic, its fixed point, its bounds, and bad input."""

from __future__ import annotations

import math

import pytest
import torch

from heed.errors import ConfigError, DataError
from heed.lagrange import Multiplier, constrained_score


def test_the_priced_score() -> None:
    scores = torch.tensor([1.0, 2.0], dtype=torch.float64)
    costs = torch.tensor([0.5, -1.0], dtype=torch.float64)
    assert constrained_score(scores, costs, 2.0).tolist() == [0.0, 4.0]
    assert constrained_score(scores, costs, 2.0, rescale=True).tolist() == pytest.approx([0, 4 / 3])
    assert constrained_score(scores, costs, 0.0, rescale=True).tolist() == scores.tolist()


def test_a_step_of_the_logarithm() -> None:
    price = Multiplier(0.5, limit=0.2, lr=0.1)
    assert price.update(1.2) == pytest.approx(1.0)
    assert price.coef == pytest.approx(0.5 * math.exp(0.1 * 0.5 * 1.0))
    low = price.coef
    price.update(0.2)
    assert price.coef == low  # at the limit it stays
    price.update(-5.0)
    assert price.coef < low
    price.update(1e9)
    assert price.coef < 3 * low  # one batch changes it by e at most


def test_it_finds_the_price_at_which_the_cost_is_the_limit() -> None:
    """A policy whose cost falls with the price: cost = 2 - price, limit 0.5."""
    price = Multiplier(0.1, limit=0.5, lr=0.2)
    for _ in range(400):
        price.update(2.0 - price.coef)
    assert price.coef == pytest.approx(1.5, abs=1e-3)


def test_the_largest_price_and_the_state() -> None:
    price = Multiplier(1.0, limit=0.0, lr=1.0, most=2.0)
    for _ in range(9):
        price.update(3.0)
    assert price.coef == 2.0
    assert Multiplier(1.0, 0.0, 1.0).load_state(price.state()).coef == 2.0


@pytest.mark.parametrize("bad", [{"coef": 0.0}, {"lr": -1.0}, {"most": 0.5}])
def test_numbers_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected above 0"):
        Multiplier(**({"coef": 1.0, "limit": 0.0, "lr": 0.1} | bad))


def test_a_cost_that_is_no_number() -> None:
    with pytest.raises(DataError, match="mean cost is nan"):
        Multiplier(1.0, 0.0, 0.1).update(math.nan)
