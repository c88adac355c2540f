"""PPO reaches the closed form of its objective: ref * exp(reward / beta) / Z.

The loop is the real one; see `tabular.py`. With the KL inside the reward, reward - beta log(pi /
ref) is constant at the optimum, so that the gradient's noise vanishes there and the distance can be
small.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.exact import tabular

from heed.algorithms.ppo_config import PPOConfig
from heed.runs.run import Run
from heed.settings import LearnerSettings, OptimSettings
from heed.worlds.tabular import kl_divergence, total_variation

BETA = 0.5


def _config(folder: Path, seed: int, **changes: object) -> PPOConfig:
    values: dict = {
        "run": {"folder": str(folder), "seed": seed, "checkpoint_seconds": 1e9},
        "model": {"path": "table"},
        "data": {"path": "table"},
        "reward_funcs": ("table",),
        "kl_coef": BETA,
        "total_episodes": 12_000,
        "batch_size": 150,
        "num_generations": 150,
        "num_ppo_epochs": 4,
        "vf_coef": 0.5,
        "cliprange_value": 1e6,
        "eval_every": 10_000,
        "exact_kl_rows": 0,
        "optim": OptimSettings(lr=0.1, max_grad_norm=0.0),
        "learner": LearnerSettings(precision="fp32", device="cpu"),
    }
    return PPOConfig.model_validate(values | changes)


def optimised(folder: Path, seed: int, sign: float = 1.0, **changes: object) -> tuple:
    """Run PPO on a table; returns the policy, the reference and the rewards."""
    return tabular.optimised(_config(folder, seed, **changes), seed, lambda rewards: sign * rewards)


def best(reference: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """Return ref * exp(r / beta) / Z."""
    return tabular.world(reference, rewards).optimum(BETA)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ppo_reaches_the_kl_regularised_optimum(tmp_path: Path, seed: int) -> None:
    policy, reference, rewards = optimised(tmp_path / "run", seed)
    assert total_variation(policy, best(reference, rewards)) < 0.02
    assert total_variation(reference, best(reference, rewards)) > 0.4


def test_the_adaptive_controller_ends_near_its_target(tmp_path: Path) -> None:
    """Ziegler's signature: the KL is within 20 % of the target."""
    policy, reference, _ = optimised(tmp_path / "run", 0, kl_coef=1.0, kl_target=0.4, kl_gain=0.1)
    assert kl_divergence(policy, reference) == pytest.approx(0.4, rel=0.2)


def test_a_reversed_score_lowers_the_true_one(tmp_path: Path) -> None:
    """The sign test: with the score negated the same run seeks the worst, and finds it."""
    policy, reference, rewards = optimised(tmp_path / "run", 0, sign=-1.0)
    worst = best(reference, -rewards)
    assert total_variation(policy, worst) < 0.02
    assert policy @ rewards < reference @ rewards < best(reference, rewards) @ rewards


def test_without_a_penalty_the_policy_leaves_the_optimum(tmp_path: Path) -> None:
    """The optimum is that of the penalty and not of the loop: with kl_coef 0 it is left behind."""
    policy, reference, rewards = optimised(tmp_path / "run", 0, kl_coef=0.0)
    assert total_variation(policy, best(reference, rewards)) > 0.1
    assert policy @ rewards > best(reference, rewards) @ rewards + 0.05


def test_a_penalty_by_k3_has_another_optimum(tmp_path: Path) -> None:
    """Only k1 in the reward has the regularised optimum; the option says so, and this shows it."""
    policy, reference, rewards = optimised(tmp_path / "run", 2, kl_estimator="k3")
    assert total_variation(policy, best(reference, rewards)) > 0.2


def test_the_reported_kl_is_that_of_the_policy(tmp_path: Path) -> None:
    """k1, averaged over an update's samples, is the divergence of the tables to 4 errors."""
    policy, reference, _ = optimised(tmp_path / "five", 0, total_episodes=750, optim=_constant())
    optimised(tmp_path / "six", 0, total_episodes=900, optim=_constant())
    last = Run.open(tmp_path / "six").metrics()[-1]
    assert last["step"] == 6  # its samples come from the policy after update 5
    gap = abs(last["objective/kl"] - kl_divergence(policy, reference))
    assert gap < 4 * last["objective/kl_standard_error"]


def _constant() -> OptimSettings:
    return OptimSettings(lr=0.1, max_grad_norm=0.0, schedule="constant")
