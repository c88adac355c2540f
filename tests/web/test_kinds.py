"""Every kind of work through the API: answers, drafts, undo, history, roles, and nothing leaked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.web.conftest import Person
from tests.web.kinds import (
    BAD,
    BAD_DRAFTS,
    DRAFTS,
    GOOD,
    NAMES,
    NUM_CANDIDATES,
    SHA,
    TEXT,
    add_project,
    item_of,
)
from tests.web.test_blind import FORBIDDEN_KEYS, PAYLOADS, Seen, keys_of

from heed.data.store import Store
from heed.data.store.kinds import KINDS
from heed.web.pages import SCRIPTS
from heed.web.showing import TAGS

EMPTY = {"flags": [], "reasons": [], "note": None}


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest, store: Store, ann: Person) -> str:
    name: str = request.param
    add_project(store, name, [ann.id])
    return name


def test_each_kind_but_clips_has_a_page() -> None:
    assert set(SCRIPTS) == set(KINDS) - {"clips"} == {"pair", *NAMES}


def test_answers_reach_the_store_and_come_back_by_undo(
    kind: str, ann: Person, store: Store
) -> None:
    for number, answer in enumerate([*GOOD[kind], {"outcome": "cannot_judge"}]):
        (work,) = ann.claim(project=kind)
        assert (work["kind"], len(work["candidates"])) == (kind, NUM_CANDIDATES[kind])
        given = {**EMPTY, "note": "n", "reasons": ["style"], **answer}
        assert ann.judge(work["lease"], f"s{number}", **given).status_code == 201
        said = store.answers.history(kind, ann.id)[0]
        assert KINDS[kind].answer.model_validate(said.answer).outcome == answer["outcome"]
        newest = ann.get(f"/projects/{kind}/history").json()[0]["answer"]
        assert {**newest, **given} == newest
        back = ann.post(f"/projects/{kind}/undo").json()["work"]
        assert back["lease"] == work["lease"]
        assert back["draft"] == newest
        assert back["candidates"] == work["candidates"]
        assert ann.judge(back["lease"], f"again {number}", **given).status_code == 201


def test_places_on_the_screen_become_places_of_the_item(
    person: Callable[..., Person], store: Store
) -> None:
    people = [person(f"p{number}") for number in range(6)]
    add_project(store, "ranking", [one.id for one in people], num_items=1)
    config = store.projects.get("ranking").config.model_copy(update={"need": 6})
    store.projects.configure("ranking", config, actor="system")
    store.items.add("ranking", [item_of("ranking", 7, need=6)], actor="system")
    orders = set()
    for number, one in enumerate(people):
        work = next(w for w in one.claim(3, project="ranking") if "7" in w["turns"][0]["raw"])
        shown = [c["raw"] for c in work["candidates"]]
        best = shown.index(min(shown))
        orders.add(tuple(shown))
        rest = [place for place in range(4) if place != best]
        said = {"outcome": "ranked", "buckets": [[best], rest]}
        assert one.judge(work["lease"], f"r{number}", **said).status_code == 201
        kept = store.answers.history("ranking", one.id)[0]
        texts = store.items.payloads("ranking", [kept.item])[kept.item].candidates
        (first,) = kept.answer["buckets"][0]
        assert (texts[first].text or "").startswith("1 ")
    assert len(orders) > 1


def test_what_does_not_fit_is_refused_and_changes_nothing(
    kind: str, ann: Person, store: Store
) -> None:
    (work,) = ann.claim(project=kind)
    for number, answer in enumerate(BAD[kind]):
        refused = ann.judge(work["lease"], f"bad {number}", **answer)
        assert refused.status_code == 422, answer
        assert refused.headers["content-type"] == "application/problem+json"
    assert store.answers.history(kind, ann.id) == []
    assert ann.claim(project=kind)[0]["lease"] == work["lease"]


def test_drafts_are_kept_as_they_are(kind: str, ann: Person) -> None:
    (work,) = ann.claim(project=kind)
    path = f"/leases/{work['lease']}/draft"
    draft = {**DRAFTS[kind], "note": "half"}
    assert ann.call("PUT", path, draft).json() == {"version": 1}
    (again,) = ann.claim(project=kind)
    assert {**again["draft"], **draft} == again["draft"]
    for number, bad in enumerate(BAD_DRAFTS):
        assert ann.call("PUT", path, bad).status_code == 422, number
    assert ann.claim(project=kind)[0]["draft"] == again["draft"]


def test_who_is_no_member_sees_neither_page_nor_work(
    kind: str, ann: Person, person: Callable[..., Person], visit: Callable[[], TestClient]
) -> None:
    page = f"/p/{kind}/label"
    assert ann.client.get(page).status_code == 200
    assert visit().get(page).headers["location"] == "/login"
    other = person("other")
    assert other.client.get(page).status_code == 404
    (work,) = ann.claim(project=kind)
    assert other.post(f"/projects/{kind}/leases", {"count": 1}).status_code == 403
    assert other.judge(work["lease"], "x", **GOOD[kind][0]).status_code == 403
    assert other.call("PUT", f"/leases/{work['lease']}/draft", DRAFTS[kind]).status_code == 403
    assert other.get(f"/projects/{kind}/history").status_code == 403


def test_nothing_tells_who_wrote_what(kind: str, ann: Person) -> None:
    got = [ann.client.get("/"), ann.client.get(f"/p/{kind}/label")]
    answer = ann.post(f"/projects/{kind}/leases", {"count": 2})
    lease = answer.json()["work"][0]["lease"]
    got += [answer, ann.call("PUT", f"/leases/{lease}/draft", DRAFTS[kind]),
            ann.judge(lease, "one", **GOOD[kind][0]), ann.post(f"/projects/{kind}/undo"),
            ann.get(f"/projects/{kind}/history"), ann.get(f"/projects/{kind}/me")]  # fmt: skip
    for one in got:
        assert one.status_code < 300
        said = one.text + json.dumps(dict(one.headers))
        assert "CANARY" not in said
        assert "0.4242" not in said
        if one.headers["content-type"] == "application/json":
            assert not keys_of(one.json()) & FORBIDDEN_KEYS


def test_the_exact_text_is_given_where_it_is_needed_alone(kind: str, ann: Person) -> None:
    (work,) = ann.claim(project=kind)
    if kind in ("edit", "spans"):
        (only,) = work["candidates"]
        assert (only["text"], only["sha256"]) == (TEXT, SHA)
    assert all(set(one) == {"html", "raw"} for one in work["candidates"]) is (
        kind not in ("edit", "spans")
    )


def test_payloads_of_strangers_are_words_on_every_page(
    kind: str, ann: Person, store: Store
) -> None:
    store.projects.make("attack", {
        "kind": kind, "title": "<script>t</script>", "flags": ["<script>f</script>"],
        "reasons": ["<img src=x>"], "span_kinds": ["<script>k</script>"],
        "attributes": [{"name": "</script><script>a</script>"}], "max_leases": 10,
    })  # fmt: skip
    store.people.join("attack", ann.id)
    page = ann.client.get("/p/attack/label").text
    seen = Seen(page).tags
    assert [a for tag, a in seen if tag == "script" and "src" not in a] == [
        {"type": "application/json", "id": "setup"}
    ]
    assert not {"img", "iframe", "svg"} & {tag for tag, _ in seen}
    texts = [text for text in PAYLOADS if "\0" not in text]
    items = [item_of(kind, number, text) for number, text in enumerate(texts)]
    store.items.add("attack", items, actor="system")
    works: list[dict[str, Any]] = ann.claim(10, project="attack")
    assert works
    for work in works:
        for one in (*work["turns"], *work["candidates"]):
            for view in ("html", "raw"):
                assert {tag for tag, _ in Seen(one[view]).tags} <= TAGS
