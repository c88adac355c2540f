"""The state of a project at any position of the log: a fold over its events, and nothing else.

Leases and drafts are not in it: they are work in progress, and no answer depends on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, select

from heed.data.store import schema
from heed.data.store.log import Event
from heed.data.store.recording import as_judgment, said_of
from heed.data.store.views import Judgment


@dataclass(frozen=True)
class ItemState:
    """One item: what the log says of it, and the answers that fill its places."""

    id: str
    added: dict[str, Any]
    need: int
    closed: str | None = None
    n_valid: int = 0

    @property
    def role(self) -> str:
        """normal, gold, repeat, anchor or practice."""
        return str(self.added["role"])


@dataclass
class State:
    """A project at a position of the log."""

    seq: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    config_version: int = 0
    slug: str = ""
    items: dict[str, ItemState] = field(default_factory=dict)
    judgments: dict[str, Judgment] = field(default_factory=dict)
    """All answers by id, in order, each with its state."""
    skips: dict[str, bool] = field(default_factory=dict)
    """Skip id -> whether it stands."""

    def standing(self) -> list[Judgment]:
        """The answers that stand, in order of the log."""
        return [judgment for judgment in self.judgments.values() if judgment.state == "standing"]


def fold(events: Iterable[Event]) -> State:
    """Build the state of one project from its events, in order."""
    state = State()
    for event in events:
        state.seq = event.seq
        _apply(state, event)
    return state


def _apply(state: State, event: Event) -> None:
    body, subject = event.body, event.subject
    if event.kind in ("project.made", "project.configured"):
        state.config, state.config_version = body["config"], body["config_version"]
        state.slug = body.get("slug", state.slug)
    elif event.kind == "item.added":
        state.items[subject] = ItemState(subject, body, body["need"])
    elif event.kind in ("item.need", "item.closed", "item.reopened"):
        item = state.items[subject]
        state.items[subject] = replace(
            item, need=body.get("need", item.need), closed=body.get("closed", item.closed)
        )
    elif event.kind in ("judgment", "amend"):
        judgment = as_judgment(
            subject, event.project or "", event.actor, event.at, event.seq, body, "standing"
        )
        if judgment.replaces is not None:
            _end(state, judgment.replaces, "replaced")
        state.judgments[subject] = judgment
        _fill(state, judgment, 1)
    elif event.kind == "retract":
        _end(state, subject, "withdrawn")
    elif event.kind == "skip":
        state.skips[subject] = True
        if body["mode"] == "ignore":
            state.items[body["item"]] = replace(state.items[body["item"]], closed="archived")
    elif event.kind == "skip.undone":
        state.skips[subject] = False
        if body.get("mode") == "ignore":
            state.items[body["item"]] = replace(state.items[body["item"]], closed=None)


def _end(state: State, name: str, how: Any) -> None:
    old = state.judgments[name]
    state.judgments[name] = replace(old, state=how)
    _fill(state, old, -1)


def _fill(state: State, judgment: Judgment, step: int) -> None:
    if judgment.counted:
        item = state.items[judgment.item]
        state.items[judgment.item] = replace(item, n_valid=item.n_valid + step)


def live_state(connection: Connection, project: str) -> State:
    """Read the same from the tables, to be compared with the fold."""
    state = State()
    row = connection.execute(select(schema.project).where(schema.project.c.id == project)).one()
    state.config, state.config_version, state.slug = row.config, row.config_version, row.slug
    table = schema.judgment
    judgments = connection.execute(
        select(table).where(table.c.project == project).order_by(table.c.seq)
    )
    for found in judgments:
        state.judgments[found.id] = as_judgment(
            found.id, found.project, found.person, found.created_at, found.seq,
            said_of(dict(found._mapping)), found.state,
        )  # fmt: skip
    items = connection.execute(select(schema.item).where(schema.item.c.project == project))
    for found in items:
        state.items[found.id] = ItemState(found.id, {}, found.need, found.closed, found.n_valid)
    skips = connection.execute(select(schema.skip).where(schema.skip.c.project == project))
    for found in skips:
        state.skips[found.id] = found.state == "standing"
    return state


def differences(folded: State, live: State) -> list[str]:
    """Say where a fold of the whole log and the tables disagree; empty where they do not."""
    out = []
    pairs: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("answer", dict(folded.judgments), dict(live.judgments)),
        (
            "item",
            {k: (i.need, i.closed, i.n_valid) for k, i in folded.items.items()},
            {k: (i.need, i.closed, i.n_valid) for k, i in live.items.items()},
        ),
        ("skip", dict(folded.skips), dict(live.skips)),
        (
            "project",
            {"config": folded.config, "version": folded.config_version},
            {"config": live.config, "version": live.config_version},
        ),
    ]
    for what, left, right in pairs:
        for name in sorted(set(left) | set(right)):
            if left.get(name) != right.get(name):
                out.append(f"{what} {name}: log {left.get(name)!r}, table {right.get(name)!r}")
    return out
