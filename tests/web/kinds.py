"""Each kind of work that has a page: rows of a file, good and bad answers, drafts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.store.conftest import PLAIN
from tests.web.chromium import Browser, Served

from heed.data.store import Store, open_store
from heed.data.store.views import Judgment
from heed.records import Prompt

TEXT = "Über-good 😀 words.\r\nThey go on."
SHA = hashlib.sha256(TEXT.encode()).hexdigest()
SPAN = {"place": 0, "start": 10, "end": 12, "kind": "error", "quote": "😀", "comment": "odd"}

NAMES = ("rating", "ranking", "demonstration", "edit", "spans")
NUM_CANDIDATES = {"rating": 2, "ranking": 4, "demonstration": 0, "edit": 1, "spans": 1}
CONFIG: dict[str, dict[str, Any]] = {
    "rating": {"attributes": [{"name": "help", "low": 0, "high": 4},
                              {"name": "style", "required": False}]},
}  # fmt: skip

GOOD: dict[str, list[dict[str, Any]]] = {
    "rating": [{"outcome": "rated", "ratings": [
        {"place": 0, "attribute": "help", "value": 0}, {"place": 0, "attribute": "style",
                                                        "value": 7},
        {"place": 1, "attribute": "help", "value": 4}]}],
    "ranking": [{"outcome": "ranked", "buckets": [[3], [0, 1]], "unranked_bad": [2]},
                {"outcome": "all_bad"}],
    "demonstration": [{"outcome": "written", "text": "My own <b>words</b>."}],
    "edit": [{"outcome": "edited", "text": "Better."}, {"outcome": "unchanged"}],
    "spans": [{"outcome": "marked", "spans": [SPAN], "text_sha256": SHA}, {"outcome": "marked"}],
}  # fmt: skip

BAD: dict[str, list[dict[str, Any]]] = {
    "rating": [
        {"outcome": "rated"},
        {"outcome": "rated", "ratings": [{"place": 0, "attribute": "help", "value": 9}]},
        {"outcome": "rated", "ratings": [{"place": 7, "attribute": "help", "value": 1}]},
        {"outcome": "rated", "ratings": [{"place": 0, "attribute": "other", "value": 1}]},
        {"outcome": "prefer", "side": 0, "level": 1},
    ],
    "ranking": [
        {"outcome": "ranked", "buckets": [[0], [1]]},
        {"outcome": "ranked", "buckets": [[0], [1], [2], [2]]},
        {"outcome": "ranked", "buckets": [[0], [], [1, 2, 3]]},
        {"outcome": "ranked", "unranked_bad": [0, 1, 2, 3]},
        {"outcome": "all_bad", "buckets": [[0, 1, 2, 3]]},
    ],
    "demonstration": [
        {"outcome": "written"}, {"outcome": "written", "text": " \n"},
        {"outcome": "written", "text": "x" * 200_001}, {"outcome": "cannot_judge", "text": "x"},
        {"outcome": "written", "text": "x", "flags": [{"place": 0, "code": "unsafe"}]},
    ],
    "edit": [
        {"outcome": "edited"}, {"outcome": "edited", "text": TEXT},
        {"outcome": "unchanged", "text": "x"}, {"outcome": "written", "text": "x"},
    ],
    "spans": [
        {"outcome": "marked", "spans": [SPAN]},
        {"outcome": "marked", "spans": [{**SPAN, "start": 11}], "text_sha256": SHA},
        {"outcome": "marked", "spans": [{**SPAN, "kind": "pretty"}], "text_sha256": SHA},
        {"outcome": "marked", "spans": [{**SPAN, "quote": "x"}], "text_sha256": SHA},
        {"outcome": "marked", "spans": [{**SPAN, "place": 1}], "text_sha256": SHA},
        {"outcome": "invalid", "spans": [SPAN], "text_sha256": SHA},
    ],
}  # fmt: skip

DRAFTS: dict[str, dict[str, Any]] = {
    "rating": {"ratings": [{"place": 1, "attribute": "style", "value": 3}]},
    "ranking": {"buckets": [[], [1], [], [0]], "unranked_bad": [2]},
    "demonstration": {"text": "half a thou"},
    "edit": {"text": "half a thou"},
    "spans": {"spans": [SPAN], "text_sha256": None},
}
"""Unfinished answers: they need not fit yet."""

BAD_DRAFTS: list[dict[str, Any]] = [
    {"ratings": [{"place": 10, "attribute": "help", "value": 1}]},
    {"ratings": [{"place": 0, "attribute": "x" * 65, "value": 1}]},
    {"ratings": [{"place": 0, "attribute": "help", "value": 10**12}]},
    {"ratings": [{"place": 0, "attribute": "help", "value": 1}] * 501},
    {"buckets": [[0]] * 10}, {"buckets": [list(range(10))]}, {"buckets": [[-1]]},
    {"unranked_bad": [10]}, {"text": "x" * 200_001}, {"text": 3},
    {"spans": [{**SPAN, "end": 0}]}, {"spans": [{**SPAN, "model": "x"}]},
    {"spans": [{**SPAN, "comment": "x" * 10_001}]}, {"spans": [SPAN] * 501},
    {"text_sha256": "x" * 65},
]  # fmt: skip


def item_of(kind: str, number: int, text: str = TEXT, **more: Any) -> dict[str, Any]:
    """An item of a kind, with a canary in what annotators must not see."""
    candidates = [
        {"text": text if place == 0 else f"{place} {text}",
         "source": {"model": f"CANARY-model-{place}", "reward": 0.4242 + place}}
        for place in range(NUM_CANDIDATES[kind])
    ]  # fmt: skip
    prompt = Prompt.make(f"Question {number}? {text}").model_dump(mode="json")
    prompt["meta"] = {"gold": "CANARY-meta"}
    payload = {"prompt": prompt, "candidates": candidates, "extra": {"note": "CANARY-extra"}}
    return {"key": f"CANARY-{number}", "origin": "CANARY-origin", "payload": payload, **more}


def add_project(store: Store, kind: str, people: list[str], num_items: int = 4) -> None:
    """A project of a kind, by its name."""
    store.projects.make(kind, {**PLAIN, **CONFIG.get(kind, {}), "kind": kind, "max_leases": 3})
    items = [item_of(kind, number) for number in range(num_items)]
    added = store.items.add(kind, items, actor="system")
    assert {one.status for one in added} == {"new"}
    for person in people:
        store.people.join(kind, person)


def rows_of(kind: str, num_rows: int = 5, text: str = "Some words here. And more.") -> list[Any]:
    """Rows of a file of a kind of work."""
    rows: list[dict[str, Any]] = []
    for number in range(num_rows):
        row: dict[str, Any] = {"prompt": f"Question {number}?"}
        count = NUM_CANDIDATES[kind]
        if count == 1:
            row["completion"] = f"{text} {number}"
        elif count:
            row["completions"] = [f"{text} {number}.{place}" for place in range(count)]
        rows.append(row)
    return rows


def serve(folder: Path, kind: str, rows: list[Any], *words: str) -> Served:
    """`heed label` on a file of rows."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{kind}.jsonl").write_text(text, encoding="utf-8")
    return Served(folder, f"{kind}.jsonl", "--kind", kind, *words)


def answers_in(served: Served, kind: str) -> list[Judgment]:
    """What stands in the store, the oldest first."""
    with open_store(served.folder / f"{kind}.labels.db") as store:
        owner = next(iter(store.people.all()))
        found = store.answers.history(kind, owner.id)
    return [said for said in found[::-1] if said.state == "standing"]


def texts_of(served: Served, kind: str, said: Judgment) -> list[str]:
    """What an answer was about, in the item's order."""
    with open_store(served.folder / f"{kind}.labels.db") as store:
        payload = store.items.payloads(kind, [said.item])[said.item]
    return [candidate.text or "" for candidate in payload.candidates]


def saved(page: Browser) -> None:
    """Wait until the server has everything."""
    page.wait(lambda: page.js("return !Object.keys(localStorage).some(k => k.endsWith('outbox'))"))
