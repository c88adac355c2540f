"""Import what was exported, here or elsewhere: items, and answers with who gave them and when.

An import can be run again: items are known by their key, answers by their submission id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field
from sqlalchemy import Connection, select

from heed.data.exchange import read_rows
from heed.data.store import schema
from heed.data.store.items import MOST_IN_A_BATCH, NewItem, locked_item
from heed.data.store.projects import project_in
from heed.data.store.recording import Saying, record, replayed, standing_of
from heed.data.store.refusal import Refusal
from heed.data.store.store import Store
from heed.errors import DataError
from heed.records import Record

_BATCH = 200


class ImportedAnswer(Record):
    """One answer from elsewhere, with places in the item's order."""

    item: str
    """Key of the item."""
    person: str
    """Pseudonym; a person of this name is made where there is none."""
    submission_id: str = Field(min_length=1, max_length=120)
    answer: dict[str, Any]
    shown: tuple[int, ...] = ()
    """Places in the order of the screen; () where it is not known."""
    seconds: float | None = None
    when: datetime | None = None
    """When it was given; a time without a zone is UTC."""
    role: str = "label"
    late: bool = False


@dataclass
class ImportReport:
    """What became of an import."""

    items_new: int = 0
    items_known: int = 0
    answers_new: int = 0
    answers_known: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Reason -> rows that were not taken."""


def import_rows(
    store: Store,
    project: str,
    items: Iterable[NewItem],
    answers: Iterable[ImportedAnswer] = (),
    *,
    actor: str,
) -> ImportReport:
    """Add items, then answers, in their order; each row that does not fit is counted.

    Raises:
        Refusal: there is no such project.
    """
    report, rows = ImportReport(), list(items)
    for start in range(0, len(rows), MOST_IN_A_BATCH):
        batch = rows[start : start + MOST_IN_A_BATCH]
        for added in store.items.add(project, batch, actor=actor):
            if added.status == "new":
                report.items_new += 1
            elif added.status == "known":
                report.items_known += 1
            else:
                report.refused[f"item: {added.error}"] += 1
    said = list(answers)
    people = _people(store, project, said, actor)
    for start in range(0, len(said), _BATCH):
        chunk = said[start : start + _BATCH]
        for status in store.database.write(
            lambda connection, chunk=chunk: _answers(  # type: ignore[misc]
                connection, project, chunk, people, store.database.clock()
            )
        ):
            if status == "new":
                report.answers_new += 1
            elif status == "known":
                report.answers_known += 1
            else:
                report.refused[f"answer: {status}"] += 1
    return report


def import_export(store: Store, folder: str | Path, project: str, *, actor: str) -> ImportReport:
    """Import what `export` wrote (layout `judgments`) into a new project of the same rules.

    Exporting that project gives the same data files, byte for byte, but for repeats and the log.

    Raises:
        DataError: the folder is no such export.
        Refusal: there is a project of this name already.
    """
    folder = Path(folder)
    manifest = next(iter(_rows(folder / "manifest.json", one=True)), None)
    if manifest is None or "config" not in manifest:
        raise DataError(f"{folder} has no manifest.json of an export; name the export's folder")
    items = [NewItem.model_validate(row) for row in _rows(folder / "items.jsonl")]
    answers = [
        ImportedAnswer(**{k: row[k] for k in ImportedAnswer.model_fields if k in row})
        for row in _rows(folder / "judgments.jsonl")
    ]
    store.projects.make(project, manifest["config"], actor=actor)
    return import_rows(store, project, items, answers, actor=actor)


def _rows(path: Path, *, one: bool = False) -> list[dict[str, Any]]:
    if one:
        import json

        try:
            return [json.loads(path.read_text(encoding="utf-8"))]
        except (OSError, ValueError):
            return []
    if path.exists() and path.stat().st_size == 0:
        return []
    return [row for _, row in read_rows(path)]


def _people(
    store: Store, project: str, answers: Sequence[ImportedAnswer], actor: str
) -> dict[str, str]:
    known = {person.pseudonym: person.id for person in store.people.all()}
    members = {member.person for member in store.people.members(project)}
    for name in dict.fromkeys(answer.person for answer in answers):
        if name not in known:
            known[name] = store.people.add(name, actor=actor).id
        if known[name] not in members:
            # They answered elsewhere; work here needs a role that somebody gives them.
            store.people.join(project, known[name], state="paused", actor=actor)
    return known


def _answers(
    connection: Connection,
    project: str,
    answers: Sequence[ImportedAnswer],
    people: dict[str, str],
    now: int,
) -> list[str]:
    found, out = project_in(connection, project), []
    item = schema.item.c
    for one in answers:
        row = connection.execute(
            select(item.id).where(item.project == found.id, item.key == one.item)
        ).first()
        if row is None:
            out.append("its item is not there")
            continue
        locked = locked_item(connection, row.id)
        places = schema.item_candidate.c
        count = len(
            connection.execute(
                select(places.place).where(places.item == row.id)
            ).all()
        )  # fmt: skip
        shown = one.shown or tuple(range(count))
        if sorted(shown) != list(range(count)) or one.role not in ("label", "adjudication"):
            out.append("its `shown` or `role` does not fit the item")
            continue
        # Stored answers name the item's places; the record wants the screen's.
        inverse = [shown.index(place) for place in range(count)]
        try:
            answer = found.kind.answer.model_validate(one.answer)
            saying = Saying(
                one.submission_id, people[one.person], found.kind.turn(answer, inverse), shown,
                {"seconds": one.seconds}, {"imported": True},
                role="label" if one.role == "label" else "adjudication", late=one.late,
            )  # fmt: skip
            if replayed(connection, saying) is not None:
                out.append("known")
                continue
            # Of two answers of one person to one item the later is a new version.
            old = standing_of(connection, row.id, saying.person, saying.role)
            when = _milliseconds(one.when, now)
            record(connection, found, locked, saying, now, replaces=old, said_at=when)
        except (Refusal, ValueError, IndexError) as error:
            out.append(str(error).splitlines()[0])
            continue
        out.append("new")
    return out


def _milliseconds(when: datetime | None, now: int) -> int:
    if when is None:
        return now
    zoned = when if when.tzinfo else when.replace(tzinfo=UTC)
    return round(zoned.timestamp() * 1000)
