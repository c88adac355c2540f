"""The lines of the table of docs/methods/README.md: a method, where it ends, what measures that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.exact import offline, tabular, test_cost, test_ppo, test_unpaired
from tests.exact import test_online_preference as comparisons
from tests.exact.pair_ends import ENDS, End
from tests.exact.test_critic_free import (
    BETA,
    IN_LOSS,
    NEEDS,
    SELECTIONS,
    WITH_THIS_OPTIMUM,
    ended,
    nested,
    scaled,
    selected,
)

from heed.worlds.tabular import total_variation

Measured = Callable[[Path, int], tuple[float, float]]
REGULARISED = "`ref exp(r / beta) / Z`"
CALM = {"optim": {"lr": 0.05, "max_grad_norm": 0.0}}


@dataclass(frozen=True)
class Line:
    """One line.

    Args:
        words: the method's name in backticks, then what is chosen.
        end: where it ends, in words.
        measured: (folder, seed) -> distance to there, and to the regularised optimum.
    """

    words: str
    end: str
    measured: Measured


def lines() -> Iterator[Line]:
    """Every line, in the table's order."""
    yield from valued()
    yield from critic_free()
    yield from selections()
    yield from compared()
    yield from of_pairs()
    yield from of_replies()


# -- online, against a score ----------------------------------------------------------------------


def valued() -> Iterator[Line]:
    """PPO, and a cost at a limit."""

    def ppo(folder: Path, seed: int) -> tuple[float, float]:
        policy, reference, rewards = test_ppo.optimised(folder, seed)
        distance = total_variation(policy, test_ppo.best(reference, rewards))
        return distance, distance

    def cost(rescale: bool) -> Measured:
        def measured(folder: Path, seed: int) -> tuple[float, float]:
            world, table, limit = test_cost.bound(seed)
            best, _ = test_cost.constrained(world, table, limit, rescale)
            how = {"rescale": rescale, **test_cost.CALM}
            with pytest.MonkeyPatch.context() as patch:
                policy, _, _ = test_cost.ended(folder, patch, seed, limit, **how)
            return total_variation(policy, best), total_variation(policy, world.optimum(BETA))

        return measured

    yield Line("`ppo`, KL in the reward (k1)", REGULARISED, ppo)
    priced = "`ref exp((r - lambda c) / {}) / Z`, lambda of the limit"
    yield Line("`rloo`, a cost at a limit, not rescaled", priced.format("beta"), cost(False))
    words = "`rloo`, a cost at a limit, rescaled"
    yield Line(words, priced.format("(beta (1 + lambda))"), cost(True))


def critic_free() -> Iterator[Line]:
    """The presets with the KL in the reward, and with the KL in the loss."""
    for name in WITH_THIS_OPTIMUM:
        how = {"preset": name, **NEEDS.get(name, {})}
        yield Line(f"`{name}`, KL in the reward (k1)", REGULARISED, _to("regularised", how))
    long = IN_LOSS | {"total_episodes": 60_000}
    grpo = {"preset": "grpo", "kl_estimator": "k3", **IN_LOSS, **CALM}
    k2 = {"preset": "dr_grpo", "kl_estimator": "k2", **long}
    k3 = {"preset": "dr_grpo", "kl_estimator": "k3", "use_bias_correction_kl": True, **long}
    forward, reverse = "forward KL at each token", "reverse KL at each token"
    yield Line("`grpo` as published: k3 in the loss", f"{forward}, `beta sd(r)` for `beta`",
               _to("scaled", grpo))  # fmt: skip
    yield Line("`grpo` with `scale_rewards none`", forward,
               _to("forward", grpo | {"scale_rewards": "none"}))  # fmt: skip
    yield Line("`dr_grpo`, k2 in the loss", reverse, _to("reverse", k2))
    yield Line("`dr_grpo`, k3 in the loss, `use_bias_correction_kl`", reverse, _to("reverse", k3))


def _to(kind: str, settings: dict) -> Measured:
    def measured(folder: Path, seed: int) -> tuple[float, float]:
        policy, world = ended(folder, seed, **settings)
        regularised = world.optimum(BETA)
        end = {
            "regularised": lambda: regularised,
            "scaled": lambda: scaled(world, BETA, "k3"),
            "forward": lambda: nested(world, BETA, "k3"),
            "reverse": lambda: nested(world, BETA, "k2"),
        }[kind]()
        return total_variation(policy, end), total_variation(policy, regularised)

    return measured


