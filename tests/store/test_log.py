"""The log: what a trainer reads and when, the past rebuilt, and tampering found."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.store.conftest import Clock, make_project, pair, prefer

from heed.data.store import Store, open_store
from heed.data.store.log import FIRST_HASH


def answer(store: Store, person: str, name: str, **said: Any) -> str:
    work = store.queue.claim("p", person).work[0]
    receipt = store.answers.submit(work.lease, person, said or prefer(), submission_id=name)
    return receipt.judgment


def kinds(store: Store, after: int = 0) -> list[tuple[str, str]]:
    return [(change.kind, change.judgment) for change in store.log.changes("p", after).changes]


def test_an_answer_settles_after_ten_seconds(store: Store, clock: Clock) -> None:
    (ann,) = make_project(store, 3, "ann")
    name = answer(store, ann, "1")
    assert kinds(store) == []
    clock.pass_seconds(9.9)
    assert kinds(store) == []
    clock.pass_seconds(0.2)
    assert kinds(store) == [("judgment", name)]
    change = store.log.changes("p").changes[0]
    assert change.value is not None
    assert change.value.outcome == "prefer"


def test_the_next_answer_settles_the_one_before(store: Store, clock: Clock) -> None:
    ann, ben = make_project(store, 4, "ann", "ben")
    first = answer(store, ann, "1")
    answer(store, ann, "2")
    assert kinds(store) == [("judgment", first)]
    answer(store, ben, "3")
    assert kinds(store) == [("judgment", first)]
    clock.pass_seconds(11)
    assert len(kinds(store)) == 3


def test_an_undo_in_time_never_reaches_a_trainer(store: Store, clock: Clock) -> None:
    (ann,) = make_project(store, 3, "ann")
    answer(store, ann, "1")
    undone = store.answers.undo("p", ann)
    clock.pass_seconds(60)
    batch = store.log.changes("p")
    assert batch.changes == ()
    assert batch.seq == undone.seq
    again = answer(store, ann, "2")
    clock.pass_seconds(60)
    assert kinds(store, batch.seq) == [("judgment", again)]


def test_a_late_undo_is_a_retraction(store: Store, clock: Clock) -> None:
    (ann,) = make_project(store, 3, "ann")
    name = answer(store, ann, "1")
    clock.pass_seconds(60)
    position = store.log.changes("p").seq
    held = {j.id for j in store.log.state("p", position).standing()}
    assert held == {name}
    store.answers.undo("p", ann)
    assert kinds(store, position) == [("retract", name)]
    assert store.log.state("p").standing() == []
    # What a model was made from can be made again.
    assert {j.id for j in store.log.state("p", position).standing()} == held


def test_amendments_replace_and_chains_collapse(store: Store, clock: Clock) -> None:
    (ann,) = make_project(store, 3, "ann")
    first = answer(store, ann, "1")
    clock.pass_seconds(60)
    position = store.log.changes("p").seq
    second = store.answers.amend(first, ann, prefer(1), submission_id="2").judgment
    clock.pass_seconds(60)
    change = store.log.changes("p", position).changes[0]
    assert (change.kind, change.judgment, change.replaces) == ("amend", second, first)
    store.answers.withdraw(second, actor="x")
    # From the first position on, the amendment came and went: only the old answer is to be taken.
    assert kinds(store, position) == [("retract", first)]
    assert kinds(store, change.seq) == [("retract", second)]
    assert kinds(store) == []


def test_a_clock_that_is_set_back_does_not_stop_the_trainer(store: Store, clock: Clock) -> None:
    (ann,) = make_project(store, 2, "ann")
    name = answer(store, ann, "1")
    clock.pass_seconds(-3600)
    assert kinds(store) == [("judgment", name)]


def test_pages_of_changes_join_to_the_whole(store: Store, clock: Clock) -> None:
    (ann,) = make_project(store, 9, "ann")
    for number in range(9):
        answer(store, ann, str(number))
        if number % 3 == 2:
            store.answers.undo("p", ann)
            store.answers.skip(store.queue.held("p", ann)[0].lease, ann)
    clock.pass_seconds(60)
    whole = store.log.changes("p")
    position, found = 0, []
    while True:
        batch = store.log.changes("p", position, limit=2)
        found += batch.changes
        position = batch.seq
        if not batch.more:
            break
    assert tuple(found) == whole.changes
    assert position == whole.seq
    assert len(found) == 6


def test_any_past_is_the_state_that_was(store: Store, clock: Clock) -> None:
    """A state remembered at its time equals the fold up to its position, later."""
    ann, ben = make_project(store, 6, "ann", "ben", config={"need": 2})
    remembered = [store.log.state("p")]
    acts = [
        lambda: answer(store, ann, "1"),
        lambda: answer(store, ben, "2"),
        lambda: store.answers.undo("p", ann),
        lambda: store.answers.skip(store.queue.held("p", ann)[0].lease, ann),
        lambda: answer(store, ben, "3", outcome="both_bad"),
        lambda: store.items.add("p", [pair(77)], actor="x"),
        lambda: store.items.close(str(store.answers.history("p", ben)[0].item), "archived",
                                  actor="x"),
        lambda: store.projects.configure("p", {"kind": "pair", "scale": "nine"}, actor="x"),
    ]  # fmt: skip
    for act in acts:
        act()
        remembered.append(store.log.state("p"))
    assert [store.log.state("p", state.seq) for state in remembered] == remembered
    assert len({state.seq for state in remembered}) == len(remembered)
    assert store.check() == []


def test_the_chain_holds_and_starts_at_nothing(store: Store) -> None:
    (ann,) = make_project(store, 3, "ann")
    answer(store, ann, "1")
    events = store.log.events()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[0].prev_hash == FIRST_HASH
    verdict = store.log.verify()
    assert verdict.ok
    assert (verdict.num_events, verdict.head) == store.log.head()


@pytest.mark.parametrize(
    ("change", "first_bad"),
    [
        ("UPDATE event SET body = replace(body, '\"level\":2', '\"level\":3') WHERE seq = {n}", 0),
        ("UPDATE event SET actor = 'somebody else' WHERE seq = {n}", 0),
        ("UPDATE event SET at = at + 1 WHERE seq = {n}", 0),
        ("UPDATE event SET body = 'no json' WHERE seq = {n}", 0),
        ("DELETE FROM event WHERE seq = {n}", 0),
        ("DELETE FROM event WHERE seq > {n}", 1),
        ("UPDATE chain SET hash = 'x'", None),
    ],
)
def test_tampering_is_found_where_it_begins(
    sqlite_store: Store, tmp_path: Path, change: str, first_bad: int | None
) -> None:
    store = sqlite_store
    (ann,) = make_project(store, 3, "ann")
    for number in range(3):
        answer(store, ann, str(number))
    seq = store.answers.history("p", ann)[1].seq
    store.close()
    raw = sqlite3.connect(tmp_path / "labels.db")
    for name in ("event_no_update", "event_no_delete"):
        raw.execute(f"DROP TRIGGER {name}")
    raw.execute(change.format(n=seq))
    raw.commit()
    raw.close()
    with open_store(tmp_path / "labels.db") as opened:
        verdict = opened.log.verify()
        assert not verdict.ok
        if first_bad is not None:
            assert verdict.first_bad == seq + first_bad
        if "no json" not in change:
            assert any(one.startswith("log: ") for one in opened.check())


def test_a_whole_chain_made_anew_contradicts_what_was_written_down(
    sqlite_store: Store, tmp_path: Path
) -> None:
    """Whoever rewrites the log to its end cannot rewrite the head that an export recorded."""
    from heed.data.store.exporting import export

    (ann,) = make_project(sqlite_store, 2, "ann")
    answer(sqlite_store, ann, "1")
    export(sqlite_store, "p", tmp_path / "a")
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert (manifest["seq"], manifest["head"]) == sqlite_store.log.head()
