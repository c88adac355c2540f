"""Bodies that are malformed, strange, endless or too many."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient
from tests.web.conftest import API, PASSWORD, Person

from heed.data.store import Store
from heed.web import shield
from heed.web.app import build_app
from heed.web.limits import Buckets
from heed.web.site import Site

DEEP = "[" * 50_000 + "]" * 50_000


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"[]", 422),
        (b"null", 422),
        (b"\xff\xfe", 400),
        (b'{"count": 1e400}', 422),
        (b'{"count": NaN}', 422),
        (b'{"count": ' + b"9" * 5000 + b"}", 400),
        (b'{"count": 1, "person": "u-other"}', 422),
        (b'{"count": 11}', 422),
        (DEEP.encode(), 400),
        (b'{"count": 1}' + b" " * (1 << 20), 413),
    ],
)
def test_malformed_bodies_are_refused_and_change_nothing(
    ann: Person, store: Store, body: bytes, status: int
) -> None:
    answer = ann.call("POST", "/projects/answers/leases", None, content=body,
                      headers={"Content-Type": "application/json"})  # fmt: skip
    assert answer.status_code in (status, 422 if status == 400 else status), answer.text
    assert store.items.counts("answers")["leases"] == 0


@pytest.mark.parametrize("text", ["\ud800", "a\x00b", "x" * 20_000, "\u202e"])
def test_strange_texts_never_break_the_server(ann: Person, text: str) -> None:
    (work,) = ann.claim()
    for path, body in [
        (f"/leases/{work['lease']}/judgment",
         {"submission_id": text[:100], "answer": {"outcome": "tie", "note": text}}),
        (f"/leases/{work['lease']}/skip", {"mode": text[:10], "note": text}),
        ("/auth/login", {"email": text[:200], "password": text[:900]}),
        ("/auth/invite/accept", {"code": text[:100], "pseudonym": text[:60], "email": text[:90],
                                 "password": text[:60] + PASSWORD}),
    ]:  # fmt: skip
        raw = json.dumps(body).encode()
        answer = ann.call("POST", path, None, content=raw,
                          headers={"Content-Type": "application/json"})  # fmt: skip
        assert answer.status_code < 500, (path, answer.text)
    assert ann.claim() is not None


def test_a_body_is_cut_off_while_it_arrives(ann: Person) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"count": "'
        for _ in range(2000):
            yield b"x" * 1024
        yield b'"}'

    answer = ann.call("POST", "/projects/answers/leases", None, content=endless(),
                      headers={"Content-Type": "application/json"})  # fmt: skip
    assert answer.status_code == 413


def test_batches_may_be_larger_but_not_endless(machine: Callable[..., Person]) -> None:
    writer = machine("items.write")
    item = {"payload": {"prompt": None, "candidates": []}, "origin": "x" * 100}
    many = {"items": [item] * 1000}
    assert writer.post("/projects/answers/items:batch", many).status_code == 200
    assert writer.post("/projects/answers/items:batch", {"items": [item] * 1001}).status_code == 422
    large = {"Content-Length": str(65 << 20), "Content-Type": "application/json"}
    answer = writer.call("POST", "/projects/answers/items:batch", None, content=b"", headers=large)
    assert answer.status_code == 413


def test_a_bucket_fills_again() -> None:
    now = [0.0]
    bucket = Buckets(2.0, 3, lambda: now[0])
    assert [bucket.wait("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert bucket.wait("b") == 0.0
    now[0] = 0.5
    assert [bucket.wait("a"), bucket.wait("a")] == [0.0, 0.5]
    for number in range(30_000):
        bucket.wait(f"key {number}")
    assert len(bucket._left) <= 10_001


def test_floods_are_told_to_wait(
    site: Site, person: Callable[..., Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shield, "Buckets", lambda rate, size: Buckets(0.01, 5))
    ann = person("ann")
    flooded = TestClient(build_app(site), "http://127.0.0.1")
    flooded.cookies = ann.client.cookies
    answers = [flooded.get(f"{API}/auth/me") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert flooded.get("/static/label.js").status_code == 200
