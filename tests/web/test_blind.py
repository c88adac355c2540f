"""What annotators must not learn, and what strangers' texts must not do: canaries and payloads."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.web.conftest import API, Person

from heed.data.store import Store
from heed.records import Message, Prompt
from heed.web.showing import CLASSES, TAGS, as_markdown, as_written
from heed.web.site import Site

FORBIDDEN_KEYS = {
    "source", "model", "policy", "policy_step", "gold", "role_of_item", "p_select", "acquirer",
    "origin", "surplus", "counted", "n_valid", "n_live", "need", "priority", "meta", "seq",
    "person", "shown",
}  # fmt: skip

PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt&colon;alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "![x](https://evil.example/pixel.png)",
    "![x](x\"onerror=\"alert(1))",
    "<https://evil.example>",
    "[a]: javascript:alert(1)\n[a]",
    "<div hx-get='https://evil.example' hx-trigger=load>",
    "<style>@import 'https://evil.example/x.css';</style>",
    "<base href='https://evil.example/'><form action=x><input name=y>",
    "<details open ontoggle=alert(1)>",
    "`</code><script>alert(1)</script>`",
    "```html\n</pre></code><script>alert(1)</script>\n```",
    "| <script>alert(1)</script> | b |\n|---|---|\n| <img src=x onerror=alert(1)> | c |",
    "</script><script>alert(1)</script>",
    "\"><script>alert(1)</script>",
    "'; alert(1); //",
    "{{7*7}}${7*7}",
    "\ue000003C\ue001script\ue000003E\ue001",
    "\u202egnp.exe\u2066\u200b\ufeff\u0000",
]  # fmt: skip


class Seen(HTMLParser):
    """The tags and attributes that a browser would make of some HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize("show", [as_markdown, as_written])
@pytest.mark.parametrize("text", PAYLOADS)
def test_no_payload_becomes_more_than_words(show: Callable[[str], str], text: str) -> None:
    seen = Seen(show(text))
    for tag, attributes in seen.tags:
        assert tag in TAGS
        assert set(attributes) <= {"class", "title", "start"}
        if "title" in attributes:
            assert attributes["class"] == "sign"
        elif "class" in attributes:
            assert attributes["class"] in CLASSES["span"]


@pytest.mark.parametrize("code", [0x0, 0x7F, 0xAD, 0x200B, 0x202A, 0x202E, 0x2066, 0x2069, 0x2060,
                                  0xFEFF, 0x3164, 0xE0041, 0xE000, 0x1B])  # fmt: skip
def test_hidden_signs_are_seen(code: int) -> None:
    for show in (as_markdown, as_written):
        html = show(f"a{chr(code)}b")
        assert f"U+{code:04X}" in Seen(html).words
        assert chr(code) not in html


def test_signs_that_scripts_need_stay() -> None:
    family, persian = "👨‍👩‍👧", "می‌خواهم"
    assert as_written(family) == family
    assert as_written(persian) == persian
    assert "U+200D" in as_written("pass\u200dword")


def test_images_and_links_become_words() -> None:
    seen = Seen(as_markdown("![a loaf](https://x.example/l.png) [shop](https://x.example)"))
    assert "image not shown: a loaf, https://x.example/l.png" in seen.words
    assert "shop (https://x.example)" in seen.words
    assert not {"img", "a"} & {tag for tag, _ in seen.tags}


def test_the_raw_view_has_every_character() -> None:
    text = '# a\n\n  **b** <c> & "d" \t e\n\n\n'
    assert Seen(as_written(text)).words == text


def hidden_pair(number: int, text: str = "") -> dict[str, Any]:
    """An item with a canary in everything that annotators must not see."""
    prompt = Prompt(
        id="CANARY-prompt-id",
        messages=(Message(role="user", text=f"Question {number}? {text}"),),
        meta={"gold": "CANARY-meta", "reward": 0.4242},
    )
    return {
        "key": f"CANARY-key-{number}",
        "origin": "CANARY-origin",
        "acquirer": "CANARY-acquirer",
        "policy_step": 424242,
        "p_select": 0.4243,
        "payload": {
            "prompt": prompt.model_dump(mode="json"),
            "candidates": [
                {"text": f"one {text}", "source": {"model": "CANARY-model-a", "reward": 0.4244}},
                {"text": f"two {text}", "source": {"model": "CANARY-model-b"}},
            ],
            "extra": {"instruction": f"Be fair. {text}", "note": "CANARY-extra"},
        },
    }


def keys_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for one in value.values() for key in keys_of(one)}
    if isinstance(value, list):
        return {key for one in value for key in keys_of(one)}
    return set()


