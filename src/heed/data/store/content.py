"""Prompts, candidates and segments: stored once by their hash, read back as payloads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, insert, select, update

from heed.data.store import schema
from heed.data.store.database import Database
from heed.data.store.ddl import canonical
from heed.data.store.keyed import digest
from heed.data.store.kinds import Candidate, Kind, Payload
from heed.data.store.log import Entry, append
from heed.data.store.refusal import Refusal
from heed.records import Prompt

NUM_BUCKETS = 10_000


def content_rows(payload: Payload) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Make the rows of a payload's prompt and candidates; equal content has equal ids."""
    prompt = None
    if payload.prompt is not None:
        content = payload.prompt.model_dump(mode="json")
        sha = digest(canonical(content))
        # Equal messages share a bucket, whatever else their rows hold.
        bucket = int(digest(canonical([content["messages"]]))[:8], 16) % NUM_BUCKETS
        prompt = {"id": f"q-{sha[:32]}", "content": content, "sha256": sha, "bucket": bucket}
    return prompt, [_candidate_row(candidate) for candidate in payload.candidates]


def _candidate_row(candidate: Candidate) -> dict[str, Any]:
    content = None if candidate.text is None else {"text": candidate.text}
    shown = canonical([content, candidate.segment])
    return {
        "id": f"c-{digest(canonical([shown, candidate.source]))[:32]}", "content": content,
        "segment": candidate.segment, "sha256": digest(shown), "source": candidate.source,
    }  # fmt: skip


def keep(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, unless they are there."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as insert_new
    else:
        from sqlalchemy.dialects.postgresql import insert as insert_new  # type: ignore[assignment]
    unique = {row["id"]: dict(row) for row in rows}
    # In the order of their ids: two that add the same at once then wait for each other in turn.
    ordered = [unique[name] for name in sorted(unique)]
    connection.execute(insert_new(table).on_conflict_do_nothing(), ordered)


def read_payloads(
    connection: Connection, kind: Kind, items: Sequence[Any], *, hidden: bool = False
) -> dict[str, Payload]:
    """Read what items show, in the items' own order.

    Args:
        items: rows with `id`, `prompt` and `extra`.
        hidden: with the sources of candidates; never for annotators.

    Returns:
        item id -> payload. Erased content reads as the text `[erased]`.
    """
    names = [item.id for item in items]
    prompts = _by_id(connection, schema.prompt, {i.prompt for i in items if i.prompt})
    places: dict[str, list[str]] = {name: [] for name in names}
    table = schema.item_candidate
    for chunk in _chunks(names):
        query = select(table).where(table.c.item.in_(chunk)).order_by(table.c.item, table.c.place)
        for row in connection.execute(query):
            places[row.item].append(row.candidate)
    candidates = _by_id(connection, schema.candidate, {c for row in places.values() for c in row})
    return {
        item.id: kind.payload.model_construct(
            prompt=_prompt(prompts.get(item.prompt)),
            candidates=tuple(_candidate(candidates[name], hidden) for name in places[item.id]),
            extra=item.extra,
        )
        for item in items
    }


def _prompt(row: Any) -> Prompt | None:
    if row is None:
        return None
    if row.content is None:
        return Prompt.make("[erased]", id=row.id)
    return Prompt.model_validate(row.content)


def _candidate(row: Any, hidden: bool) -> Candidate:
    source = (row.source or {}) if hidden else {}
    if row.segment is not None:
        return Candidate(segment=row.segment, source=source)
    text = "[erased]" if row.content is None else row.content["text"]
    return Candidate(text=text, source=source)


def _by_id(connection: Connection, table: Table, ids: Iterable[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for chunk in _chunks(sorted(ids)):
        for row in connection.execute(select(table).where(table.c.id.in_(chunk))):
            out[row.id] = row
    return out


def _chunks(names: Sequence[str], size: int = 500) -> Iterable[Sequence[str]]:
    return (names[start : start + size] for start in range(0, len(names), size))


class Contents:
    """Segments and their files, and the erasure of texts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_segment(
        self, spec: Mapping[str, Any], *, fps: float, frames: int, arrays_sha256: str | None = None
    ) -> str:
        """Keep what makes a segment of behaviour again; returns its id, the same for the same.

        Args:
            spec: environment, seed, start state, actions, and what else renders it again.
            fps: frames per second.
            frames: number of frames.
            arrays_sha256: hash of the arrays, where they are stored elsewhere.
        """
        if fps <= 0 or frames < 1:
            raise Refusal("invalid", f"fps is {fps} and frames {frames}; both are above 0")
        name = f"s-{digest(canonical([dict(spec), fps, frames, arrays_sha256]))[:32]}"
        row = {
            "id": name, "spec": dict(spec), "fps": fps, "frames": frames,
            "arrays_sha256": arrays_sha256,
        }  # fmt: skip
        self._database.write(lambda connection: keep(connection, schema.segment, [row]))
        return name

    def set_media(
        self, segment: str, kind: str, state: str, *, path: str | None = None,
        sha256: str | None = None, num_bytes: int | None = None,
        probe: Mapping[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """Say how far a segment's file of a kind is (pending, rendering, ready, failed)."""
        from heed.data.store.keyed import new_id

        values = {
            "state": state, "path": path, "sha256": sha256, "bytes": num_bytes,
            "probe": None if probe is None else dict(probe),
        }  # fmt: skip
        table = schema.media

        def work(connection: Connection) -> str:
            where = (table.c.segment == segment) & (table.c.kind == kind)
            row = connection.execute(select(table.c.id).where(where).with_for_update()).first()
            if row is not None:
                connection.execute(update(table).where(where).values(values))
                return str(row.id)
            name = new_id("m")
            connection.execute(insert(table).values(id=name, segment=segment, kind=kind, **values))
            return name

        return self._database.write(work)

    def erase(self, content: str, *, reason: str, actor: str) -> None:
        """Take the text of a prompt or a candidate away for good; its hash and the log stay.

        Raises:
            Refusal: there is no such content.
        """
        table = {"q": schema.prompt, "c": schema.candidate}.get(content.partition("-")[0])
        if table is None:
            raise Refusal("invalid", f"{content!r} is the id of no prompt and no candidate")

        def work(connection: Connection) -> None:
            values: dict[str, Any] = {"content": None}
            if table is schema.candidate:
                values["source"] = None
            done = connection.execute(update(table).where(table.c.id == content).values(values))
            if not done.rowcount:
                raise Refusal("absent", f"there is no content {content!r}")
            entry = Entry("content.erased", actor, content, {"reason": reason})
            append(connection, self._database.clock(), [entry])

        self._database.write(work)
