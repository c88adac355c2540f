"""What the store gives back: frozen and complete, so that nobody need know its tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from heed.data.store.kinds import KINDS, Kind, Payload
from heed.data.store.project_config import ProjectConfig


@dataclass(frozen=True)
class Project:
    """One project. `secret` keys its draws and leaves the server never."""

    id: str
    slug: str
    config: ProjectConfig
    config_version: int
    state: str
    lease_ms: int
    budget: dict[str, Any] | None
    created_at: int
    secret: str = field(repr=False)

    @property
    def kind(self) -> Kind:
        """The kind of work that it asks for."""
        return KINDS[self.config.kind]


@dataclass(frozen=True)
class Added:
    """What became of one item of a batch."""

    key: str
    status: Literal["new", "known", "refused"]
    item: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class ItemInfo:
    """An item as a researcher sees it in a list."""

    id: str
    key: str
    role: str
    state: str
    pool: str
    origin: str
    repeats: str | None
    need: int
    priority: int
    n_valid: int
    n_live: int
    n_cannot: int
    n_invalid: int
    n_skips: int
    policy_step: int | None
    p_select: float | None
    acquirer: str | None


@dataclass(frozen=True)
class Work:
    """An item as one person sees it: nothing of models, gold, or other people's answers.

    `candidates` stand in the order of this person's screen, and answers name these places.
    """

    lease: str
    item: str
    kind: str
    payload: Payload
    expires_at: int
    draft: dict[str, Any] | None = None
    draft_version: int = 0
    reopened: bool = False


@dataclass(frozen=True)
class Nothing:
    """Why a person got no item."""

    reason: Literal[
        "paused", "closed", "guideline", "daily_cap", "leased_by_others", "all_done", "needs_skill",
        "set_aside", "no_items",
    ]  # fmt: skip
    by_others: int = 0
    """Items that others hold."""
    free_at: int | None = None
    """When the first of these is free again, at the latest."""
    done_by_me: int = 0
    skipped_by_me: int = 0
    need_skill: int = 0


@dataclass(frozen=True)
class Claimed:
    """The items that a person holds now, and why there is none where there is none."""

    work: tuple[Work, ...]
    nothing: Nothing | None = None


@dataclass(frozen=True)
class Receipt:
    """Proof that an answer is stored: given after the commit, the same for the same submission."""

    judgment: str
    seq: int
    version: int
    outcome: str
    late: bool = False
    """The lease was over."""
    surplus: bool = False
    """Enough others had answered already."""
    replayed: bool = False
    """It had been stored before."""


@dataclass(frozen=True)
class Judgment:
    """One answer in the item's own order, as logged. A later version or a retraction may follow.

    `seconds` is the time from the claim to the answer by the server's clock unless the page
    measured active time, which is then the shorter of the two.
    """

    id: str
    project: str
    item: str
    person: str
    role: Literal["label", "adjudication"]
    version: int
    replaces: str | None
    outcome: str
    side: int | None
    level: int | None
    scale: str | None
    answer: dict[str, Any]
    shown: tuple[int, ...]
    seconds: float | None
    counted: bool
    surplus: bool
    practice: bool
    late: bool
    at: int
    seq: int
    submission_id: str
    lease: str | None
    state: Literal["standing", "replaced", "withdrawn"] = "standing"


@dataclass(frozen=True)
class Change:
    """One thing that a trainer must know: a new answer, a changed one, or one taken back."""

    seq: int
    at: int
    kind: Literal["judgment", "amend", "retract"]
    judgment: str
    """The answer's id; of `amend` the new one's."""
    replaces: str | None = None
    value: Judgment | None = None
    """The answer; None of `retract`."""


@dataclass(frozen=True)
class Changes:
    """Settled changes after a position, in order; go on from `seq`."""

    changes: tuple[Change, ...]
    seq: int
    more: bool = False


@dataclass(frozen=True)
class Undone:
    """What was taken back, and the item as it is open again."""

    what: Literal["judgment", "skip"]
    id: str
    seq: int
    work: Work
