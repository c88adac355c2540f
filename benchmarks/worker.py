"""One side of a case in its own process, which takes turns with the other's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.jobs import Case
from benchmarks.summary import HEED, TRL_TUNED

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / ".bench"
WARM_UP_STEPS = 2
# glibc then keeps freed memory instead of returning it to the system: fewer page faults.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


@dataclass(frozen=True)
class Sides:
    """Where the two sides run.

    Args:
        trl_python: interpreter with TRL; heed's own is the one that runs this.
        trl_with_ppo: folder of the last TRL that has PPO; goes first on its path for that job.
        threads: of torch.
        inherited: entries of PYTHONPATH that both sides keep.
    """

    trl_python: Path = BENCH / "venv/bin/python"
    trl_with_ppo: Path = BENCH / "trl-1.12"
    threads: int = 1
    inherited: tuple[str, ...] = field(default=())

    def command(self, side: str, case: Case, precision: str) -> list[str]:
        """What starts a worker."""
        python = sys.executable if side == HEED else str(self.trl_python)
        module = "benchmarks.heed_worker" if side == HEED else "benchmarks.trl_worker"
        return [python, "-m", module, "--case", case.dumps(), "--precision", precision]

    def environment(self, side: str, case: Case) -> dict[str, str]:
        """What it finds around it."""
        paths = [str(ROOT), *([str(ROOT / "src")] if side == HEED else []), *self.inherited]
        if side != HEED and case.job == "ppo":
            paths.insert(0, str(self.trl_with_ppo))
        return {
            **{name: value for name, value in os.environ.items() if name not in KEEP_MEMORY},
            **(KEEP_MEMORY if side == TRL_TUNED else {}),
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": str(self.threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }


class WorkerError(RuntimeError):
    """A worker ended before it was told to."""


class Worker:
    """One side of a case; `start` warms it up, then it takes turns."""

    def __init__(self, side: str, case: Case, precision: str, sides: Sides) -> None:
        self.side, self.case, self.precision = side, case, precision
        name = f"{side}-{precision}-{case.job}-{case.model}-{case.lengths}"
        self._log = BENCH / "logs" / f"{name}.txt"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            sides.command(side, case, precision),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
            env=sides.environment(side, case),
            cwd=ROOT,
        )

    def start(self, warm_up: int = WARM_UP_STEPS) -> None:
        """Wait until it is set up, and warm it up."""
        self._read()
        self.turn(warm_up)

    def turn(self, steps: int) -> dict[str, Any]:
        """Run so many steps and return their seconds, memory and notes.

        Raises:
            WorkerError: the process ended; the message has the end of its log.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"steps": steps}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the reason stands in the log, which reading shows
        return self._read()

    def stop(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise WorkerError(f"the {self.side} worker of {self.case.job} ended:\n{tail}")
        return dict(json.loads(line))


def turn_row(worker: Worker, pair: int, steps: int) -> dict[str, Any]:
    """Let a worker take its turn, and write down whose it was."""
    found = worker.turn(steps)
    case = worker.case
    return {
        "kind": "turn",
        "job": case.job,
        "model": case.model,
        "lengths": case.lengths,
        "side": worker.side,
        "precision": worker.precision,
        "pair": pair,
        **found,
    }
