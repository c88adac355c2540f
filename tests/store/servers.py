"""A real PostgreSQL of the test's own: its files in a temporary folder, its port a free one."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# In memory where there is any: a server of many small databases is slow to make and to remove.
MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


def _binaries() -> Path | None:
    on_path = shutil.which("postgres")
    found = [Path(on_path).resolve().parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in found if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


def _user() -> str | None:
    """PostgreSQL does not run as root; None means that the tests run as somebody else already."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running_postgresql() -> Iterator[str]:
    """Start a server, and stop it; gives the URL without the database's name."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra postgres)")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("the binaries of PostgreSQL (postgres, initdb, pg_ctl) are not installed")
    user, port = _user(), _free_port()
    folder = Path(tempfile.mkdtemp(prefix="heed-postgresql-", dir=MEMORY))
    if user is not None:
        shutil.chown(folder, user)

    def call(*words: str) -> None:
        done = subprocess.run(
            words, user=user, cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)

    data = folder / "data"
    control = str(binaries / "pg_ctl")
    try:
        call(
            str(binaries / "initdb"), "-D", str(data), "-U", "heed", "-A", "trust", "-E", "UTF8",
            "--locale=C", "--no-sync",
        )  # fmt: skip
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c max_connections=120"
        # What is tested with it is concurrency; durability is the server's own affair.
        options += " -c fsync=off"
        log = str(folder / "log")
        call(control, "-D", str(data), "-w", "-t", "60", "-l", log, "-o", options, "start")
        try:
            yield f"postgresql://heed@127.0.0.1:{port}/"
        finally:
            call(control, "-D", str(data), "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_made = 0


def new_database(server: str) -> str:
    """Make an empty database on a running server; returns its URL."""
    import psycopg

    global _made
    _made += 1
    name = f"labels_{os.getpid()}_{_made}_{time.time_ns()}"
    with psycopg.connect(f"{server}postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    return server + name
