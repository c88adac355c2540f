"""Each kind of work in a real Chromium, by keys alone: from a file to an export, nothing lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.web.chromium import Browser, Served, press, why_not
from tests.web.kinds import (
    NAMES,
    answers_in,
    rows_of,
    saved,
    serve,
    texts_of,
)

from heed.cli import main as heed_main

_MISSING = why_not()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(_MISSING is not None, reason=_MISSING or ""),
]
WORDS = {"rating": ("--attributes", "help:0:4,style")}
ALERTS = "<img src=x onerror=alert(1)><script>alert(2)</script> **bold** [x](javascript:alert(3))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module", params=NAMES)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def served(
    kind: str, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One server for all tests of a kind; each goes on with the next items."""
    rows = rows_of(kind, 40)
    with serve(tmp_path_factory.mktemp(kind), kind, rows, *WORDS.get(kind, ())) as running:
        browser.open(running)
        yield running
    browser.driver.get("about:blank")


@pytest.fixture
def page(served: Served, kind: str, browser: Browser) -> Iterator[Browser]:
    browser.driver.get_log("browser")
    browser.driver.get(f"{served.base}/p/{kind}/label")
    browser.wait_ready()
    yield browser
    errors = [e for e in browser.driver.get_log("browser") if e["level"] == "SEVERE"]
    # A server that is away is said by the browser, and is what some tests are about.
    assert [e for e in errors if "ERR_CONNECTION" not in e["message"]] == []


@pytest.fixture
def before(served: Served, kind: str) -> int:
    """How many answers there were before a test."""
    return len(answers_in(served, kind))


HALF = {
    "rating": (["3", "6"], "[data-cell='1'] .step[aria-pressed=true]"),
    "ranking": (["2", "0"], "#pane-1 .step[aria-pressed=true]"),
    "demonstration": (["w", "Half a thought", "Escape"], "#reply"),
    "edit": (["w", " Half a thought", "Escape"], "#reply"),
    "spans": (["Down", "1", "c", "Half a thought", "Escape"], "#comment-0"),
}
"""Keys of half an answer, and what shows that it is there."""
REST = {
    "rating": ["2", "Enter"], "ranking": ["1", "=", "Enter"], "demonstration": ["Enter"],
    "edit": ["Enter"], "spans": ["Enter"],
}  # fmt: skip
"""Keys that complete it."""


def value(page: Browser, selector: str) -> str:
    code = "const e = document.querySelector(arguments[0]); return e && (e.value || e.innerText)"
    return str(page.js(code, selector))


def complete(page: Browser, kind: str) -> None:
    press(page, *HALF[kind][0])
    if kind == "rating":
        press(page, "4", "1")
        press(page, "Enter")
    else:
        press(page, *REST[kind])


def shown(page: Browser) -> str:
    return page.text("#turns")


def exported(served: Served, kind: str, layout: str, about: str) -> list[dict[str, Any]]:
    """What `heed label export` writes of one question."""
    out = served.folder / f"out-{layout}"
    store = str(served.folder / f"{kind}.labels.db")
    words = ["label", "export", store, str(out), "--to", layout, "--held_out_frac", "0"]
    assert heed_main(words) == 0
    found = sorted(out.rglob("*.jsonl"))
    lines = [line for path in found for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines if about in line]


def test_keys_alone_answer_and_the_answer_is_what_was_on_the_screen(
    page: Browser, served: Served, kind: str, before: int
) -> None:
    first = shown(page)
    question = first.split("\n")[-1]
    screen = [page.text(f"#text-{place}") for place in range(4)
              if page.js(f"return !!document.getElementById('text-{place}')")]  # fmt: skip
    complete(page, kind)
    page.wait(lambda: shown(page) != first)
    page.next_item()
    assert page.done() == before + 1
    for key in ("u", "x", "k"):
        press(page, key)
        page.next_item()
    saved(page)
    said, unable, broken = answers_in(served, kind)[before:]
    assert (unable.outcome, broken.outcome) == ("cannot_judge", "invalid")
    texts, answer = texts_of(served, kind, said), said.answer
    if kind == "rating":
        found = {(texts[m["place"]], m["attribute"]): m["value"] for m in answer["ratings"]}
        assert found == {(screen[0], "help"): 3, (screen[0], "style"): 6,
                         (screen[1], "help"): 4, (screen[1], "style"): 1}  # fmt: skip
        rows = exported(served, kind, "trl_unpaired", question)
        assert {row["completion"]: row["label"] for row in rows} == {
            screen[0]: True, screen[1]: True
        }  # fmt: skip
    elif kind == "ranking":
        order = [{texts[place] for place in bucket} for bucket in answer["buckets"]]
        assert order == [{screen[2], screen[3]}, {screen[0]}]
        assert [texts[place] for place in answer["unranked_bad"]] == [screen[1]]
        (row,) = exported(served, kind, "ranking", question)
        ranks = {one["completion"]: one["rank"] for one in row["completions"]}
        assert ranks == {screen[2]: 1, screen[3]: 1, screen[0]: 2, screen[1]: 3}
        assert len(exported(served, kind, "trl_preference", question)) == 5
    elif kind == "demonstration":
        (row,) = exported(served, kind, "sft", question)
        assert (row["prompt"] in first, row["completion"]) == (True, "Half a thought")
    elif kind == "edit":
        (row,) = exported(served, kind, "trl_preference", question)
        assert (row["rejected"], row["chosen"]) == (texts[0], f"{texts[0]} Half a thought")
        (row,) = exported(served, kind, "sft", question)
        assert row["completion"] == f"{texts[0]} Half a thought"
    else:
        (span,) = answer["spans"]
        assert (span["quote"], span["comment"]) == ("Some words here.", "Half a thought")
        assert texts[0][span["start"] : span["end"]] == span["quote"]
        *_, row = exported(served, kind, "critiques", "critic")
        assert (row["spans"][0]["start"], row["spans"][0]["end"]) == (0, 16)


