"""No scorer: people compare completions, and their labels come later."""

from __future__ import annotations

from collections.abc import Sequence

from heed.feedback.base import Item
from heed.records import Score


class Unscored:
    """Stands where a scorer is asked for and nobody gives numbers; every score is missing."""

    name = "nobody"

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Say of each item, in order, that it has no score."""
        return [
            Score(
                item_id=item.completion.id, value=None, error="people compare it", scorer=self.name
            )
            for item in items
        ]
