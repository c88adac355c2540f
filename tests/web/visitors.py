"""People who answer over HTTP, and send again what a server that went away did not acknowledge."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from heed.data.store import Store
from heed.web.site import Site


@dataclass
class Persistent:
    """Somebody at the web API who sends until there is an answer, also while the server is away."""

    person: str
    cookie: tuple[str, str]
    csrf: str
    wrong: list[str] = field(default_factory=list)
    num_resent: int = 0

    def client(self, base: str) -> httpx.Client:
        """A client that is logged in."""
        made = httpx.Client(base_url=f"{base}/api/v1", timeout=20.0)
        made.cookies.set(*self.cookie)
        made.headers["X-CSRF-Token"] = self.csrf
        return made

    def _call(
        self, client: httpx.Client, path: str, body: Any, stopped: threading.Event
    ) -> dict[str, Any] | None:
        """Send until there is an answer; None where the test is over first."""
        while True:
            try:
                answer = client.post(path, json=body)
            except httpx.TransportError:
                self.num_resent += 1
            else:
                if answer.status_code in (200, 201):
                    found: dict[str, Any] = answer.json()
                    return found
                if answer.status_code not in (429, 503):
                    self.wrong.append(f"{path}: {answer.status_code} {answer.text[:200]}")
                    return None
            if stopped.is_set():
                return None
            time.sleep(0.05)


@dataclass
class Visitor(Persistent):
    """One person with a session, at a server that may go away and come back.

    `acknowledged` maps each submission that was answered with 201 or 200 to (judgment, level);
    `waits` are the seconds from sending an answer to holding the next item.
    """

    acknowledged: dict[str, tuple[str, int]] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)

    def work(
        self, base: str, project: str, stopped: threading.Event, seed: int, think: float = 0.0
    ) -> None:
        """Claim and answer until told to stop or until nothing is left."""
        rng, number = random.Random(seed), 0
        with self.client(base) as client:
            held = self._claim(client, project, stopped)
            while held and not stopped.is_set():
                if think:
                    time.sleep(rng.expovariate(1.0 / think))
                level = 1 + number % 3
                name = f"{self.person} {number}"
                body = {
                    "submission_id": name,
                    "answer": {"outcome": "prefer", "side": rng.randrange(2), "level": level},
                }
                began = time.monotonic()
                said = self._call(client, f"/leases/{held}/judgment", body, stopped)
                if said is None:
                    return
                self.acknowledged[name] = (said["judgment"], level)
                number += 1
                held = self._claim(client, project, stopped)
                self.waits.append(time.monotonic() - began)

    def _claim(self, client: httpx.Client, project: str, stopped: threading.Event) -> str | None:
        said = self._call(client, f"/projects/{project}/leases", {"count": 1}, stopped)
        return said["work"][0]["lease"] if said and said["work"] else None


def open_sessions(store: Store, people: Sequence[str]) -> list[Visitor]:
    """Give each person a session, as logging in does."""
    name = Site(store).cookie
    opened = [store.people.access.open_session(person) for person in people]
    return [
        Visitor(person, (name, session.secret), session.csrf)
        for person, session in zip(people, opened, strict=True)
    ]


def start_all(
    visitors: Sequence[Visitor], base: str, project: str, think: float = 0.0
) -> tuple[list[threading.Thread], threading.Event]:
    """Let all work at once."""
    stopped = threading.Event()
    threads = [
        threading.Thread(target=one.work, args=(base, project, stopped, number, think), daemon=True)
        for number, one in enumerate(visitors)
    ]
    for thread in threads:
        thread.start()
    return threads, stopped
