"""kill -9 between and inside the stages of a pipeline; it ends with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.resume.killing import kill_repeatedly, run
from tests.resume.same import untimed

from heed.runs.files import read_json
from heed.runs.run import Run

PIPELINE = """
[pipeline]
name = "tiny"

[matrix]
coef = [0.05, 0.2]

[[stage]]
name = "world"
verb = "world"
config = { num_texts = 150, num_demonstrations = 60, num_prompts = 40, num_held_out = 12 }

[[stage]]
name = "init"
verb = "init"
[stage.config]
data = { path = "{stages.world}/texts.jsonl" }
vocab_size = 400
hidden_size = 32
num_layers = 2
max_positions = 160

[[stage]]
name = "sft"
verb = "sft"
[stage.config]
model = { path = "{stages.init}" }
data = { path = "{stages.world}/demonstrations.jsonl" }
batch_size = 12
optim = { lr = 1e-2 }

[[stage]]
name = "generate"
verb = "generate"
[stage.config]
model = { path = "{stages.sft}" }
data = { path = "{stages.world}/prompts.jsonl" }
sampling = { n = 2, max_tokens = 10 }

[[stage]]
name = "compare"
verb = "compare"
[stage.config]
data = { path = "{stages.generate}" }
scorers = ["{stages.world}"]

[[stage]]
name = "reward"
verb = "reward"
[stage.config]
model = { path = "{stages.sft}" }
data = { path = "{stages.compare}" }
batch_size = 12
optim = { lr = 1e-3 }

[[stage]]
name = "ppo"
verb = "ppo"
over = ["coef"]
[stage.config]
model = { path = "{stages.sft}" }
data = { path = "{stages.world}/prompts.jsonl" }
reward_funcs = ["{stages.reward}"]
kl_coef = "{coef}"
total_episodes = 48
batch_size = 16
num_eval_prompts = 8
sampling = { max_tokens = 8 }

[[stage]]
name = "evaluate"
verb = "evaluate"
over = ["coef"]
[stage.config]
tags = { method = "PPO", coef = "{coef}" }
model = { path = "{stages.ppo}" }
baseline = { path = "{stages.sft}" }
data = { path = "{stages.world}/held_out.jsonl" }
judges = { true = "{stages.world}", proxy = "{stages.reward}" }
sampling = { max_tokens = 8 }
num_resamples = 200

[[stage]]
name = "frontier"
verb = "frontier"
config = { runs = ["{stages.evaluate}"] }
"""


def _made(folder: Path) -> dict[str, Any]:
    """What every stage made and measured on its way, and what the pipeline says of it."""
    manifest = Run.open(folder).manifest
    assert manifest["status"] == "finished"
    return {
        "outputs": {name: made["hash"] for name, made in manifest["outputs"].items()},
        "findings": read_json(folder / "summary.json")["findings"],
        "metrics": {
            stage.folder.name: [untimed(row) for row in stage.metrics()]
            for stage in _stages(folder)
        },
    }


def _stages(folder: Path) -> list[Run]:
    return [Run.open(path.parent) for path in sorted(folder.glob("stages/*/manifest.json"))]


def _killed(tmp_path: Path, times: int, seed: int) -> None:
    file, log = tmp_path / "tiny.toml", tmp_path / "log.txt"
    file.write_text(PIPELINE)

    def words(folder: Path) -> list[str]:
        every = ["--run.checkpoint_seconds", "0"]
        return ["run", str(file), "--run.folder", str(folder), *every]

    whole = tmp_path / "whole"
    run(words(whole), log)
    pause = Run.open(whole).seconds() / times
    for attempt in range(5):
        cut, said = tmp_path / f"cut-{attempt}", tmp_path / f"log-{attempt}.txt"
        resume = ["resume", str(cut)]
        kills = kill_repeatedly(
            words(cut), resume, said, times=times, folder=cut, pause=pause, seed=seed
        )
        run(resume, said)
        assert _made(cut) == _made(whole), kills
        assert (cut / "report.html").exists()
        assert Run.open(cut).manifest["resumes"] == len(kills)
        lines = said.read_text(encoding="utf-8")
        assert "world: unchanged" in lines
        inside = sum(stage.manifest.get("resumes", 0) for stage in _stages(cut))
        assert lines.count(": goes on where it stopped") >= inside
        if len(kills) >= 2 and inside:
            return
        pause /= 2  # this time it was too quick to be killed
    pytest.fail("no pipeline was killed twice, and once inside a stage, before it ended")


def test_a_pipeline_killed_five_times(tmp_path: Path) -> None:
    _killed(tmp_path, times=5, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_pipeline_killed_many_times(tmp_path: Path, seed: int) -> None:
    _killed(tmp_path, times=14, seed=seed)
