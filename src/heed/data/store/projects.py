"""Projects: what is asked, under which rules, and the guideline that people read."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import ValidationError
from sqlalchemy import Connection, func, insert, or_, select, update

from heed.data.store import schema
from heed.data.store.database import Database
from heed.data.store.keyed import digest, new_id, new_secret
from heed.data.store.kinds import kind_of
from heed.data.store.log import Entry, append
from heed.data.store.project_config import ProjectConfig
from heed.data.store.refusal import Refusal
from heed.data.store.views import Project

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")


def project_in(connection: Connection, project: str, *, lock: bool = False) -> Project:
    """Read a project by its id or its slug.

    Raises:
        Refusal: there is none.
    """
    table = schema.project
    query = select(table).where(or_(table.c.id == project, table.c.slug == project))
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise Refusal("absent", f"there is no project {project!r}")
    return Project(
        id=row.id,
        slug=row.slug,
        config=ProjectConfig.model_validate(row.config),
        config_version=row.config_version,
        state=row.state,
        lease_ms=row.lease_ms,
        budget=row.budget,
        created_at=row.created_at,
        secret=row.secret,
    )


class Projects:
    """Make, read and change projects. `actor` is the id of whoever does it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def make(
        self, slug: str, config: ProjectConfig | dict[str, Any], *, actor: str = "system"
    ) -> Project:
        """Make a project.

        Args:
            slug: its name in addresses: small letters, digits and hyphens.

        Raises:
            Refusal: the name is taken or is no slug, or the configuration is not one.
        """
        if not _SLUG.fullmatch(slug):
            raise Refusal("invalid", f"{slug!r} is no slug: use a-z, 0-9 and hyphens, at most 80")
        read = _read_config(config)
        project, now = new_id("pr"), self._database.clock()
        row = {
            "id": project, "slug": slug, "kind": read.kind, "config": read.model_dump(mode="json"),
            "config_version": 1, "secret": new_secret(), "state": "open", "created_at": now,
            "lease_ms": read.first_lease_seconds * 1000, "budget": None,
        }  # fmt: skip

        def work(connection: Connection) -> Project:
            taken = select(schema.project.c.id).where(schema.project.c.slug == slug)
            if connection.execute(taken).first():
                raise Refusal("conflict", f"there is a project {slug!r} already")
            connection.execute(insert(schema.project).values(row))
            body = {"slug": slug, "config": row["config"], "config_version": 1}
            append(connection, now, [Entry("project.made", actor, project, body, project)])
            return project_in(connection, project)

        return self._database.write(work)

    def get(self, project: str) -> Project:
        """Read a project by its id or its slug.

        Raises:
            Refusal: there is none.
        """
        with self._database.read() as connection:
            return project_in(connection, project)

    def all(self) -> list[Project]:
        """Read all projects, the oldest first."""
        with self._database.read() as connection:
            table = schema.project
            rows = connection.execute(select(table.c.id).order_by(table.c.created_at, table.c.id))
            return [project_in(connection, row.id) for row in rows.all()]

    def configure(
        self, project: str, config: ProjectConfig | dict[str, Any], *, actor: str
    ) -> Project:
        """Change a project's configuration; what was answered stays under the old one.

        Raises:
            Refusal: the kind of work or its scale would change once there are answers.
        """
        read = _read_config(config)

        def work(connection: Connection) -> Project:
            old = project_in(connection, project, lock=True)
            if read.kind != old.config.kind:
                raise Refusal("invalid", "a project keeps its kind of work; make another project")
            version = old.config_version + 1
            values = {"config": read.model_dump(mode="json"), "config_version": version}
            table = schema.project
            connection.execute(update(table).where(table.c.id == old.id).values(values))
            entry = Entry("project.configured", actor, old.id, dict(values), old.id)
            append(connection, self._database.clock(), [entry])
            return project_in(connection, old.id)

        return self._database.write(work)

    def set_state(
        self, project: str, state: Literal["open", "paused", "closed"], *, actor: str
    ) -> Project:
        """Open, pause or close a project. Paused: no claims. Closed: no amendments either."""

        def work(connection: Connection) -> Project:
            old = project_in(connection, project, lock=True)
            table = schema.project
            connection.execute(update(table).where(table.c.id == old.id).values(state=state))
            entry = Entry("project.state", actor, old.id, {"state": state}, old.id)
            append(connection, self._database.clock(), [entry])
            return project_in(connection, old.id)

        return self._database.write(work)

    def set_budget(self, project: str, wanted: int, by_step: int, *, actor: str) -> None:
        """Say how many labels a trainer waits for; shown to people, nothing else."""

        def work(connection: Connection) -> None:
            found = project_in(connection, project)
            budget = {"wanted": wanted, "by_step": by_step, "at": self._database.clock()}
            table = schema.project
            connection.execute(update(table).where(table.c.id == found.id).values(budget=budget))

        self._database.write(work, durable=False)

    def write_guideline(self, project: str, body: str, *, actor: str) -> int:
        """Keep a new version of the guideline; returns its number."""
        if "\x00" in body:
            raise Refusal("invalid", "the guideline holds a zero character; remove it")

        def work(connection: Connection) -> int:
            found = project_in(connection, project, lock=True)
            table = schema.guideline
            newest = select(func.max(table.c.version)).where(table.c.project == found.id)
            version = int(connection.execute(newest).scalar() or 0) + 1
            now, sha = self._database.clock(), digest(body)
            connection.execute(
                insert(table).values(
                    project=found.id, version=version, body=body, sha256=sha, created_at=now
                )
            )
            about = {"version": version, "sha256": sha}
            append(connection, now, [Entry("guideline.written", actor, found.id, about, found.id)])
            return version

        return self._database.write(work)

    def guideline(self, project: str, version: int | None = None) -> tuple[int, str]:
        """Read a guideline: its version (the newest by default; 0 and empty without one)."""
        with self._database.read() as connection:
            found = project_in(connection, project)
            table = schema.guideline
            query = select(table).where(table.c.project == found.id)
            if version is not None:
                query = query.where(table.c.version == version)
            row = connection.execute(query.order_by(table.c.version.desc()).limit(1)).first()
            if row is None and version is not None:
                raise Refusal("absent", f"project {project!r} has no guideline {version}")
            return (0, "") if row is None else (int(row.version), str(row.body))


def _read_config(config: ProjectConfig | dict[str, Any]) -> ProjectConfig:
    try:
        value = config.model_dump() if isinstance(config, ProjectConfig) else config
        read = ProjectConfig.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Refusal("invalid", f"the configuration does not fit: {place}: {first['msg']}") from (
            error
        )
    kind_of(read.kind)
    return read
