"""Checkers of text on public data: every reference is right, every other one is wrong."""

import re
from pathlib import Path

import pytest

from heed.data.exchange import read_rows
from heed.feedback.checkers import Choice, Exact, Numeric


def rows_of(path: Path) -> list[dict]:
    return [row for _, row in read_rows(path)]


def test_gsm8k_references_are_right_and_those_of_other_questions_wrong(shared_data):
    rows = rows_of(shared_data / "gsm8k/test.jsonl.xz")
    numeric = Numeric()
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        assert numeric.judge(row["answer"], {"answer": row["answer"]}).value == 1.0
        mine, theirs = (r["answer"].rpartition("####")[2].replace(",", "") for r in (row, other))
        said = numeric.judge(row["answer"], {"answer": other["answer"]}).value
        assert said == float(mine.strip() == theirs.strip())


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_model_solutions_of_gsm8k_are_judged_as_their_authors_judged_them(shared_data, every):
    rows = rows_of(shared_data / "gsm8k/example_model_solutions.jsonl.xz")[::every]
    numeric, differ = Numeric(), []
    for row in rows:
        for name in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            verdict = numeric.judge(row[name]["solution"], {"answer": row["ground_truth"]})
            if verdict.value != float(row[name]["is_correct"]):
                differ.append((row[name]["solution"][-60:], verdict))
    assert differ == []


def test_every_target_of_bbh_is_right_and_every_other_one_wrong(shared_data):
    rows = rows_of(shared_data / "bbh/bbh.jsonl.xz")[::4]
    exact = Exact()
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        for frame in ("{}", "So the answer is {}."):
            text = frame.format(row["target"])
            assert exact.judge(text, {"answer": row["target"]}).value == 1.0, text
            wanted = float(row["target"].strip() == other["target"].strip())
            assert exact.judge(text, {"answer": other["target"]}).value == wanted, (text, other)


FRAMES = [
    "{k}", "So the answer is ({k}).", "<answer>{k}</answer>", "({k}) {t}", "{t}",
    "The correct answer is ({k}) {t}.", "I will think.\nAnswer: {k}", "\\boxed{{{k}}}",
]  # fmt: skip


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("every", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_options_of_bbh(shared_data, frame, every):
    choice, num = Choice(), 0
    for row in rows_of(shared_data / "bbh/bbh.jsonl.xz")[::every]:
        options = dict(
            re.findall(r"^\(([A-Z])\) (.*)$", row["input"].partition("Options:")[2], re.MULTILINE)
        )
        right = row["target"].strip("()")
        # A handful of rows have two options of the same text.
        if right not in options or len(set(options.values())) < len(options):
            continue
        num += 1
        for letter in (right, next((k for k in options if k != right), right)):
            text = frame.format(k=letter, t=options[letter])
            verdict = choice.judge(text, {"answer": row["target"], "choices": options})
            assert verdict.value == float(letter == right), (text, options, verdict)
    assert num > 4000 // every
