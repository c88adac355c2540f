"""Answers: kept for ever, once per submission, taken back by new rows only."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import delete, text, update
from tests.store.conftest import Clock, make_project, pair, prefer

from heed.data.store import Refusal, Store, schema
from heed.errors import StoreError


def claim(store: Store, person: str) -> str:
    return store.queue.claim("p", person).work[0].lease


def test_a_submission_stores_once(store: Store) -> None:
    (ann,) = make_project(store, 2, "ann")
    lease = claim(store, ann)
    first = store.answers.submit(lease, ann, prefer(), submission_id="a")
    again = store.answers.submit(lease, ann, prefer(), submission_id="a")
    assert again.replayed
    assert not first.replayed
    assert (again.judgment, again.seq) == (first.judgment, first.seq)
    with pytest.raises(Refusal, match="came before with another answer") as refusal:
        store.answers.submit(lease, ann, prefer(1), submission_id="a")
    assert refusal.value.kind == "conflict"
    with pytest.raises(Refusal, match="answered already"):
        store.answers.submit(lease, ann, prefer(1), submission_id="b")
    assert len(store.answers.history("p", ann)) == 1


def test_a_submission_that_was_undone_is_not_stored_again(store: Store) -> None:
    """An outbox may send once more what was acknowledged, and then undone."""
    (ann,) = make_project(store, 1, "ann")
    lease = claim(store, ann)
    first = store.answers.submit(lease, ann, prefer(), submission_id="a")
    store.answers.undo("p", ann)
    assert store.answers.submit(lease, ann, prefer(), submission_id="a").seq == first.seq
    assert store.answers.get(first.judgment).state == "withdrawn"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"outcome": "prefer"}, "`side` and `level` come with"),
        ({"outcome": "tie", "side": 0, "level": 1}, "only with it"),
        ({"outcome": "prefer", "side": 2, "level": 1}, "less than or equal to 1"),
        ({"outcome": "prefer", "side": 0, "level": 4}, "scale 'seven' has 1 to 3"),
        ({"outcome": "maybe"}, "outcome"),
        ({"outcome": "tie", "person": "somebody else"}, "Extra inputs"),
        ({"outcome": "tie", "reasons": ["because"]}, "reason 'because' is unknown"),
        ({"outcome": "tie", "flags": [{"place": 7, "code": "unsafe"}]}, "place 7"),
        ({}, "outcome"),
    ],
)
def test_an_answer_that_does_not_fit_changes_nothing(
    sqlite_store: Store, answer: dict[str, Any], message: str
) -> None:
    (ann,) = make_project(sqlite_store, 1, "ann")
    lease, head = claim(sqlite_store, ann), sqlite_store.log.head()
    with pytest.raises(Refusal, match=message) as refusal:
        sqlite_store.answers.submit(lease, ann, answer, submission_id="a")
    assert refusal.value.kind == "invalid"
    assert sqlite_store.log.head() == head
    assert sqlite_store.answers.submit(lease, ann, prefer(), submission_id="a").version == 1


def test_four_ways_of_not_preferring_are_kept_apart(store: Store) -> None:
    people = make_project(store, 1, "ann", "ben", "cem", "dan", config={"need": 4})
    outcomes = ["tie", "both_bad", "cannot_judge", "invalid"]
    for person, outcome in zip(people, outcomes, strict=True):
        lease = claim(store, person)
        store.answers.submit(lease, person, {"outcome": outcome}, submission_id=person)
    stored = [store.answers.history("p", person)[0] for person in people]
    assert [one.outcome for one in stored] == outcomes
    assert [one.counted for one in stored] == [True, True, False, False]
    assert all(one.side is None and one.level is None for one in stored)


def test_undo_goes_twenty_deep_and_no_deeper(sqlite_store: Store) -> None:
    store = sqlite_store
    (ann,) = make_project(store, 25, "ann")
    for number in range(25):
        store.answers.submit(claim(store, ann), ann, prefer(), submission_id=str(number))
    undone = [store.answers.undo("p", ann) for _ in range(20)]
    assert len({one.id for one in undone}) == 20
    with pytest.raises(Refusal, match="last 20"):
        store.answers.undo("p", ann)
    assert store.queue.claim("p", ann).work[0].lease == undone[-1].work.lease
    for one in reversed(undone):
        assert one.work.draft is not None
        store.answers.submit(one.work.lease, ann, one.work.draft, submission_id=f"again {one.id}")
    assert [store.answers.undo("p", ann).what for _ in range(20)] == ["judgment"] * 20
    assert store.check() == []


def test_undo_gives_the_draft_back_as_it_stood_on_the_screen(store: Store) -> None:
    (ann,) = make_project(store, 6, "ann")
    for number in range(6):
        said = prefer(number % 2, flags=[{"place": number % 2, "code": "unsafe"}], note="so")
        store.answers.submit(claim(store, ann), ann, said, submission_id=str(number))
        draft = store.answers.undo("p", ann).work.draft
        assert draft == {**said, "reasons": []}
        lease = claim(store, ann)
        store.answers.submit(lease, ann, draft, submission_id=f"again {number}")


def test_a_late_answer_is_kept_and_surplus_only_where_others_answered(
    store: Store, clock: Clock
) -> None:
    ann, ben = make_project(store, 1, "ann", "ben")
    lease = claim(store, ann)
    clock.pass_seconds(3600)
    store.queue.expire()
    taken = claim(store, ben)
    late = store.answers.submit(lease, ann, prefer(), submission_id="a")
    assert late.late
    assert late.surplus
    assert not store.answers.submit(taken, ben, prefer(), submission_id="b").surplus
    store.items.add("p", [pair(50)], actor="x")
    lease = claim(store, ann)
    clock.pass_seconds(3600)
    store.queue.expire()
    late = store.answers.submit(lease, ann, prefer(), submission_id="c")
    assert late.late
    assert not late.surplus
    assert store.check() == []


def test_an_answer_by_two_leases_is_a_new_version(store: Store, clock: Clock) -> None:
    (ann,) = make_project(store, 1, "ann", config={"need": 2})
    old = claim(store, ann)
    clock.pass_seconds(3600)
    store.queue.expire()
    new = claim(store, ann)
    assert new != old
    first = store.answers.submit(old, ann, prefer(0), submission_id="a")
    assert store.queue.held("p", ann) == ()
    second = store.answers.submit(new, ann, prefer(1), submission_id="b")
    assert (first.version, second.version) == (1, 2)
    assert len([j for j in store.answers.history("p", ann) if j.state == "standing"]) == 1
    assert store.check() == []


def test_amend_and_withdraw(store: Store) -> None:
    ann, ben = make_project(store, 2, "ann", "ben")
    first = store.answers.submit(claim(store, ann), ann, prefer(0), submission_id="a")
    with pytest.raises(Refusal, match="somebody else's"):
        store.answers.amend(first.judgment, ben, prefer(1), submission_id="b")
    second = store.answers.amend(first.judgment, ann, prefer(1), submission_id="b")
    assert store.answers.amend(first.judgment, ann, prefer(1), submission_id="b").replayed
    assert store.answers.get(second.judgment).replaces == first.judgment
    assert store.answers.get(first.judgment).state == "replaced"
    with pytest.raises(Refusal, match="replaced meanwhile"):
        store.answers.amend(first.judgment, ann, prefer(0), submission_id="c")
    store.answers.withdraw(second.judgment, actor="x", reason="asked to")
    with pytest.raises(Refusal, match="withdrawn"):
        store.answers.withdraw(second.judgment, actor="x")
    store.projects.set_state("p", "closed", actor="x")
    with pytest.raises(Refusal, match="closed"):
        store.answers.undo("p", ann)
    assert store.check() == []


def test_adjudication_stands_beside_answers(store: Store) -> None:
    ann, judge = make_project(store, 1, "ann", "judge")
    work = store.queue.claim("p", ann).work[0]
    store.answers.submit(work.lease, ann, prefer(0), submission_id="a")
    store.answers.adjudicate(work.item, judge, prefer(0), submission_id="b")
    again = store.answers.adjudicate(work.item, judge, prefer(1), submission_id="c")
    assert again.version == 2
    assert not again.surplus
    states = [(j.role, j.state, j.side) for j in store.answers.of_item(work.item)]
    assert states[1:] == [("adjudication", "replaced", 0), ("adjudication", "standing", 1)]
    assert store.items.counts("p")["judgments"] == 1
    assert store.check() == []


def test_broken_and_hard_items_leave_the_queue(store: Store) -> None:
    people = make_project(store, 1, *"abcdef", config={"need": 3, "max_cannot": 1})
    for person in people[:2]:
        store.answers.submit(
            claim(store, person), person, {"outcome": "cannot_judge"}, submission_id=person
        )
    assert store.items.counts("p")["hard"] == 1
    store.answers.undo("p", people[1])
    assert store.items.counts("p")["ready"] == 1
    for person in people[2:4]:
        store.answers.submit(
            claim(store, person), person, {"outcome": "invalid"}, submission_id=person
        )
    assert store.items.counts("p")["quarantined"] == 1
    item = store.answers.history("p", people[2])[0].item
    store.items.reopen(item, actor="x")
    assert store.items.counts("p")["ready"] == 1
    assert store.check() == []


def test_double_clicks_at_once_store_once(store: Store) -> None:
    """One person's page sends an answer from six threads at once."""
    (ann,) = make_project(store, 1, "ann")
    lease, receipts = claim(store, ann), []

    def send() -> None:
        receipts.append(store.answers.submit(lease, ann, prefer(), submission_id="a"))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({receipt.judgment for receipt in receipts}) == 1
    assert sum(not receipt.replayed for receipt in receipts) == 1
    assert len(store.answers.history("p", ann)) == 1


