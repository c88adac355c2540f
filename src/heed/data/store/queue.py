"""The queue: claim, heartbeat, release, expire, and the drafts of unfinished answers.

A claim is one transaction from reading the queue to holding the place, and people on one item are
never more than it needs, however many claim at once.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from heed.data.store import schema
from heed.data.store.choosing import choose, eligible, practice, shown_order
from heed.data.store.counts import COUNTED_ROLES
from heed.data.store.database import Database
from heed.data.store.keyed import new_id
from heed.data.store.leases import (
    MOST_LEASE_TIMES,
    as_work,
    change_item,
    end_lease,
    lease_time,
    live_leases,
    own_lease,
    reap,
)
from heed.data.store.log import Entry, append
from heed.data.store.projects import project_in
from heed.data.store.refusal import Refusal
from heed.data.store.views import Claimed, Nothing, Project, Work

_DAY_MS = 86_400_000


class Queue:
    """Work of one project, handed out to people and taken back."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self, project: str, person: str, *, count: int = 1, practising: bool = False
    ) -> Claimed:
        """Hold up to `count` items: those the person holds already, then new ones.

        A second tab therefore gets the same item.

        Args:
            project: id or slug.
            person: who works.
            count: items to hold, at most the project's `max_leases`.
            practising: practice items, whose answers count for nothing.

        Raises:
            Refusal: the person is no member of the project.
        """

        def work(connection: Connection) -> Claimed:
            now = self._database.clock()
            found = project_in(connection, project)
            member = _member(connection, found, person)
            reap(connection, found, now)
            held = live_leases(connection, found.id, person)
            closed = self._why_closed(connection, found, member, now)
            entries: list[Entry] = []
            while closed is None and len(held) < min(count, found.config.max_leases):
                lease = self._take(connection, found, member, now, practising, entries)
                if lease is None:
                    break
                held.append(lease)
                member = _member(connection, found, person)
            append(connection, now, entries)
            if held:
                return Claimed(as_work(connection, found, held[: max(count, 1)]))
            return Claimed((), closed or self._why_empty(connection, found, member, now))

        return self._database.write(work, durable=False)

    def heartbeat(self, lease: str, person: str) -> int:
        """Say that a person is still at it; returns when the lease now ends.

        Raises:
            Refusal: the lease is over (`gone`) or another's.
        """

        def work(connection: Connection) -> int:
            now = self._database.clock()
            row = own_lease(connection, lease, person)
            if row.state != "live":
                raise Refusal("gone", f"the lease {lease!r} is {row.state}; claim again")
            span = project_in(connection, row.project).lease_ms
            began = row.reopened_at or row.claimed_at
            ends = min(now + span, began + MOST_LEASE_TIMES * span)
            ends = ends if now < row.beat_at else max(ends, row.expires_at)
            table = schema.lease
            connection.execute(
                update(table).where(table.c.id == lease).values(beat_at=now, expires_at=ends)
            )
            return ends

        return self._database.write(work, durable=False)

    def release(self, lease: str, person: str) -> None:
        """Give an item back; its draft stays. A lease that is over already stays as it is."""

        def work(connection: Connection) -> None:
            row = own_lease(connection, lease, person)
            if row.state == "live":
                project = project_in(connection, row.project)
                end_lease(connection, project, row, "released", self._database.clock())

        self._database.write(work, durable=False)

    def release_all(self, person: str, project: str | None = None) -> int:
        """Give back all that a person holds, as on leaving; returns the number."""

        def work(connection: Connection) -> int:
            table = schema.lease
            query = select(table).where(table.c.person == person, table.c.state == "live")
            if project is not None:
                query = query.where(table.c.project == project_in(connection, project).id)
            rows = connection.execute(query.order_by(table.c.item).with_for_update()).all()
            for row in rows:
                found = project_in(connection, row.project)
                end_lease(connection, found, row, "released", self._database.clock())
            return len(rows)

        return self._database.write(work, durable=False)

    def expire(self) -> int:
        """Expire all leases that are over, and tune how long new ones last; run it now and then."""
        projects = schema.project

        def work(connection: Connection) -> int:
            total = 0
            for row in connection.execute(select(projects.c.id).order_by(projects.c.id)).all():
                found = project_in(connection, row.id)
                total += reap(connection, found, self._database.clock())
                span = lease_time(connection, found)
                if span != found.lease_ms:
                    connection.execute(
                        update(projects).where(projects.c.id == row.id).values(lease_ms=span)
                    )
            return total

        return self._database.write(work, durable=False)

    def save_draft(
        self, lease: str, person: str, body: dict[str, Any], *, version: int | None = None
    ) -> int:
        """Keep an unfinished answer; returns its new version.

        Args:
            body: any JSON object, places as on the screen.
            version: of the draft that it continues (0 where there was none); None overwrites.

        Raises:
            Refusal: a newer draft is there (`conflict`), or the answer was given already (`gone`).
        """

        def work(connection: Connection) -> int:
            row = own_lease(connection, lease, person)
            if row.state == "done":
                raise Refusal("gone", "the answer was given already; amend it instead")
            now, table = self._database.clock(), schema.draft
            old = connection.execute(
                select(table).where(table.c.lease == lease).with_for_update()
            ).first()
            current = old.version if old else 0
            if version is not None and version != current:
                raise Refusal(
                    "conflict",
                    f"the draft is at version {current}, not {version}; load it again",
                )
            write_draft(connection, lease, body, current + 1, now)
            return current + 1

        return self._database.write(work, durable=False)

    def held(self, project: str, person: str) -> tuple[Work, ...]:
        """Show what a person holds, drafts included, without claiming anything."""
        with self._database.read() as connection:
            found = project_in(connection, project)
            leases = live_leases(connection, found.id, person)
            return as_work(connection, found, leases)

    def _take(
        self,
        connection: Connection,
        project: Project,
        member: Any,
        now: int,
        practising: bool,
        entries: list[Entry],
    ) -> Any:
        if practising:
            item = practice(connection, project, member, now)
        else:
            item = choose(connection, project, member, now, entries)
        if item is None:
            return None
        places = schema.item_candidate
        count = connection.execute(
            select(func.count()).select_from(places).where(places.c.item == item.id)
        ).scalar_one()
        row = {
            "id": new_id("l"), "item": item.id, "project": project.id, "person": member.person,
            "shown": shown_order(connection, project, item, member.person, count),
            "ordinal": member.n_claims, "arm": None, "holds": True, "state": "live",
            "claimed_at": now, "beat_at": now, "expires_at": now + project.lease_ms,
            "reopened_at": None,
        }  # fmt: skip
        connection.execute(insert(schema.lease).values(row))
        change_item(connection, project, item, n_live=1)
        table = schema.membership
        connection.execute(
            update(table)
            .where(table.c.project == project.id, table.c.person == member.person)
            .values(n_claims=table.c.n_claims + 1)
        )
        return connection.execute(select(schema.lease).where(schema.lease.c.id == row["id"])).one()

    def _why_closed(
        self, connection: Connection, project: Project, member: Any, now: int
    ) -> Nothing | None:
        if project.state == "closed":
            return Nothing("closed")
        if project.state == "paused" or member.state != "active":
            return Nothing("paused")
        if project.config.needs_guideline:
            table = schema.guideline
            newest = connection.execute(
                select(func.max(table.c.version)).where(table.c.project == project.id)
            ).scalar()
            if (newest or 0) > member.guideline_seen:
                return Nothing("guideline")
        if member.daily_cap is not None:
            judged = schema.judgment.c
            today = connection.execute(
                select(func.count()).where(
                    judged.project == project.id,
                    judged.person == member.person,
                    judged.created_at >= now - now % _DAY_MS,
                    judged.version == 1,
                )
            ).scalar_one()
            if today >= member.daily_cap:
                return Nothing("daily_cap", done_by_me=today)
        return None

    def _why_empty(
        self, connection: Connection, project: Project, member: Any, now: int
    ) -> Nothing:
        item, mine = schema.item.c, schema.judgment.c
        held = schema.lease.alias("held")
        lease = held.c
        base = (item.project == project.id) & (item.role == "normal")
        full = connection.execute(
            select(func.count(item.id.distinct()), func.min(lease.expires_at))
            .join(held, lease.item == item.id)
            .where(
                eligible(project.id, member.person, member.skills, now),
                item.role.in_(COUNTED_ROLES),
                lease.state == "live",
                lease.person != member.person,
            )
        ).one()
        done = connection.execute(
            select(func.count()).where(
                mine.project == project.id,
                mine.person == member.person,
                mine.state == "standing",
                mine.role == "label",
            )
        ).scalar_one()
        skips = schema.skip.c
        skipped = connection.execute(
            select(func.count()).where(
                skips.project == project.id,
                skips.person == member.person,
                skips.state == "standing",
            )
        ).scalar_one()
        ready = base & (item.state == "ready")
        unskilled = connection.execute(
            select(func.count()).where(
                ready, item.skill.is_not(None), item.skill.not_in(member.skills)
            )
        ).scalar_one()
        total = connection.execute(select(func.count()).where(base)).scalar_one()
        open_items = connection.execute(select(func.count()).where(ready)).scalar_one()
        about = {"done_by_me": done, "skipped_by_me": skipped, "need_skill": unskilled}
        if full[0]:
            return Nothing("leased_by_others", by_others=full[0], free_at=full[1], **about)
        if total == 0:
            return Nothing("no_items", **about)
        if unskilled and unskilled >= open_items:
            return Nothing("needs_skill", **about)
        if open_items and skipped:
            return Nothing("set_aside", **about)
        return Nothing("all_done", **about)


def write_draft(
    connection: Connection, lease: str, body: dict[str, Any], version: int, now: int
) -> None:
    """Store a draft under its version."""
    table = schema.draft
    values = {"body": body, "version": version, "updated_at": now}
    done = connection.execute(update(table).where(table.c.lease == lease).values(values))
    if not done.rowcount:
        connection.execute(insert(table).values(lease=lease, **values))


def _member(connection: Connection, project: Project, person: str) -> Any:
    """Read and lock a person's row in a project: two tabs of one person take turns."""
    table = schema.membership
    row = connection.execute(
        select(table)
        .where(table.c.project == project.id, table.c.person == person)
        .with_for_update()
    ).first()
    if row is None or row.state == "removed":
        raise Refusal("denied", f"{person!r} is no member of project {project.slug!r}")
    return row