def test_nothing_that_an_annotator_gets_tells_which_is_which(
    person: Callable[..., Person], store: Store
) -> None:
    store.projects.make("blind", {"kind": "pair", "need": 3, "gold_frac": 0.5,
                                  "first_gold_within": 2})  # fmt: skip
    gold = {"answer": {"outcome": "prefer", "side": 0, "level": 1}, "explanation": "CANARY-gold"}
    items = [hidden_pair(number) for number in range(12)]  # enough for all, whatever gold is drawn
    items += [{**hidden_pair(number), "role": "gold", "gold": gold} for number in range(90, 94)]
    assert {a.status for a in store.items.add("blind", items, actor="system")} == {"new"}
    ann, ben = person("ann"), person("ben")
    for one in (ann, ben):
        store.people.join("blind", one.id)
    for number in range(4):
        lease = ben.claim(project="blind")[0]["lease"]
        body = {"outcome": "prefer", "side": 0, "level": 1, "note": "CANARY-bens-note"}
        assert ben.judge(lease, f"CANARY-ben-{number}", **body).status_code == 201
    got = [ann.client.get(path) for path in ("/", "/p/blind/label")]
    for number in range(8):
        answer = ann.post("/projects/blind/leases", {"count": 2})
        got.append(answer)
        lease = answer.json()["work"][0]["lease"]
        got.append(ann.call("PUT", f"/leases/{lease}/draft", {"note": "mine"}))
        got.append(ann.post(f"/leases/{lease}/heartbeat"))
        got.append(ann.judge(lease, f"ann-{number}"))
        if number == 3:
            got.append(ann.post("/projects/blind/undo"))
            got.append(ann.judge(got[-1].json()["work"]["lease"], "again", outcome="tie"))
    got += [ann.get(f"/projects/blind/{name}") for name in ("me", "history", "guideline")]
    got += [ann.get("/auth/me"), ann.get("/projects/blind"), ann.get("/projects/blind/changes")]
    got.append(ann.judge("l-none", "x"))
    assert sum(answer.status_code < 300 for answer in got) > 30
    for answer in got:
        said = answer.text + json.dumps(dict(answer.headers)) + str(answer.request.url)
        for word in ("CANARY", "0.4242", "0.4243", "0.4244", "424242", ben.id):
            assert word not in said, f"{answer.request.url} says {word}"
        if answer.headers["content-type"] == "application/json" and "/auth/me" not in said:
            assert not keys_of(answer.json()) & FORBIDDEN_KEYS, answer.request.url


def test_sides_are_fixed_for_a_person_and_differ_between_people(
    person: Callable[..., Person], store: Store
) -> None:
    store.projects.make("sides", {"kind": "pair", "need": 20, "gold_frac": 0, "repeat_frac": 0})
    store.items.add("sides", [hidden_pair(0)], actor="system")
    first = set()
    for number in range(12):
        one = person(f"p{number}")
        store.people.join("sides", one.id)
        seen = {one.claim(project="sides")[0]["candidates"][0]["raw"] for _ in range(2)}
        assert len(seen) == 1
        first |= seen
    assert len(first) == 2


def test_stored_payloads_are_shown_and_do_nothing(ann: Person, store: Store, site: Site) -> None:
    store.projects.make("attack", {"kind": "pair", "title": "<script>t</script>"})
    store.people.join("attack", ann.id)
    items = [hidden_pair(number, text) for number, text in enumerate(PAYLOADS)]
    for number, item in enumerate(items):
        item["payload"]["prompt"]["id"] = f"p{number}"
    added = store.items.add("attack", items, actor="system")
    assert {one.status for one in added} <= {"new", "refused"}
    page = ann.client.get("/p/attack/label").text
    assert "<script>t" not in page
    for number, text in enumerate(PAYLOADS):
        found = ann.claim(project="attack")
        if not found:
            break
        work = found[0]
        shown = [*work["turns"], *work["candidates"], work["instruction"]]
        for view in ("html", "raw"):
            for one in shown:
                assert {tag for tag, _ in Seen(one[view]).tags} <= TAGS
        note = {"outcome": "tie", "note": text.replace("\0", "")}
        assert ann.judge(work["lease"], f"x{number}", **note).status_code == 201
    for answer in (ann.client.get("/"), ann.client.get("/p/attack/label")):
        scripts = [a for tag, a in Seen(answer.text).tags if tag == "script"]
        assert all(a.get("src", "").startswith("/static/") or a.get("type") == "application/json"
                   for a in scripts)  # fmt: skip


def test_names_and_errors_are_escaped(site: Site, visit: Callable[[], TestClient]) -> None:
    people = site.store.people
    who = people.add("<img src=x onerror=alert(1)>")
    people.join("answers", who.id)
    session = people.access.open_session(who.id)
    client = visit()
    client.cookies.set(site.cookie, session.secret)
    home = client.get("/").text
    assert "<img" not in home
    assert "&lt;img" in home
    missing = client.get("/p/<script>alert(1)<script>/label")
    assert (missing.status_code, "<script>alert" in missing.text) == (404, False)
    bad = client.post(f"{API}/auth/start", json={"code": "<script>", "<script>": 1})
    assert bad.headers["content-type"] == "application/problem+json"
