"""Ways in: sessions of people, tokens of machines, invitations. Each secret is shown once.

The store keeps hashes only. Guessing is slowed per account and per address: after five failures
the next try waits, twice as long each time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, insert, select, update

from heed.data.store import schema
from heed.data.store.database import Database
from heed.data.store.keyed import digest, new_id, new_secret
from heed.data.store.log import Entry, append
from heed.data.store.passwords import fits, hash_password
from heed.data.store.projects import project_in
from heed.data.store.refusal import Refusal
from heed.data.store.roles import TOKEN_SCOPES, Caller, known_scopes

IDLE_MS = 12 * 3_600_000
LONGEST_MS = 30 * 86_400_000
FREE_TRIES = 5
_FIRST_WAIT_MS = 2_000
_LONGEST_WAIT_MS = 900_000
_SEEN_EVERY_MS = 60_000


@dataclass(frozen=True)
class Session:
    """A person who is logged in. `secret` goes into a cookie, `csrf` into the page."""

    person: str
    secret: str = field(repr=False)
    csrf: str = field(repr=False)


class Access:
    """Log in and out, and check who a request is from."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def log_in(self, email: str, password: str, *, source: str = "", agent: str = "") -> Session:
        """Open a session by address and password.

        Args:
            source: the network address of the request, for the brake on guessing.
            agent: the browser.

        Raises:
            Refusal: they do not fit (`denied`, the same whether the account exists or not), or
                too many tries came before (`gone`, with the seconds to wait).
        """
        address = email.strip().casefold().replace("\x00", "")[:254]
        keys = [digest(f"account {address}"), digest(f"source {source}")]
        table, people = schema.identity, schema.person
        self._database.write(lambda connection: self._brake(connection, keys))
        with self._database.read() as connection:
            row = connection.execute(
                select(table.c.person, table.c.password_hash, people.c.state)
                .join(people, people.c.id == table.c.person)
                .where(table.c.email == address)
            ).first()
        right = fits(password, row.password_hash if row else None)
        if row is None or not right or row.state != "active":
            raise Refusal("denied", "address and password do not fit")
        person = row.person

        def work(connection: Connection) -> Session:
            throttle = schema.throttle
            connection.execute(delete(throttle).where(throttle.c.key == keys[0]))
            # Many people may share an address: a try that was right is no try of its.
            connection.execute(
                update(throttle)
                .where(throttle.c.key == keys[1], throttle.c.tries > 0)
                .values(tries=throttle.c.tries - 1)
            )
            return self._open(connection, person, agent)

        return self._database.write(work)

    def open_session(self, person: str, *, agent: str = "") -> Session:
        """Open a session without a password, as after an invitation or a first start."""
        return self._database.write(lambda connection: self._open(connection, person, agent))

    def of_session(self, secret: str) -> tuple[Caller, str]:
        """Find who a session is; returns the caller and the session's csrf token.

        Raises:
            Refusal: there is none, it idled too long, or the person is blocked.
        """
        from heed.data.store.people import caller_of

        hashed, now, table = digest(secret), self._database.clock(), schema.session
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.hash == hashed)).first()
            if row is None:
                raise Refusal("denied", "not logged in")
            if now - row.seen_at > IDLE_MS or now - row.created_at > LONGEST_MS:
                raise Refusal("gone", "the session is over; log in again")
            caller = caller_of(connection, row.person)
        if now - row.seen_at > _SEEN_EVERY_MS:
            self._database.write(
                lambda connection: connection.execute(
                    update(table).where(table.c.hash == hashed).values(seen_at=now)
                ),
                durable=False,
            )
        return caller, row.csrf

    def log_out(self, secret: str) -> None:
        """End a session."""
        table = schema.session
        self._database.write(
            lambda connection: connection.execute(
                delete(table).where(table.c.hash == digest(secret))
            )
        )

    def log_out_everywhere(self, person: str) -> int:
        """End all sessions of a person; returns their number."""
        table = schema.session
        return self._database.write(
            lambda connection: (
                connection.execute(delete(table).where(table.c.person == person)).rowcount
            )
        )

    def make_token(
        self,
        name: str,
        scopes: Iterable[str],
        *,
        project: str | None = None,
        days: float | None = None,
        actor: str,
    ) -> tuple[str, str]:
        """Make a machine's token; returns its id and its secret, which is not kept.

        Raises:
            Refusal: a scope is unknown.
        """
        wanted = sorted(set(scopes))
        if not known_scopes(wanted):
            raise Refusal("invalid", f"scopes {wanted}; known are {sorted(TOKEN_SCOPES)}")

        def work(connection: Connection) -> tuple[str, str]:
            now, token, secret = self._database.clock(), new_id("t"), f"heed_{new_secret()}"
            found = None if project is None else project_in(connection, project).id
            ends = None if days is None else now + int(days * 86_400_000)
            connection.execute(
                insert(schema.token).values(
                    id=token, hash=digest(secret), name=name[:80], project=found, scopes=wanted,
                    created_at=now, expires_at=ends,
                )
            )  # fmt: skip
            body = {"name": name[:80], "scopes": wanted, "expires_at": ends}
            append(connection, now, [Entry("token.made", actor, token, body, found)])
            return token, secret

        return self._database.write(work)

    def of_token(self, secret: str) -> Caller:
        """Find what a token is good for.

        Raises:
            Refusal: there is none, or it is over or revoked.
        """
        table, now = schema.token, self._database.clock()
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.hash == digest(secret))).first()
        if row is None or row.revoked_at is not None:
            raise Refusal("denied", "the token is not known")
        if row.expires_at is not None and row.expires_at <= now:
            raise Refusal("gone", "the token is over; ask an admin for another")
        if now - (row.last_used_at or 0) > _SEEN_EVERY_MS:
            self._database.write(
                lambda connection: connection.execute(
                    update(table).where(table.c.id == row.id).values(last_used_at=now)
                ),
                durable=False,
            )
        return Caller(
            row.id, scopes=frozenset(row.scopes), project=row.project, is_token=True
        )  # fmt: skip

    def revoke_token(self, token: str, *, actor: str) -> None:
        """Make a token good for nothing."""

        def work(connection: Connection) -> None:
            table, now = schema.token, self._database.clock()
            done = connection.execute(
                update(table).where(table.c.id == token).values(revoked_at=now)
            )
            if not done.rowcount:
                raise Refusal("absent", f"there is no token {token!r}")
            append(connection, now, [Entry("token.revoked", actor, token, {})])

        self._database.write(work)

    def invite(
        self, project: str, role: str = "annotator", *, days: float = 7.0, actor: str
    ) -> str:
        """Make an invitation to a project; returns the secret of its link."""

        def work(connection: Connection) -> str:
            now, secret, name = self._database.clock(), new_secret(), new_id("v")
            found = project_in(connection, project)
            connection.execute(
                insert(schema.invitation).values(
                    id=name, hash=digest(secret), project=found.id, role=role, created_at=now,
                    expires_at=now + int(days * 86_400_000),
                )
            )  # fmt: skip
            append(connection, now, [Entry("invited", actor, name, {"role": role}, found.id)])
            return secret

        return self._database.write(work)

    def accept(
        self,
        secret: str,
        *,
        pseudonym: str,
        email: str,
        password: str,
        name: str | None = None,
        agent: str = "",
    ) -> Session:
        """Use an invitation, once: a new person, a member, logged in.

        Raises:
            Refusal: it is used, over or unknown; or pseudonym or address is taken.
        """
        from heed.data.store.people import add_identity, add_person, join_project

        hashed = hash_password(password)

        def work(connection: Connection) -> Session:
            now, table, person = self._database.clock(), schema.invitation, new_id("u")
            row = connection.execute(
                select(table).where(table.c.hash == digest(secret)).with_for_update()
            ).first()
            if row is None or row.used_by is not None or row.expires_at <= now:
                raise Refusal("gone", "the invitation is used, over or unknown; ask for another")
            add_person(connection, person, pseudonym, False, now)
            add_identity(connection, person, email, name, hashed)
            connection.execute(update(table).where(table.c.id == row.id).values(used_by=person))
            body = {"pseudonym": pseudonym, "is_admin": False, "invitation": row.id}
            append(connection, now, [Entry("person.added", person, person, body)])
            values = {"role": row.role, "skills": [], "daily_cap": None, "state": "active"}
            join_project(connection, row.project, person, values, now, row.id)
            return self._open(connection, person, agent)

        return self._database.write(work)

    def _open(self, connection: Connection, person: str, agent: str) -> Session:
        session = Session(person, new_secret(), new_secret())
        now = self._database.clock()
        connection.execute(
            insert(schema.session).values(
                hash=digest(session.secret), person=person, csrf=session.csrf, created_at=now,
                seen_at=now, agent=agent.replace("\x00", "")[:300],
            )
        )  # fmt: skip
        append(connection, now, [Entry("session.opened", person, person, {})])
        return session

    def _brake(self, connection: Connection, keys: list[str]) -> None:
        """Count a try, and refuse it while the wait for the last one is not over."""
        table, now = schema.throttle, self._database.clock()
        for key in sorted(keys):
            row = connection.execute(
                select(table).where(table.c.key == key).with_for_update()
            ).first()
            tries, since = (row.tries, row.tried_at) if row else (0, now)
            wait = 0
            if tries >= FREE_TRIES:
                wait = min(_FIRST_WAIT_MS * 2 ** (tries - FREE_TRIES), _LONGEST_WAIT_MS)
            left = since + wait - now
            if wait and 0 < left <= wait:
                raise Refusal("gone", f"too many tries; wait {-(-left // 1000)} seconds")
            if row and now - since > 2 * _LONGEST_WAIT_MS:
                tries = 0
            values = {"tries": min(tries + 1, 30), "tried_at": now}
            if row:
                connection.execute(update(table).where(table.c.key == key).values(values))
            else:
                connection.execute(insert(table).values(key=key, **values))
