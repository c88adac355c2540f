"""How far a person has come in a project, and which project a lease belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from heed.data.store import schema
from heed.data.store.leases import own_lease
from heed.data.store.projects import project_in
from heed.data.store.store import Store

_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Progress:
    """A person's own work: answers that stand, those of this day (UTC), and items still open."""

    done: int
    today: int
    remaining: int


def progress_of(store: Store, project: str, person: str) -> Progress:
    """Count a person's answers to ordinary items, and the open items that they have not answered.

    Raises:
        Refusal: there is no such project.
    """
    item, judged = schema.item.c, schema.judgment.c
    midnight = store.database.clock() // _DAY_MS * _DAY_MS
    with store.database.read() as connection:
        found = project_in(connection, project)
        mine = (
            (judged.project == found.id)
            & (judged.person == person)
            & (judged.state == "standing")
            & (judged.role == "label")
        )
        ordinary = (item.project == found.id) & (item.role == "normal")
        counted = (
            select(func.count())
            .select_from(schema.judgment.join(schema.item, judged.item == item.id))
            .where(mine, ordinary)
        )
        answered = select(judged.item).where(mine)
        left = select(func.count()).where(ordinary, item.state == "ready", item.id.not_in(answered))
        return Progress(
            connection.execute(counted).scalar_one(),
            connection.execute(counted.where(judged.created_at >= midnight)).scalar_one(),
            connection.execute(left).scalar_one(),
        )


def project_of_lease(store: Store, lease: str, person: str) -> str:
    """Find the project of a person's own lease.

    Raises:
        Refusal: there is no such lease, or it is somebody else's.
    """
    with store.database.read() as connection:
        return str(own_lease(connection, lease, person).project)


def has_accounts(store: Store) -> bool:
    """Whether anybody can log in with a password."""
    table = schema.identity.c
    with store.database.read() as connection:
        query = select(table.person).where(table.password_hash.is_not(None)).limit(1)
        return connection.execute(query).first() is not None
