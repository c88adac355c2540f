"""What routes take and give. Unknown fields are refused; what an annotator gets is named here."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from heed.data.store.items import MOST_IN_A_BATCH
from heed.data.store.kinds.base import MOST_CHARACTERS
from heed.data.store.progress import Progress
from heed.data.store.views import Claimed, Nothing, Work
from heed.web.showing import as_markdown, as_written

Short = Annotated[str, Field(max_length=120)]
Place = Annotated[int, Field(ge=0, le=9)]
EXACT_KINDS = ("edit", "spans")
"""Kinds of work whose page needs a text to the letter: to change it, or to count in it."""


class Body(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Code(Body):
    """A one-time code."""

    code: str = Field(max_length=128)


class LogIn(Body):
    """Address and password."""

    email: str = Field(max_length=254)
    password: str = Field(max_length=1000)


class Accept(Body):
    """An invitation, and who takes it."""

    code: str = Field(max_length=128)
    pseudonym: str = Field(min_length=1, max_length=80)
    email: str = Field(max_length=254)
    password: str = Field(min_length=10, max_length=1000)


class Claim(Body):
    """How many items to hold."""

    count: int = Field(default=1, ge=1, le=10)


class FlagIn(Body):
    """A code on the candidate at a place of the screen."""

    place: Place
    code: str = Field(max_length=64)


class MarkIn(Body):
    """A value of an attribute of the candidate at a place of the screen."""

    place: Place
    attribute: str = Field(max_length=64)
    value: int = Field(ge=-(10**9), le=10**9)


class SpanIn(Body):
    """A mark on a text, in UTF-16 units of the text as it is stored."""

    place: Place = 0
    start: int = Field(ge=0, le=10**9)
    end: int = Field(ge=1, le=10**9)
    kind: str = Field(max_length=64)
    quote: str = Field(max_length=MOST_CHARACTERS)
    comment: str | None = Field(default=None, max_length=10_000)


class Draft(Body):
    """An unfinished answer of any kind of work, places as on the screen.

    It need not fit the item yet: what is sent as an answer is held to it, this is only bounded.
    """

    outcome: str | None = Field(default=None, max_length=32)
    side: Place | None = None
    level: int | None = Field(default=None, ge=1, le=100)
    buckets: tuple[Annotated[tuple[Place, ...], Field(max_length=9)], ...] = Field(
        default=(), max_length=9
    )
    unranked_bad: tuple[Place, ...] = Field(default=(), max_length=9)
    ratings: tuple[MarkIn, ...] = Field(default=(), max_length=500)
    text: str | None = Field(default=None, max_length=MOST_CHARACTERS)
    spans: tuple[SpanIn, ...] = Field(default=(), max_length=500)
    text_sha256: str | None = Field(default=None, max_length=64)
    flags: tuple[FlagIn, ...] = Field(default=(), max_length=200)
    reasons: tuple[Annotated[str, Field(max_length=64)], ...] = Field(default=(), max_length=50)
    note: str | None = Field(default=None, max_length=10_000)


class Timing(Body):
    """What the page measured. The server's clock bounds it."""

    active_seconds: float = Field(ge=0, le=1e6)
    """Visible, with input in the last half minute."""
    open_seconds: float | None = Field(default=None, ge=0, le=1e7)
    """From the first sight of the item to the answer."""
    revisions: int | None = Field(default=None, ge=0, le=10_000)


class Client(Body):
    """What is known of the page."""

    page: Short = ""
    keys: Short = ""
    view: Short = ""
    by: Short = ""


class Submission(Body):
    """An answer; sent again under its id it changes nothing."""

    submission_id: str = Field(min_length=1, max_length=120)
    answer: dict[str, Any]
    """As the kind of work asks for it; see `heed.data.store.kinds`."""
    timing: Timing | None = None
    client: Client = Client()


class Amendment(Body):
    """A better version of one's own answer."""

    submission_id: str = Field(min_length=1, max_length=120)
    answer: dict[str, Any]


class SkipIn(Body):
    """Why an item is put aside."""

    mode: str = Field(default="me", max_length=16)
    reason: str = Field(default="", max_length=32)
    note: str | None = Field(default=None, max_length=10_000)


class Acknowledged(Body):
    """Which version of the guideline was read."""

    version: int = Field(ge=1, le=1_000_000)


class Batch(Body):
    """Items to add."""

    items: list[dict[str, Any]] = Field(min_length=1, max_length=MOST_IN_A_BATCH)


class Budget(Body):
    """How many labels a trainer waits for."""

    wanted: int = Field(ge=0, le=10_000_000)
    by_step: int = Field(ge=0, le=2**53)


class Step(Body):
    """A step of the policy."""

    step: int = Field(ge=0, le=2**53)


class TokenIn(Body):
    """A token to make."""

    name: str = Field(min_length=1, max_length=80)
    scopes: list[Annotated[str, Field(max_length=64)]] = Field(min_length=1, max_length=20)
    project: str | None = Field(default=None, max_length=80)
    days: float | None = Field(default=None, gt=0, le=3650)


class Invitation(Body):
    """Whom to invite."""

    role: str = Field(default="annotator", max_length=32)
    days: float = Field(default=7.0, gt=0, le=90)


def moment(milliseconds: int) -> str:
    """Write a time as UTC, ISO 8601."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def text_out(text: str) -> dict[str, str]:
    """Show a text of a stranger: as Markdown, and as written."""
    return {"html": as_markdown(text), "raw": as_written(text)}


def work_out(work: Work) -> dict[str, Any]:
    """Show an item to an annotator: what they judge, and nothing about it."""
    prompt, instruction = work.payload.prompt, work.payload.extra.get("instruction")
    turns = [] if prompt is None else prompt.messages
    return {
        "lease": work.lease,
        "item": work.item,
        "kind": work.kind,
        "instruction": text_out(instruction) if isinstance(instruction, str) else None,
        "turns": [{"role": turn.role, **text_out(turn.text)} for turn in turns],
        "candidates": [
            _candidate_out(work.kind, one.text or "") for one in work.payload.candidates
        ],
        "expires_at": moment(work.expires_at),
        "draft": work.draft,
        "draft_version": work.draft_version,
        "reopened": work.reopened,
    }


def _candidate_out(kind: str, text: str) -> dict[str, str]:
    if kind not in EXACT_KINDS:
        return text_out(text)
    return {**text_out(text), "text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def nothing_out(nothing: Nothing | None) -> dict[str, Any] | None:
    """Say why there is no item."""
    if nothing is None:
        return None
    free_at = None if nothing.free_at is None else moment(nothing.free_at)
    return {
        "reason": nothing.reason,
        "free_at": free_at,
        "skipped_by_me": nothing.skipped_by_me,
        "done_by_me": nothing.done_by_me,
    }


def progress_out(progress: Progress) -> dict[str, int]:
    """Say how far a person has come."""
    return {"done": progress.done, "today": progress.today, "remaining": progress.remaining}


def claimed_out(claimed: Claimed, progress: Progress) -> dict[str, Any]:
    """Show what a person holds."""
    return {
        "work": [work_out(work) for work in claimed.work],
        "nothing": nothing_out(claimed.nothing),
        "progress": progress_out(progress),
    }
