"""The walk of docs/label.md by its commands: samples, a served page, an export, a reward model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import pytest
from tests.documents import examples
from tests.documents.test_commands import ROOT, blocks, commands
from tests.web.chromium import Served

from heed.cli import main
from heed.web.showing import as_written

PAGE = ROOT / "docs" / "label.md"


def judge_everything(served: Served) -> list[str]:
    """Answer every item over HTTP, as the page's script does; returns what was chosen, as shown."""
    base, _, code = served.address.partition("/start#")
    chosen: list[str] = []
    with httpx.Client(base_url=f"{base}/api/v1") as client:
        entered = client.post("/auth/start", json={"code": code}).json()
        client.headers["X-CSRF-Token"] = entered["csrf"]
        project = entered["next"].split("/")[2]
        while work := client.post(f"/projects/{project}/leases", json={}).json()["work"]:
            longer = max((0, 1), key=lambda side: len(work[0]["candidates"][side]["raw"]))
            answer = {"outcome": "prefer", "side": longer, "level": 2}
            done = client.post(
                f"/leases/{work[0]['lease']}/judgment",
                json={"submission_id": f"walk {len(chosen)}", "answer": answer},
            )
            assert done.status_code == 201, done.text
            chosen.append(work[0]["candidates"][longer]["raw"])
    return chosen


def test_the_walk_leads_from_samples_to_a_reward_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    examples.run_small(monkeypatch)
    examples.make_files(tmp_path)
    examples.make_runs(tmp_path)
    walked, chosen = [], [""]
    for body in blocks(PAGE.read_text(encoding="utf-8"), "sh"):
        for words in commands(f"```sh\n{body}```"):
            if words[1] == "label" and words[2] != "export":
                with Served(tmp_path, *words[2:]) as served:
                    chosen = judge_everything(served)
            else:
                for run in examples.made_by(" ".join(words)):
                    shutil.rmtree(run, ignore_errors=True)  # it stands there for other pages
                assert main(words[1:]) == 0, words
            walked.append(words[1])
    assert walked == ["generate", "label", "label", "reward"]
    rows = [json.loads(line) for line in (tmp_path / "labels/trl_preference/train.jsonl").open()]
    manifest = json.loads((tmp_path / "labels/manifest.json").read_text())
    about = manifest["layouts"]["trl_preference"]
    assert about["answers_in"] == len(chosen) >= 5
    shown = [as_written(row["chosen"][-1]["content"]) for row in rows]
    assert shown
    assert set(shown) <= set(chosen)
    assert (tmp_path / "labels/trl_preference/train.parquet").exists()
    assert (tmp_path / "runs/from-me/model").is_dir()


def test_the_pictures_of_the_walk_are_there() -> None:
    for name in ("compare", "keys", "done"):
        picture = ROOT / "docs" / "images" / f"label-{name}.png"
        assert picture.read_bytes().startswith(b"\x89PNG")
