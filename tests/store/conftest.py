"""Label stores on both engines, on a clock that stands still until it is told to go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.store.servers import new_database, running_postgresql

from heed.data.store import Store, open_store
from heed.records import Prompt


class Clock:
    """Milliseconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += int(seconds * 1000)


PLAIN: dict[str, Any] = {
    "kind": "pair", "gold_frac": 0.0, "repeat_frac": 0.0, "anchor_frac": 0.0,
    "first_gold_within": 0, "calibration_frac": 0.0,
}  # fmt: skip
"""A project without special items."""


def pair(number: int, **more: Any) -> dict[str, Any]:
    """An item: a question with two answers, whose sources must never show."""
    return {
        "key": f"pair {number}",
        "payload": {
            "prompt": Prompt.make(f"Question {number}?").model_dump(mode="json"),
            "candidates": [
                {"text": f"good {number}", "source": {"model": "CANARY-model-a"}},
                {"text": f"bad {number}", "source": {"model": "CANARY-model-b"}},
            ],
        },
        **more,
    }


def prefer(side: int = 0, level: int = 2, **more: Any) -> dict[str, Any]:
    return {"outcome": "prefer", "side": side, "level": level, **more}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a running server."""
    with running_postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty store may be made: once on each engine."""
    if request.param == "sqlite":
        return str(tmp_path / "labels.db")
    return new_database(request.getfixturevalue("postgresql"))


@pytest.fixture
def store(where: str, clock: Clock) -> Iterator[Store]:
    with open_store(where, clock=clock) as opened:
        yield opened


@pytest.fixture
def sqlite_store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with open_store(tmp_path / "labels.db", clock=clock) as opened:
        yield opened


Make = Callable[..., list[str]]


@pytest.fixture
def make() -> Make:
    return make_project


def make_project(
    store: Store, num_items: int, *people: str, config: dict[str, Any] | None = None
) -> list[str]:
    """A project `p` with pairs, and people in it; returns their ids."""
    store.projects.make("p", {**PLAIN, **(config or {})})
    added = store.items.add("p", [pair(k) for k in range(num_items)], actor="system")
    assert [one.status for one in added] == ["new"] * num_items
    ids = []
    for name in people:
        person = store.people.add(name)
        store.people.join("p", person.id)
        ids.append(person.id)
    return ids
