"""Leases: an item is held by one person for a time, which heartbeats extend.

A lease is over when the clock stands at its end or beyond, or stands before its beginning (the
clock was set back; nobody's place is then held for ever). Whoever answers after that is still
heard: `heed.data.store.answers` keeps every answer.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, or_, select, update

from heed.data.store import schema
from heed.data.store.content import read_payloads
from heed.data.store.counts import has_room, new_state
from heed.data.store.items import locked_item
from heed.data.store.refusal import Refusal
from heed.data.store.views import Project, Work

CLOCK_SLACK_MS = 60_000
MOST_LEASE_TIMES = 4
_TIMES_MEDIAN = 3
_ENOUGH_TIMES = 30
_TIMES_LOOKED_AT = 200


def own_lease(connection: Connection, lease: str, person: str) -> Any:
    """Read and lock a person's lease.

    Raises:
        Refusal: there is none, or it is somebody else's.
    """
    table = schema.lease
    row = connection.execute(select(table).where(table.c.id == lease).with_for_update()).first()
    if row is None:
        raise Refusal("absent", f"there is no lease {lease!r}")
    if row.person != person:
        raise Refusal("denied", "the lease is somebody else's")
    return row


def live_leases(connection: Connection, project: str, person: str) -> list[Any]:
    """Read what a person holds: reopened ones first, the newest of them leading."""
    table = schema.lease
    rows = connection.execute(
        select(table).where(
            table.c.project == project, table.c.person == person, table.c.state == "live"
        )
    ).all()
    return sorted(rows, key=lambda r: (-(r.reopened_at or 0), r.claimed_at, r.ordinal, r.id))


def end_lease(connection: Connection, project: Project, lease: Any, state: str, now: int) -> None:
    """End a live lease and free its place."""
    item = locked_item(connection, lease.item)
    table = schema.lease
    done = connection.execute(
        update(table)
        .where(table.c.id == lease.id, table.c.state == "live")
        .values(state=state, beat_at=now)
    )
    if done.rowcount and lease.holds:
        change_item(connection, project, item, n_live=-1)


def change_item(
    connection: Connection, project: Project, item: Any, **steps: int
) -> dict[str, Any]:
    """Add to an item's counters and bring its state along; returns the item as it then is."""
    counts = dict(item._mapping) if hasattr(item, "_mapping") else dict(item)
    for name, step in steps.items():
        # Counters of what was set aside start again at 0 when an item is put back.
        least = None if name in ("n_live", "n_valid") else 0
        counts[name] += step
        counts[name] = counts[name] if least is None else max(least, counts[name])
    values = {name: counts[name] for name in steps}
    values["state"] = counts["state"] = new_state(counts, project.config)
    table = schema.item
    connection.execute(update(table).where(table.c.id == counts["id"]).values(values))
    return counts


def reap(connection: Connection, project: Project, now: int) -> int:
    """Expire the leases of a project that are over; returns their number."""
    table = schema.lease
    over = or_(table.c.expires_at <= now, table.c.beat_at > now + CLOCK_SLACK_MS)
    rows = connection.execute(
        select(table)
        .where(table.c.project == project.id, table.c.state == "live", over)
        .order_by(table.c.item, table.c.id)
        .with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        end_lease(connection, project, row, "expired", now)
    return len(rows)


def reopen(connection: Connection, project: Project, lease: Any, now: int) -> Any:
    """Make a lease live again after an undo; it holds a place only where there is one.

    Where the person holds the item by another lease meanwhile, that one is it.
    """
    table = schema.lease
    item = locked_item(connection, lease.item)
    other = connection.execute(
        select(table).where(
            table.c.item == lease.item, table.c.person == lease.person, table.c.state == "live"
        )
    ).first()
    if other is not None:
        return other
    holds = has_room(item._mapping)
    connection.execute(
        update(table)
        .where(table.c.id == lease.id)
        .values(
            state="live", holds=holds, reopened_at=now, beat_at=now,
            expires_at=now + project.lease_ms,
        )
    )  # fmt: skip
    if holds:
        change_item(connection, project, item, n_live=1)
    return connection.execute(select(table).where(table.c.id == lease.id)).one()


def lease_time(connection: Connection, project: Project) -> int:
    """Milliseconds of a lease: three times the median time of recent answers, within bounds."""
    config, table = project.config, schema.judgment
    rows = connection.execute(
        select(table.c.timing)
        .where(table.c.project == project.id, table.c.role == "label")
        .order_by(table.c.seq.desc())
        .limit(_TIMES_LOOKED_AT)
    ).all()
    times = sorted(t for row in rows if (t := row.timing.get("seconds")) is not None)
    if len(times) < _ENOUGH_TIMES:
        return config.first_lease_seconds * 1000
    seconds = _TIMES_MEDIAN * times[len(times) // 2]
    return int(1000 * min(max(seconds, config.min_lease_seconds), config.max_lease_seconds))


def as_work(connection: Connection, project: Project, leases: list[Any]) -> tuple[Work, ...]:
    """Show leases to the person who holds them, candidates in the order of the screen."""
    if not leases:
        return ()
    names = [lease.item for lease in leases]
    table, drafts = schema.item, schema.draft
    rows = connection.execute(select(table).where(table.c.id.in_(names))).all()
    payloads = read_payloads(connection, project.kind, rows)
    kept = {
        row.lease: row
        for row in connection.execute(
            select(drafts).where(drafts.c.lease.in_([lease.id for lease in leases]))
        )
    }
    out = []
    for lease in leases:
        payload, draft = payloads[lease.item], kept.get(lease.id)
        shown = tuple(payload.candidates[place] for place in lease.shown)
        out.append(
            Work(
                lease=lease.id,
                item=lease.item,
                kind=project.kind.name,
                payload=payload.model_copy(update={"candidates": shown}),
                expires_at=lease.expires_at,
                draft=draft.body if draft else None,
                draft_version=draft.version if draft else 0,
                reopened=lease.reopened_at is not None,
            )
        )
    return tuple(out)
