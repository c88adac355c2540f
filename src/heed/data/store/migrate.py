"""Bring a database to the tables that this version of heed knows: whole, or not at all."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from heed.data.store.backup import backup_sqlite
from heed.data.store.database import Database
from heed.errors import StoreError

NEWEST = "0002"
"""The last of `heed.data.migrations.versions`; a test holds it to that."""

_LOCK = 4_831_207_551


def revision_of(connection: Connection) -> str | None:
    """Return the revision of a database; None of an empty one.

    Raises:
        StoreError: it has tables, and they are not of a label store.
    """
    names = set(inspect(connection).get_table_names())
    if "alembic_version" in names:
        row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
        return None if row is None else str(row[0])
    if names:
        raise StoreError(
            f"the database has tables ({', '.join(sorted(names)[:5])}) that are not of a label "
            "store; give it a database of its own"
        )
    return None


def migrate(database: Database, *, to: str = NEWEST) -> str | None:
    """Bring a database to a revision; returns the revision that it had.

    A SQLite file with content is copied beside itself first.

    Raises:
        StoreError: it was written by a newer heed, or is no label store.
    """
    with database.read() as connection:
        before = revision_of(connection)
    if before == to:
        return before
    if before is not None and before > to:
        raise StoreError(
            f"{database.place} was written by a newer heed (its tables are at {before}, this one "
            f"knows {to}); install that version, or restore the backup from before it"
        )
    if before is not None and database.path is not None:
        backup_sqlite(database, database.path.with_name(f"{database.path.name}.before-{to}"))
    database.write(lambda connection: _upgrade(connection, to))
    return before


def _upgrade(connection: Connection, to: str) -> None:
    from alembic import command
    from alembic.config import Config

    from heed.data import migrations

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    if revision_of(connection) == to:
        return  # another process did it while this one waited
    config = Config()
    folder = str(Path(migrations.__file__).parent)
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
