"""Damaged, read-only, full, or on the network: a clear error, and nothing acknowledged lost."""

from __future__ import annotations

import os
import re
import resource
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.store.clients import SERVER
from tests.store.conftest import make_project, pair, prefer
from tests.store.servers import _user

from heed.data.store import open_store
from heed.data.store.database import Database
from heed.data.store.faults import check_place, file_system
from heed.errors import StoreError

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /home rw shared:2 - nfs4 server:/home rw
31 30 0:41 / /home/ann/my\\040disk rw shared:3 - xfs /dev/sdb rw
32 22 0:42 / /mnt/share rw shared:4 - fuse.sshfs ann@host:/ rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/tmp", "ext4"),
        ("/home/ben", "nfs4"),
        ("/homestead", "ext4"),
        ("/home/ann/my disk/x", "xfs"),
        ("/mnt/share", "fuse.sshfs"),
    ],
)
def test_file_systems_are_told_apart(folder: str, kind: str) -> None:
    assert file_system(Path(folder), MOUNTS) == kind


def test_a_network_file_system_is_refused(tmp_path: Path) -> None:
    mounts = f"1 0 0:1 / {tmp_path.resolve()} rw - nfs4 server:/x rw\n"
    with pytest.raises(StoreError, match=r"network file system \(nfs4\).*PostgreSQL"):
        check_place(tmp_path / "labels.db", mounts)
    check_place(tmp_path / "labels.db", MOUNTS)


def test_places_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no folder"):
        open_store(tmp_path / "none" / "labels.db")
    with pytest.raises(StoreError, match="found 'mysql'"):
        open_store("mysql://host/labels")
    with pytest.raises(StoreError, match="cannot be reached"):
        open_store("postgresql://heed@127.0.0.1:1/labels")


def test_the_file_is_private(tmp_path: Path) -> None:
    with open_store(tmp_path / "labels.db") as store:
        make_project(store, 1)
        for path in tmp_path.iterdir():
            assert path.stat().st_mode & 0o077 == 0, path


def problem_of(place: Path) -> str:
    """What opening or checking a store says; empty where it says that all is well."""
    try:
        with open_store(place) as store:
            return "\n".join(store.check())
    except StoreError as error:
        return str(error)


@pytest.mark.parametrize("what", ["header", "middle", "text"])
def test_a_damaged_file_says_so(tmp_path: Path, what: str) -> None:
    place = tmp_path / "labels.db"
    with open_store(place) as store:
        make_project(store, 300, "ann")
    assert problem_of(place) == ""
    content = bytearray(place.read_bytes())
    if what == "text":
        content = bytearray(b"this is no database, it is a letter to a friend. " * 40)
    else:
        begin = 0 if what == "header" else 4096
        content[begin : begin + 60_000] = os.urandom(60_000)
    place.write_bytes(content)
    assert re.search(r"(?s)damaged or is no SQLite database.*backup|file: ", problem_of(place))
    assert place.read_bytes() == bytes(content)


def in_a_process(work: Any, *words: Any) -> list[str]:
    """Run in a process of its own, because it gives up rights or room; returns what it says."""
    out = SERVER.Queue()
    process = SERVER.Process(target=work, args=(*words, out))
    process.start()
    said = out.get(timeout=120)
    process.join(30)
    return list(said)


def _as_somebody_without_rights(place: str, ann: str, lease: str, out: Any) -> None:
    said = []
    if os.geteuid() == 0:
        import pwd

        os.setgroups([])
        os.setuid(pwd.getpwnam("nobody").pw_uid)
    try:
        with open_store(place) as store:
            store.answers.submit(lease, ann, prefer(), submission_id="x")
            said.append("stored")
    except StoreError as error:
        said.append(str(error))
    out.put(said)


@pytest.mark.skipif(_user() is None, reason="needs root, to become somebody without rights")
@pytest.mark.parametrize(
    ("mode", "message"),
    [(0o555, "cannot be written by this user"), (0o777, "is read-only for this user")],
)
def test_a_read_only_place_says_so(mode: int, message: str) -> None:
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="heed-read-only-"))
    try:
        with open_store(folder / "labels.db") as store:
            (ann,) = make_project(store, 2, "ann")
            lease = store.queue.claim("p", ann).work[0].lease
        (folder / "labels.db").chmod(0o444)
        folder.chmod(mode)
        said = in_a_process(_as_somebody_without_rights, str(folder / "labels.db"), ann, lease)
        assert len(said) == 1
        assert message in said[0]
        with open_store(folder / "labels.db") as store:
            assert store.answers.history("p", ann) == []
    finally:
        shutil.rmtree(folder)


def _until_the_disk_is_full(place: str, ann: str, most: int, out: Any) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    said: list[str] = []
    with open_store(place) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        for number in range(400):
            try:
                work = store.queue.claim("p", ann).work[0]
                long = prefer(note="a long note " * 200)
                receipt = store.answers.submit(work.lease, ann, long, submission_id=str(number))
                said.append(receipt.judgment)
            except StoreError as error:
                said.append(f"error {error}")
                break
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        # The same process goes on as soon as there is room again.
        work = store.queue.claim("p", ann).work[0]
        said.append(store.answers.submit(work.lease, ann, prefer(), submission_id="y").judgment)
    out.put(said)


def test_a_full_disk_says_so_and_loses_nothing(tmp_path: Path) -> None:
    place = tmp_path / "labels.db"
    with open_store(place) as store:
        (ann,) = make_project(store, 0, "ann")
        store.items.add("p", [pair(k) for k in range(450)], actor="x")
    room = place.stat().st_size + 500_000
    said = in_a_process(_until_the_disk_is_full, str(place), ann, room)
    errors = [one for one in said if one.startswith("error")]
    assert len(errors) == 1
    assert "the disk is full or failing" in errors[0]
    acknowledged = [one for one in said if not one.startswith("error")]
    assert len(acknowledged) > 5
    with open_store(place) as store:
        stored = {judgment.id for judgment in store.answers.history("p", ann, 1000)}
        assert stored == set(acknowledged)
        assert store.check() == []


def test_a_store_that_stays_locked_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heed.data.store.database.BUSY_MS", 50)
    place = tmp_path / "labels.db"
    with open_store(place) as store:
        make_project(store, 1, "ann")
        other = sqlite3.connect(place, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="stayed locked by another process"):
            store.items.add("p", [pair(5)], actor="x")
        other.execute("ROLLBACK")
        assert store.items.add("p", [pair(5)], actor="x")[0].status == "new"


def test_settings_of_the_connection(tmp_path: Path) -> None:
    from sqlalchemy import text

    open_store(tmp_path / "labels.db").close()
    database = Database(tmp_path / "labels.db")

    def pragma(name: str) -> Any:
        return database.write(lambda c: c.execute(text(f"PRAGMA {name}")).scalar())

    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "trusted_schema": 0,
              "busy_timeout": 10_000}  # fmt: skip
    assert {name: pragma(name) for name in wanted} == wanted
    database.close()
