"""Losses of pairs reach the optima that they claim, through the real loop.

All 36 pairs of nine completions, labelled with exact Bradley-Terry probabilities, have DPO's
optimum at ref * exp(reward / beta) / Z. Other losses have no common optimum over all pairs; but
there are pairs for which each has one that is known, in `pair_ends.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.exact.offline import BETA, every_pair, learned, pair, tables
from tests.exact.pair_ends import ENDS, End

from heed.algorithms.preference_rows import ROWS
from heed.worlds.tabular import total_variation


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


def _named(end: End) -> str:
    return f"{end.loss} {end.how}".strip()


@pytest.mark.parametrize("end", ENDS, ids=_named)
def test_each_loss_ends_at_its_own_optimum(tmp_path: Path, end: End) -> None:
    _reaches(end, tmp_path / "run", 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("end", ENDS, ids=_named)
def test_so_it_does_in_other_worlds(tmp_path: Path, end: End, seed: int) -> None:
    _reaches(end, tmp_path / "run", seed)


def _reaches(end: End, folder: Path, seed: int) -> None:
    head, world = tables(seed)
    how = {"loss_type": end.loss, **end.settings}
    policy = learned(folder, head, end.pairs(world), end.steps, **how)
    distance = total_variation(policy, end.for_one(world, policy))
    assert distance < 0.02
    assert distance < 0.5 * total_variation(world.reference, end.for_one(world, world.reference))


def test_every_loss_of_the_table_has_an_end() -> None:
    assert {end.loss for end in ENDS} == {*ROWS} - {"dpo"}  # which is sigmoid


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