def test_the_database_itself_refuses_to_rewrite(store: Store) -> None:
    (ann,) = make_project(store, 1, "ann")
    store.answers.submit(claim(store, ann), ann, prefer(), submission_id="a")
    log, kept = schema.event, schema.judgment
    for statement in (
        update(log).values(actor="somebody else"),
        delete(log),
        delete(kept),
        update(kept).values(side=1),
        update(kept).values(state="withdrawn", level=3),
        update(kept).values(state="standing"),
        update(schema.item).values(n_valid=7),
        update(kept).values(level=None),
    ):
        with pytest.raises(StoreError, match=r"append-only|kept|new version|refused|failed"):
            store.database.write(lambda connection, s=statement: connection.execute(s))  # type: ignore[misc]
    assert store.check() == []
    assert store.log.verify().ok


def test_readers_cannot_write(store: Store) -> None:
    with pytest.raises(StoreError, match="read-only"), store.database.read() as connection:
        connection.execute(text("UPDATE project SET slug = 'x'"))


def test_times_come_from_the_server_and_are_bounded_by_it(store: Store, clock: Clock) -> None:
    (ann,) = make_project(store, 3, "ann")
    for number, (active, seconds) in enumerate([(4.5, 4.5), (999.0, 20.0), ("x", 20.0)]):
        lease = claim(store, ann)
        clock.pass_seconds(20)
        receipt = store.answers.submit(
            lease, ann, prefer(), submission_id=str(number), timing={"active_seconds": active}
        )
        assert store.answers.get(receipt.judgment).seconds == seconds
