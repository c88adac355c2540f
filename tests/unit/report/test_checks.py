"""Every warning speaks on what it is for, and is quiet on a run without it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import finding, write_lines, write_manifest, write_online

from heed.report.checks import Check, all_checks
from heed.report.findings import statements
from heed.report.folder import read_folder
from heed.runs.files import write_json


def checks_of(folder: Path) -> list[Check]:
    record = read_folder(folder)
    return all_checks(record, statements(record))


def raised(folder: Path) -> dict[str, Check]:
    return {check.name: check for check in checks_of(folder) if check.state == "raised"}


def online(folder: Path, **columns: Any) -> Path:
    """A PPO run of 60 updates; columns(t) replace what a healthy run has."""
    write_manifest(folder, "ppo", "ppo", 10.0, {"kl_coef": 0.05})
    rows = []
    healthy = {
        "objective/kl": lambda t: 6 * t,
        "objective/entropy": lambda t: 20 - 5 * t,
        "completions/mean_length": lambda t: 20 + 2 * t,
        "completions/clipped_ratio": lambda t: 0.02,
        "policy/clipfrac_avg": lambda t: 0.1,
        "value/explained_variance": lambda t: t - 0.1,
        "eval/proxy": lambda t: 2 * t,
        "eval/true": lambda t: 1 + t,
        "eval/kl": lambda t: 6 * t,
    }
    for step in range(60):
        rows.append({"step": step, **{k: f(step / 59) for k, f in (healthy | columns).items()}})
    write_lines(folder / "metrics.jsonl", rows)
    return folder


def test_healthy_run_raises_nothing(tmp_path: Path) -> None:
    folder = online(tmp_path)
    assert raised(folder) == {}
    quiet = {check.name for check in checks_of(folder) if check.state == "quiet"}
    assert {"proxy and truth part", "sign of the KL", "entropy", "clip fraction"} <= quiet


@pytest.mark.parametrize(
    ("column", "curve", "name", "words"),
    [
        ("objective/kl", lambda t: -0.5 * t, "sign of the KL", "sampled from another"),
        ("completions/clipped_ratio", lambda t: 0.5 * t, "completions end", "end by themselves"),
        ("value/explained_variance", lambda t: -0.3, "value model explains returns", "less than"),
        ("objective/entropy", lambda t: 20 * math.exp(-3 * t), "entropy", "collapsed"),
        ("policy/clipfrac_avg", lambda t: 0.2 + 0.3 * t, "clip fraction", "too large"),
        ("completions/mean_length", lambda t: 20 + 40 * t, "completion length", "grew"),
        ("completions/mean_length", lambda t: 20 - 15 * t, "completion length", "shrank"),
        ("eval/true", lambda t: -((t - 0.4) ** 2), "proxy and truth part", "KL 2.4"),
        ("objective/kl", lambda t: math.nan, "numbers are finite", "was not finite"),
        ("frac_reward_zero_std", lambda t: 0.9 * t, "groups teach something", "all equal"),
    ],
)
def test_each_fault_is_named(
    tmp_path: Path, column: str, curve: Any, name: str, words: str
) -> None:
    found = raised(online(tmp_path, **{column: curve}))
    assert list(found) == [name]
    assert words in found[name].text


@pytest.mark.parametrize(("kind", "setting"), [("ppo", "kl_coef"), ("online", "beta")])
def test_parting_is_serious_in_a_result_and_a_note_in_the_demonstration(
    tmp_path: Path, kind: str, setting: str
) -> None:
    def curves(t: float) -> tuple[float, float, float]:
        return 3 * t, -4 * (t - 0.4) ** 2, 20 * t

    rng = np.random.default_rng(0)
    for name, coef in (("ppo", 0.05), ("overoptimise", 0.0)):
        folder = tmp_path / name
        write_manifest(folder, name, kind, 1.0, {setting: coef})
        write_online(folder, rng, 160, curves, "thanks")
    assert raised(tmp_path / "ppo")["proxy and truth part"].level == "serious"
    check = raised(tmp_path / "overoptimise")["proxy and truth part"]
    assert check.level == "note"
    assert "on purpose" in check.text


def judged(folder: Path, *rows: dict[str, Any]) -> dict[str, Check]:
    write_manifest(folder, "evaluate", "evaluate", 1.0,
                   {"model": {"path": "a/ppo"}, "baseline": {"path": "a/sft"}})  # fmt: skip
    write_json(folder / "findings.json", list(rows))
    return raised(folder)


def test_interval_over_one_half_is_open(tmp_path: Path) -> None:
    found = judged(tmp_path, finding("win_rate/true", 0.53, 0.47, 0.59, 300, "share"))
    assert list(found) == ["win rates differ from one half"]
    assert "the PPO policy is better than the warm-up policy" in (
        found["win rates differ from one half"].text
    )


def test_few_items_are_named(tmp_path: Path) -> None:
    found = judged(tmp_path, finding("win_rate/true", 0.75, 0.6, 0.86, 40, "share"))
    assert "win_rate/true (n = 40)" in found["enough items"].text
    many = [finding(f"win_rate/{i}", 0.75, 0.6, 0.86, 40 + i, "share") for i in range(4)]
    assert "4 win rates and accuracies" in judged(tmp_path, *many)["enough items"].text


@pytest.mark.parametrize(
    ("model", "longer", "words"),
    [
        ((0.70, 0.66, 0.74), (0.69, 0.65, 0.73), "barely better"),
        ((0.70, 0.66, 0.74), (0.72, 0.68, 0.76), "no better"),
        ((0.70, 0.60, 0.80), (0.62, 0.52, 0.72), "not clearly better than preferring the longer"),
        ((0.70, 0.66, 0.74), (0.31, 0.27, 0.35), "barely better than preferring the shorter"),
        ((0.57, 0.53, 0.61), (0.50, 0.46, 0.54), "mostly noise"),
    ],
)
def test_weak_reward_model_is_called_weak(
    tmp_path: Path, model: tuple[float, ...], longer: tuple[float, ...], words: str
) -> None:
    found = judged(
        tmp_path,
        finding("reward model accuracy", *model, 500, "share of pairs"),
        finding("always-longer accuracy", *longer, 500, "share of pairs"),
    )
    assert words in found["reward model beats its baselines"].text


def test_good_reward_model_raises_nothing(tmp_path: Path) -> None:
    found = judged(
        tmp_path,
        finding("reward model accuracy", 0.76, 0.72, 0.8, 500, "share of pairs"),
        finding("always-longer accuracy", 0.6, 0.56, 0.64, 500, "share of pairs"),
    )
    assert found == {}


def test_bad_calibration_and_lost_rows(tmp_path: Path) -> None:
    facts = {"calibration": {"ece": 0.21}}
    write_manifest(tmp_path, "reward", "reward", 1.0, {}, facts=facts)
    lost = {"source": "x", "read": 100, "dropped": 40, "set_aside": 10, "unsupervised": 0}
    write_json(tmp_path / "data_report.json", [lost])
    found = raised(tmp_path)
    assert "off by 21.0" in found["calibration"].text
    assert "reward (30.0" in found["rows lost"].text
    write_json(tmp_path / "data_report.json", [lost | {"set_aside": 39}])
    assert "rows lost" not in raised(tmp_path)


def test_warnings_of_the_run_are_grouped(tmp_path: Path) -> None:
    online(tmp_path)
    lines = [{"step": s, "name": "objective/kl", "message": "too far"} for s in (7, 9, 12)]
    write_lines(tmp_path / "warnings.jsonl", lines)
    text = raised(tmp_path)["warnings of the run"].text
    assert text == "objective/kl (3 times): too far First at step 7."


def test_unmeasured_is_unknown_not_quiet(tmp_path: Path) -> None:
    write_manifest(tmp_path, "ppo", "ppo", 1.0, {})
    write_lines(tmp_path / "metrics.jsonl", [{"step": 1, "objective/kl": 0.0}])
    unknown = {check.name for check in checks_of(tmp_path) if check.state == "unknown"}
    assert {"proxy and truth part", "entropy", "completions end"} <= unknown
