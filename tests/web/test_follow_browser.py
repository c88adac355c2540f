"""A run's page in a real Chromium: it follows the run, keeps what the reader set, sends samples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.web.axe import broken_rules, why_no_axe
from tests.web.chromium import Browser, Served, why_not

from heed.data.store import open_store
from heed.runs.run import Run
from heed.settings import RunSettings

_MISSING = why_not() or why_no_axe()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(_MISSING is not None, reason=_MISSING or ""),
]


def look(run: Run, step: int) -> None:
    """What a policy's run writes at a look."""
    score = 0.2 * step
    run.log(step, {"objective/kl": 0.1 * step, "objective/scores": score, "eval/proxy": score})
    run.sample(step, [
        {
            "prompt_id": f"p-{k}", "prompt": f"Question {k}?", "completion": f"{k} at {step}",
            "num_tokens": 4, "finish": "stop", "scores": {"proxy": score, "true": None},
        }
        for k in range(3)
    ])  # fmt: skip


@pytest.fixture(params=[(1366, 768), (320, 720)], ids=["wide", "narrow"])
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with Browser(*request.param) as opened:
        yield opened


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Run]:
    with Run.start(RunSettings(folder=str(tmp_path / "runs" / "ppo")), "ppo", {}) as run:
        for step in range(4):
            look(run, step)
        yield run


def test_a_page_follows_its_run_and_sends_samples(
    running: Run, browser: Browser, tmp_path: Path
) -> None:
    with Served(tmp_path, "--runs", "runs", "--store", "seen.labels.db") as served:
        browser.driver.get(served.address)
        browser.wait(lambda: browser.driver.find_element("link text", "Runs").click() is None)
        browser.wait(lambda: browser.shown("tbody"))
        assert "running" in browser.text("tbody")
        assert broken_rules(browser) == []
        browser.driver.find_element("link text", "ppo").click()
        browser.wait(lambda: browser.shown("form.send"))
        for dark in (False, True):
            browser.set_scheme(dark=dark)
            assert broken_rules(browser) == []
        browser.js(
            "const r = document.querySelector('.slider input'); r.value = 2;"
            "r.dispatchEvent(new Event('input'));"
        )
        assert "0 at 2" in browser.text(".looks")
        look(running, 4)
        browser.wait(lambda: "update 4" in browser.text("#live-state"))
        # The reader's place on the slider is as it was, though the page was drawn anew.
        assert browser.js("return document.querySelector('.slider input').value") == "2"
        assert "0 at 2" in browser.text(".looks")
        browser.js("document.querySelector('form.send').requestSubmit()")
        browser.wait(lambda: "3 pairs are in ppo-2-against-0" in browser.text("#live-said"))
        served.stop()
        browser.wait(lambda: "does not answer" in browser.text("#live-said"))
        assert [
            e for e in browser.driver.get_log("browser") if "Content Security" in e["message"]
        ] == []
    with open_store(tmp_path / "seen.labels.db") as store:
        assert store.items.counts("ppo-2-against-0")["items"] == 3
        sources = [
            candidate.source["newest"]["step"]
            for payload in store.items.payloads(store.projects.get("ppo-2-against-0").id).values()
            for candidate in payload.candidates
        ]
    assert sorted(sources) == [0, 0, 0, 2, 2, 2], json.dumps(sources)
