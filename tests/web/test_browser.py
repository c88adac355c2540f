"""The page in a real Chromium, by keys alone: answers, undo, reload, lost connection, two tabs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.web.chromium import Browser, Served, press, why_not

from heed.data.store import open_store
from heed.data.store.views import Judgment
from heed.records import Prompt

_MISSING = why_not()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(_MISSING is not None, reason=_MISSING or ""),
]
NUM_ITEMS = 9


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    rows = [
        {"prompt": f"Question {n}?", "completions": [f"good {n}", f"poor {n}"]}
        for n in range(NUM_ITEMS)
    ]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Served(tmp_path, "asked.jsonl") as running:
        yield running


@pytest.fixture
def page(served: Served, browser: Browser) -> Iterator[Browser]:
    browser.open(served)
    browser.driver.get_log("browser")
    yield browser
    served.stop()
    # Whatever the page tries once the server is away is none of the next test's affair.
    browser.driver.get("about:blank")


def answers(served: Served) -> list[Judgment]:
    """What the store has, the newest first; also what was withdrawn."""
    with open_store(served.folder / "asked.labels.db") as store:
        owner = next(iter(store.people.all()))
        return store.answers.history("asked", owner.id)


def standing(served: Served) -> list[Judgment]:
    return [said for said in answers(served) if said.state == "standing"]


def seen(page: Browser) -> list[str]:
    """Texts on the screen, from left to right."""
    return [page.text(f"#text-{side}") for side in (0, 1)]


def saved(page: Browser) -> None:
    """Wait until the server has everything."""
    page.wait(lambda: page.js("return !Object.keys(localStorage).some(k => k.endsWith('outbox'))"))


def chosen_text(served: Served, said: Judgment) -> str:
    with open_store(served.folder / "asked.labels.db") as store:
        payload = store.items.payloads("asked", [said.item])[said.item]
    assert said.side is not None
    return str(payload.candidates[said.side].text)


def test_every_answer_has_a_key_and_names_what_was_on_the_screen(
    page: Browser, served: Served
) -> None:
    wanted: list[tuple[str, str | None, int | None]] = []
    for keys, outcome, side, level in (
        (["1"], "prefer", 0, 3),
        (["7"], "prefer", 1, 3),
        (["Left"], "prefer", 0, 2),
        (["Right"], "prefer", 1, 2),
        (["Down"], "tie", None, None),
        (["b"], "both_bad", None, None),
        (["u"], "cannot_judge", None, None),
        (["x"], "invalid", None, None),
    ):
        texts = seen(page)
        wanted.append((outcome, None if side is None else texts[side], level))
        press(page, *keys)
        page.next_item()
    press(page, "r", "1", "r", "f", "2", "f", "f", "n", "because", "Escape")
    left = seen(page)[0]
    wanted.append(("prefer", left, 1))
    press(page, "3")
    page.wait(lambda: page.text("#rest-title") == "All done")
    saved(page)
    said = standing(served)[::-1]
    found = [
        (one.outcome, None if one.side is None else chosen_text(served, one), one.level)
        for one in said
    ]
    assert found == wanted
    last: dict[str, Any] = said[-1].answer
    assert (last["note"], last["reasons"]) == ("because", ["correctness"])
    (flag,) = last["flags"]
    assert flag["code"] == "factual_error"
    errors = [e for e in page.driver.get_log("browser") if e["level"] == "SEVERE"]
    assert errors == []


def test_what_a_trainer_asks_later_comes_without_a_reload(page: Browser, served: Served) -> None:
    for left in reversed(range(NUM_ITEMS)):
        press(page, "4")
        if left:
            page.next_item()
    page.wait(lambda: page.text("#rest-title") == "All done")
    with open_store(served.folder / "asked.labels.db") as store:
        more = {"prompt": Prompt.make("One more?").model_dump(mode="json"),
                "candidates": [{"text": "good more"}, {"text": "poor more"}]}  # fmt: skip
        store.items.add("asked", [{"payload": more}], actor="trainer")
    page.wait(lambda: page.shown("#work"))
    assert all("more" in text for text in seen(page))


def test_undo_brings_the_item_back_and_the_second_thought_counts(
    page: Browser, served: Served
) -> None:
    first = seen(page)
    press(page, "2")
    page.next_item()
    second = seen(page)
    press(page, "6")
    page.next_item()
    saved(page)
    press(page, "z")
    page.wait(lambda: seen(page) == second)
    assert page.js("return document.querySelectorAll('.before').length") == 1
    page.next_item()
    press(page, "z")
    page.wait(lambda: seen(page) == first)
    page.next_item()
    press(page, "7")
    page.next_item()
    assert seen(page) == second
    saved(page)
    (only,) = standing(served)
    assert (chosen_text(served, only), only.level) == (first[1], 3)
    assert len(answers(served)) == 3


def test_help_opens_and_closes_by_key_and_no_key_answers_meanwhile(
    page: Browser, served: Served
) -> None:
    press(page, "?")
    page.wait(lambda: page.shown("#help"))
    press(page, "1", "b")
    press(page, "Escape")
    page.wait(lambda: not page.shown("#help"))
    assert page.done() == 0
    press(page, "?", "Tab", " ", "Escape", "1")  # single keys switched off
    assert page.done() == 0
    assert standing(served) == []
    page.js("document.getElementById('open-help').focus()")  # `?` is a single key too
    press(page, "Enter", "Tab", " ", "Escape", "1")
    page.wait(lambda: page.done() == 1)


def test_a_key_held_down_answers_once(page: Browser, served: Served) -> None:
    held = {"type": "keyDown", "key": "1", "code": "Digit1", "text": "1"}
    for repeat in (False, True, True, True):
        held["autoRepeat"] = repeat
        page.driver.execute_cdp_cmd("Input.dispatchKeyEvent", held)
        time.sleep(0.4)
    page.driver.execute_cdp_cmd(
        "Input.dispatchKeyEvent", {"type": "keyUp", "key": "1", "code": "Digit1"}
    )
    page.next_item()
    saved(page)
    assert (page.done(), len(standing(served))) == (1, 1)


@pytest.mark.slow
def test_twenty_answers_can_be_taken_back(browser: Browser, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "completions": [f"a{n}", f"b{n}"]} for n in range(22)]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Served(tmp_path, "asked.jsonl") as served:
        browser.open(served)
        shown = []
        for _ in range(21):
            shown.append(seen(browser))
            press(browser, "1")
            browser.next_item()
        saved(browser)
        for texts in shown[:0:-1]:
            press(browser, "z")
            browser.wait(lambda texts=texts: seen(browser) == texts)
            browser.next_item()
        assert len(standing(served)) == 1
        press(browser, "z")
        browser.wait(lambda: "left to undo" in browser.text("#spoken"))
        browser.driver.get("about:blank")


def test_a_draft_survives_a_reload(page: Browser, served: Served) -> None:
    texts = seen(page)
    press(page, "r", "2", "r", "n", "half a thought", "Escape")
    page.driver.refresh()  # before the server has heard of it
    page.wait_ready()
    assert seen(page) == texts
    assert page.js("return document.getElementById('note').value") == "half a thought"
    press(page, "r")
    pressed = "[data-reason][aria-pressed=true]"
    assert page.text(pressed).split("\n")[-1].endswith("follows instruction")
    press(page, "r", "1")
    page.next_item()
    saved(page)
    (said,) = standing(served)
    assert said.answer["note"] == "half a thought"
    assert seen(page) != texts


def test_answers_wait_in_the_browser_while_the_server_is_away(
    page: Browser, served: Served
) -> None:
    served.stop(kill=True)
    for key in ("1", "7", "b"):
        press(page, key)
        page.next_item()
    page.wait(lambda: page.text("#saved") == "offline, 3 kept here")
    assert page.done() == 3
    served.start()
    page.wait(lambda: len(standing(served)) == 3)
    saved(page)
    page.wait(lambda: "offline" not in page.text("#saved"))
    assert [said.outcome for said in standing(served)] == ["both_bad", "prefer", "prefer"]
    page.driver.refresh()
    page.wait_ready()
    assert page.text("#count") == f"3 of {NUM_ITEMS}"


def test_two_tabs_give_one_answer_each_item(page: Browser, served: Served) -> None:
    driver = page.driver
    one = driver.current_window_handle
    driver.switch_to.new_window("tab")
    try:
        driver.get(f"{served.base}/p/asked/label")
        page.wait_ready()
        texts = seen(page)
        driver.switch_to.window(one)
        assert seen(page) == texts
        press(page, "1")
        page.next_item()
        saved(page)
        driver.switch_to.window(driver.window_handles[-1])
        page.wait(lambda: seen(page) != texts)
        page.next_item()
        press(page, "7")
        page.next_item()
        saved(page)
        assert page.done() == 2
    finally:
        driver.close()
        driver.switch_to.window(one)
    page.wait(lambda: page.shown("#work"))
    assert len({said.item for said in standing(served)}) == len(answers(served)) == 2
    assert all(str(n) not in seen(page)[0] for n in _numbers(served))


def _numbers(served: Served) -> list[str]:
    return [chosen_text(served, said).split()[1] for said in standing(served)]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_narrow_screen_shows_everything(served: Served, dark: bool) -> None:
    with Browser(320, 720, dark=dark) as narrow:
        narrow.open(served)
        wide = narrow.js("return document.documentElement.scrollWidth")
        assert wide <= 320
        hidden = narrow.js(
            "return [...document.querySelectorAll('.choice, .other, .extra, .top button')]"
            ".filter(b => b.checkVisibility()).map(b => b.getBoundingClientRect())"
            ".filter(r => r.left < 0 || r.right > innerWidth).length"
        )
        assert hidden == 0
        back = narrow.js("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, back[4:-1].split(","))) < 120) is dark
        assert _requests(narrow) <= {served.base}


def _requests(browser: Browser) -> set[str]:
    """Origins that the page asked anything of."""
    found = set()
    for entry in browser.driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if url.startswith("http"):
                found.add("/".join(url.split("/")[:3]))
    return found
