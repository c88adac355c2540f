"""Marks on spans of a text, each with a kind and a comment.

Offsets count UTF-16 code units of the text as it is stored, as a browser counts them, and never of
what was rendered. A mark carries the hash of the text and the words it covers, so that one that
slipped is refused rather than stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from heed.data.store.kinds.base import (
    Answer,
    Kind,
    Payload,
    check_codes,
    check_place,
    refuse,
    turn_flags,
)
from heed.data.store.kinds.making import OneText
from heed.data.store.project_config import ProjectConfig
from heed.records import Record


class Span(Record):
    """One mark: from `start` up to and without `end`."""

    place: int = Field(default=0, ge=0)
    start: int = Field(ge=0)
    end: int = Field(ge=1)
    kind: str
    quote: str
    """The words that it covers."""
    comment: str | None = Field(default=None, max_length=10_000)


class SpansAnswer(Answer):
    """Marks on a text; none says that there is nothing to mark."""

    outcome: Literal["marked", "cannot_judge", "invalid"]
    spans: tuple[Span, ...] = Field(default=(), max_length=500)
    text_sha256: str | None = None
    """Hash of the text that was marked (UTF-8); with spans only."""


def slice_utf16(text: str, start: int, end: int) -> str | None:
    """Cut a text by UTF-16 code units; None where an end lies outside or inside a character."""
    units = text.encode("utf-16-le")
    if not 0 <= start < end <= len(units) // 2:
        return None
    try:
        return units[2 * start : 2 * end].decode("utf-16-le")
    except UnicodeDecodeError:
        return None


def check_spans(answer: SpansAnswer, payload: Payload, config: ProjectConfig) -> None:
    """Hold spans to the text that they mark."""
    if answer.outcome != "marked" and answer.spans:
        raise refuse(f"outcome is {answer.outcome!r}, yet spans are marked; leave them out")
    for span in answer.spans:
        check_place(span.place, payload)
        text = payload.candidates[span.place].text or ""
        if answer.text_sha256 != hashlib.sha256(text.encode()).hexdigest():
            raise refuse("text_sha256 is not the hash of the stored text; load the item again")
        if span.kind not in config.span_kinds:
            raise refuse(
                f"span kind {span.kind!r} is unknown; known are {', '.join(config.span_kinds)}"
            )
        found = slice_utf16(text, span.start, span.end)
        if found != span.quote:
            raise refuse(
                f"characters {span.start} to {span.end} (UTF-16 units) are "
                f"{(found or 'outside the text')[:60]!r}, the span quotes {span.quote[:60]!r}"
            )
    check_codes(answer, payload, config)


def turn_spans(answer: SpansAnswer, places: Sequence[int]) -> SpansAnswer:
    """Rename the places of spans."""
    spans = [span.model_copy(update={"place": places[span.place]}) for span in answer.spans]
    spans.sort(key=lambda span: (span.place, span.start, span.end, span.kind))
    turned: SpansAnswer = turn_flags(answer, places, spans=tuple(spans))
    return turned


SPANS = Kind(
    "spans", OneText, SpansAnswer, check_spans, turn_spans, swaps=False,
    layouts=("judgments", "critiques"),
)  # fmt: skip
