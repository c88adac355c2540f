"""Many people at once: nobody over-assigned, nothing lost, every counter exact."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import select
from tests.store.clients import run_clients
from tests.store.conftest import make_project
from tests.store.servers import new_database

from heed.data.store import open_store, schema

NUM_CLIENTS = 16


def work_at_once(
    where: str, *, num_items: int, need: int, racy: bool = False, seconds: float = 60
) -> tuple[list[str], int]:
    """Let 16 processes work off a project; returns what is wrong, and how many answers stand."""
    names = [f"person {k}" for k in range(NUM_CLIENTS)]
    with open_store(where) as store:
        people = make_project(store, num_items, *names, config={"need": need})
    results = run_clients(where, people, seconds=seconds, racy=racy)
    with open_store(where) as store:
        wrong = [error for _, _, errors, _ in results for error in errors]
        wrong += store.check()
        stored = {j.id: j for name in people for j in store.answers.history("p", name, 10_000)}
        acknowledged = [one for _, done, _, _ in results for one in done]
        wrong += [f"lost {name}" for name, seq, _ in acknowledged if stored[name].seq != seq]
        with store.database.read() as connection:
            rows = connection.execute(select(schema.item)).all()
            held = connection.execute(
                select(schema.lease.c.item).where(schema.lease.c.state == "live")
            ).all()
        standing = Counter(j.item for j in stored.values() if j.state == "standing")
        live = Counter(row.item for row in held)
        for row in rows:
            if standing[row.id] + live[row.id] > need:
                wrong.append(f"over-assigned {row.id}: {standing[row.id]} + {live[row.id]}")
            if row.state != "satisfied":
                wrong.append(f"unfinished {row.id}: {row.n_valid} of {need}")
        wrong += [f"surplus {j.id}" for j in stored.values() if j.surplus]
        return wrong, sum(standing.values())


def test_sixteen_processes_on_sqlite(tmp_path) -> None:  # type: ignore[no-untyped-def]
    wrong, standing = work_at_once(str(tmp_path / "labels.db"), num_items=30, need=2)
    assert wrong == []
    assert standing == 60


@pytest.mark.postgres
def test_sixteen_processes_on_postgresql(postgresql: str) -> None:
    wrong, standing = work_at_once(new_database(postgresql), num_items=30, need=2)
    assert wrong == []
    assert standing == 60


@pytest.mark.slow
@pytest.mark.parametrize("need", [1, 2, 3])
def test_sixteen_processes_on_sqlite_for_long(tmp_path, need: int) -> None:  # type: ignore[no-untyped-def]
    wrong, standing = work_at_once(
        str(tmp_path / "labels.db"), num_items=600, need=need, seconds=400
    )
    assert wrong == []
    assert standing == 600 * need


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.parametrize("need", [1, 2, 3])
def test_sixteen_processes_on_postgresql_for_long(postgresql: str, need: int) -> None:
    wrong, standing = work_at_once(new_database(postgresql), num_items=600, need=need, seconds=400)
    assert wrong == []
    assert standing == 600 * need


def contradictions_of_a_broken_claim(new_place: Callable[[], str]) -> list[str]:
    """What the test above finds with a claim that checks and then writes, in at most five tries.

    The places are guarded by the database itself, so the race shows as refused changes: one answer
    too many, or a count that would be wrong, whichever the database comes upon first.
    """
    for _ in range(5):
        wrong, _ = work_at_once(new_place(), num_items=30, need=1, racy=True, seconds=4)
        found = [one for one in wrong if "refused a contradiction" in one or "surplus" in one]
        if found:
            return found
    return []


def test_a_claim_that_checks_and_then_writes_fails_the_test(tmp_path) -> None:  # type: ignore[no-untyped-def]
    tries = itertools.count()
    assert contradictions_of_a_broken_claim(lambda: str(tmp_path / f"labels-{next(tries)}.db"))


@pytest.mark.postgres
def test_a_claim_that_checks_and_then_writes_fails_on_postgresql(postgresql: str) -> None:
    assert contradictions_of_a_broken_claim(lambda: new_database(postgresql))
