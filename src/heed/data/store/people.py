"""People: pseudonyms that stay with their answers, identities that can be erased, and roles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from heed.data.store import schema
from heed.data.store.access import Access
from heed.data.store.database import Database
from heed.data.store.keyed import new_id
from heed.data.store.log import Entry, append
from heed.data.store.passwords import hash_password
from heed.data.store.projects import project_in
from heed.data.store.refusal import Refusal
from heed.data.store.roles import PERMISSIONS, Caller


@dataclass(frozen=True)
class Person:
    """Somebody, as the log knows them."""

    id: str
    pseudonym: str
    is_admin: bool
    state: str


@dataclass(frozen=True)
class Member:
    """A person's place in a project."""

    person: str
    pseudonym: str
    role: str
    state: str
    skills: tuple[str, ...]
    daily_cap: int | None
    guideline_seen: int


class People:
    """Add people, give them roles, erase who they were. `access` has sessions and tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.access = Access(database)

    def add(
        self,
        pseudonym: str,
        *,
        email: str | None = None,
        name: str | None = None,
        password: str | None = None,
        is_admin: bool = False,
        actor: str = "system",
    ) -> Person:
        """Add a person. Name, address and password stand apart from the answers, and can go.

        Raises:
            Refusal: pseudonym or address is taken.
            MissingExtra: a password is given and argon2 is not installed.
        """
        if not 1 <= len(pseudonym) <= 80 or not pseudonym.isprintable():
            raise Refusal("invalid", "a pseudonym has 1 to 80 printable characters")
        hashed = None if password is None else hash_password(password)

        def work(connection: Connection) -> Person:
            now, person = self._database.clock(), new_id("u")
            add_person(connection, person, pseudonym, is_admin, now)
            if email is not None:
                add_identity(connection, person, email, name, hashed)
            body = {"pseudonym": pseudonym, "is_admin": is_admin}
            append(connection, now, [Entry("person.added", actor, person, body)])
            return Person(person, pseudonym, is_admin, "active")

        return self._database.write(work)

    def get(self, person: str) -> Person:
        """Read a person.

        Raises:
            Refusal: there is none.
        """
        table = schema.person
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.id == person)).first()
        if row is None:
            raise Refusal("absent", f"there is no person {person!r}")
        return Person(row.id, row.pseudonym, row.is_admin, row.state)

    def all(self) -> list[Person]:
        """Read all people, by pseudonym."""
        table = schema.person
        with self._database.read() as connection:
            rows = connection.execute(select(table).order_by(table.c.pseudonym)).all()
        return [Person(row.id, row.pseudonym, row.is_admin, row.state) for row in rows]

    def join(
        self,
        project: str,
        person: str,
        role: str = "annotator",
        *,
        skills: Iterable[str] = (),
        daily_cap: int | None = None,
        state: str = "active",
        actor: str = "system",
    ) -> None:
        """Give a person a role in a project, or change what they had there.

        Raises:
            Refusal: the role is none of annotator, reviewer, researcher; no such person.
        """

        def work(connection: Connection) -> None:
            found = project_in(connection, project)
            values = {
                "role": role, "skills": sorted(skills), "daily_cap": daily_cap, "state": state
            }  # fmt: skip
            join_project(connection, found.id, person, values, self._database.clock(), actor)

        self._database.write(work)

    def members(self, project: str) -> list[Member]:
        """Read the members of a project, by pseudonym."""
        table, person = schema.membership, schema.person
        with self._database.read() as connection:
            found = project_in(connection, project)
            rows = connection.execute(
                select(table, person.c.pseudonym)
                .join(person, person.c.id == table.c.person)
                .where(table.c.project == found.id)
                .order_by(person.c.pseudonym)
            )
            return [
                Member(
                    row.person, row.pseudonym, row.role, row.state, tuple(row.skills),
                    row.daily_cap, row.guideline_seen,
                )
                for row in rows
            ]  # fmt: skip

    def acknowledge(self, project: str, person: str, version: int) -> None:
        """Keep that a person has read a version of the guideline."""

        def work(connection: Connection) -> None:
            found, table = project_in(connection, project), schema.membership
            newest = connection.execute(
                select(func.max(schema.guideline.c.version)).where(
                    schema.guideline.c.project == found.id
                )
            ).scalar()
            if not 0 < version <= (newest or 0):
                raise Refusal("absent", f"there is no guideline {version} in {found.slug!r}")
            done = connection.execute(
                update(table)
                .where(table.c.project == found.id, table.c.person == person)
                .values(guideline_seen=version)
            )
            if not done.rowcount:
                raise Refusal("denied", f"{person!r} is no member of {found.slug!r}")
            body = {"version": version}
            entry = Entry("guideline.read", person, person, body, found.id)
            append(connection, self._database.clock(), [entry])

        self._database.write(work)

    def set_password(self, person: str, password: str, *, actor: str) -> None:
        """Change a password; all sessions of the person end."""
        hashed = hash_password(password)

        def work(connection: Connection) -> None:
            table = schema.identity
            done = connection.execute(
                update(table).where(table.c.person == person).values(password_hash=hashed)
            )
            if not done.rowcount:
                raise Refusal("absent", f"person {person!r} has no identity to log in with")
            sessions = schema.session
            connection.execute(delete(sessions).where(sessions.c.person == person))
            entry = Entry("person.password", actor, person, {})
            append(connection, self._database.clock(), [entry])

        self._database.write(work)

    def set_state(self, person: str, state: str, *, actor: str) -> None:
        """Make a person active or blocked; a blocked one has no way in."""
        if state not in ("active", "blocked"):
            raise Refusal("invalid", f"state {state!r}; give active or blocked")
        self._end_access(person, state, {"state": state}, "person.state", actor)

    def erase(self, person: str, *, actor: str) -> None:
        """Erase who a person is. Answers keep the pseudonym's id, which then leads to nobody."""
        self._end_access(person, "erased", {}, "person.erased", actor, forget=True)

    def caller(self, person: str) -> Caller:
        """What a person may do.

        Raises:
            Refusal: there is none, or they are blocked.
        """
        with self._database.read() as connection:
            return caller_of(connection, person)

    def _end_access(
        self,
        person: str,
        state: str,
        body: dict[str, Any],
        kind: str,
        actor: str,
        *,
        forget: bool = False,
    ) -> None:
        def work(connection: Connection) -> None:
            table, sessions, identity = schema.person, schema.session, schema.identity
            values = {"state": state}
            if forget:
                values["pseudonym"] = f"erased {person}"
            done = connection.execute(update(table).where(table.c.id == person).values(values))
            if not done.rowcount:
                raise Refusal("absent", f"there is no person {person!r}")
            connection.execute(delete(sessions).where(sessions.c.person == person))
            if forget:
                connection.execute(delete(identity).where(identity.c.person == person))
            append(connection, self._database.clock(), [Entry(kind, actor, person, body)])

        self._database.write(work)


