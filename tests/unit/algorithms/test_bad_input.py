"""What a user gets wrong, from the command line: one clear message, or a counted event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import Tiny

from heed.cli.command import main
from heed.config import dump_toml
from heed.data.exchange import write_rows
from heed.runs.run import Run

FUNCTIONS = """
import math


def nan_sometimes(completions, **more):
    return [math.nan if i == 0 else float(len(c)) for i, c in enumerate(completions)]


def always_nan(completions, **more):
    return [math.nan] * len(completions)


def raises(completions, **more):
    raise KeyError("no such answer")


def too_few(completions, **more):
    return [1.0] * (len(completions) - 1)


def all_equal(completions, **more):
    return [1.0] * len(completions)
"""


@pytest.fixture
def rewards(tmp_path: Path) -> Path:
    path = tmp_path / "rewards.py"
    path.write_text(FUNCTIONS)
    return path


def online(tiny: Tiny, folder: Path, *words: str, **changes: Any) -> int:
    """Run `heed online` on a file of settings and these words."""
    config = tiny.online_config(folder, total_episodes=32, **changes)
    path = folder.with_suffix(".toml")
    path.write_text(dump_toml(config))
    return main(["online", str(path), *words])


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("always_nan", "returned nan, which is not finite"),
        ("raises", "KeyError: 'no such answer'"),
        ("too_few", "values for"),
    ],
)
def test_a_reward_function_that_fails_stops_the_run_and_says_why(
    tiny: Tiny, tmp_path: Path, rewards: Path, capsys: Any, function: str, said: str
) -> None:
    folder = tmp_path / "run"
    assert online(tiny, folder, "--reward_funcs", f"{rewards}:{function}") == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert Run.open(folder).status == "failed"


def test_a_reward_that_is_not_a_number_now_and_then_is_counted(
    tiny: Tiny, tmp_path: Path, rewards: Path
) -> None:
    folder = tmp_path / "run"
    words = ("--reward_funcs", f"{rewards}:nan_sometimes", "--max_failed_frac", "0.5")
    assert online(tiny, folder, *words) == 0
    rows = [row for row in Run.open(folder).metrics() if row["step"] > 0]
    assert all(row["num_failed"] >= 1 for row in rows)


def test_equal_rewards_are_counted_and_teach_nothing(
    tiny: Tiny, tmp_path: Path, rewards: Path
) -> None:
    folder = tmp_path / "run"
    words = ("--reward_funcs", f"{rewards}:all_equal", "--beta", "0.0")
    assert online(tiny, folder, *words) == 0
    rows = [row for row in Run.open(folder).metrics() if row["step"] > 0]
    assert all(row["frac_reward_zero_std"] == 1.0 for row in rows)
    assert all(row["policy/grad_norm"] == 0.0 for row in rows)


def test_a_group_of_one_is_refused_where_groups_are_compared(
    tiny: Tiny, tmp_path: Path, capsys: Any
) -> None:
    words = ("--preset", "grpo", "--num_generations", "1")
    assert online(tiny, tmp_path / "run", *words) == 2
    assert "num_generations is 1" in capsys.readouterr().err


@pytest.mark.parametrize("loss_type", ["k_wise", "plackett_luce"])
@pytest.mark.parametrize("ranks", [[1], [1, 1], [2, 2, 2]])
def test_rankings_that_order_nothing_are_dropped_with_a_reason(
    tiny: Tiny, tmp_path: Path, capsys: Any, loss_type: str, ranks: list[int]
) -> None:
    path = tmp_path / "rankings.jsonl"
    row = {
        "prompt": "Which is best?", "completions": [f"answer {k}" for k in range(len(ranks))],
        "ranks": ranks,
    }  # fmt: skip
    write_rows(path, [row] * 4)
    words = [
        "reward", "--run.folder", str(tmp_path / "run"), "--model.path", str(tiny.policy),
        "--data.path", str(path), "--loss_type", loss_type, "--ties", "drop",
    ]  # fmt: skip
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    reports = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert sum(report["dropped"] for report in reports) == 4


@pytest.mark.parametrize(
    ("verb", "row", "said"),
    [
        ("preference", {"prompt": "a", "completion": "b"}, "rejected"),
        ("unpaired", {"prompt": "a", "completion": "b"}, "label"),
        ("reward", {"prompt": "a", "completion": "b"}, "rejected"),
    ],
)
def test_columns_that_are_not_there_are_named(
    tiny: Tiny, tmp_path: Path, capsys: Any, verb: str, row: dict[str, str], said: str
) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [row] * 4)
    words = ["--model.path", str(tiny.policy), "--data.path", str(path)]
    assert main([verb, "--run.folder", str(tmp_path / "run"), *words]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told


def test_an_unknown_loss_is_answered_with_the_nearest(
    tiny: Tiny, tmp_path: Path, capsys: Any
) -> None:
    words = ["--model.path", str(tiny.policy), "--data.path", str(tiny.pairs)]
    status = main(
        ["preference", "--run.folder", str(tmp_path / "run"), *words, "--loss_type", "simpoo"]
    )
    assert status == 2
    assert "did you mean 'simpo'" in capsys.readouterr().err
