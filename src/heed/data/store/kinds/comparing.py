"""Comparisons: which of two texts or clips is better, and a ranking of up to nine texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from heed.data.store.kinds.base import (
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
from heed.data.store.scales import SCALES


class TwoTexts(Texts):
    """A prompt and two replies."""

    @model_validator(mode="after")
    def _check(self) -> TwoTexts:
        if len(self.candidates) != 2:
            raise ValueError(f"{len(self.candidates)} candidates; a pair has two")
        return self


class TwoClips(Payload):
    """Two segments of behaviour."""

    @model_validator(mode="after")
    def _check(self) -> TwoClips:
        if len(self.candidates) != 2 or any(c.segment is None for c in self.candidates):
            raise ValueError("a pair of clips has two candidates, each a segment")
        return self


class Comparison(Answer):
    """Which of two is better, and by how much on the project's scale."""

    outcome: Literal["prefer", "tie", "both_bad", "cannot_judge", "invalid"]
    side: int | None = Field(default=None, ge=0, le=1)
    """Place of the better one; with `prefer` only."""
    level: int | None = Field(default=None, ge=1)
    """Strength, 1 to the scale's levels; with `prefer` only."""

    @model_validator(mode="after")
    def _check(self) -> Comparison:
        given = self.side is not None and self.level is not None
        nothing = self.side is None and self.level is None
        if (self.outcome == "prefer" and not given) or (self.outcome != "prefer" and not nothing):
            raise ValueError("`side` and `level` come with outcome `prefer`, and only with it")
        return self


def check_comparison(answer: Comparison, payload: Payload, config: ProjectConfig) -> None:
    """Hold a comparison to the project's scale."""
    scale = SCALES[config.scale]
    if answer.level is not None and answer.level > scale.levels:
        raise refuse(f"level is {answer.level}; scale {scale.name!r} has 1 to {scale.levels}")
    if answer.outcome == "tie" and not scale.has_tie:
        raise refuse(f"outcome is `tie`; scale {scale.name!r} has no middle")
    check_codes(answer, payload, config)


def turn_comparison(answer: Comparison, places: Sequence[int]) -> Comparison:
    """Rename the places of a comparison."""
    side = None if answer.side is None else places[answer.side]
    turned: Comparison = turn_flags(answer, places, side=side)
    return turned


class ManyTexts(Texts):
    """A prompt and two to nine replies."""

    @model_validator(mode="after")
    def _check(self) -> ManyTexts:
        if not 2 <= len(self.candidates) <= 9:
            raise ValueError(f"{len(self.candidates)} candidates; a ranking has 2 to 9")
        return self


class RankingAnswer(Answer):
    """An order of the candidates in buckets, best first; those in one bucket are equal."""

    outcome: Literal["ranked", "all_bad", "cannot_judge", "invalid"]
    buckets: tuple[tuple[int, ...], ...] = ()
    """Places, such as [[2], [0, 3], [1]]."""
    unranked_bad: tuple[int, ...] = ()
    """Places too bad to rank: below every bucket, and not compared with each other."""


def check_ranking(answer: RankingAnswer, payload: Payload, config: ProjectConfig) -> None:
    """Hold a ranking to the candidates: each is named exactly once."""
    named = [place for bucket in answer.buckets for place in bucket] + list(answer.unranked_bad)
    for place in named:
        check_place(place, payload)
    if answer.outcome != "ranked":
        if named:
            raise refuse(f"outcome is {answer.outcome!r}, yet places are ranked; leave them out")
    elif sorted(named) != list(range(len(payload.candidates))) or not all(answer.buckets):
        raise refuse(
            f"the buckets {[list(b) for b in answer.buckets]} and unranked "
            f"{list(answer.unranked_bad)} must name each of {len(payload.candidates)} candidates "
            "once, and no bucket is empty"
        )
    elif not answer.buckets:
        raise refuse("every candidate is unranked; the outcome for that is `all_bad`")
    check_codes(answer, payload, config)


def turn_ranking(answer: RankingAnswer, places: Sequence[int]) -> RankingAnswer:
    """Rename the places of a ranking."""
    turned: RankingAnswer = turn_flags(
        answer,
        places,
        buckets=tuple(tuple(sorted(places[p] for p in bucket)) for bucket in answer.buckets),
        unranked_bad=tuple(sorted(places[p] for p in answer.unranked_bad)),
    )
    return turned


PAIR = Kind(
    "pair", TwoTexts, Comparison, check_comparison, turn_comparison, swaps=True,
    layouts=("judgments", "preferences", "trl_preference", "trl_unpaired"),
)  # fmt: skip
CLIPS = Kind(
    "clips", TwoClips, Comparison, check_comparison, turn_comparison, swaps=True,
    layouts=("judgments",),
)  # fmt: skip
RANKING = Kind(
    "ranking", ManyTexts, RankingAnswer, check_ranking, turn_ranking, swaps=False,
    layouts=("judgments", "ranking", "trl_preference", "trl_unpaired"),
)  # fmt: skip

__all__ = ["CLIPS", "PAIR", "RANKING", "Comparison", "RankingAnswer"]
