"""What every labeller must do, run on every implementation."""

import pytest
from tests.contracts.feedback_samples import pair
from tests.people import PLAIN

from heed.data.store import open_store
from heed.feedback.human import HumanLabeller, StoreDesk
from heed.feedback.judges import JudgeLabeller
from heed.feedback.rules import CallableScorer
from heed.feedback.simulated import (
    Biases,
    Crew,
    ReplayLabeller,
    ScorerLabeller,
    SimulatedLabeller,
)

PAIRS = [pair(f"pair-{i}", "a" * (i % 7), "b" * (i % 5)) for i in range(40)] + [
    pair("failed", "a", "b", error="the server went away")
]


def gold(item):
    return float(len(item.completion.text))


def simulated(name="anna", **settings):
    return SimulatedLabeller(gold, name, seed=1, **settings)


def length(completions, **columns):
    return [float(len(c[0]["content"])) for c in completions]


def replay():
    recorded = simulated().compare(PAIRS[5:]).preferences
    return ReplayLabeller(recorded)


def shorter(prompts, completions):
    return [0.8 if len(str(a)) < len(str(b)) else 0.2 for a, b in completions]


def first_of_two(prompts, completions):
    return [0] * len(completions)


def people(folder):
    """Two people have answered most pairs, one of them twice in different words."""
    where = str(folder / "labels.db")
    with open_store(where) as store:
        store.projects.make("live", {**PLAIN, "need": 2})
        names = [store.people.add(name).id for name in ("anna", "ben")]
        for name in names:
            store.people.join("live", name)
        labeller = HumanLabeller(StoreDesk(where, "live"))
        labeller.compare(PAIRS)
        answers = [{"outcome": "prefer", "side": 1, "level": 2}, {"outcome": "tie"},
                   {"outcome": "cannot_judge"}, {"outcome": "both_bad"}]  # fmt: skip
        for count, name in zip((30, 20), names, strict=True):
            for i in range(count):
                lease = store.queue.claim("live", name).work[0].lease
                done = store.answers.submit(lease, name, answers[i % 4], submission_id=lease)
        store.answers.amend(done.judgment, name, {"outcome": "tie"}, submission_id="again")
    return labeller


LABELLERS = {
    "people": people,
    "judge": lambda: JudgeLabeller(shorter),
    "judge of TRL": lambda: JudgeLabeller(first_of_two, ranks=True),
    "simulated": simulated,
    "simulated on a scorer": lambda: SimulatedLabeller(CallableScorer(length), seed=1),
    "simulated with all faults": lambda: simulated(
        skill=0.5, temperature=2.0, tie_width=0.5, biases=Biases(position=1.0, length_per_token=0.1)
    ),
    "scorer": lambda: ScorerLabeller(CallableScorer(length)),
    "noisy scorer": lambda: ScorerLabeller(CallableScorer(length), temperature=1.0),
    "replay": replay,
    "crew": lambda: Crew([simulated(n) for n in ("anna", "ben", "clara")], overlap=2),
    "crew with a replay": lambda: Crew([simulated("ben"), replay()], overlap=2),
}


@pytest.fixture(params=LABELLERS)
def labeller(request, tmp_path):
    make = LABELLERS[request.param]
    return make(tmp_path) if make is people else make()


def test_every_pair_comes_back_or_is_pending(labeller):
    labelled = labeller.compare(PAIRS)
    answered = {p.pair_id for p in labelled.preferences}
    asked = {p.id for p in PAIRS}
    assert answered | set(labelled.pending) == asked
    assert len(set(labelled.pending)) == len(labelled.pending)


def test_preferences_come_in_the_order_of_the_pairs_with_ids_of_their_own(labeller):
    preferences = labeller.compare(PAIRS).preferences
    order = {p.id: i for i, p in enumerate(PAIRS)}
    places = [order[p.pair_id] for p in preferences]
    assert places == sorted(places)
    assert len({p.id for p in preferences}) == len(preferences)


def test_no_pairs_give_no_preferences(labeller):
    labelled = labeller.compare([])
    assert labelled.preferences == ()
    assert labelled.pending == ()


def test_verdict_and_probability_say_the_same(labeller):
    for preference in labeller.compare(PAIRS).preferences:
        p = preference.p_left
        side = None if p is None else "tie" if p == 0.5 else "left" if p > 0.5 else "right"
        assert side == (preference.outcome if p is not None else None)
        assert (p is None) == (preference.outcome not in ("left", "right", "tie"))
        assert preference.labeller
        assert sorted(preference.shown) == ["left", "right"]


def test_a_failed_completion_cannot_be_judged_and_the_reason_is_said(labeller):
    found = [p for p in labeller.compare(PAIRS).preferences if p.pair_id == "failed"]
    assert found
    for preference in found:
        assert preference.outcome == "cannot_judge"
        assert preference.p_left is None
        assert preference.reason


def test_a_pair_is_judged_alike_whatever_comes_with_it(labeller):
    together = labeller.compare(PAIRS).preferences
    alone = [p for pair in PAIRS for p in labeller.compare([pair]).preferences]
    backwards = labeller.compare(PAIRS[::-1]).preferences
    assert list(together) == alone
    assert {p.id for p in together} == {p.id for p in backwards}


def test_comparing_twice_gives_the_same(labeller):
    assert labeller.compare(PAIRS) == labeller.compare(PAIRS)
