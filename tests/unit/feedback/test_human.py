"""People as a labeller: each pair is asked once, each answer comes back once, and nobody waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contracts.feedback_samples import pair
from tests.people import PLAIN

from heed.data.store import Store, open_store
from heed.errors import ConfigError, FeedbackError
from heed.feedback.human import AwayError, HumanLabeller, Received, StoreDesk, item_of
from heed.records import Pair

PAIRS = [pair(f"pair-{i}", f"good {i}", f"bad {i}") for i in range(6)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "labels.db") as opened:
        opened.projects.make("live", PLAIN)
        for name in ("ann", "ben"):
            opened.people.join("live", opened.people.add(name).id)
        yield opened


@pytest.fixture
def desk(store: Store, tmp_path: Path) -> Iterator[StoreDesk]:
    opened = StoreDesk(str(tmp_path / "labels.db"), "live")
    yield opened
    opened.close()


def person(store: Store, name: str = "ann") -> str:
    return next(one.id for one in store.people.all() if one.pseudonym == name)


def answer(store: Store, count: int, name: str = "ann", outcome: str = "good") -> list[str]:
    """Prefer the side that says `good`, or answer something else; returns the judgments."""
    out = []
    for _ in range(count):
        work = store.queue.claim("live", person(store, name)).work[0]
        good = ["good" in (c.text or "") for c in work.payload.candidates].index(True)
        said = {"outcome": "prefer", "side": good, "level": 3}
        said = said if outcome == "good" else {"outcome": outcome}
        done = store.answers.submit(work.lease, person(store, name), said, submission_id=work.lease)
        out.append(done.judgment)
    return out


def test_a_pair_is_asked_once_however_often_a_run_is_started(store: Store, desk: StoreDesk) -> None:
    first, again = HumanLabeller(desk), HumanLabeller(desk)
    first.submit(PAIRS, step=3, chances={"pair-0": 0.25}, acquirer="disagreement")
    first.submit(PAIRS)
    again.submit(PAIRS, step=3, chances={"pair-0": 0.25}, acquirer="disagreement")
    items = store.items.listing("live")
    assert len(items) == len(PAIRS)
    assert {(i.policy_step, i.acquirer) for i in items} == {(3, "disagreement")}
    assert sorted(i.p_select for i in items if i.p_select is not None) == [0.25]


def test_the_key_of_a_pair_is_its_content() -> None:
    same, other = pair("pair-0", "good 0", "bad 0"), pair("pair-0", "good 0", "worse 0")
    assert item_of(PAIRS[0])["key"] == item_of(same)["key"] != item_of(other)["key"]


def test_nothing_that_only_learning_needs_is_sent() -> None:
    side = PAIRS[0].left.model_copy(update={"logprobs": (0.0,) * PAIRS[0].left.num_tokens})
    sent = item_of(PAIRS[0].model_copy(update={"left": side}))
    assert sent["payload"]["candidates"][0]["source"]["logprobs"] is None


def test_each_answer_comes_back_once_in_the_order_of_the_pair(
    store: Store, desk: StoreDesk
) -> None:
    people = HumanLabeller(desk)
    people.submit(PAIRS)
    assert people.receive().new == ()
    answer(store, 2)
    got = people.receive()
    assert [(p.outcome, p.p_left, p.kind) for p in got.new] == [("left", 1.0, "human")] * 2
    assert people.position == got.seq
    assert people.receive() == Received(got.seq, got.seq)
    answer(store, 1, outcome="tie")
    answer(store, 1, outcome="cannot_judge")
    assert [p.outcome for p in people.receive().new] == ["tie", "cannot_judge"]


def test_a_new_labeller_goes_on_from_a_position(store: Store, desk: StoreDesk) -> None:
    first = HumanLabeller(desk)
    first.submit(PAIRS)
    before = answer(store, 2)
    assert [p.id for p in first.receive().new] == before
    after = answer(store, 2)
    second = HumanLabeller(desk, position=first.position)
    second.submit(PAIRS)
    assert [p.id for p in second.receive().new] == after


def test_corrections_are_told_from_new_answers(store: Store, desk: StoreDesk) -> None:
    people, ann = HumanLabeller(desk), person(store)
    people.submit(PAIRS)
    (known,) = answer(store, 1)
    people.receive()
    again, gone = answer(store, 2)
    store.answers.amend(again, ann, {"outcome": "tie"}, submission_id="a")  # before it is read
    store.answers.amend(known, ann, {"outcome": "tie"}, submission_id="b")
    store.answers.withdraw(gone, actor=ann)
    got = people.receive()
    assert sorted((p.outcome, p.replaces) for p in got.new if p.replaces is None) == [("tie", None)]
    assert [p.replaces for p in got.new if p.replaces] == [known]
    assert got.retracted == ()  # it was never delivered


def test_an_answer_that_is_taken_back_later_is_named(store: Store, desk: StoreDesk) -> None:
    people = HumanLabeller(desk)
    people.submit(PAIRS)
    (known,) = answer(store, 1)
    people.receive()
    store.answers.withdraw(known, actor=person(store))
    assert people.receive().retracted == (known,)


def test_pairs_that_are_let_go_count_as_others(store: Store, desk: StoreDesk) -> None:
    people = HumanLabeller(desk)
    people.submit(PAIRS)
    people.forget([one.id for one in PAIRS])
    answer(store, 2)
    got = people.receive()
    assert (got.new, got.num_other) == ((), 2)


def test_comparing_never_waits_longer_than_told(store: Store, desk: StoreDesk) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] == 1.0:
            answer(store, 3)

    def labeller(seconds: float) -> HumanLabeller:
        return HumanLabeller(desk, wait_seconds=seconds, clock=lambda: now[0], sleep=sleep)

    at_once = labeller(0.0).compare(PAIRS)
    assert (at_once.preferences, len(at_once.pending), now[0]) == ((), 6, 0.0)
    some = labeller(2.0).compare(PAIRS)
    assert (len(some.preferences), len(some.pending), now[0]) == (3, 3, 2.0)
    answer(store, 3, "ben")
    assert labeller(60.0).compare(PAIRS).pending == ()
    assert now[0] == 2.0  # all is there: no wait


class Leaving:
    """A desk that is away for the first calls."""

    def __init__(self, desk: StoreDesk, num_away: int) -> None:
        self._desk, self._left = desk, num_away

    def __getattr__(self, name: str) -> object:
        if self._left > 0:
            self._left -= 1
            raise AwayError("the label server does not answer")
        return getattr(self._desk, name)


def test_what_was_submitted_while_the_store_was_away_goes_out_later(
    store: Store, desk: StoreDesk
) -> None:
    people = HumanLabeller(Leaving(desk, 2))  # type: ignore[arg-type]
    with pytest.raises(AwayError):
        people.submit(PAIRS)
    with pytest.raises(AwayError):
        people.receive()
    assert (people.num_unsent, people.position) == (6, 0)
    people.receive()
    assert (people.num_unsent, len(store.items.listing("live"))) == (0, 6)


def test_a_refused_pair_is_said(desk: StoreDesk) -> None:
    prompt = PAIRS[0].prompt
    long = PAIRS[0].left.model_copy(update={"text": "x" * 300_000})
    bad = Pair(id="long", prompt=prompt, left=long, right=PAIRS[0].right)
    with pytest.raises(FeedbackError, match="refuses pair 'long'"):
        HumanLabeller(desk).submit([bad])


def test_a_project_is_made_for_pairs_and_its_admins_see_it(tmp_path: Path) -> None:
    where = str(tmp_path / "new.db")
    with open_store(where) as store:
        owner = store.people.add("owner", is_admin=True)
        store.projects.make("writing", {"kind": "demonstration"})
    StoreDesk(where, "live", {"need": 2}).close()
    with open_store(where) as store:
        assert store.projects.get("live").config.need == 2
        assert [m.person for m in store.people.members("live")] == [owner.id]
    with pytest.raises(ConfigError, match="kind 'demonstration'"):
        StoreDesk(where, "writing")
