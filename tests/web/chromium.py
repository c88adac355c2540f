"""A served page in a process of its own, and a real Chromium that presses its keys."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import heed

SOURCE = str(Path(heed.__file__).parents[1])
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
_CODE = "import sys; from heed.cli import main; sys.exit(main(sys.argv[1:]))"
_PATIENCE = 60.0


def why_not() -> str | None:
    """Say what is missing for a real browser; None where nothing is."""
    if CHROMIUM is None or DRIVER is None:
        return "chromium and chromedriver are not installed"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed"
    return None


class Served:
    """`heed label` in a folder; it can be stopped and started again on the same port."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder, self.words, self.port = folder, words, "0"
        self.address = ""
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Served:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def base(self) -> str:
        return self.address.partition("/start#")[0]

    def start(self) -> None:
        words = ["label", *self.words, "--no-browser", "--port", self.port]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CODE, *words], cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": SOURCE, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if line.startswith("open "):
                self.address = line.split()[1]
                self.port = self.base.rpartition(":")[2]
                return
        raise AssertionError("".join(said))

    def stop(self, *, kill: bool = False) -> None:
        if self.process is None:
            return
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        self.process.wait(timeout=_PATIENCE)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None


class Browser:
    """A Chromium of one size."""

    def __init__(self, width: int = 1366, height: int = 768, *, dark: bool = False) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM or ""
        self._profile = tempfile.mkdtemp(prefix="heed-chromium-")
        for word in (
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
            "--hide-scrollbars", "--disable-background-networking", "--no-first-run",
            f"--user-data-dir={self._profile}", f"--window-size={max(width, 500)},{height}",
        ):  # fmt: skip
            options.add_argument(word)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(executable_path=DRIVER)
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.set_scheme(dark=dark)

    def set_scheme(self, *, dark: bool) -> None:
        """Prefer dark pages, or light ones."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self.driver.quit()
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, served: Served) -> None:
        """Come in by the terminal's address, and wait for the first item."""
        self.driver.get(served.address)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the page has its first items."""
        self.wait(lambda: self.js("return document.body.dataset.ready") == "yes")
        time.sleep(0.3)

    def js(self, code: str, *values: Any) -> Any:
        return self.driver.execute_script(code, *values)

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0]).innerText", selector))

    def shown(self, selector: str) -> bool:
        return bool(
            self.js("return document.querySelector(arguments[0])?.checkVisibility()", selector)
        )

    def done(self) -> int:
        """How many are done, as the page says."""
        count = self.text("#count").split(" ")[0]
        return int(count or 0)

    def next_item(self) -> None:
        """Wait until keys count again."""
        self.wait(lambda: self.shown("#work"))
        time.sleep(0.3)

    def wait(self, what: Callable[[], Any], seconds: float = _PATIENCE) -> None:
        """Wait until something holds."""
        ends = time.monotonic() + seconds
        while True:
            try:
                if what():
                    return
            except Exception:
                if time.monotonic() > ends:
                    raise
            if time.monotonic() > ends:
                raise AssertionError(f"still not so after {seconds} s: {self.js(_STATE)}")
            time.sleep(0.05)


_STATE = "return document.body.innerText.slice(0, 600)"


def press(browser: Browser, *keys: str) -> None:
    """Press keys, each by its name or its letter, on whatever has the focus."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    for key in keys:
        named = {"Escape": Keys.ESCAPE, "Left": Keys.ARROW_LEFT, "Right": Keys.ARROW_RIGHT,
                 "Down": Keys.ARROW_DOWN, "Tab": Keys.TAB, "Enter": Keys.ENTER}  # fmt: skip
        ActionChains(browser.driver).send_keys(named.get(key, key)).perform()
