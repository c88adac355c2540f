"""Damage between two parts of a run: what is broken is seen and passed over, and nothing changes.

Each test stops a run, breaks something in its folder, resumes, and compares with a whole run.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.resume.same import fingerprint, resumed_from, stopped_at
from tests.tiny import Tiny, run_stage

from heed.errors import StoreError
from heed.learners import checkpoint, state
from heed.learners.resume import Checkpoints
from heed.runs.run import Run

NOW = {"checkpoint_seconds": 0.0}
ON = NOW | {"resume": True}


@pytest.fixture
def whole(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The fingerprint of the run that nothing happened to."""
    folder = tiny.folder / "whole" / "run"
    if not folder.exists():
        run_stage(tiny.ppo_config(folder))
    return fingerprint(folder)


@pytest.fixture
def cut(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PPO run that was stopped after update 4, before its checkpoint; rollouts kept."""
    folder = tmp_path / "run"
    config = tiny.ppo_config(folder, run=NOW)
    with stopped_at(monkeypatch, Checkpoints, "maybe_write", 4):
        run_stage(config)
    return folder


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tiny: Tiny, cut: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _flip(cut / "checkpoints" / "step-00000003" / "value" / "weights.safetensors")
    with resumed_from(monkeypatch) as steps:
        run_stage(tiny.ppo_config(cut, run=ON))
    assert steps == [2]
    assert fingerprint(cut) == whole
    told = [w["message"] for w in Run.open(cut).warnings() if w["name"] == "checkpoint"]
    assert len(told) == 1
    assert "step-00000003 is damaged" in told[0]
    assert "goes on from step 2" in told[0]


def test_with_every_checkpoint_damaged_the_error_says_what_to_do(tiny: Tiny, cut: Path) -> None:
    for folder in (cut / "checkpoints").iterdir():
        (folder / "state.json").unlink()
    with pytest.raises(StoreError, match=r"no whole checkpoint.*step-00000003.*run\.overwrite"):
        run_stage(tiny.ppo_config(cut, run=ON))


def test_a_half_written_checkpoint_is_never_loaded(
    tiny: Tiny, cut: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that looks whole: until it has its name, it does not count."""
    half = cut / "checkpoints" / ".writing-00000004"
    shutil.copytree(cut / "checkpoints" / "step-00000003", half)
    _flip(half / "policy" / "weights.safetensors")
    with resumed_from(monkeypatch) as steps:
        run_stage(tiny.ppo_config(cut, run=ON))
    assert steps == [3]
    assert fingerprint(cut) == whole
    assert not half.exists()


def _cut_in_the_middle(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _cut_after_a_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))


def _of_another_update(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(reversed(lines)))


@pytest.mark.parametrize("damage", [_cut_in_the_middle, _cut_after_a_line, _of_another_update])
def test_damaged_rollouts_are_sampled_again(
    tiny: Tiny, cut: Path, whole: dict[str, Any], damage: Callable[[Path], None]
) -> None:
    rollouts = cut / "rollouts" / "update-00000004.jsonl"
    damage(rollouts)
    run_stage(tiny.ppo_config(cut, run=ON))
    assert fingerprint(cut) == whole
    told = [w["message"] for w in Run.open(cut).warnings() if w["name"] == "rollouts"]
    assert len(told) == 1
    assert "sampled again" in told[0]


def test_whole_rollouts_are_used_and_not_sampled_again(
    tiny: Tiny, cut: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were sampled from the very weights that the run goes on from, and scored already."""
    from heed.engines.local import LocalEngine

    seeds: list[int] = []
    original = LocalEngine.generate

    def generate(self: LocalEngine, prompts: Any, sampling: Any) -> Any:
        seeds.append(sampling.seed)
        return original(self, prompts, sampling)

    with monkeypatch.context() as patch:
        patch.setattr(LocalEngine, "generate", generate)
        run_stage(tiny.ppo_config(cut, run=ON))
    looks = 2  # at updates 4 and 5
    assert len(seeds) == looks + 1  # and the completions of update 5, not those of 4
    assert fingerprint(cut) == whole


def test_torn_lines_are_cut_and_written_again(tiny: Tiny, cut: Path, whole: dict[str, Any]) -> None:
    for name in ("metrics.jsonl", "samples.jsonl"):
        with (cut / name).open("ab") as stream:
            stream.write(b'{"step": 4, "eval/pro')
    run_stage(tiny.ppo_config(cut, run=ON))
    assert fingerprint(cut) == whole


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on_later(
    tiny: Tiny, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    original, count = state.save_file, 0

    def full(tensors: Any, path: Any) -> None:
        nonlocal count
        count += 1
        if count > 9:  # two learners write two files each; in the third checkpoint
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        original(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(state, "save_file", full)
        with pytest.raises(StoreError, match=r"disk is full.*step 2 is kept.*run\.resume=true"):
            run_stage(tiny.ppo_config(folder, run=NOW))
    assert Run.open(folder).status == "failed"
    assert checkpoint.latest_checkpoint(folder / "checkpoints").step == 2
    run_stage(tiny.ppo_config(folder, run=ON))
    assert fingerprint(folder) == whole


def test_a_resume_of_a_finished_run_changes_nothing(
    tiny: Tiny, tmp_path: Path, whole: dict[str, Any]
) -> None:
    folder = tmp_path / "run"
    run_stage(tiny.ppo_config(folder))
    run_stage(tiny.ppo_config(folder, run={"resume": True}))
    assert fingerprint(folder) == whole


def test_a_resume_with_other_settings_is_warned_of(
    tiny: Tiny, cut: Path, whole: dict[str, Any]
) -> None:
    run_stage(tiny.ppo_config(cut, run=ON, kl_coef=0.5))
    told = [w["message"] for w in Run.open(cut).warnings() if w["name"] == "resume"]
    assert any("kl_coef 0.05 -> 0.5" in text for text in told)
    assert fingerprint(cut) != whole
