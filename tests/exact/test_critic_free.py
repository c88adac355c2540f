"""Where the methods without a value model end, in a world whose optima are closed forms.

With the KL inside the reward by k1, every preset ends at ref * exp(r / beta) / Z. With a KL as a
term of the loss, a method ends elsewhere, and it is known where:

    k3 in the loss: the gradient at a sampled token is that of KL(ref || policy) at its state, and
    none flows into which states are visited. So at each state, with Q the mean reward from there,
        policy = beta ref / (lam - Q)                               `nested`, by k3
    k2 in the loss: likewise with KL(policy || ref), policy = ref exp(Q / beta) / Z.
    k1 in the loss: its expected gradient is 0, so the policy is not held back at all.
    dividing by the group's standard deviation weighs the reward by 1 / sd(r), so beta becomes
    beta * sd(r), with sd(r) that of the policy where it ends: a fixed point.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.exact import tabular

from heed.algorithms.online_config import OnlineConfig
from heed.algorithms.presets import PRESETS
from heed.settings import LearnerSettings, OptimSettings
from heed.worlds.tabular import Tabular, total_variation

BETA = 0.5
SLOW = pytest.mark.slow
IN_LOSS = {"kl_place": "loss", "num_iterations": 1, "total_episodes": 24_000}


def config(folder: Path, seed: int, **changes: object) -> OnlineConfig:
    values: dict = {
        "run": {"folder": str(folder), "seed": seed, "checkpoint_seconds": 1e9},
        "model": {"path": "table"},
        "data": {"path": "table"},
        "reward_funcs": ("table",),
        "beta": BETA,
        "kl_place": "reward",
        "kl_estimator": "k1",
        "total_episodes": 12_000,
        "batch_size": 150,
        "num_generations": 150,
        "num_iterations": 4,
        "eval_every": 10_000,
        "exact_kl_rows": 0,
        "optim": OptimSettings(lr=0.1, max_grad_norm=0.0),
        "learner": LearnerSettings(precision="fp32", device="cpu"),
    }
    return OnlineConfig.model_validate(values | changes)


def ended(folder: Path, seed: int, **changes: object) -> tuple[np.ndarray, Tabular]:
    """Run the loop; returns the policy and the world that it was run in."""
    policy, reference, rewards = tabular.optimised(config(folder, seed, **changes), seed)
    return policy, tabular.world(reference, rewards)


def nested(world: Tabular, beta: float, estimator: str) -> np.ndarray:
    """The end of a KL that is a term of the loss: optimal at each state, the later ones first."""

    def best(at: Tabular) -> np.ndarray:
        return at.forward_optimum(beta) if estimator == "k3" else at.optimum(beta)

    reference, rewards = world.reference.reshape(3, 3), world.rewards.reshape(3, 3)
    later = np.stack(
        [best(Tabular(r / r.sum(), w)) for r, w in zip(reference, rewards, strict=True)]
    )
    first = best(Tabular(reference.sum(1), (later * rewards).sum(1)))
    return (first[:, None] * later).ravel()


def scaled(world: Tabular, beta: float, estimator: str) -> np.ndarray:
    """The fixed point of dividing by the standard deviation of the policy's own rewards."""
    policy = world.reference
    for _ in range(300):
        sd = np.sqrt(policy @ (world.rewards - policy @ world.rewards) ** 2)
        policy = 0.5 * policy + 0.5 * nested(world, beta * sd, estimator)
    return policy


# What each needs beside its row: bounds that the world's large steps can use, or more updates.
NEEDS: dict[str, dict] = {
    "gspo": {"epsilon": 0.2, "epsilon_high": 0.2},
    "gspo-token": {"epsilon": 0.2, "epsilon_high": 0.2},
    "luspo": {"epsilon": 0.2, "epsilon_high": 0.2},
    "dapo": {"dynamic_sampling": False, "overlong_frac": 0.0},
    "gpg": {"num_iterations": 1, "total_episodes": 36_000},
    "reinforce": {"num_iterations": 1, "total_episodes": 36_000},
    "remax": {"num_iterations": 1, "total_episodes": 36_000},
}


def success(rewards: np.ndarray) -> np.ndarray:
    """1 for the two best completions, 0 for the others."""
    return (rewards >= np.sort(rewards)[-2]).astype(float)


def best(rewards: np.ndarray) -> np.ndarray:
    """The rewards as they are: what is kept in the end is the best completion."""
    return rewards


