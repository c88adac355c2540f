"""Scores that are comparisons: opponents, tournaments, and what becomes of failures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.contracts.feedback_samples import completion

from heed.errors import ConfigError, FeedbackError
from heed.feedback.base import Item
from heed.feedback.judges import JudgeLabeller, load_judge
from heed.feedback.rules import CallableScorer
from heed.feedback.versus import (
    TournamentScorer,
    VersusScorer,
    by_labeller,
    by_scorer,
    pair_of,
    probability,
)
from heed.records import Completion, Pair, PolicyRef, Prompt, Sampling

ASK = Prompt.make("Who owns the Swan?")


def longer(completions: Sequence[Any], **columns: Any) -> list[float]:
    return [float(len(each[0]["content"])) for each in completions]


def items(*texts: str, seed: int = 0) -> list[Item]:
    made = [completion(ASK, text) for text in texts]
    return [Item(ASK, one.model_copy(update={"sampling": Sampling(seed=seed)})) for one in made]


class Fixed:
    """An engine that says texts in turn; notes how it was asked."""

    policy = PolicyRef(run="other", step=0)

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = texts, []  # type: ignore[var-annotated]

    def load(self, weights: Mapping[str, Any] | None, policy: PolicyRef) -> None:
        """Nothing to load."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        self.asked.append((len(prompts), sampling.n, sampling.seed))
        return [
            [completion(p, self.texts[i % len(self.texts)]) for i in range(sampling.n)]
            for p in prompts
        ]


def test_probabilities() -> None:
    assert probability(1.5, 0.5) == pytest.approx(1 / (1 + math.exp(-3)))
    assert [probability(gap, 0.0) for gap in (2.0, 0.0, -1.0)] == [1.0, 0.5, 0.0]
    assert probability(-1e6, 1.0) == pytest.approx(0.0)


def test_each_completion_meets_an_opponent_of_its_own() -> None:
    engine = Fixed("aa", "aaaa")
    scorer = VersusScorer(by_scorer(CallableScorer(longer), 1.0), engine)
    scores = scorer.score(items("bbb", "bbb "))
    assert [s.value for s in scores] == pytest.approx([probability(1, 1.0), 0.5])
    again = VersusScorer(by_scorer(CallableScorer(longer), 1.0), Fixed("aa", "aaaa"))
    assert again.score(items("bbb", "bbb ")) == scores
    assert engine.asked == [(1, 2, engine.asked[0][2])]
    scorer.score(items("bbb", "bbb ", seed=1))
    assert engine.asked[1][2] != engine.asked[0][2]  # another update, other opponents


def test_halves_meet_their_counterparts_and_all_meet_all() -> None:
    opinion = by_scorer(CallableScorer(longer), 0.0)
    four = items("a", "aaa", "aa", "aaaa")
    halves = TournamentScorer(opinion, 4, "halves").score(four)
    assert [s.value for s in halves] == [0.0, 0.0, 1.0, 1.0]
    everyone = TournamentScorer(opinion, 4, "all").score(four)
    assert [s.value for s in everyone] == pytest.approx([0.0, 2 / 3, 1 / 3, 1.0])
    with pytest.raises(FeedbackError, match="no whole groups of 4"):
        TournamentScorer(opinion, 4, "all").score(four[:3])


def test_a_failed_completion_and_what_it_meets_have_errors() -> None:
    broken = Item(ASK, completion(ASK, "x", error="gone"))
    two = [broken, *items("aa")]
    scores = TournamentScorer(by_scorer(CallableScorer(longer), 0.0), 2, "halves").score(two)
    assert "gone" in (scores[0].error or "")
    assert scores[1].error == "what it meets failed"
    first, second = VersusScorer(by_scorer(CallableScorer(longer), 0.0), Fixed("a")).score(two)
    assert "gone" in (first.error or "")
    assert second.value == 1.0


def test_equal_texts_are_a_tie_that_nobody_is_asked_about() -> None:
    shown: list[int] = []

    def judge(prompts: list[Any], completions: list[Any]) -> list[float]:
        shown.append(len(completions))
        return [1.0] * len(completions)

    same = pair_of(ASK, completion(ASK, "a"), completion(ASK, "a").model_copy(update={"id": "b"}))
    other = pair_of(ASK, completion(ASK, "a"), completion(ASK, "c"))
    found = by_labeller(JudgeLabeller(judge))([same, other])
    assert found[0] == 0.5
    assert found[1] in (0.0, 1.0)
    assert shown == [1]


def test_a_judges_answer_is_turned_back() -> None:
    """Whichever side is shown first, the same side is better."""

    def prefers_b(prompts: list[Any], completions: list[Any]) -> list[float]:
        return [0.8 if "b" in str(first[0]["content"]) else 0.2 for first, _ in completions]

    pairs = [
        Pair(id=str(i), prompt=ASK, left=completion(ASK, "a"), right=completion(ASK, "b"))
        for i in range(30)
    ]
    said = JudgeLabeller(prefers_b).compare(pairs).preferences
    assert [s.p_left for s in said] == pytest.approx([0.2] * 30)
    assert {s.shown[0] for s in said} == {"left", "right"}


def test_judges_that_are_not_there() -> None:
    with pytest.raises(ConfigError, match="did you mean 'shorter'"):
        load_judge("tests.unit.algorithms.judges:shortre")
    with pytest.raises(ConfigError, match="is a class; name a function, or write trl:"):
        load_judge("tests.unit.algorithms.judges:ShorterJudge")
