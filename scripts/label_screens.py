"""Write screenshots of every page that people label on: 320 and 1366 px, light and dark.

    python scripts/label_screens.py OUT
    python scripts/label_screens.py --walk docs/images

Needs Chromium, its driver, and selenium.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

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


def shoot_walk(out: Path) -> list[Path]:
    """Write the three pictures of docs/label.md."""
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
    return written


def main() -> None:
    """Read the command line and write the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--walk", action="store_true", help="only the pictures of docs/label.md")
    told = parser.parse_args()
    for path in (shoot_walk if told.walk else shoot_all)(told.out):
        print(path)


if __name__ == "__main__":
    main()
