"""How an answer becomes a row and a log entry, and what it does to its item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, insert, select, update

from heed.data.store import schema
from heed.data.store.content import read_payloads
from heed.data.store.counts import counter_of, has_room
from heed.data.store.ddl import canonical
from heed.data.store.keyed import digest, new_id
from heed.data.store.kinds import Answer, read_answer
from heed.data.store.leases import change_item
from heed.data.store.log import Entry, append, next_seq
from heed.data.store.refusal import Refusal
from heed.data.store.views import Judgment, Project, Receipt

MOST_SUBMISSION_ID = 120


@dataclass(frozen=True)
class Saying:
    """Who answers what, before it is known what becomes of it."""

    submission_id: str
    person: str
    answer: Answer | dict[str, Any]
    shown: tuple[int, ...]
    timing: dict[str, Any]
    client: dict[str, Any]
    role: Literal["label", "adjudication"] = "label"
    lease: str | None = None
    late: bool = False

    @property
    def sha256(self) -> str:
        """Hash of what a repeated submission must repeat."""
        answer = self.answer
        value = answer.model_dump(mode="json") if isinstance(answer, Answer) else answer
        try:
            return digest(canonical([self.person, self.lease, self.role, value]))
        except (ValueError, TypeError) as error:
            raise Refusal("invalid", f"the answer is no JSON ({error})") from error


def replayed(connection: Connection, saying: Saying) -> Receipt | None:
    """Find the receipt of a submission that came before; None of a new one.

    Raises:
        Refusal: the same id came with another answer.
    """
    if not 1 <= len(saying.submission_id) <= MOST_SUBMISSION_ID:
        raise Refusal("invalid", f"a submission id has 1 to {MOST_SUBMISSION_ID} characters")
    table = schema.judgment
    row = connection.execute(
        select(table).where(table.c.submission_id == saying.submission_id)
    ).first()
    if row is None:
        return None
    if row.body_sha256 != saying.sha256:
        raise Refusal(
            "conflict", f"submission {saying.submission_id!r} came before with another answer"
        )
    return receipt(row, replayed=True)


def receipt(row: Any, *, replayed: bool = False) -> Receipt:
    """Make the receipt of a stored answer."""
    return Receipt(
        row.id, row.seq, row.version, row.outcome, row.late, row.surplus, replayed
    )  # fmt: skip


def standing_of(connection: Connection, item: str, person: str, role: str) -> Any:
    """Find a person's standing answer to an item."""
    table = schema.judgment
    return connection.execute(
        select(table)
        .where(
            table.c.item == item,
            table.c.person == person,
            table.c.role == role,
            table.c.state == "standing",
        )
        .with_for_update()
    ).first()


def record(
    connection: Connection,
    project: Project,
    item: Any,
    saying: Saying,
    now: int,
    *,
    frees: int = 0,
    replaces: Any = None,
    said_at: int | None = None,
) -> Receipt:
    """Store an answer, and take it into account; the last thing in a unit of work.

    Args:
        item: its locked row.
        frees: 1 where a lease that held a place ends with it.
        replaces: the person's standing answer that this one takes the place of.
        said_at: when it was given, where that was not now but elsewhere.

    Raises:
        Refusal: the answer does not fit the item.
    """
    payload = read_payloads(connection, project.kind, [item])[item.id]
    seen = payload.model_copy(
        update={"candidates": tuple(payload.candidates[place] for place in saying.shown)}
    )
    said = read_answer(project.kind, saying.answer, seen, project.config)
    answer = project.kind.turn(said, saying.shown).model_dump(mode="json")
    counts: Mapping[str, Any] = item._mapping
    if frees:
        counts = change_item(connection, project, item, n_live=-frees)
    if replaces is not None:
        counts = take_back(connection, project, counts, replaces, "replaced")
    counter = counter_of(answer["outcome"])
    labels = saying.role == "label"
    fills = counter == "n_valid" and labels and has_room(counts)
    if labels and (counter != "n_valid" or fills):
        change_item(connection, project, counts, **{counter: 1})
    row = {
        "id": new_id("j"), "project": project.id, "item": item.id, "person": saying.person,
        "lease": saying.lease, "submission_id": saying.submission_id,
        "body_sha256": saying.sha256, "role": saying.role,
        "version": replaces.version + 1 if replaces is not None else 1,
        "replaces": replaces.id if replaces is not None else None, "state": "standing",
        "outcome": answer["outcome"], "side": answer.get("side"), "level": answer.get("level"),
        "scale": project.config.scale if answer["outcome"] == "prefer" else None,
        "answer": answer, "shown": list(saying.shown), "timing": saying.timing,
        "client": saying.client, "counted": fills,
        "surplus": counter == "n_valid" and labels and not fills,
        "practice": item.role == "practice", "late": saying.late, "created_at": said_at or now,
        "seq": next_seq(connection),
    }  # fmt: skip
    connection.execute(insert(schema.judgment).values(row))
    kind, body = "judgment" if replaces is None else "amend", said_of(row)
    if said_at is not None:
        body["at"] = said_at
    append(connection, now, [Entry(kind, saying.person, row["id"], body, project.id)])
    return Receipt(
        row["id"], row["seq"], row["version"], row["outcome"], row["late"], row["surplus"]
    )  # fmt: skip


def take_back(
    connection: Connection, project: Project, item: Any, row: Any, state: str
) -> dict[str, Any]:
    """End a standing answer, and take it out of its item's counters; returns the item's."""
    table = schema.judgment
    connection.execute(update(table).where(table.c.id == row.id).values(state=state))
    counter = counter_of(row.outcome)
    if row.role == "label" and (counter != "n_valid" or row.counted):
        return change_item(connection, project, item, **{counter: -1})
    return dict(item._mapping) if hasattr(item, "_mapping") else dict(item)


_LOGGED = (
    "item", "lease", "submission_id", "role", "version", "replaces", "outcome", "side", "level",
    "scale", "answer", "shown", "timing", "client", "counted", "surplus", "practice", "late",
)  # fmt: skip


def said_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the log says of an answer: all of it."""
    return {name: row[name] for name in _LOGGED}


def as_judgment(
    name: str, project: str, person: str, at: int, seq: int, body: Mapping[str, Any], state: Any
) -> Judgment:
    """Read an answer from the body of its log entry."""
    return Judgment(
        id=name,
        project=project,
        item=body["item"],
        person=person,
        role=body["role"],
        version=body["version"],
        replaces=body["replaces"],
        outcome=body["outcome"],
        side=body["side"],
        level=body["level"],
        scale=body["scale"],
        answer=body["answer"],
        shown=tuple(body["shown"]),
        seconds=body["timing"].get("seconds"),
        counted=body["counted"],
        surplus=body["surplus"],
        practice=body["practice"],
        late=body["late"],
        at=body.get("at", at),
        seq=seq,
        submission_id=body["submission_id"],
        lease=body["lease"],
        state=state,
    )
