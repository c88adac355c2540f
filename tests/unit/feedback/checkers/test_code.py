"""The checker of programs: where the program stands in a completion, and what its verdict is."""

import pytest

from heed.feedback.checkers import PythonTests
from heed.feedback.sandbox import run as sandbox

ADD = "def add(a, b):\n    return a + b\n"
ROW = {"tests": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]}
CHECKER = PythonTests(seconds=1, wall_seconds=5.0)


def fenced(code, kind="python"):
    return f"```{kind}\n{code}\n```"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (ADD, 1),
        (fenced(ADD), 1),
        (f"Here:\n{fenced(ADD)}\nDone.", 1),
        (f"{fenced('print(1)', 'sh')}\n{fenced(ADD, '')}\n{fenced('x', 'text')}", 1),
        (f"{fenced('def add(a, b): return 0')}\nBetter:\n{fenced(ADD)}", 1),
        (f"{fenced(ADD)}\nOr:\n{fenced('def add(a, b): return 0')}", 0),
        (f"<think>{fenced('def add(a, b): return 0')}</think>\n{fenced(ADD)}", 1),
        (f"<think>{fenced(ADD)}", 0),
        (f"I cannot.\n{ADD}", 0),
        (f"```python\n{ADD}", 1),
        ("```python\ndef add(a, b):\n    return a +", 0),
        ("", 0),
    ],
)
def test_where_the_program_stands(text, value):
    assert CHECKER.judge(text, ROW).value == value


def test_blocks_can_be_joined_or_the_first_taken():
    text = f"{fenced('def one(): return 1')}\n{fenced('def add(a, b): return a + b * one()')}"
    assert CHECKER.judge(text, ROW).value == 0.0
    assert CHECKER.model_copy(update={"blocks": "all"}).judge(text, ROW).value == 1.0
    first = f"{fenced(ADD)}\n{fenced('def add(a, b): return 0')}"
    assert CHECKER.model_copy(update={"blocks": "first"}).judge(first, ROW).value == 1.0


def test_a_share_of_the_tests_is_a_part_and_a_value_only_where_asked_for():
    half = "def add(a, b): return 4"
    verdict = CHECKER.judge(half, ROW)
    assert (verdict.value, dict(verdict.parts)) == (0.0, {"passed": 0.5})
    assert verdict.reason == "1 of 2 tests pass; AssertionError"
    assert CHECKER.model_copy(update={"partial": True}).judge(half, ROW).value == 0.5


def test_pairs_of_arguments_and_value_and_a_setup_are_tests_too():
    row = {"tests": [[[1, 2], 3], {"args": [2, 2], "expected": 4}], "entry_point": "add"}
    assert CHECKER.judge(ADD, row).value == 1.0
    row = {"tests": ["assert add(x, y) == 3"], "setup": ["x = 1", "y = 2"]}
    assert CHECKER.judge(ADD, row).value == 1.0
    row = {"tests": "def test_it():\n    assert add(1, 2) == 3", "start": "def add(a, b):"}
    assert PythonTests(prefix="start").judge("\n    return a + b", row).value == 1.0


def test_broken_tests_and_none_are_no_judgement():
    rows = [{"tests": "assert ("}, {"tests": []}, {"tests": None}, {"tests": [7]}]
    verdicts = CHECKER.judge_all([ADD] * 4, rows)
    assert [verdict.value for verdict in verdicts] == [None] * 4
    assert "do not parse" in verdicts[0].reason
    assert "no test" in verdicts[1].reason
    assert verdicts[2].reason == "does not apply: the row has no tests"


def test_a_strict_checker_judges_in_a_whole_sandbox_only(monkeypatch):
    strict = CHECKER.model_copy(update={"strict": True})
    monkeypatch.setattr("heed.feedback.checkers.code.LAYERS", (*sandbox.LAYERS, "walls"))
    verdict = strict.judge(ADD, ROW)
    assert verdict.value is None
    assert "walls" in verdict.reason
    assert CHECKER.judge(ADD, ROW).value == 1.0


def test_many_are_judged_in_their_order():
    texts = [f"def add(a, b): return {n}" for n in range(8)]
    rows = [{"tests": [f"assert add(1, 2) == {n % 2 + n}"]} for n in range(8)]
    found = PythonTests(workers=3).judge_all(texts, rows)
    assert [verdict.value for verdict in found] == [1.0, 0.0] * 4
