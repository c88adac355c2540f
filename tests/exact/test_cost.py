"""A cost held at a limit: the policy of the constrained optimum, in closed form.

    maximise E[r] - beta KL   subject to   E[c] <= limit
    policy = ref exp((r - lambda c) / beta) / Z, lambda >= 0 the least at which E[c] <= limit

and with the score rescaled by 1 / (1 + lambda), as Safe RLHF has it, the same with
beta (1 + lambda) in the place of beta, so that another lambda holds the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from tests.exact import tabular
from tests.exact.tabular import COMPLETIONS, TableScorer
from tests.exact.test_critic_free import config

from heed.feedback.base import Item
from heed.feedback.costed import CostedScorer
from heed.records import Sampling, Score
from heed.runs.run import Run
from heed.settings import OptimSettings
from heed.worlds.tabular import Tabular, total_variation

BETA = 0.5
PRICED = {"multiplier": 1.0, "multiplier_lr": 0.3}
CALM = {"multiplier_lr": 0.05, "updates": 500}
"""Where a completion costs much, as in seed 1, the price of large steps circles."""


def costs(seed: int) -> np.ndarray:
    """What each completion costs: what is rewarded is dear."""
    rewards = tabular.tables(seed)[2]
    noise = np.random.default_rng(seed).standard_normal(9)
    return 0.8 * rewards + 0.4 * noise


class CostTable(TableScorer):
    """The cost of each completion, looked up."""

    name = "costs"


def constrained(
    world: Tabular, cost: np.ndarray, limit: float, rescale: bool
) -> tuple[np.ndarray, float]:
    """The policy at the limit, and the price that holds it there."""

    def at(price: float) -> np.ndarray:
        scale = 1.0 + price if rescale else 1.0
        return Tabular(world.reference, (world.rewards - price * cost) / scale).optimum(BETA)

    if at(0.0) @ cost <= limit:
        return at(0.0), 0.0
    price = brentq(lambda x: at(x) @ cost - limit, 0.0, 100.0)
    return at(price), price


def bound(seed: int) -> tuple[Tabular, np.ndarray, float]:
    """A world, its costs, and a limit half-way from the reference's cost to the free optimum's."""
    first, second, rewards = tabular.tables(seed)
    world = tabular.world(tabular.TableHead(first, second).probabilities(), rewards)
    cost = costs(seed)
    return world, cost, float(0.5 * (world.optimum(BETA) + world.reference) @ cost)


def ended(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    limit: float,
    updates: int = 120,
    **cost: Any,
) -> tuple[np.ndarray, Tabular, float]:
    settings = config(
        folder,
        seed,
        preset="rloo",
        cost={"funcs": ["table"], "limit": limit, **PRICED, **cost},
        total_episodes=150 * updates,
        optim=OptimSettings(lr=0.1, max_grad_norm=0.0, schedule="cosine"),
    )
    table = costs(seed)

    class Both(CostedScorer):
        def __init__(self, rewards: np.ndarray) -> None:
            super().__init__(TableScorer(rewards), CostTable(table))

    monkeypatch.setattr(tabular, "TableScorer", Both)
    policy, reference, rewards = tabular.optimised(settings, seed)
    last = Run.open(folder).metrics()[-1]["cost/multiplier"]
    return policy, tabular.world(reference, rewards), last


@pytest.mark.parametrize(
    ("seed", "rescale", "how"),
    [(0, False, {}), pytest.param(2, False, {}, marks=pytest.mark.slow),
     pytest.param(0, True, {}, marks=pytest.mark.slow),
     pytest.param(1, False, CALM, marks=pytest.mark.slow)],
)  # fmt: skip
def test_the_constrained_optimum_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, rescale: bool, how: dict
) -> None:
    world, cost, limit = bound(seed)
    best, price = constrained(world, cost, limit, rescale)
    assert price > 0.1
    policy, _, last = ended(tmp_path / "run", monkeypatch, seed, limit, rescale=rescale, **how)
    assert total_variation(policy, best) < 0.02
    assert policy @ cost == pytest.approx(limit, abs=0.05)
    assert last == pytest.approx(price, rel=0.1)
    assert total_variation(policy, world.optimum(BETA)) > 0.05


@pytest.mark.slow
def test_a_limit_that_does_not_bind_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, rewards = tabular.tables(0)
    world = tabular.world(tabular.TableHead(first, second).probabilities(), rewards)
    limit = float(world.optimum(BETA) @ costs(0)) + 1.0
    policy, world, last = ended(
        tmp_path / "run", monkeypatch, 0, limit, rescale=False, multiplier=0.3
    )
    assert last < 0.1
    assert total_variation(policy, world.optimum(BETA)) < 0.05


def test_the_scorer_keeps_both_numbers() -> None:
    class Half:
        name = "half"

        def score(self, items: Sequence[Item]) -> list[Score]:
            return [
                Score(item_id=i.completion.id, value=None, error="no cost", scorer=self.name)
                for i in items
            ]

    engine = tabular.TableEngine(tabular.TableHead(*tabular.tables(0)[:2]))
    (group,) = engine.generate([tabular.PROMPT], Sampling(n=3))
    items = [Item(tabular.PROMPT, one) for one in group]
    rewards, table = tabular.tables(0)[2], costs(0)
    for item, score in zip(
        items, CostedScorer(TableScorer(rewards), CostTable(table)).score(items), strict=True
    ):
        at = COMPLETIONS.index(item.completion.tokens)  # type: ignore[arg-type]
        assert score.value == rewards[at]
        assert score.parts["cost"] == table[at]
    for score in CostedScorer(TableScorer(rewards), Half()).score(items):
        assert score.value is None
        assert score.error == "cost: no cost"
