"""What a report's sections are made of; the template knows how each block looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup


@dataclass(frozen=True)
class Note:
    """A sentence; `missing` says why something is not shown."""

    text: str
    missing: bool = False
    type: str = "note"


@dataclass(frozen=True)
class Figure:
    """A chart with its heading, the figure that matters, and what it means."""

    title: str
    drawing: Markup
    note: str = ""
    value: str = ""
    narrow: Markup | None = None
    """The same chart drawn for a phone; with it the figure takes the full width."""
    type: str = "figure"


@dataclass(frozen=True)
class Grid:
    """Figures side by side, as many as fit."""

    figures: Sequence[Figure]
    columns: Literal["", "pair", "four"] = ""
    """At most three figures in a row, or two wider or four narrower ones."""
    type: str = "grid"


@dataclass(frozen=True)
class Table:
    """A table; columns named in `numeric` are set flush right."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int] = ()
    hide_caption: bool = False
    type: str = "table"


@dataclass(frozen=True)
class Code:
    """Text to copy."""

    text: str
    label: str = ""
    type: str = "code"


@dataclass(frozen=True)
class Fold:
    """Blocks that a reader opens."""

    summary: str
    blocks: Sequence[Block]
    type: str = "fold"


@dataclass(frozen=True)
class Sample:
    """One completion of a prompt at one step."""

    step: str
    completion: str
    proxy: str
    true: str
    tokens: str
    shown: bool
    """Whether it is shown without the slider."""


@dataclass(frozen=True)
class Prompted:
    """A prompt with its completions over time."""

    prompt: str
    tags: Sequence[str]
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Samples:
    """The same prompts over time."""

    name: str
    steps: Sequence[str]
    prompts: Sequence[Prompted]
    has_truth: bool = True
    updates: Sequence[int] = ()
    """The steps as numbers."""
    folder: str = "."
    """Where the run that kept them is, below the run of the page."""
    type: str = "samples"


Block = Note | Figure | Grid | Table | Code | Fold | Samples


@dataclass
class Section:
    """A part of the page."""

    id: str
    title: str
    lead: str = ""
    blocks: list[Block] = field(default_factory=list)


def missing(text: str) -> Note:
    """A sentence that says why something is not shown."""
    return Note(text, missing=True)
