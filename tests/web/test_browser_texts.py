"""Texts to the letter in a real Chromium: marks, typed values, writing on, two tabs, lost words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.web.chromium import Browser, press, why_not
from tests.web.kinds import answers_in, rows_of, saved, serve

_MISSING = why_not()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(_MISSING is not None, reason=_MISSING or ""),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


def value(page: Browser) -> str:
    """What the field of the reply holds."""
    return str(page.js("return document.getElementById('reply').value"))


ODD = "Über 😀 one\r\ntwo\u200b three\u202e **bold**, end.\rLast line"


def test_marks_count_as_the_stored_text_does(browser: Browser, tmp_path: Path) -> None:
    rows = [{"prompt": "Odd?", "completion": ODD}, {"prompt": "Next?", "completion": "x"}]
    with serve(tmp_path, "spans", rows) as served:
        browser.open(served)
        if browser.text("#turns").endswith("Next?"):
            press(browser, "0")
            browser.next_item()
        wanted = []
        for quote, shift in (("Über", 0), ("😀", 0), ("one\r\ntwo", 1), ("three\u202e", 0)):
            press(browser, "Right")
            for _ in range(shift):
                shifted(browser, "Right")
            wanted.append(quote)
            press(browser, "3")
        # By pointer: what a drag selects, from inside a hidden sign's neighbour to the last line.
        browser.js(
            "const nodes = [], w = document.createTreeWalker(document.getElementById('text-0'), 4);"
            "while (w.nextNode()) nodes.push(w.currentNode);"
            "const last = nodes.at(-1), range = document.createRange();"
            "range.setStart(last, last.data.indexOf('bold')); range.setEnd(last, last.data.length);"
            "getSelection().removeAllRanges(); getSelection().addRange(range);"
        )
        browser.wait(lambda: browser.js("return CSS.highlights.has('chosen')"))
        press(browser, "2")
        wanted.append("bold**, end.\rLast line")
        names = browser.js("return [...CSS.highlights.keys()].sort()")
        assert names == ["chosen", "k1", "k2"]
        press(browser, "Enter")
        saved(browser)
        browser.wait(lambda: any(s.answer["spans"] for s in answers_in(served, "spans")))
        said = next(s for s in answers_in(served, "spans") if s.answer["spans"])
        units = ODD.encode("utf-16-le")
        for span in said.answer["spans"]:
            cut = units[2 * span["start"] : 2 * span["end"]].decode("utf-16-le")
            assert cut == span["quote"]
        assert sorted(span["quote"] for span in said.answer["spans"]) == sorted(wanted)
        browser.driver.get("about:blank")


def shifted(browser: Browser, key: str) -> None:
    """Press an arrow with the shift key held down."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    arrow = {"Right": Keys.ARROW_RIGHT, "Left": Keys.ARROW_LEFT}[key]
    chain = ActionChains(browser.driver).key_down(Keys.SHIFT).send_keys(arrow)
    chain.key_up(Keys.SHIFT).perform()


def from_the_text(browser: Browser) -> None:
    """Press Ctrl and Enter where the focus is."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    chain = ActionChains(browser.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER)
    chain.key_up(Keys.CONTROL).perform()


def test_one_question_of_one_answer_takes_one_key(browser: Browser, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "completion": "x"} for n in range(4)]
    with serve(tmp_path, "rating", rows) as served:
        browser.open(served)
        for key in ("1", "7", "9"):  # 9 is no value of the scale
            press(browser, key)
            browser.next_item()
        saved(browser)
        values = [said.answer["ratings"][0]["value"] for said in answers_in(served, "rating")]
        assert (values, browser.done()) == ([1, 7], 2)
        browser.driver.get("about:blank")


def test_a_wide_scale_is_typed(browser: Browser, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "completion": "x"} for n in range(2)]
    asked = ("--attributes", "share:0:100,worth:-3:3")
    with serve(tmp_path, "rating", rows, *asked) as served:
        browser.open(served)
        press(browser, "4", "2", "Enter")  # the first digit opens the field
        press(browser, "1")  # the first of seven steps
        press(browser, "Enter")
        browser.next_item()
        saved(browser)
        (said,) = answers_in(served, "rating")
        found = {mark["attribute"]: mark["value"] for mark in said.answer["ratings"]}
        assert found == {"share": 42, "worth": -3}
        browser.driver.get("about:blank")


def test_writing_goes_on_from_text_to_text(browser: Browser, tmp_path: Path) -> None:
    with serve(tmp_path, "demonstration", rows_of("demonstration", 3)) as served:
        browser.open(served)
        press(browser, "w", "u and x are letters here")
        from_the_text(browser)
        browser.next_item()
        assert value(browser) == ""
        press(browser, "second")
        from_the_text(browser)
        browser.next_item()
        saved(browser)
        texts = [said.answer["text"] for said in answers_in(served, "demonstration")]
        assert texts == ["u and x are letters here", "second"]
        browser.driver.get("about:blank")


def test_two_tabs_do_not_overwrite_each_other(browser: Browser, tmp_path: Path) -> None:
    driver = browser.driver
    with serve(tmp_path, "edit", rows_of("edit", 1)) as served:
        browser.open(served)
        one = driver.current_window_handle
        driver.switch_to.new_window("tab")
        try:
            driver.get(f"{served.base}/p/edit/label")
            browser.wait_ready()
            press(browser, "w", " from two", "Escape")
            browser.wait(lambda: browser.text("#spoken") == "Draft saved.")
            driver.switch_to.window(one)
            press(browser, "w", " from one", "Escape")
            browser.wait(lambda: value(browser).endswith("from two"))
            assert "another tab" in browser.text("#spoken")
            press(browser, "Enter")
            saved(browser)
            browser.wait(lambda: browser.text("#rest-title") == "All done")
            driver.switch_to.window(driver.window_handles[-1])
            browser.wait(lambda: browser.text("#rest-title") == "All done")
        finally:
            driver.close()
            driver.switch_to.window(one)
        (said,) = answers_in(served, "edit")
        assert said.answer["text"].endswith("from two")
        driver.get("about:blank")


def test_a_lost_word_about_a_draft_loses_no_text(browser: Browser, tmp_path: Path) -> None:
    with serve(tmp_path, "demonstration", rows_of("demonstration", 1)) as served:
        browser.open(served)
        # The server stores the draft, and its answer gets lost on the way.
        browser.js(
            "const real = fetch; let lost = false; window.fetch = async (path, about) => {"
            "const answer = await real(path, about);"
            "if (!lost && about?.method === 'PUT') { lost = true; window.lost = true;"
            " throw new TypeError('lost'); } return answer; };"
        )
        press(browser, "w", "first")
        browser.wait(lambda: browser.js("return window.lost === true"))
        press(browser, " and second")
        browser.wait(lambda: browser.text("#spoken") == "Draft saved.")
        assert value(browser) == "first and second"
        from_the_text(browser)
        browser.wait(lambda: browser.text("#rest-title") == "All done")
        (said,) = answers_in(served, "demonstration")
        assert said.answer["text"] == "first and second"
        browser.driver.get("about:blank")
