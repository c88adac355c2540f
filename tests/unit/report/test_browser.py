"""The page in a real browser: nothing is fetched, nothing overflows, and the slider works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, find


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    binary = find()
    if binary is None:
        pytest.skip("no Chromium is installed; install the package chromium to run this")
    with Browser(binary) as opened:
        yield opened


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_no_horizontal_scroll_and_no_request(
    browser: Browser, pipeline: Path, width: int, dark: bool
) -> None:
    page = pipeline / "report.html"
    browser.open(page, width, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    outside = [url for url in browser.requested() if url.split("#")[0] != page.resolve().as_uri()]
    assert [url for url in outside if not url.startswith("data:")] == []
    assert browser.complaints() == []
    wide = (
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('svg, .scroll, pre, "
        f".unseen, thead') && e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML)"
    )
    assert browser.evaluate(wide) == []


def test_text_contrasts_in_light_and_dark(browser: Browser, pipeline: Path) -> None:
    ratio = """
      (() => {
        const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(v => {
          v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
          return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const behind = e => { for (; e; e = e.parentElement) {
          const c = getComputedStyle(e).backgroundColor;
          if (!c.startsWith('rgba(0, 0, 0, 0')) return c; } };
        return Math.min(...[...document.querySelectorAll('p, dt, dd, td, th, a, li, strong, text')]
          .filter(e => e.textContent.trim()).map(e => {
            const style = getComputedStyle(e);
            const a = light(e.tagName == 'text' ? style.fill : style.color);
            const b = light(behind(e));
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }));
      })()
    """
    for dark in (False, True):
        browser.open(pipeline / "report.html", 1280, dark=dark)
        assert browser.evaluate(ratio) >= 4.5


def test_samples_read_without_scripts_and_slide_with_them(browser: Browser, pipeline: Path) -> None:
    shown = (
        "[...document.querySelector('.samples article').querySelectorAll('tbody tr')]"
        ".filter(r => r.offsetParent).map(r => r.dataset.step)"
    )
    browser.open(pipeline / "report.html", 1280)
    assert browser.evaluate(shown) == ["0", "32", "64", "96"]
    browser.evaluate(
        "r = document.querySelector('.slider input'); r.value = 1; "
        "r.dispatchEvent(new Event('input'))"
    )
    assert browser.evaluate(shown) == ["0", "16"]
    assert browser.evaluate("document.querySelector('.slider output').textContent") == "16"
    browser.evaluate("document.querySelector('.slider button').click()")
    assert browser.evaluate(shown) == ["0", "32", "64", "96"]
    assert browser.evaluate("getComputedStyle(document.querySelector('.slider')).display") == "flex"
    text = (pipeline / "report.html").read_text(encoding="utf-8")
    still = pipeline / "still.html"
    still.write_text(text.replace("<script>", '<script type="off">'), encoding="utf-8")
    browser.open(still, 1280)
    assert browser.evaluate(shown) == ["0", "32", "64", "96"]
    assert browser.evaluate("getComputedStyle(document.querySelector('.slider')).display") == "none"


def test_text_is_legible_on_a_phone(browser: Browser, pipeline: Path) -> None:
    smallest = """
      Math.min(...[...document.querySelectorAll('svg.chart')].filter(s => s.checkVisibility())
        .map(s => 12 * s.getBoundingClientRect().width / s.viewBox.baseVal.width))
    """
    browser.open(pipeline / "report.html", 360)
    assert browser.evaluate(smallest) >= 10
