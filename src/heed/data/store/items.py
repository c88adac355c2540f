"""Items: what waits to be judged. Adding is idempotent by key, in batches, one result per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import Connection, insert, select, update

from heed.data.store import schema
from heed.data.store.content import content_rows, keep, read_payloads
from heed.data.store.counts import new_state
from heed.data.store.database import Database
from heed.data.store.ddl import canonical
from heed.data.store.keyed import digest, draw, new_id
from heed.data.store.kinds import Payload, read_answer, read_payload
from heed.data.store.log import Entry, append
from heed.data.store.projects import project_in
from heed.data.store.refusal import Refusal
from heed.data.store.views import Added, ItemInfo, Project
from heed.records import Record

MOST_IN_A_BATCH = 1000
ItemRole = Literal["normal", "gold", "anchor", "practice"]


class Gold(Record):
    """The known answer of an item, in the item's order."""

    answer: dict[str, Any]
    explanation: str = ""
    difficulty: float | None = None


class NewItem(Record):
    """One item to add."""

    payload: dict[str, Any]
    """`prompt`, `candidates`, `extra`; see `heed.data.store.kinds`."""
    key: str = Field(default="", max_length=120)
    """The sender's name of it: a second item of the same key is the same item. By default the
    hash of its content."""
    role: ItemRole = "normal"
    """gold: has a known answer; anchor: everyone sees it; practice: with feedback, apart."""
    gold: Gold | None = None
    need: int | None = Field(default=None, ge=1, le=100)
    """People who judge it; by default the project's rule."""
    priority: int = 0
    """Higher comes first."""
    skill: str | None = Field(default=None, max_length=64)
    """Only people with this skill get it."""
    origin: str = Field(default="", max_length=120)
    """Where it comes from, such as a run; hidden from annotators."""
    author: str | None = None
    """A person who never gets it."""
    policy_step: int | None = Field(default=None, ge=0)
    p_select: float | None = Field(default=None, ge=0.0, le=1.0)
    """Probability with which it was selected, for unbiased estimates later."""
    acquirer: str | None = Field(default=None, max_length=64)
    expires_at: int | None = None
    """Milliseconds; unleased after it, it is too old."""


