"""What a kind of work is: what it shows, what it asks, and when an answer is one.

An answer names candidates by their *place*. What a client sends names places on its screen; the
store turns them into places of the item, so that side bias never mixes with preference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from heed.data.store.project_config import ProjectConfig
from heed.data.store.refusal import Refusal
from heed.records import Prompt, Record

MOST_CHARACTERS = 200_000
NOT_JUDGED = ("cannot_judge", "invalid")
"""Outcomes of every kind that say nothing of the candidates: unable, and broken."""


class Candidate(Record):
    """What is judged: a text, or a segment of behaviour. `source` is never shown to annotators."""

    text: str | None = Field(default=None, max_length=MOST_CHARACTERS)
    segment: str | None = Field(default=None, max_length=64)
    source: dict[str, Any] = Field(default_factory=dict)
    """Where it comes from: the completion's record without its text, or any fields."""

    @model_validator(mode="after")
    def _check(self) -> Candidate:
        if (self.text is None) == (self.segment is None):
            raise ValueError("a candidate has a text or a segment, exactly one of the two")
        return self


class Payload(Record):
    """What an item shows: the prompt, and the candidates in the item's order."""

    prompt: Prompt | None = None
    candidates: tuple[Candidate, ...] = ()
    extra: dict[str, Any] = Field(default_factory=dict)
    """What else the page shows, such as an instruction; seen by annotators."""


class Texts(Payload):
    """A payload with a prompt, whose candidates are texts."""

    @model_validator(mode="after")
    def _check_texts(self) -> Texts:
        if self.prompt is None:
            raise ValueError("the prompt is missing; this kind of work shows one")
        if any(candidate.text is None for candidate in self.candidates):
            raise ValueError("a candidate is a segment; this kind of work shows texts")
        return self


class Flag(Record):
    """A code that is put on one candidate."""

    place: int = Field(ge=0)
    code: str


class Answer(Record):
    """What every answer may say beside its own fields."""

    outcome: str
    flags: tuple[Flag, ...] = Field(default=(), max_length=200)
    reasons: tuple[str, ...] = Field(default=(), max_length=50)
    note: str | None = Field(default=None, max_length=10_000)


@dataclass(frozen=True)
class Kind:
    """One kind of work.

    Args:
        name: stands in `ProjectConfig.kind`.
        payload: what its items hold.
        answer: what a person answers.
        check: raises `Refusal` where an answer does not fit what was shown.
        turn: renames the places in an answer, place p becoming `places[p]`.
        swaps: whether the order of candidates matters, so that swapped repeats tell something.
        layouts: exports that its answers can become.
    """

    name: str
    payload: type[Payload]
    answer: type[Answer]
    check: Callable[[Any, Payload, ProjectConfig], None]
    turn: Callable[[Any, Sequence[int]], Any]
    swaps: bool
    layouts: tuple[str, ...]


def refuse(message: str) -> Refusal:
    """Make the refusal of an answer that does not fit."""
    return Refusal("invalid", message)


def check_codes(answer: Answer, payload: Payload, config: ProjectConfig) -> None:
    """Hold flags and reasons to the project's lists.

    Raises:
        Refusal: a code is unknown, or a flag names no candidate.
    """
    for flag in answer.flags:
        if flag.code not in config.flags:
            raise refuse(f"flag {flag.code!r} is unknown; known are {', '.join(config.flags)}")
        check_place(flag.place, payload)
    unknown = [code for code in answer.reasons if code not in config.reasons]
    if unknown:
        raise refuse(f"reason {unknown[0]!r} is unknown; known are {', '.join(config.reasons)}")


def check_place(place: int, payload: Payload) -> None:
    """Hold a place to the candidates that there are.

    Raises:
        Refusal: there is none at this place.
    """
    if place >= len(payload.candidates):
        raise refuse(f"place {place} is named; there are {len(payload.candidates)} candidates")


def turn_flags(answer: Any, places: Sequence[int], **changes: Any) -> Any:
    """Rename the places of an answer's flags, and change the fields that are given."""
    flags = tuple(
        sorted(
            (Flag(place=places[flag.place], code=flag.code) for flag in answer.flags),
            key=lambda flag: (flag.place, flag.code),
        )
    )
    return answer.model_copy(update={"flags": flags, **changes})


def inverse(places: Sequence[int]) -> list[int]:
    """Return the renaming that takes `places` back."""
    out = [0] * len(places)
    for shown, place in enumerate(places):
        out[place] = shown
    return out
