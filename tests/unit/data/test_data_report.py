"""The report counts every row once, and stops with the counts, the reasons and the remedies."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from heed.data.batch import Row
from heed.data.report import DataReport, settle, show_example
from heed.errors import DataError

from .conftest import CHATML, MakeTokenizer


def report_of(
    read: int, cut: int = 0, drop: int = 0, unsupervised: int = 0, aside: int = 0
) -> DataReport:
    report = DataReport("rows.jsonl")
    report.add_read(read)
    for _ in range(cut):
        report.cut("longer than 8 tokens", "a long one")
    for _ in range(drop):
        report.drop("empty reply", "what?")
    for _ in range(unsupervised):
        report.unsupervised("no token to learn")
    for _ in range(aside):
        report.set_aside("not judged: cannot_judge")
    return report


def test_every_row_is_counted_once() -> None:
    report = report_of(100, cut=3, drop=4, unsupervised=2, aside=5)
    assert report.kept == 100 - 4 - 2 - 5
    assert report.num_lost == 3 + 4 + 2
    assert report.loss_frac == 0.09
    assert report.reasons["empty reply"] == 4


def test_a_loss_at_the_limit_passes_and_one_row_more_stops() -> None:
    report_of(100, cut=1).check(0.01)
    with pytest.raises(DataError):
        report_of(100, cut=1, drop=1).check(0.01)
    report_of(100, aside=60).check(0.0)


def test_the_stop_has_counts_reasons_an_example_and_both_remedies() -> None:
    report = report_of(200, cut=1, drop=4, unsupervised=2)
    with pytest.raises(DataError) as caught:
        report.check(0.01)
    text = str(caught.value)
    for part in (
        "of 200 rows 7 (3.50%) are lost: 1 cut, 4 dropped, 2 unsupervised",
        "empty reply (4); no token to learn (2); longer than 8 tokens (1)",
        "First example: what?",
        "data.max_length",
    ):
        assert part in text
    # The share that it offers is enough, and not much more than needed.
    offered = re.search(r"data\.max_loss_frac=(\S+)", text)
    assert offered
    assert 0.035 <= float(offered[1]) < 0.06
    report.check(float(offered[1]))


@pytest.mark.parametrize("lost", [1, 2, 7, 49, 333, 500, 997, 999])
def test_the_offered_share_is_always_enough(lost: int) -> None:
    report = report_of(1000, drop=lost)
    with pytest.raises(DataError) as caught:
        report.check(0.0)
    offered = re.search(r"data\.max_loss_frac=(\S+)", str(caught.value))
    assert offered
    report.check(float(offered[1]))


def test_nothing_left_stops_whatever_is_allowed() -> None:
    with pytest.raises(DataError, match="at least one row must remain") as caught:
        report_of(3, drop=3).check(1.0)
    assert "max_loss_frac=" not in str(caught.value)
    with pytest.raises(DataError, match="at least one row must remain"):
        report_of(3, aside=3).check(1.0)


def test_the_report_becomes_json_and_lines() -> None:
    report = report_of(20, cut=1, drop=2, unsupervised=1, aside=3)
    assert report.to_json()["tokens"] is None
    report.add_kept(3, 9)
    report.add_kept(5)
    report.note("said once")
    report.note("said once")
    out = json.loads(json.dumps(report.to_json()))
    assert (out["read"], out["kept"], out["cut"], out["dropped"]) == (20, 14, 1, 5)
    assert (out["unsupervised"], out["set_aside"]) == (1, 3)
    assert out["tokens"] == {"min": 3, "median": 5, "max": 9, "total": 17}
    assert out["examples"]["empty reply"] == ["what?", "what?"]
    assert out["notes"] == ["said once"]
    text = "\n".join(report.lines())
    for part in (
        "20 rows read, 14 kept",
        "3 more set aside",
        "empty reply",
        "median 5",
        "said once",
    ):
        assert part in text


def test_examples_are_few_short_and_on_one_line() -> None:
    report = DataReport("x")
    for _ in range(50):
        report.drop("bad", "a\n b " * 1000)
    assert len(report.examples["bad"]) == 2
    assert len(report.examples["bad"][0]) <= 160
    assert "\n" not in report.examples["bad"][0]


def test_an_example_shows_its_learn_mask(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(CHATML)
    before = tokenizer("<|im_start|>The sky")["input_ids"]
    said = tokenizer(" is blue<|im_end|>")["input_ids"]
    row = Row("r", [*before, *said], [False] * len(before) + [True] * len(said))
    assert show_example(row, tokenizer) == "<|im_start|>The sky[[ is blue<|im_end|>]]"
    colored = show_example(row, tokenizer, color=True)
    assert colored == "<|im_start|>The sky\x1b[32m is blue<|im_end|>\x1b[0m"


class _Kept:
    """A run that keeps what it is given."""

    def __init__(self) -> None:
        self.reports: list[dict] = []
        self.shown: list[str] = []

    def write_data_report(self, reports: Sequence[Mapping[str, Any]]) -> None:
        self.reports = [dict(report) for report in reports]

    def note(self, text: str) -> None:
        self.shown.append(text)


def test_counts_are_kept_and_shown_before_too_much_loss_stops_the_run() -> None:
    """The user sees the counts of every source also where the run stops because of one of them."""
    good, bad = DataReport("good.jsonl"), DataReport("bad.jsonl")
    good.add_read(2)
    bad.add_read(2)
    bad.drop("empty reply", "line 2")
    keeper = _Kept()
    with pytest.raises(DataError, match=r"bad\.jsonl"):
        settle(keeper, [(good, 0.01), (bad, 0.01)])
    assert [report["source"] for report in keeper.reports] == ["good.jsonl", "bad.jsonl"]
    assert any(line.startswith("good.jsonl: 2 rows read, 2 kept") for line in keeper.shown)
    assert any("empty reply" in line for line in keeper.shown)
    settle(keeper, [(bad, 0.5)])
