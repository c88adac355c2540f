"""A real pipeline, killed at any moment and resumed, ends with the bits of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import heed
from heed.ids import file_hash
from heed.runs.run import Run

PIPELINE = """
[pipeline]
name = "small"
[[stage]]
name = "world"
verb = "world"
config = { num_texts = 200, num_demonstrations = 200, num_prompts = 20, num_held_out = 10 }
[[stage]]
name = "init"
verb = "init"
[stage.config]
data = { path = "{stages.world}/texts.jsonl" }
vocab_size = 400
hidden_size = 32
num_layers = 1
num_heads = 2
[[stage]]
name = "sft"
verb = "sft"
[stage.config]
model = { path = "{stages.init}" }
data = { path = "{stages.world}/demonstrations.jsonl" }
batch_size = 8
num_train_epochs = 2.0
"""


def start(*words: str) -> subprocess.Popen[str]:
    source = str(Path(heed.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "heed", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    return out


def kill_when(process: subprocess.Popen[str], metrics: Path, lines: int) -> None:
    """Kill as soon as the stage has written so many lines of metrics."""
    while process.poll() is None:
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= lines:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return
        time.sleep(0.01)
    raise AssertionError(f"it ended before it could be killed: {finish(process)}")


@pytest.mark.slow
def test_a_pipeline_killed_three_times_ends_with_the_same_bits(tmp_path: Path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(PIPELINE)
    how = ["--run.checkpoint_seconds", "0"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start("run", str(recipe), "--run.folder", str(whole), *how))

    metrics = killed / "stages" / "sft" / "metrics.jsonl"
    kill_when(start("run", str(recipe), "--run.folder", str(killed), *how), metrics, 1)
    for lines in (9, 30):
        kill_when(start("resume", str(killed)), metrics, lines)
        assert Run.open(killed).status == "interrupted"
    out = finish(start("resume", str(killed)))

    assert "world: unchanged" in out
    assert "init: unchanged" in out
    assert "sft: goes on where it stopped" in out
    assert Run.open(killed / "stages" / "sft").manifest["resumes"] == 3
    model = Path("stages") / "sft" / "model"
    assert file_hash(whole / model) == file_hash(killed / model)
    losses = [[row["loss"] for row in Run.open(f / "stages" / "sft").metrics()]
              for f in (whole, killed)]  # fmt: skip
    assert losses[0] == losses[1]