def add_person(
    connection: Connection, person: str, pseudonym: str, is_admin: bool, now: int
) -> None:
    """Insert a person.

    Raises:
        Refusal: the pseudonym is taken.
    """
    table = schema.person
    if connection.execute(select(table.c.id).where(table.c.pseudonym == pseudonym)).first():
        raise Refusal("conflict", f"the pseudonym {pseudonym!r} is taken")
    connection.execute(
        insert(table).values(
            id=person, pseudonym=pseudonym, is_admin=is_admin, state="active", created_at=now
        )
    )


def add_identity(
    connection: Connection, person: str, email: str, name: str | None, hashed: str | None
) -> None:
    """Insert who a person is.

    Raises:
        Refusal: the address is taken.
    """
    table, address = schema.identity, email.strip().casefold()
    if not 3 <= len(address) <= 254 or "@" not in address or "\x00" in address:
        raise Refusal("invalid", f"{email!r} is no address")
    if connection.execute(select(table.c.person).where(table.c.email == address)).first():
        raise Refusal("conflict", "there is an account of this address")
    connection.execute(
        insert(table).values(person=person, name=name, email=address, password_hash=hashed)
    )


def join_project(
    connection: Connection,
    project: str,
    person: str,
    values: dict[str, Any],
    now: int,
    actor: str,
) -> None:
    """Insert or change a membership.

    Raises:
        Refusal: the role is unknown, or there is no such person.
    """
    if values["role"] not in PERMISSIONS or values["role"] == "admin":
        raise Refusal("invalid", f"role {values['role']!r}; give annotator, reviewer or researcher")
    if values["state"] not in ("active", "paused", "removed"):
        raise Refusal("invalid", f"state {values['state']!r}; give active, paused or removed")
    table, people = schema.membership, schema.person
    if connection.execute(select(people.c.id).where(people.c.id == person)).first() is None:
        raise Refusal("absent", f"there is no person {person!r}")
    where = (table.c.project == project) & (table.c.person == person)
    if not connection.execute(update(table).where(where).values(values)).rowcount:
        connection.execute(
            insert(table).values(project=project, person=person, created_at=now, **values)
        )
    append(connection, now, [Entry("member.set", actor, person, dict(values), project)])


def caller_of(connection: Connection, person: str) -> Caller:
    """What a person may do, within a transaction.

    Raises:
        Refusal: there is none, or they are blocked.
    """
    table, places = schema.person, schema.membership
    row = connection.execute(select(table).where(table.c.id == person)).first()
    if row is None or row.state != "active":
        raise Refusal("denied", "this account is not active")
    rows = connection.execute(
        select(places.c.project, places.c.role)
        .where(places.c.person == person, places.c.state != "removed")
        .order_by(places.c.project)
    )
    return Caller(person, row.is_admin, tuple((r.project, r.role) for r in rows))
