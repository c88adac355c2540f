"""Losses of pairs reach the optima that they claim, in closed form, through the real loop.

All 36 pairs of nine completions, labelled with exact Bradley-Terry probabilities, have DPO's
optimum at ref * exp(reward / beta) / Z. Other losses have no common optimum over all pairs; but
where pairs form a star, each difference of log-ratios is free, and every loss must bring it to its
own target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.exact.tabular import COMPLETIONS, PROMPT, PROMPT_TOKEN, TableHead

from heed.algorithms.preference import Parts, optimise
from heed.algorithms.preference_config import PreferenceConfig
from heed.algorithms.reward import PairRows
from heed.data.batch import Row
from heed.data.judgements import LabelledPair
from heed.learners.local import LocalLearner
from heed.records import Message
from heed.runs.run import Run
from heed.settings import LearnerSettings, OptimSettings
from heed.worlds.tabular import Tabular, total_variation

BETA = 0.5


def tables(seed: int) -> tuple[TableHead, Tabular]:
    """A reference policy and the world of which it is the reference."""
    generator = torch.Generator().manual_seed(seed)
    head = TableHead(
        torch.randn(3, generator=generator), torch.randn(3, 3, generator=generator)
    ).double()
    rewards = torch.randn(9, generator=generator).double().numpy()
    reference = head.probabilities()
    return head, Tabular(reference / reference.sum(), rewards)


def pair(left: int, right: int, p: float) -> PairRows:
    rows = [
        Row(str(i), (PROMPT_TOKEN, *COMPLETIONS[i]), (False, True, True)) for i in (left, right)
    ]
    texts = [(Message(role="text", text=str(i)),) for i in (left, right)]
    return LabelledPair(f"{left}-{right}", PROMPT, *texts, p), *rows


def every_pair(world: Tabular, flip: float = 0.0) -> list[PairRows]:
    """All pairs under their true probabilities, of which a share of labels is turned round."""

    def label(i: int, j: int) -> float:
        return world.preference(i, j) * (1 - 2 * flip) + flip

    return [pair(i, j, label(i, j)) for i in range(9) for j in range(i + 1, 9)]


def star(world: Tabular) -> list[PairRows]:
    """Completion 0 against each other one."""
    return [pair(0, j, world.preference(0, j)) for j in range(1, 9)]


def learned(
    folder: Path, head: TableHead, train: Sequence[PairRows], steps: int = 150, **changes: object
) -> np.ndarray:
    """Run the real loop; returns the policy that it ends with."""
    values: dict = {
        "run": {"folder": str(folder), "checkpoint_seconds": 1e9},
        "model": {"path": "table"},
        "data": {"path": "table"},
        "beta": BETA,
        "batch_size": len(train),
        "num_train_epochs": steps,
        "eval_frac": 0.0,
        "eval_every": 10_000,
        "optim": OptimSettings(lr=0.25, max_grad_norm=0.0, schedule="cosine"),
        "learner": LearnerSettings(precision="fp32", device="cpu"),
    }
    config = PreferenceConfig.model_validate(values | changes)
    policy = TableHead(head.first.data, head.second.data)
    learner = LocalLearner(policy, config.optim, steps, config.learner)
    with Run.start(config.run, "preference", {}) as run:
        optimise(config, run, Parts(learner, learner, train, ()))
    return policy.probabilities()


def with_differences(world: Tabular, gap: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The policy whose log-ratios differ from completion 0's by a function of p(0 better)."""
    p = np.array([0.5] + [world.preference(0, j) for j in range(1, 9)])
    policy = world.reference * np.exp(-gap(p))
    return policy / policy.sum()


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_dpo_reaches_the_kl_regularised_optimum(tmp_path: Path, seed: int) -> None:
    head, world = tables(seed)
    policy = learned(tmp_path / "run", head, every_pair(world))
    best = world.optimum(BETA)
    assert total_variation(policy, best) < 1e-3
    assert total_variation(world.reference, best) > 0.3
    implicit = BETA * np.log(policy / world.reference)
    assert np.ptp(implicit - world.rewards) < 0.1  # the rewards, but for a constant


