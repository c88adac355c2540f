"""What two runs of the same settings must share to the bit, and ways to end one early."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from heed.ids import file_hash
from heed.learners.resume import Checkpoints
from heed.runs.run import Run

TIMES = {"wall_seconds", "tokens_per_second", "samples_per_second"}


class StoppedError(Exception):
    """Stands for whatever ends a run early."""


def fingerprint(folder: Path) -> dict[str, Any]:
    """All that a run's settings determine: model, newest checkpoint, metrics, samples, findings."""
    run = Run.open(folder)
    newest = max(folder.glob("checkpoints/step-*"))
    return {
        "model": {p.name: file_hash(p, 64) for p in sorted((folder / "model").iterdir())},
        "checkpoint": (newest.name, (newest / "SHA256SUMS").read_text()),
        "metrics": [untimed(row) for row in run.metrics()],
        "samples": run.samples(),
        "findings": [finding.model_dump() for finding in run.findings()],
        "facts": run.manifest["facts"],
        "status": run.status,
    }


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    """A line of metrics without what the clock says."""
    return {k: v for k, v in row.items() if k not in TIMES and not k.startswith("time/")}


@contextmanager
def stopped_at(patch: pytest.MonkeyPatch, owner: type, method: str, call: int) -> Iterator[None]:
    """Inside, the `call`-th call of a method (from 1) raises before it does anything.

    What is inside must end by that.
    """
    original: Callable[..., Any] = getattr(owner, method)
    count = 0

    def stopping(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            raise StoppedError
        return original(*args, **kwargs)

    with patch.context() as inner:
        inner.setattr(owner, method, stopping)
        try:
            yield
        except StoppedError:
            return
    pytest.fail(f"{method} was called {count} times, not {call}")


@contextmanager
def resumed_from(patch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Collect the step that each run inside goes on from."""
    steps: list[int] = []
    original = Checkpoints.resume

    def resume(self: Checkpoints) -> tuple[int, dict[str, Any]]:
        found = original(self)
        steps.append(found[0])
        return found

    with patch.context() as inner:
        inner.setattr(Checkpoints, "resume", resume)
        yield steps
