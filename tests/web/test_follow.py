"""Runs as they go: the list, a run's page, what changes it, and its samples in a project."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.web.conftest import Person

from heed.data.store import Store
from heed.runs.run import Run
from heed.settings import RunSettings
from heed.web.follow import Runs, last_step, version_of
from heed.web.site import Site

EVIL = "<script>alert(1)</script>"


def samples(step: int, num: int = 3) -> list[dict[str, object]]:
    return [
        {
            "prompt_id": f"p-{k}", "prompt": f"Question {k} {EVIL}?",
            "completion": "the same" if k == 0 else f"answer {k} of {step} {EVIL}",
            "num_tokens": 4, "finish": "stop", "scores": {"proxy": 0.1 * step, "true": None},
        }
        for k in range(num)
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs, one with a stage, beside what is no run."""
    root = tmp_path / "runs"
    for name, kind in (("road", "pipeline"), ("road/stages/ppo", "ppo"), ("warm up", "sft")):
        with Run.start(RunSettings(folder=str(root / name)), kind, {}) as run:
            for step in range(4):
                run.log(step, {"objective/kl": 0.1 * step, "objective/scores": 0.2 * step})
            if kind == "ppo":
                for step in (0, 2, 3):
                    run.sample(step, samples(step))
                run.warn(3, "kl", f"too far {EVIL}")
    (root / "notes").mkdir()
    (root / "notes" / "secret.txt").write_text("CANARY")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "manifest.json").write_text("{}")
    (root / "link").symlink_to(tmp_path / "outside")
    return root


@pytest.fixture
def shown(site: Site, folder: Path) -> Runs:
    site.runs = Runs(folder)
    return site.runs


def ids(shown: Runs) -> dict[str, str]:
    return {card.name: card.id for card in shown.cards()}


def test_the_list_has_runs_and_their_stages(shown: Runs) -> None:
    cards = {card.name: card for card in shown.cards()}
    assert set(cards) == {"road", "road/stages/ppo", "warm up"}
    ppo = cards["road/stages/ppo"]
    assert (ppo.kind, ppo.status, ppo.step, ppo.alarms) == ("ppo", "finished", 3, 1)
    assert (ppo.parent, ppo.title) == (cards["road"].id, "ppo")
    names = [card.name for card in shown.cards()]
    assert names.index("road/stages/ppo") == names.index("road") + 1
    one = Runs(shown.folder(cards["road"].id))
    assert {card.name for card in one.cards()} == {"road", "road/stages/ppo"}


def test_a_running_a_killed_and_a_damaged_run_say_so(shown: Runs, folder: Path) -> None:
    run = Run.start(RunSettings(folder=str(folder / "now")), "sft", {})
    run.log(7, {"loss": 1.0})
    (folder / "now" / "metrics.jsonl").open("a").write('{"step": 8, "lo')
    manifest = json.loads((folder / "warm up" / "manifest.json").read_text())
    manifest["status"] = "running"
    (folder / "warm up" / "manifest.json").write_text(json.dumps(manifest))
    (folder / "bad-one").mkdir()
    (folder / "bad-one" / "manifest.json").write_text("{half")
    status = {card.name: card.status for card in shown.cards()}
    assert status["now"] == "running"
    assert status["warm up"] == "interrupted"
    assert status["bad-one"] == "unreadable"
    assert last_step(folder / "now") == 7
    run.finish()


