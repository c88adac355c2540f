"""Best of n: what is kept, what n buys, and the road from there to a distilled policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import LEARNER, Tiny

import heed
from heed import credit
from heed.errors import DataError, FeedbackError
from heed.stats import best_of_n
from heed.worlds.tabular import Tabular, kl_divergence, total_variation

REWARDS = "tests.unit.algorithms.rewards"


@pytest.fixture(scope="module")
def drawn(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six completions of each of eight prompts."""
    return heed.generate(
        run={"folder": str(tmp_path_factory.mktemp("best") / "drawn"), "seed": 1},
        model={"path": str(tiny.policy)},
        data={"path": str(tiny.world / "prompts.jsonl"), "limit": 8},
        sampling={"n": 6, "max_tokens": 8},
        learner=LEARNER,
    ).folder


def _chosen(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]


def test_the_best_of_each_prompt_is_kept_and_can_be_distilled(
    tiny: Tiny, drawn: Path, tmp_path: Path
) -> None:
    run = heed.best_of_n(
        run={"folder": str(tmp_path / "best")},
        data={"path": str(drawn)},
        reward_funcs=[f"{REWARDS}:length"],
        gold=str(tiny.world),
    )
    everything = _chosen(drawn)
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for row in everything:
        by_prompt.setdefault(row["prompt"]["id"], []).append(row["completion"])
    kept = _chosen(run.folder)
    assert [row["prompt"]["id"] for row in kept] == list(by_prompt)
    for row in kept:
        longest = max(len(c["text"]) for c in by_prompt[row["prompt"]["id"]])
        assert len(row["completion"]["text"]) == longest
    found = {f.name: f for f in run.findings()}
    lengths = [[float(len(c["text"])) for c in group] for group in by_prompt.values()]
    for n in (1, 2, 4, 6):
        expected = np.mean([best_of_n.score(group, n) for group in lengths])
        assert found[f"proxy, best of {n}"].estimate == pytest.approx(expected)
        assert found[f"kl bound, best of {n}"].estimate == pytest.approx(best_of_n.kl(n))
        assert found[f"gold, best of {n}"].n == 8
    bought = [json.loads(line) for line in (run.folder / "curve.jsonl").read_text().splitlines()]
    assert {row["n"] for row in bought} == {1, 2, 4, 6}
    for n in (1, 2, 4, 6):
        gold = [row["gold"] for row in bought if row["n"] == n]
        assert found[f"gold, best of {n}"].estimate == pytest.approx(np.mean(gold))
    assert found["proxy, best of 6"].estimate == pytest.approx(run.manifest["facts"]["mean_score"])
    assert found["proxy, best of 1"].estimate == pytest.approx(np.concatenate(lengths).mean())
    page = heed.write_report(run.folder).read_text(encoding="utf-8")
    assert "best of 6" in page
    distilled = heed.sft(
        run={"folder": str(tmp_path / "distilled")},
        model={"path": str(tiny.policy)},
        data={"path": str(run.folder), "max_loss_frac": 1.0},
        batch_size=4,
        learner=LEARNER,
    )
    assert distilled.status == "finished"


def test_fewer_candidates_are_the_first_ones(drawn: Path, tmp_path: Path) -> None:
    run = heed.best_of_n(
        run={"folder": str(tmp_path / "best")},
        data={"path": str(drawn)},
        reward_funcs=[f"{REWARDS}:constant"],
        n=2,
    )
    first = {}
    for row in _chosen(drawn):
        first.setdefault(row["prompt"]["id"], row["completion"]["id"])
    assert [row["completion"]["id"] for row in _chosen(run.folder)] == list(first.values())
    with pytest.raises(DataError, match=r"has 6 scored completions, expected 7"):
        heed.best_of_n(
            run={"folder": str(tmp_path / "more")},
            data={"path": str(drawn)},
            reward_funcs=[f"{REWARDS}:constant"],
            n=7,
        )


def test_failures_are_counted_and_bounded(drawn: Path, tmp_path: Path) -> None:
    values: dict[str, Any] = {"data": {"path": str(drawn)}}
    run = heed.best_of_n(
        run={"folder": str(tmp_path / "some")},
        reward_funcs=[f"{REWARDS}:sometimes_nan"],
        max_failed_frac=0.9,
        **values,
    )
    assert run.manifest["facts"]["num_failed"] > 0
    with pytest.raises(FeedbackError, match="no luck"):
        heed.best_of_n(
            run={"folder": str(tmp_path / "none")}, reward_funcs=[f"{REWARDS}:raising"], **values
        )


def test_the_choice_has_the_closed_form_and_its_kl_is_within_the_bound() -> None:
    """P(best of n = y) = F(y)^n - F(below y)^n, in the exact world without ties."""
    world, n = Tabular.random(6, seed=1), 4
    order = np.argsort(world.rewards)
    mass = np.cumsum(world.reference[order])
    exact = np.empty(6)
    exact[order] = mass**n - np.concatenate([[0.0], mass[:-1]]) ** n
    rng = np.random.default_rng(0)
    drawn = torch.tensor(rng.choice(6, (20_000, n), p=world.reference))
    scores = torch.tensor(world.rewards)[drawn].flatten()
    group = torch.arange(20_000).repeat_interleave(n)
    kept = credit.best_of_group(scores, group).view(20_000, n)
    found = torch.bincount((drawn * kept.long()).sum(1), minlength=6).numpy() / 20_000
    assert total_variation(found, exact) < 0.015
    assert 0 < kl_divergence(exact, world.reference) < best_of_n.kl(n)
