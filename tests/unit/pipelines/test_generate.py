"""Sampling as a stage: what it leaves, and what its samples depend on."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import LEARNER, Tiny

from heed.pipelines import generate
from heed.pipelines.generate import GenerateConfig
from heed.runs.files import read_lines


def _texts(tiny: Tiny, folder: Path, seed: int = 0, also: int = 0) -> list[str]:
    values = {
        "run": {"folder": str(folder), "seed": seed},
        "model": {"path": str(tiny.fresh)},
        "data": {"path": str(tiny.world / "prompts.jsonl"), "limit": 5},
        "sampling": {"n": 2, "max_tokens": 6, "seed": also},
        "learner": LEARNER,
    }
    run = generate.run(GenerateConfig.model_validate(values))
    rows = read_lines(run.path("completions.jsonl"))
    assert run.manifest["facts"]["num_completions"] == len(rows) == 10
    assert len({row["prompt"]["id"] for row in rows}) == 5
    for row in rows:
        assert row["completion"]["prompt_id"] == row["prompt"]["id"]
        assert len(row["completion"]["logprobs"]) == len(row["completion"]["tokens"]) <= 6
    return [row["completion"]["text"] for row in rows]


def test_samples_follow_the_seed_of_the_run(tiny: Tiny, tmp_path: Path) -> None:
    first = _texts(tiny, tmp_path / "first")
    assert _texts(tiny, tmp_path / "again") == first
    other = _texts(tiny, tmp_path / "other", seed=1)
    assert other != first
    assert _texts(tiny, tmp_path / "added", also=1) == other
