"""Simulated people of known skill who label pairs of a world: in the store itself, or over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any

import httpx
from tests.web.visitors import Persistent

from heed.data.store import Store, open_store
from heed.data.store.keyed import digest
from heed.feedback.simulated import Gold, SimulatedLabeller
from heed.records import Completion, Pair, Prompt
from heed.web.site import Site
from heed.worlds.saved import load_world

PLAIN: dict[str, Any] = {
    "kind": "pair", "gold_frac": 0.0, "repeat_frac": 0.0, "anchor_frac": 0.0,
    "first_gold_within": 0, "calibration_frac": 0.0, "settle_seconds": 0.0,
}  # fmt: skip
"""A project without special items, whose labels settle at once."""


def quality_in(world: Path) -> Gold:
    """The true quality of a completion in a world."""
    town = load_world(str(world))
    return lambda item: town.quality(item.prompt, item.completion.text).total


def make_project(where: Path, people: Sequence[str], **config: Any) -> list[str]:
    """A project `live` with people in it; returns their ids."""
    with open_store(where) as store:
        store.projects.make("live", {**PLAIN, **config})
        ids = []
        for name in people:
            ids.append(store.people.add(name).id)
            store.people.join("live", ids[-1])
    return ids


class Knower:
    """Says which of two texts is better, by a gold standard and with this skill."""

    def __init__(self, gold: Gold, name: str, skill: float = 1.0) -> None:
        self._labeller = SimulatedLabeller(gold, name, skill=skill, temperature=0.0)

    def answer(self, asked: str, texts: Sequence[str]) -> dict[str, Any]:
        """Answer a comparison, places as on the screen."""
        prompt = Prompt.make(asked)
        left, right = (
            Completion(
                id=digest(text)[:16], prompt_id=prompt.id, prompt_tokens=(), tokens=(0,),
                text=text, finish="stop",
            )
            for text in texts
        )  # fmt: skip
        pair = Pair(id=digest(asked + "".join(texts)), prompt=prompt, left=left, right=right)
        (said,) = self._labeller.compare([pair]).preferences
        if said.outcome == "tie":
            return {"outcome": "tie"}
        return {"outcome": "prefer", "side": 0 if said.outcome == "left" else 1, "level": 2}


def answer_all(store: Store, person: str, knower: Knower, most: int = 10_000) -> int:
    """Let a person answer what there is, in the store itself; returns the number of answers."""
    for number in range(most):
        work = store.queue.claim("live", person).work
        if not work:
            return number
        payload = work[0].payload
        assert payload.prompt is not None
        texts = [candidate.text or "" for candidate in payload.candidates]
        said = knower.answer(payload.prompt.text, texts)
        store.answers.submit(work[0].lease, person, said, submission_id=work[0].lease)
    return most


@dataclass
class Annotator(Persistent):
    """A person at the web API, who goes on when the server comes back.

    `acknowledged` maps each submission that was answered with 201 or 200 to the judgment's id.
    """

    knower: Knower = field(kw_only=True)
    acknowledged: dict[str, str] = field(default_factory=dict)

    def work(self, base: str, stopped: threading.Event) -> None:
        """Claim and answer until told to stop."""
        with self.client(base) as client:
            while not stopped.is_set():
                said = self._call(client, "/projects/live/leases", {"count": 1}, stopped)
                for work in (said or {}).get("work", ()):
                    self._judge(client, work, stopped)
                if not (said or {}).get("work"):
                    time.sleep(0.1)

    def _judge(self, client: httpx.Client, work: dict[str, Any], stopped: threading.Event) -> None:
        texts = [unescape(one["raw"]) for one in work["candidates"]]
        answer = self.knower.answer(unescape(work["turns"][-1]["raw"]), texts)
        name = f"{self.person} {work['lease']}"
        body = {"submission_id": name, "answer": answer}
        said = self._call(client, f"/leases/{work['lease']}/judgment", body, stopped)
        if said is not None:
            self.acknowledged[name] = said["judgment"]


def log_in(store: Store, people: Sequence[str], knowers: Sequence[Knower]) -> list[Annotator]:
    """Give each person a session, as logging in does."""
    name = Site(store).cookie
    opened = [store.people.access.open_session(person) for person in people]
    return [
        Annotator(person, (name, session.secret), session.csrf, knower=knower)
        for person, session, knower in zip(people, opened, knowers, strict=True)
    ]
