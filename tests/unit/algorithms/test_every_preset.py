"""Every online preset learns the same, however its update is cut up and laid out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import LEARNER, Tiny, run_stage
from torch import Tensor

from heed.algorithms.presets import PRESETS

HOW: dict[str, dict[str, Any]] = {
    "rows joined": {},
    "a row at a time": {"micro_batch_tokens": 1},
    "padded rows": {"layout": "padded", "micro_batch_tokens": 200},
}


def learned(tiny: Tiny, folder: Path, preset: str, how: dict[str, Any]) -> dict[str, Tensor]:
    """Weights after one update; an optimiser this blunt moves them in proportion to gradients."""
    config = tiny.online_config(
        folder,
        preset=preset,
        reward_funcs=["tests.unit.algorithms.rewards:rare"],
        total_episodes=16,
        num_iterations=1,
        num_mini_batches=1,
        num_samples=1,
        optim={"lr": 1.0, "eps": 1.0, "max_grad_norm": 1e6},
        learner=LEARNER | how,
    )
    run = run_stage(config)
    return load_file(run.folder / "model" / "model.safetensors")


@pytest.mark.parametrize("preset", PRESETS)
def test_how_an_update_is_computed_changes_nothing(tiny: Tiny, tmp_path: Path, preset: str) -> None:
    start = load_file(tiny.policy / "model" / "model.safetensors")
    found = [learned(tiny, tmp_path / label / "run", preset, how) for label, how in HOW.items()]
    moved = max(float((found[0][name] - weight).abs().max()) for name, weight in start.items())
    assert moved > 1e-3
    for other in found[1:]:
        for name, weight in found[0].items():
            torch.testing.assert_close(other[name], weight, rtol=0, atol=1e-4 * moved)
