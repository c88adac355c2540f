"""Rankings, ratings and steps from rows: what is read, and what is counted with its reason."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from heed.data.datasets import load_rankings, load_ratings, load_steps, recognise
from heed.data.groups import group_of, groups_of, that_order
from heed.data.inspect import inspect
from heed.data.judgements import LabelledPair
from heed.data.report import DataReport
from heed.errors import ConfigError, DataError
from heed.records import Message, Prompt, Ranking
from heed.settings import DataSettings

TEXTS = [" Anna.", " Nobody.", " Go away."]


def settings(path: Path, *rows: dict[str, Any], **more: Any) -> DataSettings:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataSettings(path=str(path), **more)


@pytest.mark.parametrize(
    "columns",
    [
        {"completions": TEXTS, "ranks": [1, 2, 2]},
        {"responses": TEXTS, "ranks": [0, 5.5, 5.5]},
        {"completions": TEXTS, "scores": [4, -1, -1]},
        {"responses": TEXTS, "best": 0},
        {"ranking": [[" Anna."], [" Nobody.", " Go away."]]},
        {"ranking": [" Anna.", [" Nobody.", " Go away."]]},
    ],
)
def test_every_layout_says_the_same(tmp_path: Path, columns: dict[str, Any]) -> None:
    data = settings(tmp_path / "a.jsonl", {"prompt": "Who?", "source": "x", **columns})
    (ranking,), report = load_rankings(data)
    assert [reply[0].text for reply in ranking.replies] == TEXTS
    assert ranking.ranks == (1, 2, 2)
    assert ranking.prompt.meta == {"source": "x"}
    assert report.kept == 1
    assert recognise(data) == "rankings"


def test_dialogues_and_records_are_read(tmp_path: Path) -> None:
    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    row = {
        "prompt": [{"role": "user", "content": "Who?"}],
        "ranking": [said("Anna."), [said("Bob."), said("Eve.")]],
    }
    (ranking,), _ = load_rankings(settings(tmp_path / "a.jsonl", row))
    assert ranking.ranks == (1, 2, 2)
    assert ranking.replies[2] == (Message(role="assistant", text="Eve."),)
    again, _ = load_rankings(settings(tmp_path / "b.jsonl", ranking.model_dump(mode="json")))
    assert again == [ranking]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"completions": TEXTS[:1], "ranks": [1]}, "a ranking of fewer than two completions"),
        ({"completions": TEXTS, "ranks": [1, 2]}, "not one of ranks for each completion"),
        ({"completions": TEXTS, "ranks": [1, 2, math.nan]}, "ranks is not a finite number"),
        ({"completions": TEXTS, "scores": [1, None, 2]}, "scores holds a missing value"),
        ({"completions": TEXTS, "ranks": [1, 2, True]}, "ranks is not a finite number"),
        ({"completions": "abc", "ranks": [1]}, "completions is not a list"),
        ({"completions": [" a", " a"], "ranks": [1, 2]}, "one completion at two ranks"),
        (
            {"completions": [" a", " a"], "ranks": [1, 1]},
            "all completions of a ranking are the same",
        ),
        ({"completions": TEXTS, "best": 3}, "best is not the place of a completion"),
        ({"completions": [" a", ""], "ranks": [1, 2]}, "empty reply"),
        ({"ranking": []}, "a ranking of fewer than two completions"),
    ],
)
def test_what_is_no_ranking_is_dropped_with_its_reason(
    tmp_path: Path, columns: dict[str, Any], reason: str
) -> None:
    rankings, report = load_rankings(settings(tmp_path / "a.jsonl", {"prompt": "Who?", **columns}))
    assert rankings == []
    assert dict(report.reasons) == {reason: 1}


def test_a_record_checks_its_ranks() -> None:
    replies = tuple((Message(role="text", text=text),) for text in TEXTS)
    prompt = Prompt.make("Who?", raw=True)
    for ranks in ((1, 2), (0, 1, 2), (1, 3, 3), (2, 2, 3)):
        with pytest.raises(ValueError, match="rank"):
            Ranking(id="r", prompt=prompt, replies=replies, ranks=ranks)


def test_a_ranking_is_all_its_pairs() -> None:
    replies = tuple((Message(role="text", text=text),) for text in (*TEXTS, " Eve."))
    prompt = Prompt.make("Who?", raw=True)
    group = group_of(Ranking(id="r", prompt=prompt, replies=replies, ranks=(3, 1, 2, 1)))
    assert len(group.pairs) == 6
    for pair, (i, j) in zip(group.pairs, group.at, strict=True):
        assert (pair.chosen, pair.rejected) == (replies[i], replies[j])
    ties = [
        (pair.p, pair.tie, at) for pair, at in zip(group.pairs, group.at, strict=True) if pair.tie
    ]
    assert ties == [(0.5, 1.0, (1, 3))]
    report = DataReport("here")
    (ordered,) = that_order([group], report, drop_ties=True)
    assert len(ordered.pairs) == 5
    tied = group_of(Ranking(id="t", prompt=prompt, replies=replies, ranks=(1, 1, 1, 1)))
    assert that_order([tied], report, drop_ties=True) == []
    assert report.num_set_aside == 1
    assert len(that_order([tied], report, drop_ties=False)[0].pairs) == 6


def test_pairs_of_a_prompt_share_their_completions() -> None:
    prompt, other = Prompt.make("Who?"), Prompt.make("Where?")
    a, b, c = ((Message(role="assistant", text=text),) for text in "abc")
    pairs = [
        LabelledPair("1", prompt, a, b),
        LabelledPair("2", other, a, c, 0.7),
        LabelledPair("3", prompt, c, a),
    ]
    one, two = groups_of(pairs)
    assert (one.replies, one.at, one.pairs) == ((a, b, c), ((0, 1), (2, 0)), (pairs[0], pairs[2]))
    assert (two.replies, two.at, two.ranks) == ((a, c), ((0, 1),), None)


RATED = {"prompt": "Who?", "completion": " Anna."}


def test_numbers_that_are_missing_stay_missing(tmp_path: Path) -> None:
    data = settings(
        tmp_path / "a.jsonl",
        {**RATED, "helpfulness": 3, "verbosity": None},
        {"prompt": "Who?", "response": " Nobody.", "verbosity": 1.5},
        {"prompt": "Who?", "completion": " Nobody.", "verbosity": 2},
    )
    with pytest.raises(DataError, match="correctness"):
        load_ratings(data, ("helpfulness", "correctness"))
    ratings, report = load_ratings(data, ("helpfulness", "verbosity"))
    assert [r.numbers for r in ratings] == [(3.0, None), (None, 2.0)]
    assert report.reasons == {"completion is missing": 1}
    assert "verbosity: 1 of 2 completions have a number" in report.notes


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"score": math.nan}, "score is not a finite number"),
        ({"score": math.inf}, "score is not a finite number"),
        ({"score": "high"}, "score is not a finite number"),
        ({"score": None}, "no attribute is labelled"),
        ({}, "no attribute is labelled"),
    ],
)
def test_what_is_no_number_is_dropped(tmp_path: Path, columns: dict, reason: str) -> None:
    data = settings(tmp_path / "a.jsonl", {**RATED, "score": 1.0}, {**RATED, **columns})
    ratings, report = load_ratings(data, ("score",))
    assert len(ratings) == 1
    assert dict(report.reasons) == {reason: 1}


def test_attributes_are_named_once(tmp_path: Path) -> None:
    data = settings(tmp_path / "a.jsonl", {**RATED, "score": 1.0})
    for names in ((), ("score", "score")):
        with pytest.raises(ConfigError, match="each once"):
            load_ratings(data, names)


STEPS = {"prompt": "What is 2 + 3 - 1?", "completions": ["2 + 3 = 5.", "5 - 1 = 3."]}


def test_steps_are_read(tmp_path: Path) -> None:
    data = settings(
        tmp_path / "a.jsonl",
        {**STEPS, "labels": [True, False]},
        {**STEPS, "labels": [0.25, None]},
    )
    found, report = load_steps(data)
    assert [s.labels for s in found] == [(1.0, 0.0), (0.25, None)]
    assert found[0].steps == ("2 + 3 = 5.", "5 - 1 = 3.")
    assert report.kept == 2
    assert recognise(data) == "steps"
    assert inspect(data)[0] == "kind: steps"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"labels": [True]}, "not one label for each step"),
        ({"labels": [True, 2]}, "labels is outside its range"),
        ({"labels": [None, None]}, "no step is labelled"),
        ({"labels": [True, "yes"]}, "labels is not a finite number"),
        ({"completions": ["a", " "], "labels": [True, False]}, "a step is empty or not text"),
        ({"completions": [], "labels": []}, "a step is empty or not text"),
    ],
)
def test_what_are_no_steps_is_dropped(tmp_path: Path, columns: dict, reason: str) -> None:
    found, report = load_steps(settings(tmp_path / "a.jsonl", {**STEPS, **columns}))
    assert found == []
    assert dict(report.reasons) == {reason: 1}


def test_rankings_are_shown_as_they_are(tmp_path: Path) -> None:
    data = settings(
        tmp_path / "a.jsonl", {"prompt": "Who?", "completions": TEXTS, "ranks": [2, 1, 1]}
    )
    lines = inspect(data)
    assert lines[0] == "kind: rankings"
    assert any("rank 2 (text):  Anna." in line for line in lines)