def test_undo_brings_back_what_was_said(
    page: Browser, served: Served, kind: str, before: int
) -> None:
    first, there = shown(page), HALF[kind][1]
    complete(page, kind)
    page.next_item()
    saved(page)
    press(page, "z")
    page.wait(lambda: shown(page) == first)
    page.next_item()
    expected = {"rating": "6", "ranking": "Bad"}.get(kind, "Half a thought")
    assert value(page, there).endswith(expected)
    press(page, "Enter")
    page.next_item()
    saved(page)
    assert len(answers_in(served, kind)) == before + 1
    # What an answer leaves out comes back too.
    second = shown(page)
    press(page, *HALF[kind][0], "u")
    page.next_item()
    saved(page)
    press(page, "z")
    page.wait(lambda: shown(page) == second)
    assert value(page, there).endswith(expected)


def test_half_an_answer_survives_a_reload_and_sends_nothing(
    page: Browser, served: Served, kind: str, before: int
) -> None:
    first, (keys, there) = shown(page), HALF[kind]
    press(page, *keys)
    page.driver.refresh()  # before the server has heard of it
    page.wait_ready()
    assert shown(page) == first
    expected = {"rating": "6", "ranking": "Bad"}.get(kind, "Half a thought")
    assert value(page, there).endswith(expected)
    assert len(answers_in(served, kind)) == before
    press(page, "k")
    page.next_item()


def test_unfinished_answers_are_not_sent_and_the_page_says_why(
    page: Browser, served: Served, kind: str, before: int
) -> None:
    first = shown(page)
    if kind in ("rating", "ranking"):
        press(page, *HALF[kind][0])
    press(page, "Enter")
    page.wait(lambda: page.text("#spoken") not in ("", "Draft saved."))
    assert (page.done(), shown(page)) == (before, first)
    if kind == "edit":
        press(page, "y")
        page.next_item()
        saved(page)
        assert [said.outcome for said in answers_in(served, kind)[before:]] == ["unchanged"]
    if kind == "spans":
        press(page, "0")
        page.next_item()
        saved(page)
        (said,) = answers_in(served, kind)[before:]
        assert (said.outcome, said.answer["spans"]) == ("marked", [])
    press(page, "?")
    page.wait(lambda: page.shown("#help"))
    press(page, "1", "u", "Escape")
    assert len(answers_in(served, kind)) == page.done() == before + int(kind in ("edit", "spans"))


def test_answers_wait_while_the_server_is_away(
    page: Browser, served: Served, kind: str, before: int
) -> None:
    served.stop(kill=True)
    complete(page, kind)
    page.next_item()
    press(page, "u")
    page.next_item()
    page.wait(lambda: page.text("#saved") == "offline, 2 kept here")
    served.start()
    page.wait(lambda: len(answers_in(served, kind)) == before + 2)
    saved(page)
    assert answers_in(served, kind)[-1].outcome == "cannot_judge"


@pytest.mark.parametrize(
    "kind",
    ["edit", "spans", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[:3])],
)
def test_texts_of_strangers_do_nothing(browser: Browser, tmp_path: Path, kind: str) -> None:
    with serve(tmp_path, kind, rows_of(kind, 2, ALERTS), *WORDS.get(kind, ())) as served:
        browser.open(served)
        complete(browser, kind)
        browser.next_item()
        found = "return document.querySelectorAll('#work img, #work script, #work a').length"
        assert browser.js(found) == 0
        saved(browser)
        assert len(answers_in(served, kind)) == 1
        press(browser, "z")
        browser.next_item()
        assert browser.js(found) == 0
        browser.driver.get("about:blank")  # an open dialog would stand in the way of this
