"""What a project asks for and how its queue behaves; every version is logged."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from heed.data.store.scales import SCALES
from heed.settings import Settings

SkipMode = Literal["me", "others", "ignore"]

FLAGS = (
    "fails_instruction", "factual_error", "unsafe", "refuses_wrongly", "sexual", "violent",
    "personal_data", "identity_leak", "language_mismatch", "formatting", "off_topic", "gibberish",
)  # fmt: skip
REASONS = (
    "correctness", "follows_instruction", "completeness", "clarity", "style", "length", "safety",
    "creativity", "effort", "smoothness",
)  # fmt: skip


class Attribute(Settings):
    """One question of a rating, answered on a whole-number scale."""

    name: str = Field(min_length=1, max_length=64)
    low: int = 1
    high: int = 7
    required: bool = True

    @model_validator(mode="after")
    def _check(self) -> Attribute:
        if self.low >= self.high:
            raise ValueError(f"attribute {self.name!r} goes from {self.low} to {self.high}")
        return self


class ProjectConfig(Settings):
    """One project of the label store."""

    kind: str = "pair"
    """Kind of work; one of `heed.data.store.kinds.KINDS`."""
    title: str = Field(default="", max_length=200)
    """Shown to annotators."""
    scale: str = "seven"
    """Scale of comparisons; one of `heed.data.store.scales.SCALES`."""
    attributes: tuple[Attribute, ...] = (Attribute(name="overall"),)
    """Questions of a rating."""
    flags: tuple[str, ...] = FLAGS
    """Codes that can be put on one candidate."""
    reasons: tuple[str, ...] = REASONS
    """Codes that say why."""
    span_kinds: tuple[str, ...] = ("error", "good", "unsupported", "unsafe", "critic_claim")
    """Kinds of marks on a text."""
    need: int = Field(default=1, ge=1, le=100)
    """People who judge an ordinary item."""
    calibration_frac: float = Field(default=0.15, ge=0.0, le=1.0)
    """Share of items that more people judge, drawn by a keyed hash of the item."""
    calibration_need: int = Field(default=3, ge=1, le=100)
    """People who judge an item of the calibration pool."""
    gold_frac: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of a person's claims that get an item with a known answer."""
    first_gold_within: int = Field(default=10, ge=0)
    """One gold item comes among a person's first claims up to this one; 0 for no such promise."""
    repeat_frac: float = Field(default=0.03, ge=0.0, le=1.0)
    """Share of claims that show a pair again with its sides swapped."""
    repeat_gap: int = Field(default=30, ge=1)
    """Judgments between a pair and its repeat, at least."""
    anchor_frac: float = Field(default=0.02, ge=0.0, le=1.0)
    """Share of claims that get an anchor: an old item that everyone sees."""
    max_leases: int = Field(default=2, ge=1, le=10)
    """Items that a person holds at once: the one on screen and those fetched ahead."""
    first_lease_seconds: int = Field(default=900, ge=1)
    """Time for an item until 30 judgments say how long one takes."""
    min_lease_seconds: int = Field(default=300, ge=1)
    """Shortest lease; it is three times the median time of a judgment."""
    max_lease_seconds: int = Field(default=3600, ge=1)
    """Longest lease before heartbeats; they extend it to four times its length."""
    settle_seconds: float = Field(default=10.0, ge=0.0)
    """How long a label waits, for an undo, before a trainer sees it."""
    undo_depth: int = Field(default=20, ge=1, le=200)
    """Acts that can be taken back."""
    skip_modes: tuple[SkipMode, ...] = ("me", "others")
    """me: comes back to the person later; others: never to this person; ignore: to nobody."""
    skip_hours: float = Field(default=24.0, ge=0.0)
    """When a skipped item may come back to the person."""
    max_skips: int = Field(default=5, ge=1)
    """Skips after which an item goes to the list of hard ones."""
    max_cannot: int = Field(default=2, ge=0)
    """Answers `cannot_judge` after which it goes there, at most this many and one more."""
    max_invalid: int = Field(default=2, ge=1)
    """Answers `invalid` at which an item is quarantined."""
    max_policy_lag: int | None = Field(default=None, ge=0)
    """Optimiser steps after which an unleased item is too old; None keeps all."""
    needs_guideline: bool = False
    """Whether the newest guideline must be acknowledged before work."""
    page: dict[str, Any] = Field(default_factory=dict)
    """Settings of the page, which the store keeps and does not read."""

    @model_validator(mode="after")
    def _check(self) -> ProjectConfig:
        if self.scale not in SCALES:
            raise ValueError(f"scale is {self.scale!r}; known are {', '.join(SCALES)}")
        if self.gold_frac + self.repeat_frac + self.anchor_frac > 1.0:
            raise ValueError("gold_frac, repeat_frac and anchor_frac add up to more than 1")
        if self.min_lease_seconds > self.max_lease_seconds:
            raise ValueError("min_lease_seconds is more than max_lease_seconds")
        names = [attribute.name for attribute in self.attributes]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"attributes are {names}; give at least one, each its own name")
        return self
