"""Write screenshots of every page that people label on: 320 and 1366 px, light and dark.

    python scripts/label_screens.py OUT
    python scripts/label_screens.py --kinds OUT
    python scripts/label_screens.py --walk docs/images

Needs Chromium, its driver, and selenium.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.web.chromium import Browser, Served, press

QUESTIONS = Path(__file__).with_name("label_screens.json")
SIZES = {"320": (320, 720), "1366": (1366, 768)}


def shoot_all(out: Path) -> list[Path]:
    """Write every page at every size, light and dark; returns the files."""
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    rows = json.loads(QUESTIONS.read_text(encoding="utf-8"))
    for size, (width, height) in SIZES.items():
        for dark in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder)
                lines = [json.dumps(row) for row in rows]
                (place / "kitchen.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
                (place / "guide.md").write_text("Choose the answer that you would rather get.\n")
                with (
                    Served(place, "kitchen.jsonl", "--title", "Kitchen and code",
                           "--guideline", "guide.md") as served,
                    Browser(width, height, dark=dark) as browser,
                ):  # fmt: skip
                    name = f"{size}-{'dark' if dark else 'light'}"
                    written += shoot(served, browser, out, name, len(rows))
    return written


def shoot(served: Served, browser: Browser, out: Path, name: str, count: int) -> list[Path]:
    """Walk through the pages of one server."""
    written = []

    def keep(page: str) -> None:
        path = out / f"{page}-{name}.png"
        browser.driver.save_screenshot(str(path))
        written.append(path)

    browser.driver.get(f"{served.base}/login")
    keep("login")
    browser.driver.get(f"{served.base}/invite")
    keep("invite")
    browser.open(served)
    keep("compare")
    press(browser, "m")
    keep("raw")
    press(browser, "m")
    press(browser, "r", "1", "4")
    keep("reasons")
    press(browser, "f", "2")
    keep("flags")
    press(browser, "Escape", "n")
    keep("note")
    press(browser, "Escape", "?")
    keep("keys")
    press(browser, "Escape", "g")
    keep("guide")
    press(browser, "Escape", "2")
    keep("answered")
    for number in (2, 3, 4):
        browser.next_item()
        press(browser, "6")
        keep(f"item{number}")
    while browser.done() < count:
        browser.next_item()
        press(browser, "4")
    browser.wait(lambda: browser.text("#rest-title") == "All done")
    keep("done")
    browser.driver.get(served.base)
    keep("projects")
    return written


HALF = {
    "rating": (("--attributes", "helpfulness,correctness:0:4,share:0:100"), ("6", "3")),
    "ranking": ((), ("1", "2", "2")),
    "demonstration": ((), ("w", "Proof it for less time, and score it cold.", "Escape")),
    "edit": ((), ("w", " Write down what you change.", "Escape")),
    "spans": ((), ("Down", "1", "c", "Too sure of itself.", "Escape", "Down", "2", "Down")),
}
"""Kind of work -> flags that start it, and keys of half an answer."""


def rows_of(kind: str) -> list[dict[str, Any]]:
    """The questions as rows of a kind of work."""
    rows = json.loads(QUESTIONS.read_text(encoding="utf-8"))
    if kind == "demonstration":
        return [{"prompt": row["prompt"]} for row in rows]
    if kind == "ranking":
        first, second = rows[0]["completions"]
        short = "Bake it longer and hotter, then it cannot collapse."
        more = [[{"role": "assistant", "content": text}] for text in (short, "It just happens.")]
        return [{**rows[0], "completions": [first, second, *more]}]
    if kind == "rating":
        return rows[:1]
    return [{"prompt": row["prompt"], "completion": row["completions"][0]} for row in rows[:1]]


def shoot_kinds(out: Path) -> list[Path]:
    """Write half an answer of each kind of work, and its keys, at every size."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, (flags, keys) in HALF.items():
        for size, (width, height) in SIZES.items():
            for dark in (False, True):
                with (
                    tempfile.TemporaryDirectory() as folder,
                    _serve_kind(Path(folder), kind, flags) as served,
                    Browser(width, height, dark=dark) as browser,
                ):
                    browser.open(served)
                    press(browser, *keys)
                    for page, more in (("", ()), ("-keys", ("?",))):
                        press(browser, *more)
                        time.sleep(2.0)
                        name = f"{kind}{page}-{size}-{'dark' if dark else 'light'}.png"
                        browser.driver.save_screenshot(str(out / name))
                        written.append(out / name)
    return written


def _serve_kind(place: Path, kind: str, flags: Sequence[str]) -> Served:
    lines = [json.dumps(row) for row in rows_of(kind)]
    (place / "kitchen.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Served(place, "kitchen.jsonl", "--kind", kind, "--title", "Kitchen and code", *flags)


def shoot_walk(out: Path) -> list[Path]:
    """Write the pictures of docs/label.md."""
    rows = json.loads(QUESTIONS.read_text(encoding="utf-8"))[:1]
    written = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "kitchen.jsonl").write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
        with Served(place, "kitchen.jsonl") as served, Browser(1100, 700) as browser:
            browser.open(served)
            for name, keys in (("compare", ()), ("keys", ("?",)), ("done", ("Escape", "6"))):
                press(browser, *keys)
                if name == "done":
                    browser.wait(lambda: browser.text("#rest-title") == "All done")
                time.sleep(2.0)
                written.append(out / f"label-{name}.png")
                browser.driver.save_screenshot(str(written[-1]))
        flags, keys = HALF["ranking"]
        (place / "ranked").mkdir()
        with (
            _serve_kind(place / "ranked", "ranking", flags) as served,
            Browser(1100, 700) as browser,
        ):
            browser.open(served)
            press(browser, *keys)
            time.sleep(2.0)
            written.append(out / "label-ranking.png")
            browser.driver.save_screenshot(str(written[-1]))
    return written


def main() -> None:
    """Read the command line and write the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--walk", action="store_true", help="only the pictures of docs/label.md")
    parser.add_argument("--kinds", action="store_true", help="only the other kinds of work")
    told = parser.parse_args()
    write = shoot_walk if told.walk else shoot_kinds if told.kinds else shoot_all
    for path in write(told.out):
        print(path)


if __name__ == "__main__":
    main()
