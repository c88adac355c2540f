"""One database, SQLite by a path or PostgreSQL by a URL, and the two ways into it.

`write` runs one unit of work in one transaction that is alone from its first statement on (SQLite:
`BEGIN IMMEDIATE`) or locks the rows that it reads (PostgreSQL); `read` sees one moment. A unit of
work that was acknowledged survives a kill of this process and a loss of power.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from heed.data.store.faults import check_place, explain, is_worth_retrying
from heed.data.store.turns import turn
from heed.errors import MissingExtra, StoreError

Clock = Callable[[], int]
T = TypeVar("T")

BUSY_MS = 10_000
_TRIES = 8


def system_clock() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


class Database:
    """Connections to one database, and the clock that its times are read from.

    Args:
        where: path of a SQLite file (made where absent), or `postgresql://user@host/name`.
        clock: gives milliseconds since 1970.
        pool: keep connections open between units of work.

    Raises:
        StoreError: the place cannot hold a store.
        MissingExtra: a PostgreSQL URL is given and psycopg is not installed.
    """

    def __init__(
        self, where: str | Path, *, clock: Clock = system_clock, pool: bool = True
    ) -> None:
        self.clock = clock
        self.url, self.path = _place(where)
        self.is_sqlite = self.path is not None
        self.place = str(self.path or self.url.render_as_string(hide_password=True))
        options: dict[str, Any] = {} if pool else {"poolclass": NullPool}
        if self.path is not None:
            check_place(self.path)
            _make_private(self.path)
            options["connect_args"] = {"timeout": BUSY_MS / 1000, "check_same_thread": False}
        else:
            options["isolation_level"] = "READ COMMITTED"
        try:
            self._writer = create_engine(self.url, **options)
            self._reader = create_engine(self.url, **options)
        except ModuleNotFoundError as error:
            raise MissingExtra("psycopg", "postgres") from error
        if self.is_sqlite:
            _configure_sqlite(self._writer, "BEGIN IMMEDIATE")
            _configure_sqlite(self._reader, "BEGIN", only_read=True)
        else:
            self._reader = self._reader.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )

    def write(self, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Run a unit of work in a transaction; it is stored when this returns, or not at all.

        Args:
            work: may be run again from the start where PostgreSQL gives it up for another.
            durable: wait for the disk. False for what may be lost with the power (leases, drafts).

        Raises:
            StoreError: it could not be stored; nothing of it was.
        """
        for left in reversed(range(_TRIES)):
            try:
                with turn(self.path), self._writer.connect() as plain:
                    connection = plain.execution_options(heed_durable=durable)
                    with connection.begin():
                        return work(connection)
            except SQLAlchemyError as error:
                if not is_worth_retrying(error) or left == 0:
                    raise explain(error, self.place) from error
                time.sleep(0.005 * (_TRIES - left))
        raise AssertionError("unreachable")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection that sees one moment of the database and cannot change it.

        Raises:
            StoreError: the database cannot be read.
        """
        try:
            with self._reader.connect() as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            raise explain(error, self.place) from error

    @contextmanager
    def plain(self) -> Iterator[Any]:
        """Open the driver's own connection, outside any transaction (for backups)."""
        try:
            connection = self._writer.raw_connection()
            try:
                yield connection.driver_connection
            finally:
                connection.close()
        except SQLAlchemyError as error:
            raise explain(error, self.place) from error

    def close(self) -> None:
        """Close all connections."""
        self._writer.dispose()
        self._reader.dispose()


def _place(where: str | Path) -> tuple[URL, Path | None]:
    text = str(where)
    if "://" not in text:
        path = Path(text).expanduser()
        return URL.create("sqlite", database=str(path)), path
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise StoreError(f"{text!r} is no URL of a database ({error})") from error
    if url.drivername == "sqlite" and url.database:
        return url, Path(url.database)
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg"), None
    raise StoreError(
        f"a label store is a SQLite file or a PostgreSQL database; found {url.drivername!r}. "
        "Give a path, or postgresql://user@host/name"
    )


def _make_private(path: Path) -> None:
    # It holds answers and secrets; SQLite gives the files beside it the same mode.
    if not path.exists():
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise StoreError(f"{path} could not be made ({error.strerror})") from error


def _configure_sqlite(engine: Engine, begin: str, only_read: bool = False) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        # The driver's own transactions begin too late: at the first change, not at the first read.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        for pragma in (
            "foreign_keys = ON",
            "trusted_schema = OFF",
            "synchronous = FULL",
            # What is erased is overwritten, not only unlinked.
            "secure_delete = ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        if only_read:
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        if not only_read:
            durable = connection.get_execution_options().get("heed_durable", True)
            level = "FULL" if durable else "NORMAL"
            connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
        connection.exec_driver_sql(begin)