def test_the_version_changes_with_what_there_is_to_see(folder: Path) -> None:
    before = version_of(folder / "road")
    assert version_of(folder / "road") == before
    with (folder / "road/stages/ppo/metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4}\n')
    after = version_of(folder / "road")
    assert after != before
    (folder / "road" / "model").mkdir()
    (folder / "road" / "model" / "metrics.jsonl").write_text("weights")
    assert version_of(folder / "road") == after


def test_researchers_see_runs_and_annotators_do_not(
    shown: Runs, person: Callable[..., Person], visit: Callable[[], TestClient]
) -> None:
    ppo = ids(shown)["road/stages/ppo"]
    for who in (person("a"), person("r", "reviewer"), person("o", None)):
        assert "/runs" not in who.client.get("/").text
        for path in ("/runs", f"/runs/{ppo}"):
            answer = who.client.get(path)
            assert answer.status_code == 404
            assert "answer 1" not in answer.text
    assert visit().get("/runs").status_code == 303
    researcher = person("s", "researcher")
    assert 'href="/runs"' in researcher.client.get("/").text
    listed = researcher.client.get("/runs").text
    assert f"/runs/{ppo}" in listed
    page = researcher.client.get(f"/runs/{ppo}")
    assert page.status_code == 200
    assert "answer 1 of 3 &lt;script&gt;" in page.text
    assert EVIL not in page.text
    # Nothing in the page is refused by its own policy: no style or script stands in it.
    assert not re.search(r"<style|style=|<script(?![^>]* src=)", page.text)
    for asset in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text):
        assert researcher.client.get(asset).status_code == 200


@pytest.mark.parametrize("run", ["none", "%2e%2e", "..%2foutside", "notes", "outside"])
def test_nothing_but_listed_runs_can_be_asked_for(
    shown: Runs, person: Callable[..., Person], run: str
) -> None:
    admin = person("admin", is_admin=True)
    for answer in (admin.client.get(f"/runs/{run}"), admin.get(f"/runs/{run}/state")):
        assert answer.status_code in (404, 405)
        assert "CANARY" not in answer.text
    assert admin.post(f"/runs/{run}/items", {"step": 3}).status_code in (404, 405)


def test_samples_become_pairs_once(
    shown: Runs, store: Store, person: Callable[..., Person]
) -> None:
    admin, ppo = person("admin", is_admin=True), ids(shown)["road/stages/ppo"]
    first = admin.post(f"/runs/{ppo}/items", {"step": 3})
    assert first.status_code == 201, first.text
    found = first.json()
    assert found["project"] == "ppo-3-against-0"
    assert (found["added"], found["known"]) == (2, 0)
    assert found["left_out"] == {"both completions are the same": 1}
    again = admin.post(f"/runs/{ppo}/items", {"step": 3}).json()
    assert (again["added"], again["known"]) == (0, 2)
    payloads = store.items.payloads(store.projects.get(found["project"]).id)
    sources = [[c.source["newest"] for c in p.candidates] for p in payloads.values()]
    assert all(sorted(s["step"] for s in pair) == [0, 3] for pair in sources)
    assert all(s["run"] == "road/stages/ppo" for pair in sources for s in pair)
    work = admin.claim(project=found["project"])[0]
    assert "newest" not in json.dumps(work)
    bad = admin.post(f"/runs/{ppo}/items", {"step": 9})
    assert bad.status_code == 422
    assert "there are 0, 2, 3" in bad.json()["detail"]


def test_a_researcher_adds_to_projects_of_their_own(
    shown: Runs, store: Store, person: Callable[..., Person]
) -> None:
    researcher, ppo = person("s", "researcher"), ids(shown)["road/stages/ppo"]
    store.projects.make("other", {"kind": "pair"})
    before = store.items.counts("answers")["items"]
    done = researcher.post(f"/runs/{ppo}/items", {"step": 2, "project": "answers"})
    assert (done.status_code, done.json()["added"]) == (201, 2)
    assert store.items.counts("answers")["items"] == before + 2
    for project in ("other", "nowhere", None):
        answer = researcher.post(f"/runs/{ppo}/items", {"step": 2, "project": project})
        assert answer.status_code == 403
    assert person("a").post(f"/runs/{ppo}/items", {"step": 2}).status_code == 403


def test_without_a_folder_there_are_no_runs(person: Callable[..., Person]) -> None:
    admin = person("admin", is_admin=True)
    assert 'href="/runs"' not in admin.client.get("/").text
    assert admin.client.get("/runs").status_code == 404
    assert "start it with --runs" in admin.get("/runs").json()["detail"]
