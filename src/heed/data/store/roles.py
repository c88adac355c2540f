"""Who may do what: one static table, and the rule that what it does not say is denied."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Role = Literal["annotator", "reviewer", "researcher", "admin"]

ANNOTATOR = frozenset({"work", "history"})
REVIEWER = ANNOTATOR | {"review", "adjudicate"}
RESEARCHER = REVIEWER | {
    "project.read", "project.write", "items.write", "items.read", "gold.write", "changes.read",
    "export", "people.read", "budget.write", "runs.read",
}  # fmt: skip
ADMIN = RESEARCHER | {"project.make", "people.write", "tokens.write", "audit", "erase"}

PERMISSIONS: dict[str, frozenset[str]] = {
    "annotator": ANNOTATOR,
    "reviewer": frozenset(REVIEWER),
    "researcher": frozenset(RESEARCHER),
    "admin": frozenset(ADMIN),
}
TOKEN_SCOPES: frozenset[str] = frozenset(
    {"items.write", "items.read", "changes.read", "budget.write", "project.read", "export"}
)
"""What a machine may be allowed: a trainer, a critic, an importer. Never to answer as a person."""
TRAINER_SCOPES = ("items.write", "changes.read", "budget.write", "project.read")
"""What a trainer needs: to add pairs, to read labels, and to say how many it waits for."""


@dataclass(frozen=True)
class Caller:
    """Who asks: a person by session, or a machine by token.

    Args:
        id: of the person or the token; the `actor` in the log.
        is_admin: may do everything, everywhere.
        roles: project id -> role of a person.
        scopes: of a token.
        project: the only one that a token is good for; None for all.
    """

    id: str
    is_admin: bool = False
    roles: tuple[tuple[str, str], ...] = ()
    scopes: frozenset[str] = frozenset()
    project: str | None = None
    is_token: bool = False

    def may(self, permission: str, project: str | None = None) -> bool:
        """Whether the caller may do this, in this project or, without one, in the whole store."""
        if self.is_token:
            return permission in self.scopes & TOKEN_SCOPES and (
                self.project is None or self.project == project
            )
        if self.is_admin:
            return permission in ADMIN
        return any(permission in PERMISSIONS[role] for name, role in self.roles if name == project)

    def may_somewhere(self, permission: str) -> bool:
        """Whether a role in any project allows it: for what belongs to no project."""
        return self.may(permission) or (
            not self.is_token and any(permission in PERMISSIONS[role] for _, role in self.roles)
        )


def known_scopes(scopes: Iterable[str]) -> bool:
    """Whether all scopes are such as a token may have."""
    return set(scopes) <= TOKEN_SCOPES
