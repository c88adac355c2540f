"""What a trainer reads: settled answers after a position in the log, in order.

An answer is settled once `settle_seconds` are over or the person has answered again. What comes
after an answer that is not settled waits too, so that a position says everything: the answers that
a trainer holds at position s are those of `fold(events <= s)`. An answer that is taken back before
it settled is never delivered. (A clock that was set back does not hold answers up: an answer from
the future, by more than the settling time, is settled.)
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from heed.data.store import schema
from heed.data.store.database import Database
from heed.data.store.log import (
    Event,
    Verdict,
    head_of,
    read_events,
    verify,
)
from heed.data.store.projects import project_in
from heed.data.store.recording import as_judgment
from heed.data.store.state import State, fold
from heed.data.store.views import Change, Changes, Project

KINDS_OF_CHANGE = ("judgment", "amend", "retract")


class Log:
    """The log as trainers, auditors and exports read it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def changes(self, project: str, after: int = 0, *, limit: int = 1000) -> Changes:
        """Read settled changes after a position; never waits.

        Args:
            after: position up to which everything is known.
            limit: about how many changes at most.

        Returns:
            Changes in order, and the position to go on from. A label that is there and retracted
            within one answer is in neither.
        """
        with self._database.read() as connection:
            found = project_in(connection, project)
            now = self._database.clock()
            while True:
                events = list(
                    read_events(
                        connection, after=after, project=found.id, kinds=KINDS_OF_CHANGE,
                        limit=limit + 1,
                    )
                )  # fmt: skip
                more = len(events) > limit
                cut = _settled(connection, found, events[:limit], now)
                if cut or not more:
                    break
                # An answer and its retraction lie further apart than the limit.
                limit *= 2
            kept = events[:cut]
            seq = kept[-1].seq if kept else after
            return Changes(tuple(_cancel(kept)), seq, more or cut < len(events))

    def head(self) -> tuple[int, str]:
        """Return the seq and the hash of the newest entry of the whole store."""
        with self._database.read() as connection:
            return head_of(connection)

    def events(
        self, *, project: str | None = None, after: int = 0, limit: int | None = None
    ) -> list[Event]:
        """Read entries of the log, in order."""
        with self._database.read() as connection:
            name = None if project is None else project_in(connection, project).id
            return list(read_events(connection, after=after, project=name, limit=limit))

    def verify(self) -> Verdict:
        """Recompute the chain of hashes over the whole log, and name the first bad entry."""
        with self._database.read() as connection:
            return verify(connection)

    def state(self, project: str, seq: int | None = None) -> State:
        """Rebuild what the project was at a position of the log (its end by default)."""
        with self._database.read() as connection:
            name = project_in(connection, project).id
            return fold(read_events(connection, up_to=seq, project=name))


def _settled(connection: Connection, project: Project, events: Sequence[Event], now: int) -> int:
    """Count the events from the first on that may be delivered together."""
    settle = int(project.config.settle_seconds * 1000)
    waiting = [
        event.kind != "retract"
        and abs(now - event.at) < settle
        and not _answered_again(connection, project, event)
        for event in events
    ]
    ended_by = _ended_by(events)
    cut = len(events)
    while True:
        # A waiting answer is passed over only together with what ended it.
        first = next(
            (i for i in range(cut) if waiting[i] and ended_by.get(i, cut) >= cut),
            None,
        )
        if first is None:
            return cut
        cut = first


def _ended_by(events: Sequence[Event]) -> dict[int, int]:
    """Map the index of an answer to that of the retraction that took it (or its successor) back."""
    place = {event.subject: i for i, event in enumerate(events) if event.kind != "retract"}
    out: dict[int, int] = {}
    for i, event in enumerate(events):
        name: str | None = event.subject
        while event.kind == "retract" and name in place:
            out[place[name]] = i
            name = events[place[name]].body.get("replaces")
    return out


def _answered_again(connection: Connection, project: Project, event: Event) -> bool:
    table = schema.judgment.c
    later = select(table.id).where(
        table.project == project.id,
        table.person == event.actor,
        table.seq > event.seq,
        table.lease != event.body["lease"],
    )
    return connection.execute(later.limit(1)).first() is not None


def _cancel(events: Sequence[Event]) -> list[Change]:
    """Turn events into changes, without answers that are taken back among them."""
    ended = _ended_by(events)
    gone = {events[i].subject for i in ended}
    out = []
    for i, event in enumerate(events):
        if i in ended:
            continue
        if event.kind == "retract":
            if event.subject in gone:
                # Of a whole chain of versions that began before: the oldest is what is known.
                first = _oldest(events, ended, i)
                if first is None:
                    continue
                out.append(Change(event.seq, event.at, "retract", first))
            else:
                out.append(Change(event.seq, event.at, "retract", event.subject))
            continue
        value = as_judgment(
            event.subject, event.project or "", event.actor, event.at, event.seq, event.body,
            "standing",
        )  # fmt: skip
        is_new = event.kind == "judgment"
        out.append(
            Change(
                event.seq, event.at, "judgment" if is_new else "amend", event.subject,
                value.replaces, value,
            )
        )  # fmt: skip
    return out


def _oldest(events: Sequence[Event], ended: dict[int, int], retraction: int) -> str | None:
    """The version before this batch that a retraction takes back; None where all began in it."""
    own = [events[i] for i, by in ended.items() if by == retraction]
    names = {event.subject for event in own}
    before = [event.body["replaces"] for event in own if event.body["replaces"] not in names]
    return next((name for name in before if name is not None), None)
