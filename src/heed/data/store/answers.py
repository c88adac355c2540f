"""Answers: submit, amend, withdraw, skip, undo, adjudicate. Nothing a person said is thrown away.

A submission carries an id that its sender chose: sent again it changes nothing and gives the same
receipt. A correction is a new version; the old row stays. An answer that comes after its lease is
over is stored, and marked surplus where enough others have answered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from heed.data.store import schema
from heed.data.store.database import Database
from heed.data.store.items import locked_item
from heed.data.store.keyed import new_id
from heed.data.store.kinds import Answer
from heed.data.store.leases import change_item, end_lease, own_lease
from heed.data.store.log import Entry, append, next_seq
from heed.data.store.projects import project_in
from heed.data.store.recording import (
    Saying,
    as_judgment,
    record,
    replayed,
    said_of,
    standing_of,
    take_back,
)
from heed.data.store.refusal import Refusal
from heed.data.store.undoing import log_retraction, undo_last
from heed.data.store.views import Judgment, Project, Receipt, Undone

_HOUR_MS = 3_600_000


class Answers:
    """What people say, and how they take it back."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(
        self,
        lease: str,
        person: str,
        answer: Answer | dict[str, Any],
        *,
        submission_id: str,
        timing: Mapping[str, Any] | None = None,
        client: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """Store an answer. When this returns it is on the disk.

        Args:
            lease: under which the person saw the item; also one that is over.
            answer: with places as on the person's screen.
            submission_id: chosen by the sender; the same id stores once.
            timing: what the page measured, such as `active_seconds`.
            client: what is known of the page, such as its version and key profile.

        Raises:
            Refusal: the answer does not fit (`invalid`); the lease is another's (`denied`); it was
                answered, or the id came with another answer (`conflict`).
        """

        def work(connection: Connection) -> Receipt:
            now = self._database.clock()
            row = own_lease(connection, lease, person)
            saying = Saying(
                submission_id, person, answer, tuple(row.shown),
                _timing(timing, row.reopened_at or row.claimed_at, now), dict(client or {}),
                lease=lease, late=row.state != "live",
            )  # fmt: skip
            before = replayed(connection, saying)
            if before is not None:
                return before
            if row.state == "done":
                raise Refusal("conflict", "this lease was answered already; amend the answer")
            project = project_in(connection, row.project)
            self._end_others(connection, project, row, now)
            item = locked_item(connection, row.item)
            old = standing_of(connection, row.item, person, "label")
            frees = int(row.state == "live" and row.holds)
            done = record(connection, project, item, saying, now, frees=frees, replaces=old)
            table = schema.lease
            connection.execute(
                update(table).where(table.c.id == lease).values(state="done", beat_at=now)
            )
            return done

        return self._database.write(work)

    def amend(
        self,
        judgment: str,
        person: str,
        answer: Answer | dict[str, Any],
        *,
        submission_id: str,
        client: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """Store a new version of one's own standing answer, places as on the screen then.

        Raises:
            Refusal: it is another's, or no longer standing, or the project is closed.
        """

        def work(connection: Connection) -> Receipt:
            now = self._database.clock()
            row = _judgment_row(connection, judgment)
            if row.person != person:
                raise Refusal("denied", "the answer is somebody else's")
            saying = Saying(
                submission_id, person, answer, tuple(row.shown), {"seconds": None},
                dict(client or {}), role=row.role, lease=row.lease,
            )  # fmt: skip
            before = replayed(connection, saying)
            if before is not None:
                return before
            project = project_in(connection, row.project)
            if project.state == "closed":
                raise Refusal("gone", f"project {project.slug!r} is closed; nothing is amended")
            item = locked_item(connection, row.item)
            current = _judgment_row(connection, judgment)
            if current.state != "standing":
                raise Refusal("conflict", f"it was {current.state} meanwhile; load it again")
            return record(connection, project, item, saying, now, replaces=current)

        return self._database.write(work)

    def withdraw(self, judgment: str, *, actor: str, reason: str = "") -> int:
        """Take a standing answer back for good; returns the seq. The row and its log stay."""

        def work(connection: Connection) -> int:
            row = _judgment_row(connection, judgment)
            project = project_in(connection, row.project)
            item = locked_item(connection, row.item)
            row = _judgment_row(connection, judgment)
            if row.state != "standing":
                raise Refusal("conflict", f"the answer is {row.state}; nothing is left to withdraw")
            take_back(connection, project, item, row, "withdrawn")
            now = self._database.clock()
            return log_retraction(connection, row, now, actor, "withdraw", reason)

        return self._database.write(work)

    def skip(
        self,
        lease: str,
        person: str,
        *,
        mode: str = "me",
        reason: str = "",
        note: str | None = None,
    ) -> int:
        """Put an item aside at once; it can be undone, and the draft stays. Returns the seq.

        Args:
            mode: me: comes back to the person after `skip_hours`; others: only to others; ignore:
                to nobody. The project says which are allowed.

        Raises:
            Refusal: the mode is not allowed, or the item was answered.
        """

        def work(connection: Connection) -> int:
            now = self._database.clock()
            row = own_lease(connection, lease, person)
            project = project_in(connection, row.project)
            if mode not in project.config.skip_modes:
                raise Refusal(
                    "invalid", f"skip mode {mode!r}; here {', '.join(project.config.skip_modes)}"
                )
            table = schema.skip
            before = connection.execute(
                select(table.c.seq).where(table.c.lease == lease, table.c.state == "standing")
            ).first()
            if before is not None:
                return int(before.seq)
            if row.state == "done":
                raise Refusal("conflict", "the item was answered already; amend or undo instead")
            end_lease(connection, project, row, "released", now)
            released = update(schema.lease).where(schema.lease.c.id == lease)
            connection.execute(released.values(state="released"))
            item = locked_item(connection, row.item)
            steps: dict[str, Any] = dict(item._mapping)
            if mode == "ignore":
                steps["closed"] = "archived"
                closed = update(schema.item).where(schema.item.c.id == row.item)
                connection.execute(closed.values(closed="archived"))
            change_item(connection, project, steps, n_skips=1)
            hours = project.config.skip_hours
            values = {
                "id": new_id("k"), "project": project.id, "lease": lease, "item": row.item,
                "person": person, "mode": mode, "reason": reason[:32], "note": note,
                "created_at": now, "state": "standing", "seq": next_seq(connection),
                "until": now + int(hours * _HOUR_MS) if mode == "me" else None,
            }  # fmt: skip
            connection.execute(insert(table).values(values))
            body = {k: values[k] for k in ("lease", "item", "mode", "reason", "note", "until")}
            entry = Entry("skip", person, values["id"], body, project.id)
            return append(connection, now, [entry])[0]

        return self._database.write(work)

    def undo(self, project: str, person: str) -> Undone:
        """Take back the person's latest answer or skip, and open its item again with its draft.

        Raises:
            Refusal: nothing is left within the project's `undo_depth`, or it is closed (`gone`).
        """

        return self._database.write(
            lambda connection: undo_last(connection, project, person, self._database.clock())
        )

    def adjudicate(
        self, item: str, person: str, answer: Answer | dict[str, Any], *, submission_id: str
    ) -> Receipt:
        """Store a reviewer's decision beside people's answers, places in the item's own order."""

        def work(connection: Connection) -> Receipt:
            row = locked_item(connection, item)
            project = project_in(connection, row.project)
            places = schema.item_candidate
            count = len(
                connection.execute(select(places.c.place).where(places.c.item == item)).all()
            )
            saying = Saying(
                submission_id, person, answer, tuple(range(count)), {"seconds": None}, {},
                role="adjudication",
            )  # fmt: skip
            before = replayed(connection, saying)
            if before is not None:
                return before
            old = standing_of(connection, item, person, "adjudication")
            return record(connection, project, row, saying, self._database.clock(), replaces=old)

        return self._database.write(work)

    def history(self, project: str, person: str, limit: int = 200) -> list[Judgment]:
        """Read a person's own answers, the newest first."""
        table = schema.judgment
        with self._database.read() as connection:
            found = project_in(connection, project)
            rows = connection.execute(
                select(table)
                .where(table.c.project == found.id, table.c.person == person)
                .order_by(table.c.seq.desc())
                .limit(limit)
            )
            return [row_as_judgment(row) for row in rows]

    def get(self, judgment: str) -> Judgment:
        """Read one answer.

        Raises:
            Refusal: there is none.
        """
        with self._database.read() as connection:
            return row_as_judgment(_judgment_row(connection, judgment, lock=False))

    def of_item(self, item: str) -> list[Judgment]:
        """Read all answers to an item, the oldest first; for reviewers."""
        table = schema.judgment
        with self._database.read() as connection:
            rows = connection.execute(
                select(table).where(table.c.item == item).order_by(table.c.seq)
            )
            return [row_as_judgment(row) for row in rows]

    def _end_others(self, connection: Connection, project: Project, row: Any, now: int) -> None:
        table = schema.lease
        others = connection.execute(
            select(table).where(
                table.c.item == row.item, table.c.person == row.person,
                table.c.state == "live", table.c.id != row.id,
            )
        ).all()  # fmt: skip
        for other in others:
            end_lease(connection, project, other, "released", now)


def row_as_judgment(row: Any) -> Judgment:
    """Read an answer from its row."""
    values = row._mapping
    return as_judgment(
        row.id, row.project, row.person, row.created_at, row.seq, said_of(values), row.state
    )


def _judgment_row(connection: Connection, judgment: str, *, lock: bool = True) -> Any:
    table = schema.judgment
    query = select(table).where(table.c.id == judgment)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise Refusal("absent", f"there is no answer {judgment!r}")
    return row


def _timing(timing: Mapping[str, Any] | None, began: int, now: int) -> dict[str, Any]:
    """Join what the page measured with the server's clock, which bounds it."""
    kept = dict(timing or {})
    wall = max(0, now - began) / 1000
    active = kept.get("active_seconds")
    if isinstance(active, int | float) and not isinstance(active, bool) and math.isfinite(active):
        kept["seconds"] = min(max(float(active), 0.0), wall)
    else:
        kept["seconds"] = wall
    kept["wall_seconds"] = wall
    return kept
