"""Simulated labellers: noise, skill, bias, ties and time as stated; crews, scorers, replay."""

import math
from collections import Counter
from statistics import mean, median, stdev

import pytest
from tests.contracts.feedback_samples import pair

from heed.errors import ConfigError
from heed.feedback.base import Labelled
from heed.feedback.rules import CallableScorer
from heed.feedback.simulated import (
    Biases,
    Crew,
    ReplayLabeller,
    ResponseTime,
    ScorerLabeller,
    SimulatedLabeller,
)
from heed.records import Preference

NUM = 3000
TOLERANCE = 4 * 0.5 / NUM**0.5  # 4 standard errors of a share, at its widest


def points(item) -> float:
    return float(item.completion.text.split()[0])


def left_share(labeller, left: str, right: str) -> float:
    pairs = [pair(f"p{i}", left, right) for i in range(NUM)]
    return mean(p.p_left for p in labeller.compare(pairs).preferences)


@pytest.mark.parametrize("temperature", [0.25, 0.5, 2.0])
def test_noise_is_bradley_terry(temperature):
    share = left_share(SimulatedLabeller(points, temperature=temperature), "1.0 x", "0.5 y")
    assert share == pytest.approx(1 / (1 + math.exp(-0.5 / temperature)), abs=TOLERANCE)


def test_without_noise_the_better_always_wins_and_equals_tie():
    labeller = SimulatedLabeller(points, temperature=0.0)
    assert left_share(labeller, "1.0", "0.9") == 1.0
    assert left_share(labeller, "0.9", "1.0") == 0.0
    assert labeller.compare([pair("p", "1 a", "1 b")]).preferences[0].outcome == "tie"


@pytest.mark.parametrize("skill", [0.0, 0.4, 1.0])
def test_an_unskilled_labeller_guesses(skill):
    share = left_share(SimulatedLabeller(points, temperature=0.0, skill=skill), "9", "0")
    assert share == pytest.approx(skill + (1 - skill) / 2, abs=TOLERANCE)


def test_ties_are_called_within_their_width_only():
    labeller = SimulatedLabeller(points, temperature=0.0, tie_width=0.3)
    outcomes = [
        labeller.compare([pair("p", "1.0", right)]).preferences[0].outcome
        for right in ("1.0", "0.8", "0.6")
    ]
    assert outcomes == ["tie", "tie", "left"]


@pytest.mark.parametrize(
    ("biases", "liked", "other"),
    [
        (Biases(length_per_token=0.1), "1 a much longer text", "1 short"),
        (Biases(keyword="Indeed", keyword_bonus=1.0), "1 yes, indeed", "1 yes, surely"),
        (Biases(flattery=1.0), "1 You are so clever!", "1 I am quite sure."),
    ],
)
def test_biases_add_to_what_the_labeller_sees(biases, liked, other):
    biased = SimulatedLabeller(points, temperature=0.0, biases=biases)
    fair = SimulatedLabeller(points, temperature=0.0)
    for left, right, share in ((liked, other, 1.0), (other, liked, 0.0)):
        assert left_share(biased, left, right) == share
        assert left_share(fair, left, right) == 0.5


def test_position_bias_prefers_what_is_shown_first_and_cancels_over_sides():
    labeller = SimulatedLabeller(points, temperature=1.0, biases=Biases(position=2.0))
    pairs = [pair(f"p{i}", "1 a", "1 b") for i in range(NUM)]
    preferences = labeller.compare(pairs).preferences
    first = mean(p.shown[0] == p.outcome for p in preferences)
    assert first == pytest.approx(1 / (1 + math.exp(-2.0)), abs=TOLERANCE)
    assert mean(p.shown[0] == "left" for p in preferences) == pytest.approx(0.5, abs=TOLERANCE)
    assert mean(p.p_left for p in preferences) == pytest.approx(0.5, abs=TOLERANCE)


def test_the_order_shown_is_the_pairs_and_the_verdict_the_labellers_own():
    pairs = [pair(f"p{i}", "1 a", "1 b") for i in range(200)]
    anna, ben, later = (
        SimulatedLabeller(points, name, seed=seed).compare(pairs).preferences
        for name, seed in (("anna", 0), ("ben", 0), ("anna", 1))
    )
    assert [p.shown for p in anna] == [p.shown for p in ben]
    assert [p.outcome for p in anna] != [p.outcome for p in ben]
    assert [p.outcome for p in anna] != [p.outcome for p in later]
    assert len({p.id for p in (*anna, *ben)}) == 400


