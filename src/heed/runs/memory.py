"""Peak memory of this process, per run although runs may share a process."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from weakref import WeakSet

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def peak_memory_bytes() -> int | None:
    """Largest resident memory of this process in bytes, or None where the system does not tell.

    Linux is read from /proc, because `getrusage` there inherits the peak of the process that
    started this one.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return rusage_bytes()


def rusage_bytes(platform: str = sys.platform) -> int | None:
    """Largest resident memory by `getrusage` in bytes: it counts KiB, but bytes on macOS."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform == "darwin" else peak * 1024


class PeakMemory:
    """Peak since this was made.

    The system keeps one mark per process. A new tracker lowers it to the present size (Linux),
    after every older tracker has noted what it stood at, so each reports its own span.
    """

    _live: WeakSet[PeakMemory] = WeakSet()

    def __init__(self) -> None:
        for tracker in list(self._live):
            tracker.bytes()
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5")
        self._seen = 0
        self._live.add(self)

    def bytes(self) -> int | None:
        """The peak in bytes, or None where the system does not tell."""
        now = peak_memory_bytes()
        if now is None:
            return None
        self._seen = max(self._seen, now)
        return self._seen
