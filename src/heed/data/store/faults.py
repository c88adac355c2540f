"""What can be wrong with the place of a database, and what a driver's error means."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from heed.data.store.refusal import Refusal
from heed.errors import StoreError

_NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.rclone",
    "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3",
    "smbfs",
}  # fmt: skip
_MOUNTS = "/proc/self/mountinfo"
_RETRIED = ("40001", "40P01")


def check_place(path: Path, mounts: str | None = None) -> None:
    """Refuse a place where a SQLite label store cannot be kept safely.

    Args:
        path: of the database file.
        mounts: the text of the system's list of mounts; read from it by default.

    Raises:
        StoreError: the folder is absent or not writable, or lies on a network file system.
    """
    folder = path.resolve().parent
    if not folder.is_dir():
        raise StoreError(f"{folder} is no folder; make it first, or choose another place")
    kind = file_system(folder, mounts)
    if kind in _NETWORK:
        raise StoreError(
            f"{path} lies on a network file system ({kind}), where SQLite can lose labels: its "
            "write-ahead log needs memory that is shared on one machine. Choose a local disk, or "
            "a PostgreSQL database by its URL"
        )
    if not os.access(folder, os.W_OK):
        raise StoreError(
            f"the folder {folder} cannot be written by this user; a store needs it for the "
            "database and its write-ahead log. Change its permissions or choose another place"
        )
    if path.exists() and not os.access(path, os.W_OK):
        raise StoreError(f"{path} is read-only for this user; change its permissions")


def file_system(folder: Path, mounts: str | None = None) -> str | None:
    """Name the type of the file system that a folder lies on; None where it is not known."""
    if mounts is None:
        try:
            mounts = Path(_MOUNTS).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
    best, kind = "", None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = fields[4].replace("\\040", " ")
        inside = str(folder) == point or str(folder).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def is_worth_retrying(error: SQLAlchemyError) -> bool:
    """Whether PostgreSQL gave up a transaction only because another one was in its way."""
    original = getattr(error, "orig", None)
    return getattr(original, "sqlstate", None) in _RETRIED


def explain(error: SQLAlchemyError, place: str) -> StoreError:
    """Say what a driver's error means for the person who runs the store."""
    original = getattr(error, "orig", None) or error
    name = str(getattr(original, "sqlite_errorname", "") or "")
    state = str(getattr(original, "sqlstate", "") or "")
    detail = str(original).splitlines()[0] if str(original) else type(original).__name__
    if name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR") or state == "53100":
        return StoreError(
            f"the label store {place} could not be written: the disk is full or failing "
            f"({detail}). Nothing of this request was stored; everything acknowledged before is. "
            "Free some space and try again"
        )
    if name.startswith("SQLITE_READONLY") or state == "25006":
        return StoreError(
            f"the label store {place} is read-only ({detail}). Nothing of this request was "
            "stored. Give this user the right to write the file and its folder"
        )
    if name.startswith("SQLITE_CANTOPEN"):
        return StoreError(
            f"the label store {place} could not be opened ({detail}); check that the folder "
            "exists and that this user may write in it"
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StoreError(
            f"{place} is damaged or is no SQLite database ({detail}). Keep the file, and restore "
            "the newest backup; labels that came later stand in exported event logs"
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreError(
            f"the label store {place} stayed locked by another process ({detail}); nothing of "
            "this request was stored. Try again; if it lasts, find the process that holds it"
        )
    if isinstance(error, IntegrityError):
        return Refusal("conflict", f"the label store {place} refused a contradiction ({detail})")
    if isinstance(error, OperationalError) and not name:
        return StoreError(
            f"the database {place} cannot be reached or ended the connection ({detail}). "
            "Nothing unacknowledged was stored; check that the server runs, then try again"
        )
    if isinstance(error, DBAPIError):
        return StoreError(f"the label store {place} failed ({detail})")
    return StoreError(f"the label store {place} failed ({type(error).__name__}: {detail})")
