"""Take turns: a worker sets up once, then runs so many steps each time it is told to.

Both sides' workers use this. A command is one JSON line on standard input, {"steps": n}; the
answer is one JSON line with the seconds of each step. {"steps": 0}, or the end of the input, ends
the worker. Start-up is never in a step's time.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

_STAT = Path("/proc/stat")


class Turns:
    """What a worker calls: `ready` when it is set up, `step_done` after every step."""

    def __init__(self) -> None:
        # Libraries print to standard output; the channel is a copy of it, and they get stderr.
        self._channel = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self._began = time.perf_counter()
        self._left = 0
        self._seconds: list[float] = []
        self._cpu_seconds: list[float] = []
        self._notes: dict[str, Any] = {}
        self._last = self._began
        self._busy = self._cpu = self._last_cpu = 0.0

    def ready(self) -> None:
        """Say that set-up is over, and wait for the first turn."""
        finish_device_work()
        self._send({"ready": True, "seconds": time.perf_counter() - self._began})
        self._wait()

    def note(self, **facts: Any) -> None:
        """Add facts to the answer of the present turn, such as tokens that were generated."""
        for name, value in facts.items():
            self._notes.setdefault(name, []).append(value)

    def step_done(self) -> None:
        """Count a step; at the end of a turn, answer and wait for the next one."""
        finish_device_work()
        self._seconds.append(time.perf_counter() - self._last)
        self._cpu_seconds.append(time.process_time() - self._last_cpu)
        self._left -= 1
        if self._left == 0:
            self._answer()
            self._wait()
        self._last, self._last_cpu = time.perf_counter(), time.process_time()

    def _answer(self) -> None:
        wall = sum(self._seconds)
        others = max(0.0, busy_seconds() - self._busy - (time.process_time() - self._cpu))
        self._send(
            {
                "seconds": self._seconds,
                "cpu_seconds": self._cpu_seconds,
                "others_cores": others / wall,
                "peak_bytes": peak_bytes(),
                "peak_device_bytes": peak_device_bytes(),
                **self._notes,
            }
        )

    def _wait(self) -> None:
        line = sys.stdin.readline()
        steps = json.loads(line)["steps"] if line.strip() else 0
        if steps == 0:
            leave()
        self._left, self._seconds, self._cpu_seconds, self._notes = steps, [], [], {}
        self._busy, self._cpu = busy_seconds(), time.process_time()
        self._last, self._last_cpu = time.perf_counter(), time.process_time()

    def _send(self, message: dict[str, Any]) -> None:
        self._channel.write(json.dumps(message) + "\n")
        self._channel.flush()


def busy_seconds() -> float:
    """Seconds that all cores together have been busy since boot; 0 where the system hides it."""
    if not _STAT.exists():
        return 0.0
    fields = [int(x) for x in _STAT.read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


def peak_bytes() -> int:
    """Largest resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cuda() -> Any:
    """torch.cuda where this process uses a CUDA device, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def finish_device_work() -> None:
    """Wait until a CUDA device has done what it was given, so that a step's time is all of it."""
    device = cuda()
    if device is not None:
        device.synchronize()


def peak_device_bytes() -> int:
    """Most memory that tensors of this process took on a CUDA device."""
    device = cuda()
    return 0 if device is None else int(device.max_memory_allocated())


def leave() -> NoReturn:
    """End the worker at once, from inside whatever loop it is in."""
    sys.stderr.flush()
    os._exit(0)
