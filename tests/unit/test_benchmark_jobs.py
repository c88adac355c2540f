"""heed's side of every benchmark job runs, and so does the script for a GPU, at its smallest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import assets, gpu, heed_worker
from benchmarks.costs import Model, mean_length, work_of
from benchmarks.jobs import JOB_NAMES, LENGTHS, Case
from benchmarks.summary import HEED, TRL
from benchmarks.worker import BENCH

from heed.settings import LearnerSettings

LEARNER = LearnerSettings(device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assets, "MAX_TEXT_CHARS", 600_000)
        patch.setattr(assets, "NUM_ROWS", 64)
        assets.make(folder, ["nano"], ["short"])
    return folder


class EnoughError(Exception):
    """As many steps as the test wants."""


class FewSteps:
    """Stands for the turns of a process: a few steps, and no more."""

    def __init__(self) -> None:
        self.num_ready = self.num_steps = 0
        self.noted: list[float] = []

    def ready(self) -> None:
        self.num_ready += 1

    def note(self, num_tokens: float) -> None:
        self.noted.append(num_tokens)

    def step_done(self) -> None:
        self.num_steps += 1
        if self.num_steps == 2:
            raise EnoughError


def case(folder: Path, job: str) -> Case:
    return Case(folder, job, "nano", "short", batch_size=8, group_size=4)


@pytest.mark.parametrize("job", list(JOB_NAMES))
def test_a_job_is_set_up_once_and_reports_its_steps(made: Path, job: str) -> None:
    turns: Any = FewSteps()
    with pytest.raises(EnoughError):
        heed_worker.JOBS[job](case(made, job), LEARNER, turns)
    assert (turns.num_ready, turns.num_steps) == (1, 2)
    if job in ("ppo", "grpo", "rloo", "generate"):
        # Short completions never end by themselves: 8 of 8 tokens.
        assert turns.noted == [64, 64]


def test_needed_arithmetic_is_counted_once(made: Path) -> None:
    """8 rows of 8 + 8 tokens: each passes the layers, and 8 of each have logits."""
    model = Model(layers=2, width=8, heads=2, kv_heads=1, inner=16, vocabulary=32)
    layer = 2 * (2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 16)
    assert model.layer_weights == layer
    assert model.forward(3, 2, 1) == 2 * (layer * 3 + 32 * 8) + 4 * 2 * 8 * (3 * 2 + 6)
    nano = Model.read(case(made, "sft").policy)
    row = nano.forward(8) + nano.forward(8, 8, 8)
    assert work_of(case(made, "sft")).flops == pytest.approx(8 * 3 * row)
    assert work_of(case(made, "sft")).tokens == 8 * 16
    shared = 2 * (nano.forward(8) + 4 * nano.forward(8, 8, 8))
    assert work_of(case(made, "grpo")).flops == pytest.approx(4 * shared)
    work = work_of(case(made, "generate"))
    assert (work.flops, work.num_new) == (pytest.approx(shared), 64)
    weights = 8 * (nano.layer_weights + nano.output_weights)
    keys = 8 * (8 * 8 + 36) * 2 * nano.keys * nano.layers
    assert work.decode_bytes == 2 * (weights + keys)
    # Cached references are asked once for all; asked in the step they are one pass more.
    cached, asked = (work_of(case(made, job)).flops for job in ("dpo-cached", "dpo"))
    assert asked == pytest.approx(cached * 4 / 3)


def test_geometric_lengths_have_the_mean_that_they_are_drawn_with() -> None:
    lengths = LENGTHS["natural"]
    goes_on = 1 - 1 / lengths.mean
    ends = [goes_on ** (n - 1) / lengths.mean for n in range(1, 128)]
    mean = sum(n * p for n, p in enumerate(ends, 1)) + 128 * (1 - sum(ends))
    assert mean_length(lengths) == pytest.approx(mean)
    assert mean_length(LENGTHS["fixed"]) == 64


def run(made: Path, out: Path, *more: str) -> list[dict[str, Any]]:
    sizes = ["--models", "nano", "--lengths", "short", "--batch-size", "8", "--group-size", "4"]
    few = ["--device", "cpu", "--pairs", "2", "--steps", "1", "--warm-up", "1"]
    return gpu.main([*sizes, *few, "--assets", str(made), "--out", str(out), *more])


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_on_a_processor(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run(made, tmp_path / "gpu.jsonl", "--jobs", "generate", "--sides", HEED)
    assert [row["kind"] for row in rows] == ["facts", "turn", "turn", "line"]
    assert rows == [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    figures = rows[-1][HEED]
    assert 0 < figures["share_of_flops"] < 1
    assert 0 < figures["share_of_bandwidth"] < 1
    seconds = sorted(turn["seconds"][0] for turn in rows[1:3])
    assert figures["tokens_per_second"] == pytest.approx(64 / (sum(seconds) / 2))
    assert "| generation alone | nano | short | - |" in capsys.readouterr().out


@pytest.mark.slow
def test_both_sides_of_the_script_for_a_gpu_run_on_a_processor(made: Path, tmp_path: Path) -> None:
    if not (BENCH / "venv/bin/python").exists():
        pytest.skip("TRL's environment is missing; benchmarks/setup_env.sh makes it")
    jobs = ["sft", "dpo", "grpo", "generate"]
    more = ["--jobs", ",".join(jobs), "--trl-precision", "fp32"]
    rows = run(made, tmp_path / "gpu.jsonl", *more)
    lines = [row for row in rows if row["kind"] == "line"]
    assert [line["job"] for line in lines] == jobs
    assert all({TRL, HEED} <= set(line) for line in lines)
    assert len([row for row in rows if row["kind"] == "turn"]) == 4 * len(jobs)