class Items:
    """Add items, read them, and take them out of the queue."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, project: str, items: Sequence[NewItem | dict[str, Any]], *, actor: str
    ) -> list[Added]:
        """Add a batch, all in one unit of work; a row that does not fit is refused alone.

        Returns:
            One result per row, in order: new, known (same key and content), or refused.

        Raises:
            Refusal: no such project, or more than 1,000 rows.
        """
        if len(items) > MOST_IN_A_BATCH:
            raise Refusal("invalid", f"{len(items)} items; send at most {MOST_IN_A_BATCH} at once")

        with self._database.read() as connection:
            found = project_in(connection, project)
            segments = set(connection.execute(select(schema.segment.c.id)).scalars())
        # What takes time comes before the transaction, so that nobody's claim waits for it.
        now = self._database.clock()
        prepared = [prepare(found, item, segments, now) for item in items]

        def work(connection: Connection) -> list[Added]:
            project_in(connection, found.id, lock=True)
            return _insert(connection, found.id, prepared, now, actor)

        return self._database.write(work)

    def payloads(self, project: str, items: Sequence[str] | None = None) -> dict[str, Payload]:
        """Read what items show in their own order, sources included; for researchers only."""
        with self._database.read() as connection:
            found = project_in(connection, project)
            table = schema.item
            query = select(table).where(table.c.project == found.id).order_by(table.c.id)
            wanted = set(items or ())
            rows = [
                row for row in connection.execute(query).all() if items is None or row.id in wanted
            ]
            return read_payloads(connection, found.kind, rows, hidden=True)

    def counts(self, project: str) -> dict[str, int]:
        """Count the ordinary items by state, and `leases`, `judgments` and `wanted` places."""
        with self._database.read() as connection:
            found = project_in(connection, project)
            table = schema.item
            query = select(
                table.c.state, table.c.n_live, table.c.n_valid, table.c.need
            ).where(table.c.project == found.id, table.c.role == "normal")  # fmt: skip
            out = {"items": 0, "leases": 0, "judgments": 0, "wanted": 0}
            for row in connection.execute(query):
                out["items"] += 1
                out[row.state] = out.get(row.state, 0) + 1
                out["leases"] += row.n_live
                out["judgments"] += row.n_valid
                if row.state == "ready":
                    out["wanted"] += row.need - row.n_valid
            return out

    def listing(self, project: str, state: str | None = None) -> list[ItemInfo]:
        """List items with their counters, in the order in which they came; for researchers.

        Args:
            state: only those that are ready, satisfied, quarantined, hard, archived or expired.
        """
        table = schema.item
        with self._database.read() as connection:
            found = project_in(connection, project)
            query = select(table).where(table.c.project == found.id)
            if state is not None:
                query = query.where(table.c.state == state)
            names = [one.name for one in fields(ItemInfo)]
            rows = connection.execute(query.order_by(table.c.created_at, table.c.id))
            return [ItemInfo(**{name: row._mapping[name] for name in names}) for row in rows]

    def golds(self, project: str) -> dict[str, Gold]:
        """Read the known answers, by item; for researchers."""
        table, item = schema.gold, schema.item.c
        with self._database.read() as connection:
            found = project_in(connection, project)
            rows = connection.execute(
                select(table).join(schema.item, item.id == table.c.item)
                .where(item.project == found.id).order_by(table.c.item)
            ).all()  # fmt: skip
        return {
            row.item: Gold(
                answer=row.answer, explanation=row.explanation, difficulty=row.difficulty
            )
            for row in rows
        }

    def set_need(self, item: str, need: int, *, actor: str) -> None:
        """Change how many people judge an item, such as after two disagree.

        Raises:
            Refusal: more people have it already.
        """
        self._change(item, "item.need", {"need": need}, actor)

    def close(
        self, item: str, state: Literal["archived", "expired"], *, actor: str
    ) -> None:  # fmt: skip
        """Take an item out of the queue. Leases on it go on, and answers to it are kept."""
        self._change(item, "item.closed", {"closed": state}, actor)

    def reopen(self, item: str, *, actor: str) -> None:
        """Put an item back: quarantined, hard, archived or expired before."""
        zero = {"closed": None, "n_invalid": 0, "n_cannot": 0, "n_skips": 0}
        self._change(item, "item.reopened", zero, actor)

    def _change(self, item: str, kind: str, values: dict[str, Any], actor: str) -> None:
        def work(connection: Connection) -> None:
            row = locked_item(connection, item)
            held = row.n_valid + row.n_live
            if row.role in ("normal", "repeat") and values.get("need", held) < held:
                raise Refusal(
                    "conflict", f"need is {values['need']}, and {held} people have item {item}"
                )
            found = project_in(connection, row.project)
            counts = {**row._mapping, **values}
            values["state"] = new_state(counts, found.config)
            table = schema.item
            connection.execute(update(table).where(table.c.id == item).values(values))
            entry = Entry(kind, actor, item, dict(values), row.project)
            append(connection, self._database.clock(), [entry])

        self._database.write(work)

    def expire_stale(self, project: str, policy_step: int, *, actor: str) -> int:
        """Expire items that nobody holds and that are of a policy too old; returns their number."""

        def work(connection: Connection) -> int:
            found = project_in(connection, project)
            lag = found.config.max_policy_lag
            if lag is None:
                return 0
            table = schema.item
            where = (
                (table.c.project == found.id)
                & (table.c.state == "ready")
                & (table.c.n_live == 0)
                & (table.c.policy_step < policy_step - lag)
            )
            # A claim holds the row it takes, and then the item is no longer unheld.
            old = connection.execute(
                select(table.c.id).where(where).order_by(table.c.id).with_for_update()
            ).all()
            values = {"closed": "expired", "state": "expired"}
            for row in old:
                connection.execute(update(table).where(table.c.id == row.id).values(values))
            entries = [Entry("item.closed", actor, r.id, dict(values), found.id) for r in old]
            append(connection, self._database.clock(), entries)
            return len(old)

        return self._database.write(work)


def locked_item(connection: Connection, item: str) -> Any:
    """Read an item and keep others from changing it until the transaction ends.

    Raises:
        Refusal: there is none.
    """
    table = schema.item
    row = connection.execute(select(table).where(table.c.id == item).with_for_update()).first()
    if row is None:
        raise Refusal("absent", f"there is no item {item!r}")
    return row


LOGGED = (
    "key", "role", "prompt", "extra", "content_sha256", "pool", "origin", "author", "for_person",
    "repeats", "skill", "need", "priority", "policy_step", "p_select", "acquirer", "expires_at",
)  # fmt: skip


def logged(row: dict[str, Any], candidates: Sequence[str]) -> dict[str, Any]:
    """Return what the log says of a new item."""
    return {name: row.get(name) for name in LOGGED} | {"candidates": list(candidates)}


@dataclass(frozen=True)
class Prepared:
    """A new item, checked and ready to be inserted; or why it is refused."""

    key: str
    error: str | None = None
    row: dict[str, Any] = field(default_factory=dict)
    prompt: dict[str, Any] | None = None
    candidates: tuple[dict[str, Any], ...] = ()
    gold: Gold | None = None


def prepare(
    project: Project, item: NewItem | dict[str, Any], segments: set[str], now: int
) -> Prepared:
    """Check an item, and make its rows."""
    key = str(item.get("key", "") if isinstance(item, dict) else item.key)
    try:
        read = item if isinstance(item, NewItem) else NewItem.model_validate(item)
        payload = read_payload(project.kind, read.payload)
        if (read.role == "gold") != (read.gold is not None):
            raise Refusal("invalid", "role `gold` and the known answer come together")
        if read.gold is not None:
            read_answer(project.kind, read.gold.answer, payload, project.config)
        strange = {c.segment for c in payload.candidates if c.segment} - segments
        if strange:
            raise Refusal("absent", f"there is no segment {min(strange)!r}; add it first")
        key = read.key or digest(canonical(payload.model_dump(mode="json")))
        if "\x00" in key + read.origin + (read.skill or "") + (read.acquirer or ""):
            raise Refusal("invalid", "a name holds a zero character")
        prompt, candidates = content_rows(payload)
        row = _row(project, read, payload, key, prompt, now)
    except (Refusal, ValueError) as error:
        return Prepared(key, error=str(error).splitlines()[0])
    return Prepared(key, None, row, prompt, tuple(candidates), read.gold)


def _insert(
    connection: Connection, project: str, items: Sequence[Prepared], now: int, actor: str
) -> list[Added]:
    known = _known(connection, project, [item.key for item in items if item.error is None])
    new, out = [], []
    for item in items:
        if item.error is not None:
            out.append(Added(item.key, "refused", error=item.error))
            continue
        content = item.row["content_sha256"]
        name, same = known.setdefault(item.key, (item.row["id"], content))
        if name == item.row["id"]:
            new.append(item)
            out.append(Added(item.key, "new", name))
        elif same == content:
            out.append(Added(item.key, "known", name))
        else:
            error = f"an item {item.key!r} is there with other content"
            out.append(Added(item.key, "refused", error=error))
    if not new:
        return out
    keep(connection, schema.prompt, [item.prompt for item in new if item.prompt])
    keep(connection, schema.candidate, [row for item in new for row in item.candidates])
    connection.execute(insert(schema.item), [item.row for item in new])
    places = [
        {"item": item.row["id"], "place": place, "candidate": candidate["id"]}
        for item in new
        for place, candidate in enumerate(item.candidates)
    ]
    golds = [
        {"item": item.row["id"], **item.gold.model_dump()} for item in new if item.gold is not None
    ]
    for table, rows in ((schema.item_candidate, places), (schema.gold, golds)):
        if rows:
            connection.execute(insert(table), rows)
    entries = []
    for item in new:
        body = logged(item.row, [candidate["id"] for candidate in item.candidates])
        entries.append(Entry("item.added", actor, item.row["id"], body, project))
    append(connection, now, entries)
    return out


def _known(connection: Connection, project: str, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    table, out = schema.item.c, {}
    for start in range(0, len(keys), 500):
        query = select(table.key, table.id, table.content_sha256).where(
            table.project == project, table.key.in_(keys[start : start + 500])
        )
        for row in connection.execute(query):
            out[row.key] = (row.id, row.content_sha256)
    return out


def _row(
    project: Project,
    item: NewItem,
    payload: Payload,
    key: str,
    prompt: dict[str, Any] | None,
    now: int,
) -> dict[str, Any]:
    config, need, pool = project.config, item.need, ""
    if need is None:
        need = config.need
        calibrates = draw(project.secret, "calibration pool", key) < config.calibration_frac
        if item.role == "normal" and calibrates:
            need, pool = max(need, config.calibration_need), "calibration"
    sha = digest(canonical(payload.model_dump(mode="json")))
    name = None if prompt is None else prompt["id"]
    return {
        "id": new_id("i"), "project": project.id, "key": key, "role": item.role, "prompt": name,
        "extra": payload.extra, "content_sha256": sha, "pool": pool, "origin": item.origin,
        "author": item.author, "for_person": None, "repeats": None, "skill": item.skill,
        "need": need, "priority": item.priority,
        "tiebreak": int(draw(project.secret, "tiebreak", key) * (1 << 53)),
        "policy_step": item.policy_step, "p_select": item.p_select, "acquirer": item.acquirer,
        "state": "ready", "closed": None, "created_at": now, "expires_at": item.expires_at,
    }  # fmt: skip
