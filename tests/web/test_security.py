"""Who may do what, and what attackers send: roles, forgery, sessions, hosts, bodies, guessing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from tests.store.conftest import Clock
from tests.web.conftest import API, PASSWORD, Person

from heed.data.store import Store
from heed.data.store.roles import ADMIN, PERMISSIONS, TOKEN_SCOPES
from heed.web import shield
from heed.web.app import build_app
from heed.web.site import Anyone, Needs, Site

ROLES = ("stranger", "outsider", "annotator", "reviewer", "researcher", "admin", "machine")


def routes(site: Site) -> Iterator[tuple[str, str, str]]:
    """Every route of the application: method, path, and the permission that it declares."""
    for route in _flat(build_app(site).routes):
        declared = [
            found.call.permission
            for found in route.dependant.dependencies
            if isinstance(found.call, Needs | Anyone)
        ]
        assert len(declared) == 1, f"{route.path} declares {declared or 'nothing'}"
        for method in route.methods:
            yield method, route.path, declared[0]


def _flat(found: Any) -> Iterator[Any]:
    """Routes with those of included routers, which newer FastAPI keeps apart."""
    for route in found:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "effective_candidates"):
            yield from (one for one in route.effective_candidates() if hasattr(one, "dependant"))


def allowed(role: str, permission: str) -> bool:
    """The table of the store, read once more."""
    if permission == "anyone":
        return True
    if role == "stranger":
        return False
    if permission == "logged in":
        return True
    if role == "machine":
        return permission in TOKEN_SCOPES
    if role == "admin":
        return permission in ADMIN
    return permission in PERMISSIONS.get(role, frozenset())


def test_every_route_declares_what_it_needs(site: Site) -> None:
    found = list(routes(site))
    documented = build_app(site).openapi()["paths"]
    assert {(m, path) for m, path, _ in found} >= {
        (method.upper(), path) for path, about in documented.items() for method in about
    }
    assert len(found) > 30
    anyone = {path for _, path, permission in found if permission == "anyone"}
    assert anyone == {
        f"{API}/healthz", f"{API}/version", f"{API}/auth/start", f"{API}/auth/login",
        f"{API}/auth/invite/accept", "/", "/start", "/login", "/invite", "/p/{project}/label",
        "/p/{project}/quality", "/runs", "/runs/{run}",
    }  # fmt: skip


def test_every_route_by_every_role(
    site: Site,
    visit: Callable[[], TestClient],
    person: Callable[..., Person],
    machine: Callable[..., Person],
) -> None:
    callers = {
        "stranger": Person(visit()),
        "outsider": person("outsider", None),
        "annotator": person("annotator"),
        "reviewer": person("reviewer", "reviewer"),
        "researcher": person("researcher", "researcher"),
        "admin": person("admin", is_admin=True),
        "machine": machine(*TOKEN_SCOPES),
    }
    holder = person("holder")
    lease = holder.claim()[0]["lease"]
    judged = holder.judge(holder.claim(2)[1]["lease"], "mine").json()["judgment"]
    values = {"project": "answers", "lease": lease, "judgment": judged, "token": "t-none"}
    values["run"] = "none"
    tried = 0
    for method, path, permission in routes(site):
        if not path.startswith(API):
            continue
        for role in ROLES:
            if path.endswith(("/logout", "/logout/everywhere")) and role != "stranger":
                continue
            answer = callers[role].call(
                method, path.removeprefix(API).format(**values), {} if method != "GET" else None
            )
            may = allowed(role, permission)
            # Leases and judgments of somebody else are refused to every role that may work.
            if may and ("{lease}" in path or "{judgment}" in path):
                may = False if "{lease}" in path else may
            expected = 401 if role == "stranger" else 403
            about = f"{role} {method} {path}: {answer.status_code} {answer.text[:200]}"
            assert answer.status_code < 500, about
            if may:
                assert answer.status_code not in (401, 403) or "/auth/" in path, about
            else:
                assert answer.status_code == expected, about
            tried += 1
    assert tried > 150


def test_nobody_touches_the_work_of_another(person: Callable[..., Person]) -> None:
    ann, ben = person("ann"), person("ben")
    lease = ann.claim()[0]["lease"]
    name = ann.judge(ann.claim(2)[1]["lease"], "one").json()["judgment"]
    draft = {"note": "theirs"}
    assert ben.call("PUT", f"/leases/{lease}/draft", draft).status_code == 403
    assert ben.judge(lease, "x").status_code == 403
    assert ben.post(f"/leases/{lease}/skip").status_code == 403
    body = {"submission_id": "y", "answer": {"outcome": "tie"}}
    assert ben.post(f"/judgments/{name}/amend", body).status_code == 403
    assert ben.get("/projects/answers/history").json() == []
    assert ben.post("/projects/answers/undo").status_code == 404


def test_a_removed_member_is_out_at_once(ann: Person, store: Store) -> None:
    lease = ann.claim()[0]["lease"]
    store.people.join("answers", ann.id, "annotator", state="removed")
    assert ann.judge(lease, "x").status_code == 403
    store.people.set_state(ann.id, "blocked", actor="system")
    assert ann.get("/auth/me").status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-CSRF-Token": ""}, 403),
        ({"X-CSRF-Token": "0" * 64}, 403),
        ({"X-CSRF-Token": "é"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_other_sites_can_do_nothing(ann: Person, headers: dict[str, str], status: int) -> None:
    sent = {"Content-Type": "application/json", **headers}
    sent = {name: value.encode() for name, value in sent.items()}
    answer = ann.call("POST", "/projects/answers/leases", None, content=b'{"count": 1}',
                      headers=sent)  # fmt: skip
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


def test_no_get_changes_anything_and_methods_are_not_overridden(ann: Person, store: Store) -> None:
    before = store.log.head()
    override = {"X-HTTP-Method-Override": "POST", "X-Method-Override": "POST"}
    assert ann.get("/projects/answers/leases", headers=override).status_code == 405
    for path in ("/", "/p/answers/label", "/login", "/start", "/invite"):
        ann.client.get(path)
    assert ann.call("POST", "/auth/me", {}, params={"_method": "PUT"}).status_code == 405
    assert store.log.head() == before


def test_a_planted_session_is_not_taken_over(site: Site, visit: Callable[[], TestClient]) -> None:
    people = site.store.people
    people.join("answers", people.add("eve", email="e@x.org", password=PASSWORD).id)
    victim = people.add("vic", email="v@x.org", password=PASSWORD)
    people.join("answers", victim.id)
    planted = people.access.open_session(people.all()[0].id)
    browser = visit()
    browser.cookies.set(site.cookie, planted.secret)
    entered = browser.post(f"{API}/auth/login", json={"email": "v@x.org", "password": PASSWORD})
    assert entered.status_code == 200
    cookie = entered.headers["set-cookie"]
    assert planted.secret not in cookie
    assert all(word in cookie for word in ("HttpOnly", "SameSite=lax", "Path=/"))
    old = visit()
    old.cookies.set(site.cookie, planted.secret)
    assert old.get(f"{API}/auth/me").status_code == 401


def test_logging_out_ends_sessions_and_gives_work_back(
    site: Site, person: Callable[..., Person], visit: Callable[[], TestClient]
) -> None:
    ann = person("ann")
    ann.claim(2)
    other = Person(visit(), ann.id, "")
    session = site.store.people.access.open_session(ann.id)
    other.client.cookies.set(site.cookie, session.secret)
    secret = ann.client.cookies[site.cookie]
    assert ann.call("POST", "/auth/logout").status_code == 204
    assert site.store.queue.held("answers", ann.id) == ()
    ann.client.cookies.set(site.cookie, secret)
    assert ann.get("/auth/me").status_code == 401
    other.csrf = other.get("/auth/me").json()["csrf"]
    assert other.call("POST", "/auth/logout/everywhere").status_code == 204
    other.client.cookies.set(site.cookie, session.secret)
    assert other.get("/auth/me").status_code == 401


def test_sessions_idle_out(ann: Person, clock: Clock) -> None:
    clock.pass_seconds(13 * 3600)
    assert ann.get("/auth/me").status_code == 401
    assert ann.client.get("/p/answers/label").headers["location"] == "/login"


def test_under_tls_cookies_are_bound_to_it(store: Store) -> None:
    from heed.web.serve import make_owner

    site = Site(store, make_owner(store), secure=True)
    browser = TestClient(build_app(site), "https://127.0.0.1")
    done = browser.post(f"{API}/auth/start", json={"code": site.codes.current})
    assert done.headers["set-cookie"].startswith("__Host-heed-")
    assert "Secure" in done.headers["set-cookie"]
    assert done.headers["strict-transport-security"].startswith("max-age=")


def test_guessing_passwords_is_slowed(
    site: Site, visit: Callable[[], TestClient], clock: Clock
) -> None:
    people = site.store.people
    people.add("ann", email="a@x.org", password=PASSWORD)

    def tried(email: str, password: str) -> Any:
        body = {"email": email, "password": password}
        return visit().post(f"{API}/auth/login", json=body)

    known, unknown = tried("a@x.org", "wrong"), tried("nobody@x.org", "wrong")
    assert (known.status_code, known.json()) == (unknown.status_code, unknown.json())
    statuses = [tried("a@x.org", f"wrong {number}").status_code for number in range(6)]
    assert statuses[-1] == 429
    right = tried("a@x.org", PASSWORD)
    assert (right.status_code, int(right.headers["retry-after"]) > 0) == (429, True)
    clock.pass_seconds(3600)
    assert tried("a@x.org", PASSWORD).status_code == 200


def test_the_code_is_good_once_and_guessing_it_is_slowed(
    site: Site, visit: Callable[[], TestClient]
) -> None:
    code = site.codes.current
    assert visit().post(f"{API}/auth/start", json={"code": code}).status_code == 200
    assert visit().post(f"{API}/auth/start", json={"code": code}).status_code == 403
    tries = [visit().post(f"{API}/auth/start", json={"code": "x"}).status_code for _ in range(12)]
    assert tries[-1] == 429
    assert "code" not in visit().get("/start").headers.get("location", "")


def test_invitations_make_members_once(
    person: Callable[..., Person], visit: Callable[[], TestClient]
) -> None:
    admin = person("admin", None, is_admin=True)
    address = admin.post("/projects/answers/invitations", {"role": "annotator"}).json()["address"]
    code = address.removeprefix("/invite#")
    body = {"code": code, "pseudonym": "new", "email": "n@x.org", "password": PASSWORD}
    client = visit()
    entered = client.post(f"{API}/auth/invite/accept", json=body)
    assert entered.json()["next"] == "/p/answers/label"
    assert Person(client, csrf=entered.json()["csrf"]).claim()
    other = {**body, "pseudonym": "other", "email": "o@x.org"}
    assert visit().post(f"{API}/auth/invite/accept", json=other).status_code == 410
    short = {**other, "password": "short"}
    assert visit().post(f"{API}/auth/invite/accept", json=short).status_code == 422


def test_tokens_do_what_their_scopes_say_and_no_more(
    machine: Callable[..., Person], person: Callable[..., Person], store: Store
) -> None:
    store.projects.make("other", {"kind": "pair"})
    reader = machine("changes.read")
    assert reader.get("/projects/answers/changes").status_code == 200
    assert reader.get("/projects/other/changes").status_code == 403
    assert reader.post("/projects/answers/items:batch", {"items": [{}]}).status_code == 403
    assert reader.post("/projects/answers/leases", {"count": 1}).status_code == 403
    assert reader.client.get("/", headers=reader.headers).headers["location"] == "/login"
    admin = person("admin", None, is_admin=True)
    made = admin.post("/tokens", {"name": "t", "scopes": ["changes.read"]}).json()
    reader.headers = {"Authorization": f"Bearer {made['token']}"}
    assert reader.get("/projects/other/changes").status_code == 200
    assert admin.call("DELETE", f"/tokens/{made['id']}").status_code == 204
    assert reader.get("/projects/other/changes").status_code == 401
    reader.headers = {"Authorization": "Basic eDp5"}
    assert reader.get("/projects/other/changes").status_code == 401
    assert admin.post("/tokens", {"name": "t", "scopes": ["work"]}).status_code == 422


def test_every_answer_has_the_headers(ann: Person, visit: Callable[[], TestClient]) -> None:
    for answer in (
        ann.client.get("/p/answers/label"), ann.client.get("/static/label.js"),
        ann.get("/auth/me"), visit().get("/nowhere"), visit().get(f"{API}/auth/me"),
        visit().get("/", headers={"Host": "evil.example"}),
    ):  # fmt: skip
        for name, value in shield.HEADERS.items():
            assert answer.headers[name] == value
    assert ann.get("/auth/me").headers["cache-control"] == "no-store"


def test_secrets_stay_out_of_pages_and_errors(ann: Person, site: Site) -> None:
    secret = site.store.projects.get("answers").secret
    page = ann.client.get("/p/answers/label").text
    assert ann.csrf in page
    for word in (secret, ann.client.cookies[site.cookie], site.codes.current):
        assert word not in page
    for path in ("/static/../site.py", "/static/%2e%2e/site.py", "/static/..%2f..%2ferrors.py"):
        assert ann.client.get(path).status_code in (400, 404)
