"""The kinds of work, each a payload, an answer, checks, and the exports that it can become.

pair           which of two replies is better, on one of the scales
clips          which of two clips is better
ranking        two to nine replies in buckets, best first
rating         attributes of one to nine replies
demonstration  a reply written from nothing
edit           a reply made better
spans          marks on a reply, with comments
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from heed.data.store.kinds.base import NOT_JUDGED, Answer, Candidate, Kind, Payload, inverse
from heed.data.store.kinds.comparing import CLIPS, PAIR, RANKING
from heed.data.store.kinds.making import DEMONSTRATION, EDIT, RATING
from heed.data.store.kinds.marking import SPANS
from heed.data.store.project_config import ProjectConfig
from heed.data.store.refusal import Refusal

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (PAIR, CLIPS, RANKING, RATING, DEMONSTRATION, EDIT, SPANS)
}

__all__ = [
    "KINDS",
    "NOT_JUDGED",
    "Answer",
    "Candidate",
    "Kind",
    "Payload",
    "inverse",
    "kind_of",
    "read_answer",
    "read_payload",
    "trained_layout",
]


def kind_of(name: str) -> Kind:
    """Find a kind of work by its name.

    Raises:
        Refusal: there is none of this name.
    """
    if name not in KINDS:
        raise Refusal("invalid", f"kind of work {name!r} is unknown; known are {', '.join(KINDS)}")
    return KINDS[name]


def trained_layout(kind: Kind) -> str:
    """Name the export of a kind that a trainer reads: preferences where there are any."""
    return "trl_preference" if "trl_preference" in kind.layouts else kind.layouts[-1]


def read_payload(kind: Kind, payload: Payload | dict[str, Any]) -> Payload:
    """Hold what an item shows to its kind of work.

    Raises:
        Refusal: it does not fit.
    """
    value = payload.model_dump() if isinstance(payload, Payload) else payload
    try:
        return kind.payload.model_validate(value)
    except ValidationError as error:
        raise Refusal("invalid", f"no item of kind {kind.name!r}: {_first(error)}") from error


def read_answer(
    kind: Kind, answer: Answer | dict[str, Any], payload: Payload, config: ProjectConfig
) -> Answer:
    """Hold an answer, with places in the item's order or the screen's, to its kind of work.

    Raises:
        Refusal: it does not fit.
    """
    value = answer.model_dump() if isinstance(answer, Answer) else answer
    try:
        read = kind.answer.model_validate(value)
    except ValidationError as error:
        raise Refusal("invalid", f"no answer of kind {kind.name!r}: {_first(error)}") from error
    kind.check(read, payload, config)
    return read


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
