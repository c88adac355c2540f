"""The scorer and labeller protocols: who says how good a completion is, or which is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from heed.records import Completion, Pair, Preference, Prompt, Score


@dataclass(frozen=True)
class Item:
    """A completion with the prompt that it answers: what a scorer judges."""

    prompt: Prompt
    completion: Completion


@dataclass(frozen=True)
class Labelled:
    """What has come back from a labeller: preferences, and the ids of pairs still open."""

    preferences: tuple[Preference, ...]
    pending: tuple[str, ...] = ()


class Scorer(Protocol):
    """Whatever gives an item a number. Contract: `tests/contracts/test_scorer.py`."""

    @property
    def name(self) -> str:
        """Stands in `Score.scorer` and in metric names."""
        ...

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Score items; always the same order and length. One that fails has an error in it."""
        ...


class Labeller(Protocol):
    """Whatever says which of two is better. Contract: `tests/contracts/test_labeller.py`."""

    @property
    def name(self) -> str:
        """Stands in `Preference.labeller`."""
        ...

    def compare(self, pairs: Sequence[Pair]) -> Labelled:
        """Compare pairs. Fewer preferences than pairs may come back; the rest is pending."""
        ...
