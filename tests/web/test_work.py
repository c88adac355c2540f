"""Labelling through the API: claim, draft, answer, skip, undo, and what a person learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.store.conftest import Clock, pair
from tests.web.conftest import API, Person

from heed.data.store import Store


def test_an_answer_reaches_the_store_in_the_items_order(ann: Person, store: Store) -> None:
    for number, work in enumerate(ann.claim(3)):
        assert [turn["role"] for turn in work["turns"]] == ["user"]
        assert ann.judge(work["lease"], f"s{number}").status_code == 201
        texts = [candidate["raw"] for candidate in work["candidates"]]
        said = store.answers.history("answers", ann.id)[0]
        payload = store.items.payloads("answers", [work["item"]])[work["item"]]
        assert payload.candidates[said.side or 0].text == texts[0]
        assert [payload.candidates[place].text for place in said.shown] == texts
    assert ann.get("/projects/answers/me").json() == {"done": 3, "today": 3, "remaining": 5}


def test_a_submission_counts_once_and_says_the_same_again(ann: Person, store: Store) -> None:
    (work,) = ann.claim()
    first = ann.judge(work["lease"], "same")
    again = ann.judge(work["lease"], "same")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert ann.judge(work["lease"], "same", outcome="tie").status_code == 409
    assert ann.judge(work["lease"], "other").status_code == 409
    assert len(store.answers.history("answers", ann.id)) == 1


def test_what_is_undone_comes_back_as_it_was_given(ann: Person, store: Store) -> None:
    works = ann.claim(2)
    given = {"outcome": "prefer", "side": 1, "level": 3, "reasons": ["clarity"], "note": "n",
             "flags": [{"place": 1, "code": "unsafe"}]}  # fmt: skip
    assert ann.judge(works[0]["lease"], "one", **given).status_code == 201
    back = ann.post("/projects/answers/undo").json()
    assert back["undone"] == "judgment"
    assert back["work"]["lease"] == works[0]["lease"]
    assert back["work"]["draft"] == given
    assert [c["raw"] for c in back["work"]["candidates"]] == [
        c["raw"] for c in works[0]["candidates"]
    ]
    assert ann.post("/projects/answers/undo").status_code == 404
    assert ann.judge(works[0]["lease"], "two", outcome="both_bad").status_code == 201
    (first, second) = store.answers.history("answers", ann.id)
    assert (first.outcome, second.state) == ("both_bad", "withdrawn")


def test_twenty_acts_can_be_undone(person: Callable[..., Person], store: Store) -> None:
    store.items.add("answers", [pair(number) for number in range(100, 125)], actor="system")
    ann = person("ann")
    for number in range(22):
        assert ann.judge(ann.claim()[0]["lease"], f"s{number}").status_code == 201
    undone = [ann.post("/projects/answers/undo").status_code for _ in range(21)]
    assert undone == [200] * 20 + [404]


def test_drafts_have_versions(ann: Person) -> None:
    (work,) = ann.claim()
    path, draft = f"/leases/{work['lease']}/draft", {"note": "half", "reasons": ["style"]}
    saved = ann.call("PUT", path, draft, headers={"If-Match": '"0"'})
    assert saved.json() == {"version": 1}
    assert ann.call("PUT", path, draft, headers={"If-Match": '"0"'}).status_code == 409
    assert ann.call("PUT", path, draft, headers={"If-Match": "x"}).status_code == 422
    (again,) = ann.claim()
    assert (again["draft"]["note"], again["draft_version"]) == ("half", 1)
    ann.judge(work["lease"], "one")
    assert ann.call("PUT", path, draft).status_code == 410


def test_a_skipped_item_goes_to_others_and_comes_back_by_undo(ann: Person) -> None:
    (work,) = ann.claim()
    assert ann.post(f"/leases/{work['lease']}/skip", {"mode": "me"}).status_code == 200
    assert ann.post(f"/leases/{work['lease']}/skip", {"mode": "nobody"}).status_code == 422
    assert ann.claim()[0]["item"] != work["item"]
    back = ann.post("/projects/answers/undo").json()
    assert (back["undone"], back["work"]["item"]) == ("skip", work["item"])


def test_an_answer_after_the_lease_is_kept(ann: Person, clock: Clock) -> None:
    (work,) = ann.claim()
    clock.pass_seconds(10_000)
    assert ann.post(f"/leases/{work['lease']}/release").status_code == 204
    done = ann.judge(work["lease"], "late")
    assert (done.status_code, done.json()["late"]) == (201, True)
    assert ann.post(f"/leases/{work['lease']}/heartbeat").status_code == 410


def test_a_heartbeat_holds_the_item(ann: Person, clock: Clock) -> None:
    (work,) = ann.claim()
    clock.pass_seconds(600)
    later = ann.post(f"/leases/{work['lease']}/heartbeat").json()["expires_at"]
    assert later > work["expires_at"]


def test_an_empty_queue_says_why(ann: Person, store: Store) -> None:
    for number in range(8):
        ann.judge(ann.claim()[0]["lease"], f"s{number}")
    empty = ann.post("/projects/answers/leases", {"count": 2}).json()
    assert (empty["work"], empty["nothing"]["reason"]) == ([], "all_done")
    store.projects.set_state("answers", "paused", actor="system")
    paused = ann.post("/projects/answers/leases", {"count": 2}).json()
    assert paused["nothing"]["reason"] == "paused"


def test_one_can_correct_an_answer_and_read_ones_own(ann: Person) -> None:
    (work,) = ann.claim()
    name = ann.judge(work["lease"], "one", outcome="prefer", side=1, level=1).json()["judgment"]
    body = {"submission_id": "two", "answer": {"outcome": "prefer", "side": 0, "level": 3}}
    assert ann.post(f"/judgments/{name}/amend", body).json()["version"] == 2
    new, old = ann.get("/projects/answers/history").json()
    assert (new["answer"]["side"], new["answer"]["level"], new["state"]) == (0, 3, "standing")
    assert (old["answer"]["side"], old["state"]) == (1, "replaced")


def test_the_guideline_is_read_before_work(ann: Person, store: Store) -> None:
    config = store.projects.get("answers").config.model_copy(update={"needs_guideline": True})
    store.projects.configure("answers", config, actor="system")
    store.projects.write_guideline("answers", "# Be fair\n<script>x</script>", actor="system")
    blocked = ann.post("/projects/answers/leases", {"count": 1}).json()
    assert blocked["nothing"]["reason"] == "guideline"
    guide = ann.get("/projects/answers/guideline").json()
    assert (guide["version"], "<script" in guide["html"]) == (1, False)
    assert ann.post("/projects/answers/guideline/acknowledge", {"version": 1}).status_code == 204
    assert ann.claim()


@pytest.mark.parametrize(
    "answer",
    [
        {"outcome": "prefer"},
        {"outcome": "prefer", "side": 2, "level": 1},
        {"outcome": "prefer", "side": 0, "level": 4},
        {"outcome": "tie", "side": 0, "level": 1},
        {"outcome": "tie", "reasons": ["because"]},
        {"outcome": "tie", "flags": [{"place": 5, "code": "unsafe"}]},
        {"outcome": "best"},
        {"outcome": "tie", "person": "somebody"},
        {},
    ],
)
def test_an_answer_that_does_not_fit_changes_nothing(
    ann: Person, store: Store, answer: dict[str, Any]
) -> None:
    (work,) = ann.claim()
    body = {"submission_id": "x", "answer": answer}
    refused = ann.post(f"/leases/{work['lease']}/judgment", body)
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert ann.claim()[0]["lease"] == work["lease"]
    assert store.answers.history("answers", ann.id) == []


def test_trainers_add_items_and_read_changes(
    ann: Person, machine: Callable[..., Person], clock: Clock
) -> None:
    trainer = machine("items.write", "changes.read", "budget.write", "project.read")
    added = trainer.post("/projects/answers/items:batch", {"items": [pair(50), {"payload": {}}]})
    assert [row["status"] for row in added.json()] == ["new", "refused"]
    ann.judge(ann.claim()[0]["lease"], "one", outcome="tie")
    path = "/projects/answers/changes"
    assert trainer.get(path).json()["changes"] == []
    clock.pass_seconds(11)
    found = trainer.get(path).json()
    assert [change["value"]["outcome"] for change in found["changes"]] == ["tie"]
    after = {"after": found["seq"], "wait": 0.3}
    assert trainer.get(path, params=after).json()["changes"] == []
    ann.post("/projects/answers/undo")
    (gone,) = trainer.get(path, params={"after": found["seq"]}).json()["changes"]
    assert (gone["kind"], gone["judgment"]) == ("retract", found["changes"][0]["judgment"])
    assert trainer.post("/projects/answers/budget", {"wanted": 4, "by_step": 9}).status_code == 204
    assert trainer.get("/projects/answers").json()["counts"]["items"] == 9


def test_a_laptop_goes_from_code_to_label_in_four_requests(
    site: Any, visit: Callable[[], TestClient]
) -> None:
    browser = visit()
    assert browser.get("/start").status_code == 200
    entered = browser.post(f"{API}/auth/start", json={"code": site.codes.current}).json()
    assert entered["next"] == "/p/answers/label"
    page = browser.get(entered["next"])
    assert page.status_code == 200
    assert entered["csrf"] in page.text
    me = Person(browser, csrf=entered["csrf"])
    assert me.judge(me.claim()[0]["lease"], "first").status_code == 201


def test_the_api_describes_itself(visit: Callable[[], TestClient]) -> None:
    found = visit().get(f"{API}/openapi.json").json()
    assert f"{API}/leases/{{lease}}/judgment" in found["paths"]
    assert "/p/{project}/label" not in found["paths"]
