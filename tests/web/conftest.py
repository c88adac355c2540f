"""A site over a fresh store, with one project, people of every role, and clients for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.store.conftest import PLAIN, Clock, pair

from heed.data.store import Store, open_store
from heed.web.app import build_app
from heed.web.serve import make_owner
from heed.web.site import Site

BASE = "http://127.0.0.1"
API = "/api/v1"
PASSWORD = "correct horse battery"


@dataclass
class Person:
    """A client that is logged in, or holds a token."""

    client: TestClient
    id: str = ""
    csrf: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        headers = {**self.headers, **more.pop("headers", {})}
        if self.csrf:
            headers.setdefault("X-CSRF-Token", self.csrf)
        if body is not None:
            more["json"] = body
        return self.client.request(method, f"{API}{path}", headers=headers, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> Any:
        return self.call("POST", path, {} if body is None else body, **more)

    def get(self, path: str, **more: Any) -> Any:
        return self.call("GET", path, **more)

    def claim(self, count: int = 1, project: str = "answers") -> Any:
        answer = self.post(f"/projects/{project}/leases", {"count": count})
        assert answer.status_code == 200, answer.text
        return answer.json()["work"]

    def judge(self, lease: str, name: str, **answer: Any) -> Any:
        answer = answer or {"outcome": "prefer", "side": 0, "level": 2}
        return self.post(f"/leases/{lease}/judgment", {"submission_id": name, "answer": answer})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with open_store(tmp_path / "labels.db", clock=clock) as opened:
        opened.projects.make("answers", {**PLAIN, "need": 2, "title": "Answers", "max_leases": 3})
        opened.items.add("answers", [pair(number) for number in range(8)], actor="system")
        yield opened


@pytest.fixture
def site(store: Store) -> Site:
    return Site(store, make_owner(store))


@pytest.fixture
def visit(site: Site) -> Callable[[], TestClient]:
    """Make a client that nobody is logged in with."""
    app = build_app(site)
    return lambda: TestClient(
        app, BASE, follow_redirects=False, raise_server_exceptions=False
    )  # fmt: skip


@pytest.fixture
def person(site: Site, visit: Callable[[], TestClient]) -> Callable[..., Person]:
    """Make a person of a role (None: a member of nothing), logged in."""

    def make(name: str, role: str | None = "annotator", *, is_admin: bool = False) -> Person:
        people = site.store.people
        added = people.add(name, is_admin=is_admin)
        if role is not None:
            people.join("answers", added.id, role)
        session = people.access.open_session(added.id)
        client = visit()
        client.cookies.set(site.cookie, session.secret)
        return Person(client, added.id, session.csrf)

    return make


@pytest.fixture
def machine(site: Site, visit: Callable[[], TestClient]) -> Callable[..., Person]:
    """Make a machine with a token of these scopes."""

    def make(*scopes: str, project: str | None = "answers") -> Person:
        name, secret = site.store.people.access.make_token(
            "trainer", scopes, project=project, actor="system"
        )
        return Person(visit(), name, headers={"Authorization": f"Bearer {secret}"})

    return make


@pytest.fixture
def ann(person: Callable[..., Person]) -> Person:
    return person("ann")
