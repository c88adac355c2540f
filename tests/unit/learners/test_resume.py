"""A run that is stopped and resumed ends with the bits and the lines of one that was not."""

from pathlib import Path
from typing import Any

import pytest
import torch

from heed.learners.local import LocalLearner
from heed.learners.resume import Checkpoints
from heed.models.heads import PolicyHead
from heed.runs.run import Run
from heed.settings import LearnerSettings, OptimSettings, RunSettings

from .conftest import causal, make_batch, token_loss

STEPS = 9


class StoppedError(Exception):
    """Stands for whatever ends a run early."""


def train(folder: Path, precision: str, stop_after: int = 0, **how: Any) -> LocalLearner:
    settings = RunSettings(folder=str(folder), checkpoint_seconds=0.0, **how)
    optim = OptimSettings(lr=1e-2, schedule="cosine", eps_placement="tensorflow")
    learner = LocalLearner(
        PolicyHead(causal()), optim, STEPS, LearnerSettings(precision=precision, device="cpu")
    )
    with Run.start(settings, "sft", {"lr": 1e-2}) as run:
        checkpoints = Checkpoints(run, {"policy": learner}, settings)
        start, state = checkpoints.resume()
        total = state.get("total", 0.0)
        for step in range(start + 1, STEPS + 1):
            batch = make_batch(5, step)
            terms = learner.backward(batch, token_loss, batch.num_learned)
            total += float(terms["loss"].sum())
            run.log(step, {"grad_norm": learner.step(), "loss": total}, total=STEPS)
            run.sample(step, [{"completion": f"of step {step}"}])
            if step == stop_after:
                raise StoppedError
            checkpoints.maybe_write(step, {"total": total}, last=step == STEPS)
    return learner


def lines(folder: Path) -> list[dict[str, Any]]:
    rows = Run.open(folder).metrics()
    return [{name: v for name, v in row.items() if name != "wall_seconds"} for row in rows]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("damage", [False, True])
def test_it_ends_as_if_nothing_had_happened(tmp_path: Path, precision: str, damage: bool) -> None:
    whole = train(tmp_path / "whole", precision)
    with pytest.raises(StoppedError):
        train(tmp_path / "cut", precision, stop_after=1)
    with pytest.raises(StoppedError):
        train(tmp_path / "cut", precision, stop_after=5, resume=True)
    if damage:
        newest = max((tmp_path / "cut" / "checkpoints").glob("step-*"))
        (newest / "policy" / "weights.safetensors").write_bytes(b"")
    resumed = train(tmp_path / "cut", precision, resume=True)
    for name, weight in whole.weights().items():
        assert torch.equal(weight, resumed.weights()[name]), name
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    cut = Run.open(tmp_path / "cut")
    assert cut.samples() == Run.open(tmp_path / "whole").samples()
    assert cut.manifest["resumes"] == 2
    told = [warning["message"] for warning in cut.warnings() if warning["name"] == "checkpoint"]
    assert len(told) == damage
    assert all("step-00000004 is damaged" in text for text in told)
