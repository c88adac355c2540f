"""axe finds nothing serious on any page, light or dark, wide or narrow; the checks can fail."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.web.axe import broken_rules, why_no_axe
from tests.web.chromium import Browser, Served, press, why_not
from tests.web.kinds import NAMES, rows_of, serve

_MISSING = why_not() or why_no_axe()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(_MISSING is not None, reason=_MISSING or ""),
]
SIZES = {"wide": (1366, 768), "narrow": (320, 720)}
LONG = (
    "A `word` and\n\n```\n" + "code " * 60 + "\n```\n\n| a | b |\n|-|-|\n| 1 | [x](http://y.org) |"
)


@pytest.fixture(scope="module", params=SIZES)
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with Browser(*SIZES[request.param]) as opened:
        yield opened


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    turns = [
        {"role": role, "content": f"{role} says {LONG}"}
        for role in ("system", "user", "assistant", "user")
    ]
    rows = [{"prompt": turns, "completions": [LONG, f"# Head {n}\n\n> quoted"]} for n in range(3)]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "guide.md").write_text("# Guide\n\nBe fair.\n")
    with Served(tmp_path, "asked.jsonl", "--guideline", "guide.md") as running:
        yield running


def both(browser: Browser) -> list[str]:
    """What is wrong in light, and in dark."""
    found = []
    for dark in (False, True):
        browser.set_scheme(dark=dark)
        time.sleep(0.3)  # colours change over a moment
        found += [f"{'dark' if dark else 'light'}: {rule}" for rule in broken_rules(browser)]
    return found


def test_axe_finds_nothing_serious(served: Served, browser: Browser) -> None:
    for page in ("login", "invite"):
        browser.driver.get(f"{served.base}/{page}")
        assert both(browser) == [], page
    browser.open(served)
    assert both(browser) == []
    for keys in (["m"], ["m", "r", "1"], ["f", "2", "f"], ["Escape", "n"]):
        press(browser, *keys)
        assert both(browser) == [], keys
    press(browser, "Escape", "?")
    assert browser.shown("#help")
    assert both(browser) == []
    press(browser, "Escape", "g")
    assert browser.shown("#guide")
    assert both(browser) == []
    press(browser, "Escape", "z")
    browser.driver.get(served.base)
    assert both(browser) == []


KEYS = {
    "rating": (["3"], ["n"], ["Escape", "f", "1", "f"]),
    "ranking": (["2", "0"], ["1", "="], ["f", "2"]),
    "demonstration": (["w", "My words", "Escape"], ["r", "1"]),
    "edit": (["w", " More", "Escape"], ["f", "1"]),
    "spans": (["Down", "1", "Right", "2"], ["c", "odd", "Escape"], ["]"]),
}


@pytest.mark.parametrize("kind", NAMES)
def test_axe_finds_nothing_serious_in_any_kind_of_work(
    browser: Browser, tmp_path: Path, kind: str
) -> None:
    more = ("--attributes", "help:0:4,share:0:100,style") if kind == "rating" else ()
    with serve(tmp_path, kind, rows_of(kind, 2, LONG), *more) as served:
        browser.open(served)
        assert both(browser) == []
        for keys in KEYS[kind]:
            press(browser, *keys)
            assert both(browser) == [], keys
            assert outside(browser) == [], keys
        press(browser, "Escape", "?")
        assert browser.shown("#help")
        assert both(browser) == []
        assert outside(browser) == []


def outside(browser: Browser) -> list[str]:
    """Buttons and fields that reach over the edge of the screen."""
    found: list[str] = browser.js(
        "return [...document.querySelectorAll('button, textarea, input')]"
        ".filter(b => b.checkVisibility()).filter(b => { const r = b.getBoundingClientRect();"
        "return r.left < 0 || r.right > innerWidth; }).map(b => b.outerHTML.slice(0, 120))"
    )
    wide = browser.js("return document.documentElement.scrollWidth - innerWidth")
    return [*found, *(["the page scrolls sideways"] if wide > 0 else [])]


def test_axe_is_heard_when_something_is_wrong(served: Served, browser: Browser) -> None:
    browser.driver.get(f"{served.base}/login")
    browser.js(
        "const b = document.createElement('button'); b.style.color = '#ddd';"
        "b.style.background = '#fff'; document.querySelector('main').append(b);"
        "const p = document.createElement('p'); p.textContent = 'pale'; p.style.color = '#ddd';"
        "p.style.background = '#fff'; document.querySelector('main').append(p);"
    )
    rules = [found.partition(":")[0] for found in broken_rules(browser)]
    assert {"button-name", "color-contrast"} <= set(rules)
