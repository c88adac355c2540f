"""A score with a cost beside it, from two scorers."""

from __future__ import annotations

from collections.abc import Sequence

from heed.errors import ConfigError
from heed.feedback.base import Item, Scorer
from heed.records import Score

COST = "cost"
"""Part of a score that is its cost."""


class CostedScorer:
    """Scores by one scorer, and writes what another one says as the part `cost`.

    An item of which either fails has an error.

    Args:
        scorer: whose value the score is.
        cost: whose value is the cost.

    Raises:
        ConfigError: the scorer has the name `cost`, which would hide the cost.
    """

    def __init__(self, scorer: Scorer, cost: Scorer) -> None:
        if scorer.name == COST:
            raise ConfigError(f"a scorer is named {COST!r}, which is the cost's name; rename it")
        self._scorer, self._cost = scorer, cost

    @property
    def name(self) -> str:
        """The scorer's."""
        return self._scorer.name

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Score items with both, in order."""
        found = zip(self._scorer.score(items), self._cost.score(items), strict=True)
        return [self._both(score, cost) for score, cost in found]

    def _both(self, score: Score, cost: Score) -> Score:
        errors = [score.error] if score.error else []
        errors += [f"{COST}: {cost.error}"] if cost.error else []
        return score.model_copy(
            update={
                "value": None if errors else score.value,
                "error": "; ".join(errors) or None,
                "parts": {**score.parts, COST: cost.value},
            }
        )
