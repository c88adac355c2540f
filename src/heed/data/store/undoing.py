"""Taking the latest act back: the answer or skip is ended by a new entry, its item opens again."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Connection, select, union_all, update

from heed.data.store import schema
from heed.data.store.items import locked_item
from heed.data.store.kinds import inverse
from heed.data.store.leases import as_work, change_item, reopen
from heed.data.store.log import Entry, append
from heed.data.store.projects import project_in
from heed.data.store.queue import write_draft
from heed.data.store.recording import take_back
from heed.data.store.refusal import Refusal
from heed.data.store.views import Project, Undone

Act = Literal["judgment", "skip"]

_ACTS_LOOKED_AT = 10


def undo_last(connection: Connection, project: str, person: str, now: int) -> Undone:
    """Take a person's latest act back, within a transaction.

    Raises:
        Refusal: nothing is left within the project's depth, or the project is closed.
    """
    found = project_in(connection, project)
    if found.state == "closed":
        raise Refusal("gone", f"project {found.slug!r} is closed; nothing is undone")
    table = schema.membership
    # Two tabs that undo at once take turns.
    connection.execute(
        select(table.c.person)
        .where(table.c.project == found.id, table.c.person == person)
        .with_for_update()
    )
    lease, row, what = _last_act(connection, found, person)
    item = locked_item(connection, lease.item)
    if what == "judgment":
        take_back(connection, found, item, row, "withdrawn")
        _keep_as_draft(connection, found, lease, row, now)
    else:
        _take_back_skip(connection, found, item, row)
    opened = reopen(connection, found, lease, now)
    if what == "judgment":
        seq = log_retraction(connection, row, now, person, "undo", "")
    else:
        body = {"item": row.item, "lease": row.lease, "mode": row.mode}
        seq = append(connection, now, [Entry("skip.undone", person, row.id, body, found.id)])[0]
    return Undone(what, row.id, seq, as_work(connection, found, [opened])[0])


def log_retraction(
    connection: Connection, row: Any, now: int, actor: str, cause: str, reason: str
) -> int:
    """Log that an answer was taken back; returns the seq."""
    body = {"item": row.item, "cause": cause, "reason": reason, "lease": row.lease}
    return append(connection, now, [Entry("retract", actor, row.id, body, row.project)])[0]


def _last_act(connection: Connection, project: Project, person: str) -> tuple[Any, Any, Act]:
    depth, leases = project.config.undo_depth, schema.lease
    recent = [
        select(table.c.lease, table.c.seq)
        .where(table.c.project == project.id, table.c.person == person)
        .where(table.c.lease.is_not(None))
        .order_by(table.c.seq.desc())
        .limit(depth * _ACTS_LOOKED_AT)
        .subquery()
        for table in (schema.judgment, schema.skip)
    ]
    acts = connection.execute(union_all(*(select(one) for one in recent))).all()
    newest = dict(sorted((act.seq, act.lease) for act in acts))
    seen: list[str] = []
    for seq in sorted(newest, reverse=True):
        if newest[seq] in seen:
            continue
        seen.append(newest[seq])
        if len(seen) > depth:
            break
        found = _standing_act(connection, seq)
        if found is not None:
            query = select(leases).where(leases.c.id == newest[seq]).with_for_update()
            lease = connection.execute(query).one()
            return lease, *found
    raise Refusal("absent", f"nothing is left to undo among your last {depth} answers")


def _standing_act(connection: Connection, seq: int) -> tuple[Any, Act] | None:
    tables: list[tuple[Any, Act]] = [(schema.judgment, "judgment"), (schema.skip, "skip")]
    for table, what in tables:
        query = select(table).where(table.c.seq == seq, table.c.state == "standing")
        row = connection.execute(query).first()
        if row is not None:
            return row, what
    return None


def _keep_as_draft(
    connection: Connection, project: Project, lease: Any, row: Any, now: int
) -> None:
    kind = project.kind
    answer = kind.turn(kind.answer.model_validate(row.answer), inverse(row.shown))
    table = schema.draft
    old = connection.execute(select(table.c.version).where(table.c.lease == lease.id)).scalar()
    body = answer.model_dump(mode="json")
    write_draft(connection, lease.id, body, (old or 0) + 1, now)


def _take_back_skip(connection: Connection, project: Project, item: Any, row: Any) -> None:
    table = schema.skip
    connection.execute(update(table).where(table.c.id == row.id).values(state="undone"))
    counts = dict(item._mapping)
    if row.mode == "ignore":
        counts["closed"] = None
        opened = update(schema.item).where(schema.item.c.id == row.item)
        connection.execute(opened.values(closed=None))
    change_item(connection, project, counts, n_skips=-1 if counts["n_skips"] else 0)
