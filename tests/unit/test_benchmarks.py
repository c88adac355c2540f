"""The benchmark's own arithmetic, its document, and the turns that its workers take."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.gpu_report import MARKS, pair_ratios
from benchmarks.gpu_report import table as gpu_table
from benchmarks.summary import BEGIN, END, HEED, TRL, put_section, ratio_of, summarise, table

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
from benchmarks.turns import Turns
turns = Turns()
turns.ready()
while True:
    print("what a library prints")
    turns.note(num_tokens=7)
    turns.step_done()
"""


def turn(side: str, pair: int, seconds: list[float], job: str = "sft") -> dict[str, object]:
    return {
        "kind": "turn",
        "job": job,
        "model": "nano",
        "lengths": "fixed",
        "side": side,
        "precision": "fp32",
        "pair": pair,
        "seconds": seconds,
        "peak_bytes": 10**9 * (pair + 1),
        "others_cores": 0.1,
    }


def test_interval_is_students_on_logarithms() -> None:
    found = ratio_of([1.0, 8.0, 2.0], [1.0, 2.0, 1.0])  # ratios 1, 4 and 2
    half = 4.302653 * math.log(2) / math.sqrt(3)
    assert found.mean == pytest.approx(2.0)
    assert found.low == pytest.approx(2.0 * math.exp(-half), rel=1e-4)
    assert found.high == pytest.approx(2.0 * math.exp(half), rel=1e-4)


def test_one_or_two_pairs_have_no_interval() -> None:
    one, two = ratio_of([3.0], [2.0]), ratio_of([1.0, 8.0], [1.0, 2.0])
    assert (one.mean, one.low, one.high) == (1.5, None, None)
    assert (two.low, two.high) == (None, None)
    assert (str(one), str(two)) == ("1.50 (1 pair)", "2.00 (2 pairs)")


def test_pairs_are_compared_with_themselves() -> None:
    turns = [
        turn(TRL, 1, [6.0, 6.0]),
        turn(TRL, 0, [2.0, 4.0]),
        turn(HEED, 0, [1.0]),
        turn(HEED, 1, [1.0, 3.0]),
    ]
    (line,) = summarise([{"kind": "facts"}, *turns])
    assert line.seconds == {TRL: 4.5, HEED: 1.5}
    assert line.ratios[TRL].mean == pytest.approx(3.0)
    assert line.ratios[TRL].num_pairs == 2
    assert line.peak_bytes[HEED] == 2 * 10**9
    assert "| 4500 (fp32) | - | 1500 |" in table([line])


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = put_section(document, "new")
    assert once == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert put_section(once, "new") == once
    with pytest.raises(ValueError, match="lacks"):
        put_section("no marks", "new")
    document = (ROOT / "docs" / "benchmarks.md").read_text()
    assert BEGIN in document
    assert put_section(document, "new", *MARKS).count("new") > document.count("new")


def test_a_step_that_does_something_for_the_first_time_is_in_no_ratio() -> None:
    turns = [
        turn(TRL, 0, [2.0, 2.0, 2.0]),
        turn(HEED, 0, [1.0, 9.0, 1.0]),
        turn(TRL, 1, [4.0, 4.0]),
        turn(HEED, 1, [1.0, 1.0]),
        turn(TRL, 2, [1.0]),  # its other half was cut off
    ]
    assert pair_ratios(turns) == [2.0, 4.0]
    device = {"peak_device_bytes": 0}
    rows = gpu_table([{**row, **device} for row in turns]).splitlines()
    assert "| 2,000 (fp32) | 1,000 (fp32) | **2.83** (2.00 to 4.00, 2 pairs) |" in rows[-1]
    assert rows[0].count("|") == rows[-1].count("|")


def test_a_worker_runs_the_steps_it_is_told_to_and_ends() -> None:
    commands = "".join(json.dumps({"steps": n}) + "\n" for n in (3, 1))
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        input=commands,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    ready, first, second = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert ready["ready"] is True
    assert [len(first["seconds"]), len(second["seconds"])] == [3, 1]
    assert first["num_tokens"] == [7, 7, 7]
    assert second["peak_bytes"] > 1 << 20
