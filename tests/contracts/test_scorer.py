"""What every scorer must do, run on every implementation."""

import pytest
from tests.contracts.feedback_samples import LetterHead, LetterRenderer, item

from heed.feedback.base import Item
from heed.feedback.checkers import CheckerScorer, Regex
from heed.feedback.costed import CostedScorer
from heed.feedback.ensemble import Ensemble
from heed.feedback.foreign import ForeignScorer
from heed.feedback.resolve import WorldScorer
from heed.feedback.reward_model import RewardModelScorer
from heed.feedback.rules import CallableScorer, WeightedSum
from heed.records import Score
from heed.worlds.town import Town

ITEMS = [
    item("Who owns the Swan?", "Anna owns the Swan."),
    item("Who built the Oak?", "I do not know."),
    item("Who built the Oak?", ""),
    item("Once upon a time", " there was a harp", raw=True),
    item("Who owns the Fox?", "a much longer text than all of the others " * 3),
    item("Who owns the Fox?", "cut", error="the server went away"),
]


def length(completions, **columns):
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [float(len(text)) for text in texts]


async def slow_length(completions, **columns):
    return length(completions)


def answer_length(prompt, completions, prompt_ids, completion_ids, **columns):
    return len(completions)


SCORERS = {
    "callable": lambda: CallableScorer(length),
    "async callable": lambda: CallableScorer(slow_length),
    "weighted sum": lambda: WeightedSum(
        [CallableScorer(length, "a"), CallableScorer(length, "b")], [1.0, -0.5]
    ),
    "ensemble": lambda: Ensemble(
        [CallableScorer(length, "a"), RewardModelScorer(LetterHead(), LetterRenderer())],
        "mean_minus_std",
    ),
    "with a cost": lambda: CostedScorer(
        CallableScorer(length), RewardModelScorer(LetterHead(), LetterRenderer())
    ),
    "reward model": lambda: RewardModelScorer(LetterHead(), LetterRenderer(), batch_tokens=64),
    "world": lambda: WorldScorer(Town(0)),
    "foreign": lambda: ForeignScorer(answer_length, "areal"),
    "checker": lambda: CheckerScorer(Regex(pattern="Anna", match="search")),
}


@pytest.fixture(params=SCORERS)
def scorer(request):
    return SCORERS[request.param]()


def _values(scores: list[Score]) -> list[float | None]:
    return [None if s.value is None else pytest.approx(s.value, abs=1e-6) for s in scores]


def test_one_score_for_each_item_in_their_order(scorer):
    scores = scorer.score(ITEMS)
    assert [s.item_id for s in scores] == [i.completion.id for i in ITEMS]
    assert {s.scorer for s in scores} == {scorer.name}
    assert scorer.name


def test_no_items_give_no_scores(scorer):
    assert scorer.score([]) == []


def test_a_failed_completion_has_an_error_and_harms_no_other(scorer):
    scores = scorer.score(ITEMS)
    assert scores[-1].value is None
    assert "the server went away" in scores[-1].error
    assert all(s.value is not None and s.error is None for s in scores[:-1])
    assert scorer.score(ITEMS[-1:])[0].value is None


def test_a_score_does_not_depend_on_batch_mates_or_order(scorer):
    together = scorer.score(ITEMS)
    alone = [scorer.score([i])[0] for i in ITEMS]
    backwards = scorer.score(ITEMS[::-1])[::-1]
    assert [s.value for s in alone] == _values(together)
    assert [s.value for s in backwards] == _values(together)


def test_scoring_twice_gives_the_same(scorer):
    assert scorer.score(ITEMS) == scorer.score(ITEMS)


def test_equal_items_have_equal_scores_and_different_ones_can_differ(scorer):
    one, again, other = scorer.score([ITEMS[0], ITEMS[0], ITEMS[4]])
    assert one == again
    assert one.value != other.value


def test_items_are_not_changed(scorer):
    before = [
        Item(i.prompt.model_copy(deep=True), i.completion.model_copy(deep=True)) for i in ITEMS
    ]
    scorer.score(ITEMS)
    assert before == ITEMS
