"""From the first tables to the newest, with data, on both engines; and copies before it."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.store.conftest import Clock, make_project, prefer

from heed.data import migrations
from heed.data.store import Store, open_store, restore_store, schema
from heed.data.store.database import Database
from heed.data.store.migrate import NEWEST, migrate, revision_of
from heed.errors import StoreError


def test_the_newest_migration_is_the_one_that_is_known() -> None:
    folder = Path(migrations.__file__).parent / "versions"
    assert max(path.name[:4] for path in folder.glob("0*.py")) == NEWEST


def test_the_migrations_make_the_tables_that_the_code_knows(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store.database.read() as connection, warnings.catch_warnings():
        # The queue's index is on an expression, which SQLite does not tell of.
        warnings.simplefilter("ignore", UserWarning)
        context = MigrationContext.configure(connection)
        found = compare_metadata(context, schema.metadata)
        assert [one for one in found if "ix_item_open" not in repr(one)] == []
        table = "sqlite_master" if store.database.is_sqlite else "pg_indexes"
        name = "name" if store.database.is_sqlite else "indexname"
        query = f"SELECT count(*) FROM {table} WHERE {name} = 'ix_item_open'"
        assert connection.execute(text(query)).scalar() == 1


def test_a_store_of_the_first_version_goes_on_with_its_data(where: str, clock: Clock) -> None:
    database = Database(where, clock=clock)
    assert migrate(database, to="0001") is None
    with Store(database) as old:
        (ann,) = make_project(old, 5, "ann")
        for number in range(3):
            work = old.queue.claim("p", ann).work[0]
            old.answers.submit(work.lease, ann, prefer(), submission_id=str(number))
        held = old.queue.claim("p", ann).work[0]
        before, head = old.log.state("p"), old.log.head()
    with open_store(where, clock=clock) as new:
        with new.database.read() as connection:
            assert revision_of(connection) == NEWEST
        assert new.log.head() == head
        assert new.log.state("p") == before
        assert new.queue.held("p", ann) == (held,)
        new.answers.submit(held.lease, ann, prefer(), submission_id="after")
        assert new.check() == []
        if new.database.path is not None:
            copy = Path(f"{where}.before-{NEWEST}")
            assert copy.stat().st_mode & 0o777 == 0o600
    if not where.startswith("postgresql"):
        restore_store(copy, where)
        old = Store(Database(where, clock=clock))
        assert old.log.state("p") == before
        old.close()


def test_a_store_of_a_newer_heed_is_left_alone(where: str) -> None:
    open_store(where).close()
    database = Database(where)
    database.write(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    database.close()
    with pytest.raises(StoreError, match="written by a newer heed"):
        open_store(where)


def test_a_strange_database_is_left_alone(where: str) -> None:
    database = Database(where)
    database.write(lambda c: c.execute(text("CREATE TABLE mine (x INTEGER)")))
    database.close()
    with pytest.raises(StoreError, match="not of a label store"):
        open_store(where)


def test_a_migration_that_fails_changes_nothing(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(where)
    migrate(database, to="0001")

    def fail(*args: object, **more: object) -> None:
        raise StoreError("no more")

    from alembic import op

    monkeypatch.setattr(op, "create_index", fail)
    with pytest.raises(StoreError, match="no more"):
        migrate(database)
    with database.read() as connection:
        assert revision_of(connection) == "0001"
    monkeypatch.undo()
    if database.path is not None:
        database.path.with_name(f"{database.path.name}.before-{NEWEST}").unlink()
    migrate(database)
    database.close()


def test_two_that_open_a_new_store_at_once(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def opened(_: int) -> None:
        with open_store(tmp_path / "labels.db") as store:
            assert store.check() == []

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(opened, range(4))) == [None] * 4


def test_backup_while_people_work_and_restore(
    sqlite_store: Store, clock: Clock, tmp_path: Path
) -> None:
    store, target = sqlite_store, tmp_path / "copies" / "monday.db"
    (ann,) = make_project(store, 6, "ann")
    work = store.queue.claim("p", ann, count=2).work
    store.answers.submit(work[0].lease, ann, prefer(), submission_id="1")
    target.parent.mkdir()
    assert store.backup(target) == target
    with pytest.raises(StoreError, match="exists already"):
        store.backup(target)
    store.answers.submit(work[1].lease, ann, prefer(), submission_id="2")
    with pytest.raises(StoreError, match="in use"):
        restore_store(target, tmp_path / "labels.db")
    assert len(store.answers.history("p", ann)) == 2
    store.close()
    restore_store(target, tmp_path / "labels.db")
    with open_store(tmp_path / "labels.db", clock=clock) as back:
        assert len(back.answers.history("p", ann)) == 1
        assert back.check() == []
        back.answers.submit(work[1].lease, ann, prefer(), submission_id="2")
        assert back.check() == []
    target.write_bytes(target.read_bytes()[:20_000])
    with pytest.raises(StoreError, match="damaged"):
        restore_store(target, tmp_path / "labels.db")
    with pytest.raises(StoreError, match="does not exist"):
        restore_store(tmp_path / "none.db", tmp_path / "labels.db")
    shutil.rmtree(target.parent)
