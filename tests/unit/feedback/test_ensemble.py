"""Ensembles: combined by hand, from a word, and what happens where a member fails."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tests.contracts.feedback_samples import item

from heed.errors import ConfigError
from heed.feedback.ensemble import DISAGREEMENT, Ensemble, read_word, sources_of
from heed.feedback.resolve import load_scorer, load_scorers
from heed.feedback.rules import CallableScorer
from heed.flags import slots_of, split_arguments
from heed.pipelines.compare import CompareConfig

ITEMS = [item("Who?", "Anna."), item("Who?", "Nobody.")]


def constant(*values: float | None, name: str) -> CallableScorer:
    return CallableScorer(lambda completions, **columns: list(values[: len(completions)]), name)


MEMBERS = [constant(1.0, 0.0, name="a"), constant(2.0, 0.0, name="b"), constant(6.0, 0.0, name="c")]


@pytest.mark.parametrize(
    ("how", "k", "expected"),
    [
        ("mean", 1.0, 3.0),
        ("min", 1.0, 1.0),
        ("mean_minus_std", 1.0, 3.0 - math.sqrt(7.0)),
        ("mean_minus_std", 0.5, 3.0 - 0.5 * math.sqrt(7.0)),
        ("mean_minus_std", 0.0, 3.0),
    ],
)
def test_combined_by_hand(how: str, k: float, expected: float) -> None:
    """1, 2, 6: mean 3, variance ((-2)^2 + (-1)^2 + 3^2) / 2 = 7; where all agree nothing is off."""
    one, other = Ensemble(MEMBERS, how, k).score(ITEMS)  # type: ignore[arg-type]
    assert one.value == pytest.approx(expected)
    assert one.parts == {"a": 1.0, "b": 2.0, "c": 6.0, DISAGREEMENT: pytest.approx(math.sqrt(7))}
    assert other.value == 0.0
    assert other.parts[DISAGREEMENT] == 0.0


def test_a_member_without_a_value_leaves_the_item_without_one() -> None:
    """A worst case over the others would be better than the truth: missing is not neutral."""
    silent = constant(None, 5.0, name="silent")
    nan = constant(1.0, float("nan"), name="nan")
    one, other = Ensemble([silent, nan], "min").score(ITEMS)
    assert one.value is other.value is None
    assert "silent" in str(one.error)
    assert "nan" in str(other.error)
    assert one.parts == {"silent": None, "nan": 1.0}
    assert other.parts == {"silent": 5.0, "nan": None}


def test_what_is_no_ensemble_is_refused() -> None:
    for members, how, k, message in (
        (MEMBERS[:1], "mean", 1.0, "two or more"),
        ([MEMBERS[0], MEMBERS[0]], "mean", 1.0, "a name of its own"),
        ([MEMBERS[0], constant(1.0, name=DISAGREEMENT)], "mean", 1.0, "a name of its own"),
        (MEMBERS, "median", 1.0, "mean, min or mean_minus_std"),
        (MEMBERS, "mean_minus_std", -1.0, "at least 0"),
        (MEMBERS, "mean_minus_std", math.nan, "at least 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            Ensemble(members, how, k)  # type: ignore[arg-type]


def test_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_word("runs/reward") is None
    assert read_word("rules.py:minimum") is None
    assert read_word("min(a, runs/b)") == ("min", 1.0, ("a", "runs/b"))
    assert read_word("mean(a,b,c)") == ("mean", 1.0, ("a", "b", "c"))
    assert read_word("mean-0.5std(a, b)") == ("mean_minus_std", 0.5, ("a", "b"))
    assert read_word("mean-std(a, b)") == ("mean_minus_std", 1.0, ("a", "b"))
    for folder in ("rm-1", "rm-2", "other"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_word("min(rm-*)") == ("min", 1.0, ("rm-1", "rm-2"))
    assert sources_of("min(rm-*)") == ("rm-1", "rm-2")
    assert sources_of("other") == "other"
    for word in ("min(a)", "min()", "mean(none-*)"):
        with pytest.raises(ConfigError, match="two or more"):
            read_word(word)


def test_a_word_is_one_value_of_a_list() -> None:
    """The comma inside the brackets parts members, not values of the setting."""
    _, values, problems = split_arguments(slots_of(CompareConfig), ["--scorers", "min(a, b),c"])
    assert values == {"scorers": ["min(a, b)", "c"]}
    assert problems == []


def test_members_of_a_word_are_told_apart(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rule.py").write_text(
            f"def score(completions, **columns):\n    return [{len(folder)}.0] * len(completions)\n"
        )
    words = [f"{tmp_path}/{folder}/rule.py:score" for folder in ("one", "two")]
    found = load_scorers([f"mean({', '.join(words)})"]).score(ITEMS)[0]
    assert found.parts == {"one-rule.py:score": 3.0, "two-rule.py:score": 3.0, DISAGREEMENT: 0.0}
    assert load_scorer(words[0]).name == "score"
