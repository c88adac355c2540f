"""A label store as a whole: its parts, how it is opened, and how its soundness is checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, func, select, text

from heed.data.store import schema
from heed.data.store.answers import Answers
from heed.data.store.backup import backup_sqlite, restore_sqlite
from heed.data.store.changes import Log
from heed.data.store.content import Contents
from heed.data.store.database import Clock, Database, system_clock
from heed.data.store.items import Items
from heed.data.store.log import read_events, verify
from heed.data.store.migrate import migrate
from heed.data.store.people import People
from heed.data.store.projects import Projects
from heed.data.store.queue import Queue
from heed.data.store.state import differences, fold, live_state


class Store:
    """The parts of a label store. Open one with `open_store`; close it, or use `with`.

    projects   make, configure, pause, guideline
    items      add in batches, count, close
    contents   segments, media, erasure
    queue      claim, heartbeat, release, expire, drafts
    answers    submit, amend, withdraw, skip, undo, adjudicate, history
    log        changes for trainers, events, state at a position, verification
    people     persons, roles, passwords, sessions, tokens, invitations
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.projects = Projects(database)
        self.items = Items(database)
        self.contents = Contents(database)
        self.queue = Queue(database)
        self.answers = Answers(database)
        self.log = Log(database)
        self.people = People(database)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self.database.close()

    def backup(self, target: str | Path) -> Path:
        """Copy the store (SQLite) as it is at this moment, while people work.

        Raises:
            StoreError: the target exists or cannot be written, or the store is in PostgreSQL.
        """
        return backup_sqlite(self.database, Path(target))

    def check(self) -> list[str]:
        """Look for anything unsound; returns what was found, in words, empty where all is well.

        Counters against the rows they count, every project's tables against the fold of its log,
        the chain of hashes, and (SQLite) the file itself.
        """
        with self.database.read() as connection:
            found = _wrong_counters(connection)
            projects = [row.id for row in connection.execute(select(schema.project.c.id)).all()]
            for project in projects:
                folded = fold(read_events(connection, project=project))
                found += differences(folded, live_state(connection, project))
            verdict = verify(connection)
            if not verdict.ok:
                found.append(f"log: entry {verdict.first_bad}: {verdict.problem}")
            if self.database.is_sqlite:
                rows = connection.execute(text("PRAGMA integrity_check")).all()
                found += [f"file: {row[0]}" for row in rows if row[0] != "ok"]
        return found


def open_store(where: str | Path, *, clock: Clock = system_clock, pool: bool = True) -> Store:
    """Open a label store, and make or migrate it first where that is needed.

    Args:
        where: path of a SQLite file, or `postgresql://user@host/name` (extra `postgres`).
        clock: milliseconds since 1970; tests give their own.
        pool: keep connections open between calls.

    Raises:
        StoreError: it is damaged, read-only, on a network file system, or of a newer heed.
        MissingExtra: PostgreSQL without psycopg.
    """
    database = Database(where, clock=clock, pool=pool)
    try:
        migrate(database)
    except BaseException:
        database.close()
        raise
    return Store(database)


def restore_store(backup: str | Path, where: str | Path) -> None:
    """Put a backup in the place of a SQLite store that nobody has open.

    The file that stood there is kept as `NAME.replaced`.

    Raises:
        StoreError: the backup is damaged, or the store is in use.
    """
    restore_sqlite(Path(backup), Path(where))


def _wrong_counters(connection: Connection) -> list[str]:
    item, lease, judged = schema.item.c, schema.lease.c, schema.judgment.c
    live = _count(
        connection.execute(
            select(lease.item, func.count())
            .where(lease.state == "live", lease.holds)
            .group_by(lease.item)
        ).all()
    )
    valid = _count(
        connection.execute(
            select(judged.item, func.count())
            .where(judged.state == "standing", judged.counted)
            .group_by(judged.item)
        ).all()
    )
    found = []
    for row in connection.execute(select(item.id, item.n_live, item.n_valid)):
        counted = (live.get(row.id, 0), valid.get(row.id, 0))
        if (row.n_live, row.n_valid) != counted:
            found.append(
                f"item {row.id}: n_live {row.n_live}, n_valid {row.n_valid}; the rows say {counted}"
            )
    return found


def _count(rows: Sequence[tuple[str, int] | object]) -> dict[str, int]:
    return {row[0]: row[1] for row in rows}  # type: ignore[index]
