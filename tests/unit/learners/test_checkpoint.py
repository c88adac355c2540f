import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from heed.errors import StoreError
from heed.learners import checkpoint
from heed.learners.checkpoint import find_fault, latest_checkpoint, write_checkpoint
from heed.learners.local import LocalLearner
from heed.models.heads import PolicyHead
from heed.settings import LearnerSettings, OptimSettings

from .conftest import causal


def make_learner(value: float = 0.0) -> LocalLearner:
    head = PolicyHead(causal())
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.fill_(value)
    settings = LearnerSettings(precision="fp32", device="cpu")
    return LocalLearner(head, OptimSettings(), 10, settings)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 3, {"kl_coef": 0.1}, {"policy": make_learner(3.0)})
    found = latest_checkpoint(tmp_path)
    assert (found.step, found.state, found.warnings) == (3, {"kl_coef": 0.1}, ())
    other = make_learner()
    other.load(found.folder / "policy")
    assert all(bool((w == 3.0).all()) for w in other.weights().values())


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs the program sha256sum")
def test_sums_can_be_checked_with_the_usual_program(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 3, {}, {"policy": make_learner()})
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=path, check=True)


def test_the_newest_stay(tmp_path: Path) -> None:
    learners = {"policy": make_learner()}
    for step in (1, 2, 10, 11):
        write_checkpoint(tmp_path, step, {}, learners, keep=2)
    assert names(tmp_path) == ["step-00000010", "step-00000011"]
    write_checkpoint(tmp_path, 12, {}, learners, keep=1)
    assert names(tmp_path) == ["step-00000012"]


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGES = {
    "one bit": lambda c: _flip(c / "policy" / "weights.safetensors"),
    "cut": lambda c: os.truncate(c / "policy" / "optimizer.safetensors", 4),
    "lost file": lambda c: (c / "state.json").unlink(),
    "extra file": lambda c: (c / "policy" / "x").write_text("?"),
    "lost sums": lambda c: (c / "SHA256SUMS").unlink(),
    "cut sums": lambda c: os.truncate(c / "SHA256SUMS", 100),
    "shorter sums": lambda c: (c / "SHA256SUMS").write_text(
        (c / "SHA256SUMS").read_text().split("\n")[0] + "\n"
    ),
    "empty": lambda c: (shutil.rmtree(c), c.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path: Path, damage: str) -> None:
    learners = {"policy": make_learner()}
    write_checkpoint(tmp_path, 1, {"at": 1}, learners)
    newest = write_checkpoint(tmp_path, 2, {"at": 2}, learners)
    DAMAGES[damage](newest)
    found = latest_checkpoint(tmp_path)
    assert (found.step, found.state) == (1, {"at": 1})
    assert len(found.warnings) == 1
    assert "step-00000002 is damaged" in found.warnings[0]
    assert "goes on from step 1" in found.warnings[0]
    # The run goes on, and what it writes next must survive the clearing of old ones.
    write_checkpoint(tmp_path, 2, {"at": "anew"}, learners, keep=1)
    assert latest_checkpoint(tmp_path).state == {"at": "anew"}


def test_a_damaged_future_does_not_push_out_what_is_whole(tmp_path: Path) -> None:
    learners = {"policy": make_learner()}
    write_checkpoint(tmp_path, 1, {}, learners)
    _flip(write_checkpoint(tmp_path, 20, {}, learners) / "state.json")
    write_checkpoint(tmp_path, 2, {}, learners, keep=1)
    assert names(tmp_path) == ["step-00000002"]
    assert latest_checkpoint(tmp_path).step == 2


def test_without_a_whole_one_the_error_says_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="stopped before it wrote one"):
        latest_checkpoint(tmp_path / "none")
    _flip(write_checkpoint(tmp_path, 4, {}, {"policy": make_learner()}) / "state.json")
    with pytest.raises(StoreError, match=r"step-00000004 is damaged \(state.json differs"):
        latest_checkpoint(tmp_path)


