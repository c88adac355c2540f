"""One writer per run folder: an advisory lock that the system drops when the process dies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from heed.errors import StoreError

try:
    import fcntl
except ImportError:  # Windows has no advisory locks of this kind
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = ".lock"


def take_lock(folder: Path) -> IO[str]:
    """Lock a folder for this process until the returned file is closed.

    Raises:
        StoreError: another process holds the lock; its process id is named.
    """
    stream = (folder / LOCK_NAME).open("a+", encoding="utf-8")
    if fcntl is not None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            owner = stream.read().strip() or "unknown"
            stream.close()
            raise StoreError(
                f"the run folder {folder} is in use by process {owner}; wait for it, "
                "stop it, or give this run another folder"
            ) from None
    stream.truncate(0)
    stream.write(str(os.getpid()))
    stream.flush()
    return stream


def is_locked(folder: Path) -> bool:
    """Tell whether a process is writing to the folder now."""
    path = folder / LOCK_NAME
    if fcntl is None or not path.exists():
        return False
    with path.open("r", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
