"""The log: everything the store accepted, in order, each entry sealed by the hash of those before.

hash_n = sha256(hash_(n-1) || canonical JSON of (seq, at, actor, kind, project, subject, body))

Rows can neither be changed nor deleted (triggers). Whoever changes the file by other means breaks
the chain from that row on; whoever cuts its end contradicts the head, which every export records.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from heed.data.store import schema
from heed.data.store.schema import canonical

FIRST_HASH = "0" * 64


@dataclass(frozen=True)
class Entry:
    """What is to be logged: who did what to which thing."""

    kind: str
    actor: str
    subject: str
    body: dict[str, Any]
    project: str | None = None


@dataclass(frozen=True)
class Event:
    """One entry of the log. `at` is in milliseconds; order is by `seq`, not by time."""

    seq: int
    at: int
    actor: str
    kind: str
    project: str | None
    subject: str
    body: dict[str, Any]
    prev_hash: str
    hash: str


@dataclass(frozen=True)
class Verdict:
    """What checking the chain gave. `first_bad` is the first seq that does not fit, or None."""

    num_events: int
    head: str
    first_bad: int | None = None
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the whole chain fits."""
        return self.first_bad is None


def next_seq(connection: Connection) -> int:
    """Take the log for this transaction and return the seq that its next entry gets."""
    row = connection.execute(
        select(schema.chain.c.seq).where(schema.chain.c.id == 1).with_for_update()
    ).one()
    return int(row.seq) + 1


def append(connection: Connection, at: int, entries: Sequence[Entry]) -> list[int]:
    """Append entries to the log; returns the seq of each. Call it last in a unit of work."""
    if not entries:
        return []
    head = connection.execute(
        select(schema.chain).where(schema.chain.c.id == 1).with_for_update()
    ).one()
    seq, prev = int(head.seq), str(head.hash)
    rows: list[dict[str, Any]] = []
    for entry in entries:
        seq += 1
        body = canonical(entry.body)
        sealed = seal(
            prev, seq, at, entry.actor, entry.kind, entry.project, entry.subject, entry.body
        )
        rows.append(
            {
                "seq": seq, "at": at, "actor": entry.actor, "kind": entry.kind,
                "project": entry.project, "subject": entry.subject, "body": body,
                "prev_hash": prev, "hash": sealed,
            }
        )  # fmt: skip
        prev = sealed
    connection.execute(insert(schema.event), rows)
    connection.execute(update(schema.chain).values(seq=seq, hash=prev))
    return [int(row["seq"]) for row in rows]


def seal(
    prev: str,
    seq: int,
    at: int,
    actor: str,
    kind: str,
    project: str | None,
    subject: str,
    body: Any,
) -> str:
    """Compute the hash of one entry."""
    content = canonical(
        {
            "seq": seq, "at": at, "actor": actor, "kind": kind, "project": project,
            "subject": subject, "body": body,
        }
    )  # fmt: skip
    return hashlib.sha256((prev + content).encode()).hexdigest()


def read_events(
    connection: Connection,
    *,
    after: int = 0,
    up_to: int | None = None,
    project: str | None = None,
    kinds: Sequence[str] = (),
    limit: int | None = None,
) -> Iterator[Event]:
    """Read entries in order, from `after` (not included) to `up_to` (included)."""
    table = schema.event
    query = select(table).where(table.c.seq > after).order_by(table.c.seq)
    if up_to is not None:
        query = query.where(table.c.seq <= up_to)
    if project is not None:
        query = query.where(table.c.project == project)
    if kinds:
        query = query.where(table.c.kind.in_(kinds))
    if limit is not None:
        query = query.limit(limit)
    for row in connection.execution_options(yield_per=1000).execute(query):
        yield Event(
            row.seq, row.at, row.actor, row.kind, row.project, row.subject,
            json.loads(row.body), row.prev_hash, row.hash,
        )  # fmt: skip


def head_of(connection: Connection) -> tuple[int, str]:
    """Return the seq and the hash of the newest entry."""
    row = connection.execute(select(schema.chain)).one()
    return int(row.seq), str(row.hash)


def verify(connection: Connection) -> Verdict:
    """Recompute the whole chain, and name the first entry that does not fit."""
    prev, seq = FIRST_HASH, 0
    table = schema.event
    rows = connection.execution_options(yield_per=1000).execute(select(table).order_by(table.c.seq))
    for row in rows:
        problem = _problem(row, prev, seq)
        if problem:
            return Verdict(seq, prev, seq + 1 if row.seq != seq + 1 else row.seq, problem)
        prev, seq = row.hash, row.seq
    head_seq, head_hash = head_of(connection)
    if head_seq != seq or head_hash != prev:
        first = min(seq, head_seq) + 1 if head_seq != seq else seq
        return Verdict(seq, prev, first, f"the log ends at {seq}, its recorded head is {head_seq}")
    return Verdict(seq, prev)


def _problem(row: Any, prev: str, seq: int) -> str | None:
    if row.seq != seq + 1:
        return f"entry {seq + 1} is missing; the next is {row.seq}"
    if row.prev_hash != prev:
        return f"entry {row.seq} does not follow the entry before it"
    try:
        body = json.loads(row.body)
    except ValueError:
        return f"the body of entry {row.seq} is not JSON"
    sealed = seal(prev, row.seq, row.at, row.actor, row.kind, row.project, row.subject, body)
    if sealed != row.hash or canonical(body) != row.body:
        return f"entry {row.seq} was changed after it was written"
    return None
