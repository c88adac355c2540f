"""kill -9 at random moments: the run goes on by `heed resume`, and ends with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.resume.killing import kill_repeatedly, run
from tests.resume.same import fingerprint
from tests.tiny import Tiny

from heed.config import dump_toml
from heed.runs.run import Run

CASES: dict[str, Callable[[Tiny], tuple[str, Any, dict[str, Any]]]] = {
    "sft": lambda tiny: ("sft", tiny.sft_config, {}),
    "reward": lambda tiny: ("reward", tiny.reward_config, {}),
    "preference": lambda tiny: ("preference", tiny.preference_config, {}),
    "unpaired": lambda tiny: ("unpaired", tiny.unpaired_config, {"loss_type": "bco"}),
    "ppo": lambda tiny: ("ppo", tiny.ppo_config, {"kl_target": 0.5, "kl_gain": 0.1}),
    "online dapo": lambda tiny: (
        "online",
        tiny.online_config,
        {"preset": "dapo", "reward_funcs": ["tests.unit.algorithms.rewards:rare"]},
    ),
    "ppo shared": lambda tiny: ("ppo", tiny.ppo_config, {"value_init": "shared"}),
}

COMPARED: dict[str, Callable[[Tiny], tuple[str, Any, dict[str, Any]]]] = {
    "online_dpo": lambda tiny: ("online_preference", tiny.online_preference_config, {}),
    "xpo": lambda tiny: ("online_preference", tiny.online_preference_config, {"preset": "xpo"}),
    "spin": lambda tiny: ("online_preference", tiny.spin_config, {}),
    "nash_md": lambda tiny: (
        "online_preference",
        tiny.online_preference_config,
        {"preset": "nash_md", "mixture_coef": 0.25},
    ),
    "online with a cost": lambda tiny: (
        "online",
        tiny.online_config,
        {
            "preset": "rloo",
            "cost": {"funcs": ["tests.unit.algorithms.rewards:length"], "limit": 20.0},
        },
    ),
}
"""Loops that share their checkpoints with those above; each is killed under one seed."""


def _killed(tiny: Tiny, tmp_path: Path, case: str, times: int, seed: int) -> None:
    verb, make, changes = (CASES | COMPARED)[case](tiny)

    def words(folder: Path) -> list[str]:
        config = make(folder, run={"checkpoint_seconds": 0.0}, **changes)
        file = folder.parent.with_suffix(".toml")
        file.write_text(dump_toml(config))
        return [verb, str(file)]

    # Folders of one name: the run's name stands in the ids of its completions.
    whole, log = tmp_path / "whole" / "run", tmp_path / "log.txt"
    run(words(whole), log)
    times_of_lines = [row["wall_seconds"] for row in Run.open(whole).metrics()]
    pause = (times_of_lines[-1] - times_of_lines[0]) / times
    for attempt in range(5):
        cut = tmp_path / f"cut-{attempt}" / "run"
        resume = ["resume", str(cut)]
        kills = kill_repeatedly(
            words(cut), resume, log, times=times, folder=cut, pause=pause, seed=seed
        )
        run(resume, log)
        assert fingerprint(cut) == fingerprint(whole), kills
        assert not list(cut.glob("checkpoints/.*")), "a half-written checkpoint was left"
        if Run.open(cut).manifest["resumes"] >= 2:
            return
        pause /= 2  # this time it was too quick to be killed
    pytest.fail("no run was killed twice before it ended")


@pytest.mark.parametrize("case", ["sft", "reward", "ppo"])
def test_killed_three_times(tiny: Tiny, tmp_path: Path, case: str) -> None:
    _killed(tiny, tmp_path, case, times=3, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("case", CASES)
def test_killed_many_times(tiny: Tiny, tmp_path: Path, case: str, seed: int) -> None:
    _killed(tiny, tmp_path, case, times=8, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("case", COMPARED)
def test_comparisons_killed_many_times(tiny: Tiny, tmp_path: Path, case: str) -> None:
    _killed(tiny, tmp_path, case, times=4, seed=0)
