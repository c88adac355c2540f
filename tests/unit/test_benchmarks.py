"""The benchmark's own arithmetic, its document, and the turns that its workers take."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
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
    found = ratio_of([1.0, 8.0], [1.0, 2.0])  # ratios 1 and 4
    half = 12.7062 * (math.log(4) / math.sqrt(2)) / math.sqrt(2)
    assert found.mean == pytest.approx(2.0)
    assert found.low == pytest.approx(2.0 * math.exp(-half), rel=1e-4)
    assert found.high == pytest.approx(2.0 * math.exp(half), rel=1e-4)


def test_one_pair_has_no_interval() -> None:
    found = ratio_of([3.0], [2.0])
    assert (found.mean, found.low, found.high) == (1.5, None, None)


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
    assert line.ratios[TRL].low == pytest.approx(3.0)
    assert line.peak_bytes[HEED] == 2 * 10**9
    assert "| 4500 (fp32) | - | 1500 |" in table([line])


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = put_section(document, "new")
    assert once == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert put_section(once, "new") == once
    with pytest.raises(ValueError, match="lacks"):
        put_section("no marks", "new")
    assert BEGIN in (ROOT / "docs" / "benchmarks.md").read_text()


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
