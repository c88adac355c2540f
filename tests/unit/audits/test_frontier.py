"""The frontier: known means come out, choices are made on other prompts, mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.audits.measured import evaluation

import heed
from heed.audits.frontier import FrontierConfig, differences, place, with_frontiers, within_limits
from heed.audits.frontier_runs import Setting
from heed.data.exchange import write_rows
from heed.errors import DataError
from heed.runs.run import Run
from heed.settings import RunSettings
from heed.stats import best_of_n
from heed.stats.crossed import crossed_mean

GRID = {0.1: (4.0, 0.9), 1.0: (1.0, 0.5), 10.0: (2.0, 0.4)}
"""beta -> KL and true quality; the last is beaten by the second."""


def gathered(folder: Path, runs: list[str], **settings: Any) -> tuple[Run, dict[str, Any]]:
    run = heed.frontier(run={"folder": str(folder / "frontier")}, runs=runs, **settings)
    return run, json.loads((run.folder / "frontier.json").read_text())


@pytest.fixture
def grid(tmp_path: Path) -> list[str]:
    return [
        evaluation(tmp_path, {"method": "DPO", "beta": beta}, seed, kl=kl, true=true)
        for beta, (kl, true) in GRID.items()
        for seed in (0, 1)
    ]


def test_what_was_measured_comes_out_by_setting(tmp_path: Path, grid: list[str]) -> None:
    again = [*grid, str(tmp_path / "DPO-0.1-*")]  # a run that is named twice counts once
    run, found = gathered(tmp_path, again, kl_limits=[0.5, 1.5])
    points = {p["label"]: p for p in found["points"] if p["setting"]["method"] == "DPO"}
    for beta, (kl, true) in GRID.items():
        point = points[f"beta {beta}"]
        assert (point["kl"]["estimate"], point["true"]["estimate"]) == pytest.approx((kl, true))
        assert point["proxy"]["estimate"] == pytest.approx(true)
        assert point["seeds"] == 2
    on = {label for label, point in points.items() if point["on_frontier"]}
    assert on == {"beta 0.1", "beta 1.0"}
    findings = {f.name: f for f in run.findings()}
    assert findings["DPO, best within 0.5 nats"].estimate is None
    assert findings["DPO, best within 1.5 nats"].estimate == pytest.approx(0.5)
    assert findings["DPO, best within no limit"].estimate == pytest.approx(0.9)
    facts = run.manifest["facts"]
    assert facts["num_choosing"] + facts["num_judging"] == 40
    assert findings["warm-up, as it starts"].n == facts["num_judging"]


def test_intervals_are_over_seeds_and_the_judging_prompts() -> None:
    rng = np.random.default_rng(0)
    rows = {"kl": rng.random((3, 20)), "true": rng.normal(size=(3, 20))}
    choosing = np.arange(20) < 8
    found = place(Setting("A"), rows, choosing)
    expected = crossed_mean(rows["true"][:, 8:])
    assert vars(found.true) == pytest.approx(vars(expected))
    assert found.chosen_true == pytest.approx(rows["true"][:, :8].mean())
    assert found.proxy is None


def test_choices_are_made_on_other_prompts_than_those_that_judge() -> None:
    """100 settings of noise: the best by the choosing prompts is judged to be worth nothing."""
    rng = np.random.default_rng(1)
    choosing = np.arange(200) < 100
    placed = [
        place(
            Setting("A", (("i", i),)),
            {"kl": np.ones((2, 200)), "true": rng.normal(size=(2, 200))},
            choosing,
        )
        for i in range(100)
    ]
    best = within_limits(placed, [2.0])["A"][2.0]
    assert best is not None
    assert best.chosen_true > 0.12
    assert best.true.low < 0 < best.true.high
    assert [one.setting for one in with_frontiers(placed) if one.on_frontier] == [best.setting]


def test_the_start_is_measured_once_a_seed_and_stands_at_zero(
    tmp_path: Path, grid: list[str]
) -> None:
    _, found = gathered(tmp_path, grid)
    start = [p for p in found["points"] if p["setting"]["method"] == "warm-up"]
    assert [(p["kl"]["estimate"], p["seeds"]) for p in start] == [(0.0, 2)]


def test_best_of_n_has_its_formula_and_joins_the_others(tmp_path: Path, grid: list[str]) -> None:
    for seed in (0, 1):
        rows = [
            {"prompt_id": f"p{i}", "n": n, "kl": best_of_n.kl(n), "proxy": 1.0 * n, "gold": 0.1 * n}
            for n in (1, 2, 4)
            for i in range(40)
        ]
        settings = RunSettings(folder=str(tmp_path / f"best{seed}"), seed=seed)
        with Run.start(settings, "best_of_n", {}, {}) as run:
            write_rows(run.path("curve.jsonl"), rows)
            run.finish({"curve": run.path("curve.jsonl")})
        grid.append(str(run.folder))
    _, found = gathered(tmp_path, grid)
    points = {p["label"]: p for p in found["points"] if p["setting"]["method"] == "best of n"}
    assert set(points) == {"n 2", "n 4"}
    assert points["n 4"]["kl"]["estimate"] == pytest.approx(np.log(4) - 0.75)
    assert points["n 4"]["true"]["estimate"] == pytest.approx(0.4)


def test_differences_are_taken_on_the_same_prompts(tmp_path: Path) -> None:
    """Prompts differ by far more than the two methods, and the difference is known all the same."""
    rng = np.random.default_rng(0)
    hard = 5.0 * rng.normal(size=(1, 60))
    tables = {
        Setting(name): {"kl": np.ones((3, 60)), "true": hard + up + 0.1 * rng.normal(size=(3, 60))}
        for name, up in (("A", 0.0), ("B", 0.5))
    }
    choosing = np.arange(60) < 20
    placed = [place(setting, rows, choosing) for setting, rows in tables.items()]
    gains = differences(within_limits(placed, [0.5, 2.0]), tables, choosing, "A")
    assert gains["B"][0.5] is None
    found = gains["B"][2.0]
    assert found is not None
    assert found == gains["B"][None]
    assert 0.4 < found.low < 0.5 < found.high < 0.6
    assert placed[1].true.high - placed[1].true.low > 1.0
    with pytest.raises(DataError, match="against is 'C', and the methods are A, B"):
        differences(within_limits(placed, []), tables, choosing, "C")


def test_prompts_without_a_score_are_left_out_of_all_runs(tmp_path: Path) -> None:
    runs = [
        evaluation(tmp_path, {"method": "A"}, 0, kl=1.0, true=1.0, lost=(3, 5)),
        evaluation(tmp_path, {"method": "B"}, 0, kl=1.0, true=1.0),
    ]
    run, _ = gathered(tmp_path, runs)
    facts = run.manifest["facts"]
    assert facts["num_choosing"] + facts["num_judging"] == 38
    runs.append(evaluation(tmp_path, {"method": "C"}, 0, kl=1.0, true=1.0, lost=tuple(range(9))))
    with pytest.raises(DataError, match="9 of 40 prompts have no score in some run"):
        gathered(tmp_path / "more", runs)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tags": {"name": "A"}}, "has no tag 'method' (it has name)"),
        ({"judges": ("gold",)}, "has no judge 'true'; it has gold"),
        ({"prompts": 30}, "measured on different prompts"),
        ({"seed": 4}, "was run with seeds"),
        ({"tags": {"method": "A"}}, "the same tags and the same seed 0"),
    ],
)
def test_runs_that_cannot_be_compared_are_named(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    values = {"tags": {"method": "B"}, "seed": 0, "kl": 1.0, "true": 1.0} | changes
    runs = [
        evaluation(tmp_path / "one", {"method": "A"}, 0, kl=1.0, true=1.0),
        evaluation(tmp_path / "two", **values),
    ]
    with pytest.raises(DataError) as caught:
        gathered(tmp_path, runs)
    assert said in str(caught.value)


def test_other_kinds_and_patterns_without_a_run_are_refused(tmp_path: Path) -> None:
    with Run.start(RunSettings(folder=str(tmp_path / "sft")), "sft", {}, {}) as run:
        run.finish({})
    with pytest.raises(DataError, match="a run of 'sft', expected evaluate or best_of_n"):
        gathered(tmp_path, [str(run.folder)])
    with pytest.raises(DataError, match="no run fits"):
        heed.frontier(FrontierConfig(run=RunSettings(folder=str(tmp_path / "f")), runs=("none-*",)))