def selections() -> Iterator[Line]:
    """Methods that imitate what is good, without a penalty."""

    def to(name: str) -> Measured:
        def measured(folder: Path, seed: int) -> tuple[float, float]:
            policy, world, kept = selected(folder, seed, name)
            return float(policy[~kept].sum()), total_variation(policy, world.optimum(BETA))

        return measured

    for name, (end, _, _) in SELECTIONS.items():
        yield Line(f"`{name}`, beta 0", end, to(name))


# -- online, from comparisons ---------------------------------------------------------------------


def compared() -> Iterator[Line]:
    """The methods that learn from comparisons."""
    num = comparisons.NUM

    def online_dpo(**how: Any) -> Measured:
        def measured(folder: Path, seed: int) -> tuple[float, float]:
            settings = comparisons.config(folder, seed, **how)
            policy, world = comparisons.ended(settings, seed)
            distance = total_variation(policy, world.optimum(BETA))
            return distance, distance

        return measured

    yield Line("`online_dpo`, soft labels", REGULARISED, online_dpo())
    sampled = online_dpo(labels="sampled", total_episodes=num * 500)
    yield Line("`online_dpo`, sampled labels", REGULARISED, sampled)
    eight = {"preset": "iterative_dpo", "num_generations": 8, "total_episodes": num * 150}
    yield Line("`iterative_dpo`, soft labels", REGULARISED, online_dpo(**eight))
    xpo = online_dpo(preset="xpo", xpo_alpha=0.0, total_episodes=num * 150)
    yield Line("`xpo`, alpha 0, soft labels", REGULARISED, xpo)
    yield Line("`spin`", "the demonstrations' distribution", _spin)
    yield Line("`nash_md`, `mixture_coef` 0, a circle of preferences", "the Nash equilibrium",
               _nash(0.0))  # fmt: skip
    yield Line("`nash_md`, `mixture_coef` 0.5, the same", "the best reply to the mixture",
               _nash(0.5))  # fmt: skip


def _spin(folder: Path, seed: int) -> tuple[float, float]:
    wanted = tabular.TableHead(*tabular.tables(seed + 10)[:2]).probabilities()
    wanted = wanted / wanted.sum()
    settings = comparisons.config(folder, seed, **comparisons.SPIN)
    policy, world = comparisons.ended(settings, seed, people=wanted)
    return total_variation(policy, wanted), total_variation(policy, world.optimum(BETA))


def _nash(coef: float) -> Measured:
    def measured(folder: Path, seed: int) -> tuple[float, float]:
        long = comparisons.NASH | {"total_episodes": comparisons.NUM * 500}
        settings = comparisons.config(folder, seed, **long, mixture_coef=coef)
        circle = comparisons.circle()
        policy, world = comparisons.ended(settings, seed, preferences=circle)
        own = comparisons.nash_end(world, circle, coef)
        return total_variation(policy, own), total_variation(policy, world.optimum(BETA))

    return measured


# -- offline --------------------------------------------------------------------------------------


def of_pairs() -> Iterator[Line]:
    """The losses of `heed preference`."""

    def to(end: End) -> Measured:
        def measured(folder: Path, seed: int) -> tuple[float, float]:
            head, world = offline.tables(seed)
            how = {"loss_type": end.loss, **end.settings}
            policy = offline.learned(folder, head, end.pairs(world), end.steps, **how)
            own = end.for_one(world, policy)
            return total_variation(policy, own), total_variation(policy, world.optimum(BETA))

        return measured

    for end in ENDS:
        yield Line(", ".join(filter(None, [f"`{end.loss}`", end.how])), end.words, to(end))


def of_replies() -> Iterator[Line]:
    """The losses of `heed unpaired`."""

    def to(name: str) -> Measured:
        def measured(folder: Path, seed: int) -> tuple[float, float]:
            head, world = offline.tables(seed)
            _, replies, end, settings = test_unpaired.UNPAIRED[name]
            how = {"loss_type": name, **settings}
            policy = test_unpaired.learned(folder, head, replies(world), 300, **how)
            distances = (total_variation(policy, own) for own in (end(world), world.optimum(BETA)))
            return next(distances), next(distances)

        return measured

    for name, (words, _, _, settings) in test_unpaired.UNPAIRED.items():
        how = "".join(f", {key} {value:g}" for key, value in settings.items())
        yield Line(f"`{name}`{how}", words, to(name))


def distances(line: Line, folder: Path, seeds: tuple[int, ...]) -> np.ndarray:
    """[2, seeds]: to the method's own end, and to the regularised optimum."""
    return np.array([line.measured(folder / str(seed), seed) for seed in seeds]).T