def test_one_that_was_set_aside_is_found_and_put_back(tmp_path: Path) -> None:
    learners = {"policy": make_learner()}
    path = write_checkpoint(tmp_path, 5, {"at": 5}, learners)
    # As after a kill between the two renames that replace a checkpoint of the same step.
    path.rename(tmp_path / ".replaced-step-00000005")
    assert latest_checkpoint(tmp_path).state == {"at": 5}
    write_checkpoint(tmp_path, 6, {}, learners)
    assert names(tmp_path) == ["step-00000005", "step-00000006"]


def _full_in_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_sync_file", full)


def _full_in_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr("heed.learners.state.save_file", full)


def _full_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("heed.runs.files.os.fsync", full)


@pytest.mark.parametrize("where", [_full_in_sums, _full_in_tensors, _full_in_json])
def test_a_full_disk_keeps_the_earlier_one_and_says_how_much_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any
) -> None:
    learner = make_learner()
    write_checkpoint(tmp_path, 1, {}, {"policy": learner})
    with monkeypatch.context() as patch:
        where(patch)
        with pytest.raises(StoreError) as told:
            write_checkpoint(tmp_path, 2, {}, {"policy": learner})
    needed = 12 * sum(w.numel() for w in learner.weights().values()) / 1000
    assert f"step 2 needs about {needed:.1f} kB" in str(told.value)
    assert "that of step 1 is kept" in str(told.value)
    assert names(tmp_path) == ["step-00000001"]
    assert find_fault(tmp_path / "step-00000001") is None


def test_an_error_that_is_not_about_the_disk_passes_through(tmp_path: Path) -> None:
    class Broken:
        def save(self, folder: Path) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_checkpoint(tmp_path, 1, {}, {"policy": Broken()})  # type: ignore[dict-item]
    assert names(tmp_path) == []


# A process that forks a writer for each line it reads: starting Python a dozen times would cost
# most of the test's time.
WRITERS = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from heed.learners.checkpoint import latest_checkpoint, write_checkpoint
from heed.learners.local import LocalLearner
from heed.models.fresh import make_model
from heed.models.heads import PolicyHead
from heed.settings import LearnerSettings, OptimSettings
folder = Path(sys.argv[1])
head = PolicyHead(make_model("llama", vocab_size=61, hidden_size=64, num_layers=2, num_heads=2))
settings = LearnerSettings(precision="fp32", device="cpu")
learner = LocalLearner(head, OptimSettings(), 10, settings)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        step = latest_checkpoint(folder).step if any(folder.glob("*step-*")) else 0
        while True:
            step += 1
            with torch.no_grad():
                for parameter in head.parameters():
                    parameter.fill_(float(step))
            write_checkpoint(folder, step, {"value": step}, {"policy": learner}, keep=2)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_in_mid_write_a_dozen_times_there_is_always_a_whole_one(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", WRITERS, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    drawn = random.Random(0)
    torn, last = 0, 0
    for _ in range(12):
        process.stdin.write("go\n")
        process.stdin.flush()
        child = int(process.stdout.readline())
        begun = time.monotonic()
        while not any(folder.glob("step-*")) and time.monotonic() - begun < 60:
            time.sleep(0.01)
        time.sleep(drawn.uniform(0.0, 0.15))
        os.kill(child, signal.SIGKILL)
        assert process.stdout.readline() == "gone\n"
        torn += any(folder.glob(".writing-*"))
        found = latest_checkpoint(folder)
        assert found.warnings == ()
        assert found.state == {"value": found.step}
        assert found.step >= last
        last = found.step
        learner = make_learner_of(64)
        learner.load(found.folder / "policy")
        assert all(bool((w == found.step).all()) for w in learner.weights().values())
    process.stdin.close()
    process.wait()
    assert torn > 0, "no kill came in mid-write, so nothing was tried"
    assert last > 0


def make_learner_of(hidden_size: int) -> LocalLearner:
    head = PolicyHead(causal(hidden_size=hidden_size))
    return LocalLearner(head, OptimSettings(), 10, LearnerSettings(precision="fp32", device="cpu"))