def test_seconds_are_log_normal_around_the_stated_median():
    time = ResponseTime(base_seconds=2.0, seconds_per_word=1.0, spread=0.5)
    labeller = SimulatedLabeller(points, response_time=time)
    pairs = [pair(f"p{i}", "1 two three", "1 two") for i in range(NUM)]
    logs = [math.log(p.seconds) for p in labeller.compare(pairs).preferences]
    assert math.exp(median(logs)) == pytest.approx(7.0, rel=0.06)
    assert stdev(logs) == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("gold", [lambda item: None, lambda item: math.nan])
def test_what_gold_does_not_know_cannot_be_judged(gold):
    (preference,) = SimulatedLabeller(gold).compare([pair("p", "1", "2")]).preferences
    assert (preference.outcome, preference.p_left) == ("cannot_judge", None)
    assert "not known" in preference.reason


def test_a_scorer_may_be_gold():
    def first_number(completions):
        return [float(c[0]["content"]) for c in completions]

    scored = SimulatedLabeller(CallableScorer(first_number), seed=3)
    pairs = [pair(f"p{i}", "1", "0.5") for i in range(100)]
    assert scored.compare(pairs) == SimulatedLabeller(points, seed=3).compare(pairs)


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"skill": 1.1}, {"tie_width": -0.1}])
def test_impossible_labellers_are_refused(bad):
    with pytest.raises(ConfigError):
        SimulatedLabeller(points, **bad)


def crew(overlap: int) -> Crew:
    names = ("anna", "ben", "clara", "david")
    return Crew([SimulatedLabeller(points, n) for n in names], overlap=overlap)


@pytest.mark.parametrize("overlap", [1, 2, 4])
def test_a_crew_gives_each_pair_to_as_many_as_overlap_and_shares_the_work(overlap):
    pairs = [pair(f"p{i}", "1", "0") for i in range(400)]
    preferences = crew(overlap).compare(pairs).preferences
    per_pair = Counter(p.pair_id for p in preferences)
    assert set(per_pair.values()) == {overlap}
    assert len({(p.pair_id, p.labeller) for p in preferences}) == 400 * overlap
    per_labeller = Counter(p.labeller for p in preferences)
    assert all(75 * overlap < n < 125 * overlap for n in per_labeller.values())


def test_a_crew_passes_on_what_is_pending():
    class Away:
        name = "away"

        def compare(self, pairs):
            return Labelled((), tuple(p.id for p in pairs))

    pairs = [pair(f"p{i}", "1", "0") for i in range(20)]
    labelled = Crew([SimulatedLabeller(points), Away()], overlap=2).compare(pairs)
    assert len(labelled.preferences) == 20
    assert labelled.pending == tuple(p.id for p in pairs)


def test_impossible_crews_are_refused():
    with pytest.raises(ConfigError, match="overlap"):
        crew(5)
    with pytest.raises(ConfigError, match="name"):
        Crew([SimulatedLabeller(points), SimulatedLabeller(points)])


def numbers(completions):
    texts = [c[0]["content"] for c in completions]
    return [None if text == "-" else float(text) for text in texts]


def test_a_scorer_compares_by_its_score():
    labeller = ScorerLabeller(CallableScorer(numbers))
    pairs = [pair("a", "2", "1"), pair("b", "1", "2"), pair("c", "1", "1"), pair("d", "1", "-")]
    found = labeller.compare(pairs).preferences
    assert [p.outcome for p in found] == ["left", "right", "tie", "cannot_judge"]
    assert found[3].reason.startswith("right: ")
    assert {p.labeller for p in found} == {"numbers"}


def test_a_noisy_scorer_is_bradley_terry():
    labeller = ScorerLabeller(CallableScorer(numbers), temperature=2.0)
    assert left_share(labeller, "3", "1") == pytest.approx(1 / (1 + math.exp(-1.0)), abs=TOLERANCE)


def _said(id: str, pair_id: str, outcome: str, replaces: str | None = None) -> Preference:
    p_left = {"left": 1.0, "right": 0.0}[outcome]
    return Preference(
        id=id,
        pair_id=pair_id,
        outcome=outcome,
        p_left=p_left,
        labeller="anna",
        kind="human",
        replaces=replaces,
    )


def test_replay_says_what_stands_and_leaves_the_rest_pending():
    first, corrected, other = (
        _said("1", "a", "left"),
        _said("2", "a", "right", replaces="1"),
        _said("3", "b", "left"),
    )
    labelled = ReplayLabeller([first, corrected, other]).compare(
        [pair("b", "x", "y"), pair("c", "x", "y"), pair("a", "x", "y")]
    )
    assert labelled.preferences == (other, corrected)
    assert labelled.pending == ("c",)
