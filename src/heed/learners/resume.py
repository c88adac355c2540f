"""Checkpoints in time: when one is due, and how a run goes on from the newest whole one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from heed.learners.base import Learner
from heed.learners.checkpoint import latest_checkpoint, write_checkpoint
from heed.runs.run import Run
from heed.settings import RunSettings


class Checkpoints:
    """The checkpoints of one run.

    All random streams derive from names (`heed.ids.stream_seed`), so a checkpoint holds the step,
    the learners and what the loop itself remembers, and a resumed run ends with the same bits.

    Args:
        run: whose folder holds them.
        learners: name -> learner, saved and loaded together.
        settings: how often, and how many stay.
    """

    def __init__(self, run: Run, learners: Mapping[str, Learner], settings: RunSettings) -> None:
        self._run = run
        self._learners = learners
        self._settings = settings
        self._folder = run.path("checkpoints")
        self._written = time.monotonic()

    def resume(self) -> tuple[int, dict[str, Any]]:
        """Load the newest whole checkpoint; returns its step and the loop's state.

        Without a checkpoint the run starts over: (0, {}). Metrics and samples after that step are
        cut from the run's files, because they will be made again.
        """
        step, state = 0, {}
        # "*step-*": also one that was set aside when a kill came before its successor stood.
        if self._settings.resume and any(self._folder.glob("*step-*")):
            found = latest_checkpoint(self._folder)
            for message in found.warnings:
                self._run.warn(found.step, "checkpoint", message)
            for name, learner in self._learners.items():
                learner.load(found.folder / name)
            step, state = found.step, found.state
        self._run.rewind(step)
        return step, state

    def maybe_write(self, step: int, state: dict[str, Any], *, last: bool = False) -> bool:
        """Write a checkpoint if one is due or this is the last step; says whether it did."""
        due = time.monotonic() - self._written >= self._settings.checkpoint_seconds
        if not (due or last):
            return False
        write_checkpoint(
            self._folder, step, state, self._learners, keep=self._settings.keep_checkpoints
        )
        self._written = time.monotonic()
        return True
