"""What labellers said becomes one label a pair; what they could not say is never a label."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from heed.data.datasets import load_preferences
from heed.data.exchange import write_rows
from heed.data.judgements import LabelledPair, standing
from heed.data.report import DataReport
from heed.errors import DataError
from heed.records import Completion, Pair, Preference, Prompt
from heed.settings import DataSettings

P_LEFT = {"left": 1.0, "right": 0.0, "tie": 0.5}
START = datetime(2026, 1, 1, tzinfo=UTC)


def pair(name: str, left: str = "good", right: str = "bad", *, raw: bool = False) -> Pair:
    prompt = Prompt.make(f"question {name}", raw=raw)

    def side(text: str, suffix: str) -> Completion:
        failed = text == "FAILED"
        return Completion(
            id=name + suffix, prompt_id=prompt.id, prompt_tokens=(1,), tokens=(2,), text=text,
            finish="error" if failed else "stop", error="gone" if failed else None,
        )  # fmt: skip

    return Pair(id=name, prompt=prompt, left=side(left, "l"), right=side(right, "r"))


def said(pair_id: str, outcome: str, labeller: str = "ann", **more: Any) -> Preference:
    values: dict[str, Any] = {
        "id": f"{pair_id}-{labeller}-{outcome}",
        "pair_id": pair_id,
        "outcome": outcome,
        "p_left": P_LEFT.get(outcome),
        "reason": None if outcome in P_LEFT else "said so",
        "labeller": labeller,
        "kind": "human",
    }
    return Preference(**{**values, **more})


def load(
    folder: Path, pairs: list[Pair], preferences: list[Preference], **options: Any
) -> tuple[dict[str, LabelledPair], DataReport]:
    write_rows(folder / "pairs.jsonl", pairs)
    write_rows(folder / "preferences.jsonl", preferences)
    found, report = load_preferences(DataSettings(path=str(folder), **options))
    return {p.id: p for p in found}, report


def test_the_better_side_is_chosen_with_its_probability(tmp_path: Path) -> None:
    pairs = [pair("a"), pair("b"), pair("c"), pair("d")]
    preferences = [
        said("a", "left"),
        said("b", "right"),
        said("c", "tie"),
        said("d", "right", p_left=0.2),
    ]
    found, report = load(tmp_path, pairs, preferences)
    assert {k: (p.chosen[0].text, p.p) for k, p in found.items()} == {
        "a": ("good", 1.0),
        "b": ("bad", 1.0),
        "c": ("good", 0.5),
        "d": ("bad", 0.8),
    }
    assert found["b"].rejected[0].text == "good"
    assert found["a"].chosen[0].role == "assistant"
    assert (report.read, report.kept, report.num_lost) == (4, 4, 0)


def test_several_labellers_give_their_mean(tmp_path: Path) -> None:
    preferences = [
        said("a", "left", "ann"),
        said("a", "right", "ben"),
        said("a", "right", "cy"),
        said("a", "cannot_judge", "dee"),
    ]
    found, _ = load(tmp_path, [pair("a")], preferences)
    assert found["a"].chosen[0].text == "bad"
    assert found["a"].p == pytest.approx(2 / 3)


@pytest.mark.parametrize("outcome", ["cannot_judge", "invalid", "both_bad"])
def test_what_was_not_judged_is_set_aside_and_is_no_loss(tmp_path: Path, outcome: str) -> None:
    preferences = [said("a", "left"), said("b", outcome)]
    found, report = load(tmp_path, [pair("a"), pair("b"), pair("c")], preferences)
    assert list(found) == ["a"]
    assert dict(report.reasons) == {f"not judged: {outcome}": 1, "not labelled yet": 1}
    assert (report.read, report.kept, report.to_json()["dropped"]) == (3, 1, 2)
    report.check(0.0)


def test_both_bad_with_a_probability_is_still_no_label(tmp_path: Path) -> None:
    found, _ = load(
        tmp_path, [pair("a"), pair("b")], [said("a", "both_bad", p_left=0.5), said("b", "tie")]
    )
    assert list(found) == ["b"]


def test_the_newest_word_of_a_labeller_counts(tmp_path: Path) -> None:
    late, early = START + timedelta(days=1), START
    preferences = [said("a", "right", when=late), said("a", "left", when=early)]
    found, _ = load(tmp_path, [pair("a")], preferences)
    assert found["a"].chosen[0].text == "bad"
    assert found["a"].p == 1.0


def test_without_times_the_last_line_counts() -> None:
    first, second = said("a", "left"), said("a", "right")
    assert standing([first, second])["a"]["ann"] is second
    assert standing([second, first])["a"]["ann"] is first


def test_a_replaced_word_does_not_come_back(tmp_path: Path) -> None:
    early = said("a", "left", when=START)
    late = said("a", "right", when=START + timedelta(days=2))
    # Taking `late` back by an older clock still removes it.
    correction = said("a", "tie", replaces=late.id, when=START + timedelta(days=1))
    assert standing([early, late, correction])["a"]["ann"] is correction
    found, _ = load(tmp_path, [pair("a")], [early, late, correction])
    assert found["a"].p == 0.5


def test_a_raw_prompt_has_raw_replies_and_an_empty_one_is_a_reply(tmp_path: Path) -> None:
    found, _ = load(tmp_path, [pair("a", " on", "", raw=True)], [said("a", "right")])
    assert [(m.role, m.text) for m in found["a"].chosen] == [("text", "")]


def test_equal_sides_and_failed_completions_are_left_out(tmp_path: Path) -> None:
    pairs = [pair("a", "same", "same"), pair("b", "good", "FAILED"), pair("c")]
    found, report = load(tmp_path, pairs, [said(p.id, "left") for p in pairs])
    assert list(found) == ["c"]
    assert dict(report.reasons) == {"chosen equals rejected": 1, "a completion failed": 1}
    assert report.num_dropped == 1


def test_pairs_and_preferences_may_stand_in_two_folders(tmp_path: Path) -> None:
    write_rows(tmp_path / "one" / "pairs.jsonl", [pair("a"), pair("b")])
    write_rows(tmp_path / "two" / "preferences.jsonl", [said("b", "left"), said("z", "left")])
    paths = (str(tmp_path / "one"), str(tmp_path / "two"))
    found, report = load_preferences(DataSettings(path=paths))
    assert [p.id for p in found] == ["b"]
    assert any("1 preferences are of pairs that no folder here has" in n for n in report.notes)
    with pytest.raises(DataError, match=r"no preferences\.jsonl with rows"):
        load_preferences(DataSettings(path=paths[0]))
    with pytest.raises(DataError, match=r"no pairs\.jsonl with rows"):
        load_preferences(DataSettings(path=paths[1]))


def test_a_damaged_record_is_dropped_with_its_line(tmp_path: Path) -> None:
    write_rows(tmp_path / "pairs.jsonl", [pair("a"), {"id": "b"}])
    write_rows(tmp_path / "preferences.jsonl", [said("a", "left")])
    found, report = load_preferences(DataSettings(path=str(tmp_path)))
    assert [p.id for p in found] == ["a"]
    assert report.num_dropped == 1
    assert "line 2" in report.examples["pairs.jsonl: not a valid record"][0]


def test_a_limit_takes_the_first_pairs(tmp_path: Path) -> None:
    pairs = [pair(name) for name in "abc"]
    found, report = load(tmp_path, pairs, [said(p.id, "left") for p in pairs], limit=2)
    assert list(found) == ["a", "b"]
    assert report.read == 2


def test_folders_of_judgements_do_not_mix_with_files(tmp_path: Path) -> None:
    load(tmp_path, [pair("a")], [said("a", "left")])
    write_rows(tmp_path / "x.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])
    with pytest.raises(DataError, match="load one kind at a time"):
        load_preferences(DataSettings(path=(str(tmp_path), str(tmp_path / "x.jsonl"))))
