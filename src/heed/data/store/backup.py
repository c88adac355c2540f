"""Copies of a store while it is in use, and the way back."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from heed.data.store.database import Database
from heed.errors import StoreError
from heed.runs.files import sync_folder


def backup_sqlite(database: Database, target: Path) -> Path:
    """Copy a SQLite store as it is at this moment, while people work; returns the path.

    Raises:
        StoreError: the target exists, cannot be written, or the store is in PostgreSQL.
    """
    if database.path is None:
        raise StoreError(
            "the store is in PostgreSQL, which has its own tools for backups: "
            f"pg_dump --format=custom --file={target} (and pg_restore)"
        )
    if target.exists():
        raise StoreError(f"{target} exists already; choose another name for the backup")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with database.plain() as connection:
            connection.execute("VACUUM INTO ?", (str(temporary),))
        check_file(temporary)
        os.chmod(temporary, 0o600)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)
    except (OSError, sqlite3.Error) as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(
            f"the backup {target} could not be written ({error}); the store itself is untouched"
        ) from error
    return target


def check_file(path: Path) -> None:
    """Hold a SQLite file to being whole.

    Raises:
        StoreError: it is not.
    """
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            found = connection.execute("PRAGMA integrity_check").fetchall()
            strangers = connection.execute("PRAGMA foreign_key_check").fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(f"{path} is damaged or is no SQLite database ({error})") from error
    if found != [("ok",)] or strangers:
        raise StoreError(f"{path} is damaged ({(found + strangers)[0]}); use an older backup")


def restore_sqlite(source: Path, target: Path) -> None:
    """Put a backup in the place of a store that nobody has open; the old file is kept beside it.

    Raises:
        StoreError: the backup is damaged, or the store is in use.
    """
    if not source.is_file():
        raise StoreError(f"{source} does not exist; name a backup")
    check_file(source)
    for extra in ("-wal", "-shm"):
        if target.with_name(target.name + extra).exists():
            _close_wal(target)
            break
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(source.read_bytes())
        os.chmod(temporary, 0o600)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        if target.exists():
            os.replace(target, target.with_name(f"{target.name}.replaced"))
        os.replace(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"{target} could not be restored ({error})") from error


def _close_wal(target: Path) -> None:
    """Fold the write-ahead log into a store that was killed; refuse one that is in use."""
    leftovers = [target.with_name(target.name + extra) for extra in ("-wal", "-shm")]
    try:
        connection = sqlite3.connect(target, timeout=1.0, isolation_level=None)
        try:
            # Fails while another connection is open.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        raise StoreError(f"{target} is in use ({error}); stop the server first") from error
    except sqlite3.DatabaseError:
        # The store is damaged, which is why a backup is wanted; its log goes with it.
        for path in leftovers:
            if path.exists():
                os.replace(path, path.with_name(f"{path.name}.replaced"))