# What weighs completions by their score and has no penalty goes on until nothing else is said.
# The score that each is given, and what else it needs; MaxRL needs scores of 0 and above.
SELECTIONS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], dict]] = {
    "maxrl": ("the successes, in any shares", success, {"total_episodes": 9_000}),
    "expert_iteration": ("the successes, in any shares", success, {"total_episodes": 9_000}),
    "raft": ("the best completion", best, {"num_generations": 15, "total_episodes": 9_000}),
    "rwr": ("the best completion", best, {"total_episodes": 9_000}),
}
WITH_THIS_OPTIMUM = [name for name in PRESETS if name not in SELECTIONS]


def selected(folder: Path, seed: int, preset: str) -> tuple[np.ndarray, Tabular, np.ndarray]:
    """Run a method without a penalty: the policy, the world, and what it should keep [9] bool."""
    _, score, more = SELECTIONS[preset]
    settings = config(folder, seed, preset=preset, beta=0.0, **more)
    policy, reference, rewards = tabular.optimised(settings, seed, score)
    return policy, tabular.world(reference, rewards), score(rewards) == score(rewards).max()


@pytest.mark.parametrize(("preset", "seed"), [("rloo", 0), ("grpo", 1), ("reinforce++", 1)])
def test_with_the_kl_in_the_reward_it_reaches_the_regularised_optimum(
    tmp_path: Path, preset: str, seed: int
) -> None:
    policy, world = ended(tmp_path / "run", seed, preset=preset)
    assert total_variation(policy, world.optimum(BETA)) < 0.02
    assert total_variation(world.reference, world.optimum(BETA)) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("preset", WITH_THIS_OPTIMUM)
def test_so_does_every_preset(tmp_path: Path, preset: str, seed: int) -> None:
    policy, world = ended(tmp_path / "run", seed, preset=preset, **NEEDS.get(preset, {}))
    assert total_variation(policy, world.optimum(BETA)) < 0.02


@pytest.mark.parametrize("scale", [pytest.param("none", marks=pytest.mark.slow), "group"])
def test_grpos_kl_in_the_loss_reaches_its_own_optimum(tmp_path: Path, scale: str) -> None:
    """As published: k3 in the loss. Without and with the division by the group's deviation."""
    changes = IN_LOSS | {"kl_estimator": "k3", "optim": {"lr": 0.05, "max_grad_norm": 0.0}}
    policy, world = ended(tmp_path / "run", 2, preset="grpo", scale_rewards=scale, **changes)
    ends = {"none": nested(world, BETA, "k3"), "group": scaled(world, BETA, "k3")}
    own = ends.pop(scale)
    assert total_variation(policy, own) < 0.02
    assert total_variation(policy, world.optimum(BETA)) > 0.1
    assert all(total_variation(policy, other) > 0.1 for other in ends.values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_k2_in_the_loss_ignores_the_kl_of_later_tokens(tmp_path: Path, seed: int) -> None:
    changes = IN_LOSS | {"kl_estimator": "k2", "total_episodes": 60_000}
    policy, world = ended(tmp_path / "run", seed, preset="dr_grpo", **changes)
    assert total_variation(policy, nested(world, BETA, "k2")) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_the_ratios_gradient_mends_an_estimator_in_the_loss(tmp_path: Path, estimator: str) -> None:
    """Weighted by the ratio, k1 and k3 end where k2 does."""
    changes = IN_LOSS | {"kl_estimator": estimator, "total_episodes": 60_000}
    changes |= {"use_bias_correction_kl": True}
    policy, world = ended(tmp_path / "run", 2, preset="dr_grpo", **changes)
    assert total_variation(policy, nested(world, BETA, "k2")) < 0.02


def test_k1_in_the_loss_does_not_hold_the_policy_back(tmp_path: Path) -> None:
    """Its expected gradient is zero: the policy goes to the best completion, as with beta 0."""
    changes = IN_LOSS | {"kl_estimator": "k1", "total_episodes": 9_000}
    for beta in (BETA, 0.0):
        name = tmp_path / f"{beta}"
        policy, world = ended(name, 2, preset="dr_grpo", beta=beta, **changes)
        assert policy[world.rewards.argmax()] > 0.9
        assert total_variation(policy, world.optimum(BETA)) > 0.3


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=SLOW), pytest.param(2, marks=SLOW)])
@pytest.mark.parametrize("preset", SELECTIONS)
def test_without_a_penalty_only_what_is_good_remains(
    tmp_path: Path, preset: str, seed: int
) -> None:
    policy, world, kept = selected(tmp_path / "run", seed, preset)
    assert policy[~kept].sum() < 0.02 < 0.4 < world.reference[~kept].sum()
