"""Ratings of texts, replies written from nothing, and replies made better by editing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from heed.data.store.kinds.base import (
    MOST_CHARACTERS,
    Answer,
    Kind,
    Payload,
    Texts,
    check_codes,
    check_place,
    refuse,
    turn_flags,
)
from heed.data.store.project_config import ProjectConfig
from heed.records import Record


class SomeTexts(Texts):
    """A prompt and one to nine replies, each rated for itself."""

    @model_validator(mode="after")
    def _check(self) -> SomeTexts:
        if not 1 <= len(self.candidates) <= 9:
            raise ValueError(f"{len(self.candidates)} candidates; a rating has 1 to 9")
        return self


class Mark(Record):
    """One attribute of one candidate."""

    place: int = Field(ge=0)
    attribute: str
    value: int


class RatingAnswer(Answer):
    """Values of the project's attributes for each candidate."""

    outcome: Literal["rated", "cannot_judge", "invalid"]
    ratings: tuple[Mark, ...] = Field(default=(), max_length=500)


def check_rating(answer: RatingAnswer, payload: Payload, config: ProjectConfig) -> None:
    """Hold ratings to the attributes: each required one once for each candidate."""
    known = {attribute.name: attribute for attribute in config.attributes}
    seen: set[tuple[int, str]] = set()
    for mark in answer.ratings:
        check_place(mark.place, payload)
        attribute = known.get(mark.attribute)
        if attribute is None:
            raise refuse(f"attribute {mark.attribute!r} is unknown; known are {', '.join(known)}")
        if not attribute.low <= mark.value <= attribute.high:
            raise refuse(
                f"{mark.attribute} is {mark.value}; it goes from {attribute.low} to "
                f"{attribute.high}"
            )
        if (mark.place, mark.attribute) in seen:
            raise refuse(f"{mark.attribute} of candidate {mark.place} is given twice")
        seen.add((mark.place, mark.attribute))
    wanted = {
        (place, attribute.name)
        for place in range(len(payload.candidates))
        for attribute in config.attributes
        if attribute.required
    }
    if answer.outcome == "rated" and not wanted <= seen:
        place, name = min(wanted - seen)
        raise refuse(f"{name} of candidate {place} is missing")
    if answer.outcome != "rated" and seen:
        raise refuse(f"outcome is {answer.outcome!r}, yet ratings are given; leave them out")
    check_codes(answer, payload, config)


def turn_rating(answer: RatingAnswer, places: Sequence[int]) -> RatingAnswer:
    """Rename the places of ratings."""
    marks = [mark.model_copy(update={"place": places[mark.place]}) for mark in answer.ratings]
    marks.sort(key=lambda mark: (mark.place, mark.attribute))
    turned: RatingAnswer = turn_flags(answer, places, ratings=tuple(marks))
    return turned


class PromptOnly(Texts):
    """A prompt, to which a person writes the reply."""

    @model_validator(mode="after")
    def _check(self) -> PromptOnly:
        if self.candidates:
            raise ValueError("a demonstration is written from nothing; leave the candidates out")
        return self


class WritingAnswer(Answer):
    """A reply in a person's own words."""

    outcome: Literal["written", "cannot_judge", "invalid"]
    text: str | None = Field(default=None, max_length=MOST_CHARACTERS)


def check_writing(answer: WritingAnswer, payload: Payload, config: ProjectConfig) -> None:
    """Hold a demonstration to having a text."""
    _check_text(answer.text, answer.outcome, "written")
    check_codes(answer, payload, config)


class OneText(Texts):
    """A prompt and one reply."""

    @model_validator(mode="after")
    def _check(self) -> OneText:
        if len(self.candidates) != 1:
            raise ValueError(f"{len(self.candidates)} candidates; this kind of work has one")
        return self


class EditAnswer(Answer):
    """A reply made better, or left as it is because it is good."""

    outcome: Literal["edited", "unchanged", "cannot_judge", "invalid"]
    text: str | None = Field(default=None, max_length=MOST_CHARACTERS)
    """The whole reply after the edit; with `edited` only."""


def check_edit(answer: EditAnswer, payload: Payload, config: ProjectConfig) -> None:
    """Hold an edit to being one."""
    _check_text(answer.text, answer.outcome, "edited")
    if answer.outcome == "edited" and answer.text == payload.candidates[0].text:
        raise refuse("the text is as it was; the outcome for that is `unchanged`")
    check_codes(answer, payload, config)


def _check_text(text: str | None, outcome: str, with_text: str) -> None:
    if outcome == with_text and not (text or "").strip():
        raise refuse(f"outcome is {outcome!r} and there is no text")
    if outcome != with_text and text is not None:
        raise refuse(f"outcome is {outcome!r}, yet a text is given; leave it out")


RATING = Kind(
    "rating", SomeTexts, RatingAnswer, check_rating, turn_rating, swaps=False,
    layouts=("judgments", "trl_unpaired"),
)  # fmt: skip
DEMONSTRATION = Kind(
    "demonstration", PromptOnly, WritingAnswer, check_writing, turn_flags, swaps=False,
    layouts=("judgments", "sft"),
)  # fmt: skip
EDIT = Kind(
    "edit", OneText, EditAnswer, check_edit, turn_flags, swaps=False,
    layouts=("judgments", "sft", "trl_preference"),
)  # fmt: skip
