"""Export a project as it was at a position of the log: a folder, the same bytes for the same input.

The folder has `manifest.json`: what was asked for, the position and the hash of the log there, how
many answers went in, how many were dropped and why, and the SHA-256 of every file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, select

import heed
from heed.data.exchange import write_parquet
from heed.data.store import schema
from heed.data.store.content import NUM_BUCKETS, read_payloads
from heed.data.store.convert import pair_of, preference_of
from heed.data.store.ddl import canonical
from heed.data.store.kinds import KINDS, Payload
from heed.data.store.layouts import LAYOUTS, SPLIT, Dropped, Row, Source
from heed.data.store.log import Event, read_events
from heed.data.store.project_config import ProjectConfig
from heed.data.store.projects import project_in
from heed.data.store.refusal import Refusal
from heed.data.store.state import State, fold
from heed.data.store.store import Store
from heed.data.store.views import Judgment
from heed.errors import StoreError
from heed.runs.files import sync_folder

SCHEMA_VERSION = 1
View = Literal["each", "majority"]


@dataclass(frozen=True)
class Wanted:
    """What an export holds.

    Args:
        layouts: names of `LAYOUTS`, `preferences` or `events`; by default all that fit the kind.
        seq: position of the log; its end by default.
        view: each: every standing answer; majority: one per item, and a reviewer's decides.
        item_roles: of the items, such as `normal`, `repeat`, `gold`.
        held_out_frac: share of the prompts in the held-out files.
        parquet: Parquet files beside the JSON lines.
    """

    layouts: tuple[str, ...] = ()
    seq: int | None = None
    view: View = "each"
    item_roles: tuple[str, ...] = ("normal",)
    with_surplus: bool = True
    with_practice: bool = False
    held_out_frac: float = 0.1
    parquet: bool = False


@dataclass
class _Gathered:
    files: dict[str, list[Row]] = field(default_factory=dict)
    layouts: dict[str, Any] = field(default_factory=dict)


def export(
    store: Store, project: str, folder: str | Path, wanted: Wanted = Wanted()
) -> dict[str, Any]:
    """Write an export; returns its manifest. The folder appears whole, or not at all.

    Raises:
        Refusal: a layout does not fit the project's kind of work.
        StoreError: the folder exists, or cannot be written.
    """
    target = Path(folder)
    if target.exists():
        raise StoreError(f"{target} exists already; choose another name for the export")
    with store.database.read() as connection:
        found = project_in(connection, project)
        kind = found.kind
        names = wanted.layouts or (*kind.layouts, "events")
        for name in names:
            if name not in (*kind.layouts, "events"):
                raise Refusal(
                    "invalid",
                    f"layout {name!r} does not fit kind {kind.name!r}; it has "
                    f"{', '.join(kind.layouts)} and events",
                )
        events = list(read_events(connection, up_to=wanted.seq, project=found.id))
        state = fold(events)
        sources, dropped = _sources(connection, found.id, state, wanted)
        buckets = _buckets(connection, sources)
        gathered = _Gathered()
        for name in names:
            _gather(gathered, name, sources, dropped, buckets, events, state, wanted)
        if "judgments" in names:
            gathered.files["items.jsonl"] = _item_rows(connection, found.id, state)
    manifest = {
        "schema": SCHEMA_VERSION,
        "heed": heed.__version__,
        "project": state.slug,
        "config": state.config,
        "config_version": state.config_version,
        "seq": state.seq,
        "head": events[-1].hash if events else None,
        "view": wanted.view,
        "filters": {
            "item_roles": list(wanted.item_roles),
            "with_surplus": wanted.with_surplus,
            "with_practice": wanted.with_practice,
            "held_out_frac": wanted.held_out_frac,
        },
        "layouts": gathered.layouts,
    }
    return _write(target, gathered.files, manifest, wanted.parquet)


def _sources(
    connection: Connection, project: str, state: State, wanted: Wanted
) -> tuple[list[Source], Counter[str]]:
    """The answers that the filters and the view let through, in the order of the log."""
    dropped: Counter[str] = Counter()
    kept: list[Judgment] = []
    for judgment in state.standing():
        role = state.items[judgment.item].role
        if judgment.practice and not wanted.with_practice:
            dropped["practice"] += 1
        elif role not in wanted.item_roles and not judgment.practice:
            dropped[f"item role {role}"] += 1
        elif judgment.surplus and not wanted.with_surplus:
            dropped["surplus"] += 1
        else:
            kept.append(judgment)
    if wanted.view == "majority":
        kept = _majority(kept, dropped)
    config = ProjectConfig.model_validate(state.config)
    payloads = _payloads(connection, project, config, {judgment.item for judgment in kept})
    people = schema.person.c
    names = {
        row.id: row.pseudonym for row in connection.execute(select(people.id, people.pseudonym))
    }
    return [
        Source(
            judgment, payloads[judgment.item], state.items[judgment.item].added["key"],
            state.items[judgment.item].role, names[judgment.person], config,
        )
        for judgment in kept
    ], dropped  # fmt: skip


def _majority(kept: Sequence[Judgment], dropped: Counter[str]) -> list[Judgment]:
    """Of each item the newest answer that says what most say; a reviewer's decides alone."""
    by_item: dict[str, list[Judgment]] = {}
    for judgment in kept:
        by_item.setdefault(judgment.item, []).append(judgment)
    out = []
    for judgments in by_item.values():
        final = [j for j in judgments if j.role == "adjudication"]
        votes = Counter((j.outcome, j.side) for j in final or judgments)
        (most, count), *others = votes.most_common()
        if others and others[0][1] == count:
            dropped["no majority"] += len(judgments)
            continue
        agreeing = [j for j in final or judgments if (j.outcome, j.side) == most]
        levels = sorted(j.level for j in agreeing if j.level is not None)
        level = levels[(len(levels) - 1) // 2] if levels else None
        out.append(replace(agreeing[-1], level=level))
        dropped["joined with others of its item"] += len(judgments) - 1
    return sorted(out, key=lambda judgment: judgment.seq)


def _payloads(
    connection: Connection, project: str, config: ProjectConfig, names: set[str]
) -> dict[str, Payload]:
    table = schema.item
    rows = connection.execute(select(table).where(table.c.project == project)).all()
    wanted = [row for row in rows if row.id in names]
    return read_payloads(connection, KINDS[config.kind], wanted, hidden=True)


def _buckets(connection: Connection, sources: Sequence[Source]) -> dict[str, int]:
    """Item -> bucket of its prompt: equal messages share one, whatever the rows around them."""
    item, prompt = schema.item.c, schema.prompt.c
    wanted = {source.judgment.item for source in sources}
    rows = connection.execute(
        select(item.id, prompt.bucket).join(schema.prompt, prompt.id == item.prompt)
    )
    return {row.id: row.bucket for row in rows if row.id in wanted}


def _gather(
    gathered: _Gathered,
    name: str,
    sources: Sequence[Source],
    dropped: Counter[str],
    buckets: dict[str, int],
    events: Sequence[Event],
    state: State,
    wanted: Wanted,
) -> None:
    if name == "events":
        gathered.files["events.jsonl"] = [_event_row(event) for event in events]
        gathered.layouts[name] = {"rows": len(events)}
        return
    reasons, used, rows = Counter(dropped), 0, 0
    if name == "preferences":
        rows = used = _gather_records(gathered, sources, state)
    else:
        parts = ("train", "held_out") if name in SPLIT else ("",)
        files = {part: f"{name}/{part}.jsonl" if part else f"{name}.jsonl" for part in parts}
        for file in files.values():
            gathered.files[file] = []
        for source in sources:
            try:
                made = LAYOUTS[name](source)
            except Dropped as drop:
                reasons[str(drop)] += 1
                continue
            used, rows = used + 1, rows + len(made)
            held_out = buckets.get(source.judgment.item, 0) < wanted.held_out_frac * NUM_BUCKETS
            part = ("held_out" if held_out else "train") if name in SPLIT else ""
            gathered.files[files[part]] += made
    gathered.layouts[name] = {
        "answers_in": used + sum(reasons.values()),
        "answers_used": used,
        "answers_dropped": dict(sorted(reasons.items())),
        "rows": rows,
    }


def _gather_records(gathered: _Gathered, sources: Sequence[Source], state: State) -> int:
    pairs: dict[str, Row] = {}
    preferences = []
    for source in sources:
        origin = str(state.items[source.judgment.item].added.get("origin") or "")
        key = source.item_key
        pairs.setdefault(key, pair_of(key, source.payload, origin).model_dump(mode="json"))
        row = preference_of(source.judgment, key).model_dump(mode="json")
        # Names that another store gives too; what was replaced is not in an export.
        row |= {"id": source.judgment.submission_id, "replaces": None}
        row["labeller"] = source.pseudonym
        preferences.append(row)
    gathered.files["preferences/pairs.jsonl"] = list(pairs.values())
    gathered.files["preferences/preferences.jsonl"] = preferences
    return len(preferences)


def _item_rows(connection: Connection, project: str, state: State) -> list[Row]:
    """Items as they can be added again, in the order in which they came; repeats name theirs."""
    config = ProjectConfig.model_validate(state.config)
    payloads = _payloads(connection, project, config, set(state.items))
    golds = {
        row.item: row for row in connection.execute(select(schema.gold)) if row.item in state.items
    }
    out = []
    for item in state.items.values():
        if item.role == "repeat":
            continue
        gold = golds.get(item.id)
        known = None if gold is None else {
            "answer": gold.answer, "explanation": gold.explanation, "difficulty": gold.difficulty
        }  # fmt: skip
        row = {
            name: item.added[name]
            for name in (
                "key", "role", "priority", "skill", "origin", "policy_step", "p_select",
                "acquirer", "expires_at",
            )
        }  # fmt: skip
        payload = payloads[item.id].model_dump(mode="json")
        out.append({**row, "need": item.need, "gold": known, "payload": payload})
    return out


def _event_row(event: Event) -> Row:
    return {
        "seq": event.seq, "at": event.at, "actor": event.actor, "kind": event.kind,
        "project": event.project, "subject": event.subject, "body": event.body,
        "prev_hash": event.prev_hash, "hash": event.hash,
    }  # fmt: skip


def _write(
    target: Path, files: dict[str, list[Row]], manifest: dict[str, Any], parquet: bool
) -> dict[str, Any]:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for name, rows in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8", newline="\n") as stream:
                stream.writelines(canonical(row) + "\n" for row in rows)
            if parquet and rows and not name.startswith(("events", "items", "preferences/")):
                write_parquet(path.with_suffix(".parquet"), [_flat(row) for row in rows])
        sums = {path.relative_to(temporary).as_posix(): _sha256(path) for path in _files(temporary)}
        manifest = {**manifest, "files": sums}
        path = temporary / "manifest.json"
        path.write_text(canonical(manifest) + "\n", encoding="utf-8")
        for path in _files(temporary):
            with path.open("rb+") as stream:
                os.fsync(stream.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StoreError(f"the export {target} could not be written ({error})") from error
    return manifest


def _flat(row: Row) -> Row:
    """A row whose free-form values are JSON texts, so that all rows share a schema."""
    loose = ("answer",)
    return {name: canonical(row[name]) if name in loose else row[name] for name in sorted(row)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
