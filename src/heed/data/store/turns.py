"""Writers of one SQLite file take turns in the order in which they came.

SQLite itself lets those who wait try again at random, so that under load some wait for ever. A lock
on a file beside the database, which the system drops when a process dies, is a fair queue.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heed.errors import StoreError

try:
    import fcntl
except ImportError:  # Windows has no advisory locks of this kind; SQLite's own waiting remains
    fcntl = None  # type: ignore[assignment]


@contextmanager
def turn(database: Path | None) -> Iterator[None]:
    """Wait for the turn to write; None (PostgreSQL) does not wait."""
    if database is None or fcntl is None:
        yield
        return
    path = database.with_name(f"{database.name}.turn")
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"{path} could not be opened ({error.strerror}); the label store is read-only for "
            "this user, or its folder is. Nothing of this request was stored"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