def test_robust_dpo_finds_the_clean_optimum_under_flips_and_dpo_does_not(tmp_path: Path) -> None:
    head, world = tables(0)
    flipped, best = every_pair(world, flip=0.2), world.optimum(BETA)
    how = {"loss_type": "robust", "label_smoothing": 0.2}
    robust = learned(tmp_path / "robust", head, flipped, **how)
    plain = learned(tmp_path / "plain", head, flipped)
    assert total_variation(robust, best) < 0.02
    assert total_variation(plain, best) > 0.1


TARGETS: dict[str, tuple[dict, Callable[[np.ndarray], np.ndarray]]] = {
    "sigmoid": ({}, lambda p: logit(p) / BETA),
    "cdpo": ({"label_smoothing": 0.1}, lambda p: logit(0.8 * p + 0.1) / BETA),
    "exo_pair": ({"label_smoothing": 0.1}, lambda p: logit(0.8 * p + 0.1) / BETA),
    "ipo_sum": ({}, lambda p: (p - 0.5) / BETA),
    "ipo": ({}, lambda p: 2 * (p - 0.5) / BETA),  # means over two tokens: twice the sum's target
    "sigmoid_norm": ({}, lambda p: 2 * logit(p) / BETA),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if "ipo" in name or name == "cdpo" else pytest.mark.slow)
        for name in TARGETS
    ],
)
def test_a_star_of_pairs_ends_at_each_losss_own_target(tmp_path: Path, name: str) -> None:
    settings, target = TARGETS[name]
    head, world = tables(1)
    policy = learned(tmp_path / "run", head, star(world), loss_type=name, **settings)
    assert total_variation(policy, with_differences(world, target)) < 5e-3


@pytest.mark.parametrize(("tau", "share"), [(0.1, 0.9933), (0.5, 0.7311)])
def test_ipo_stops_where_certain_labels_would_let_dpo_go_on(
    tmp_path: Path, tau: float, share: float
) -> None:
    """Two completions, one always preferred: log-odds 1 / (2 tau) and no further."""
    head, _ = tables(2)
    how = {"train": [pair(0, 1, 1.0)], "beta": tau, "steps": 100}
    before = head.probabilities()
    ends = {}
    for name in ("ipo_sum", "sigmoid"):
        policy = learned(tmp_path / name, head, loss_type=name, **how)  # type: ignore[arg-type]
        ratio = (policy / before)[:2]
        ends[name] = ratio[0] / ratio.sum()  # the share under a uniform reference
    assert ends["ipo_sum"] == pytest.approx(share, abs=1e-3)
    assert ends["sigmoid"] > max(0.99, share)


def test_conservative_dpo_stops_at_the_logit(tmp_path: Path) -> None:
    head, world = tables(0)
    for e, stop in ((0.1, 2.197), (0.3, 0.847)):
        how = {"loss_type": "cdpo", "label_smoothing": e}
        policy = learned(tmp_path / str(e), head, [pair(0, 1, 1.0)], 200, **how)
        ratio = np.log(policy / world.reference)
        assert BETA * (ratio[0] - ratio[1]) == pytest.approx(stop, abs=0.01)


def test_sorted_losses_reduce_to_dpo_in_batches_of_one(tmp_path: Path) -> None:
    """One pair sorts nothing, and AOT is then DPO."""
    head, _ = tables(0)
    hard = [pair(0, j, 1.0) for j in range(1, 9)]
    ends = [
        learned(tmp_path / n, head, hard, 40, batch_size=1, num_train_epochs=5, loss_type=n)
        for n in ("sigmoid", "aot")
    ]
    assert total_variation(*ends) < 1e-6
