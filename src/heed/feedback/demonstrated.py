"""Whether a completion says what its prompt's demonstration says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from heed.feedback.base import Item
from heed.feedback.rules import failed_completion
from heed.records import Score


class DemonstratedScorer:
    """Scores 1 for the demonstration's own text, 0 for another one; white space around is nothing.

    Args:
        replies: prompt id -> text of the demonstration. Another prompt's item has an error.
    """

    name = "demonstrated"

    def __init__(self, replies: Mapping[str, str]) -> None:
        self._replies = replies

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Score items, in order."""
        return [failed_completion(item, self.name) or self._one(item) for item in items]

    def _one(self, item: Item) -> Score:
        reply = self._replies.get(item.prompt.id)
        error = None if reply is not None else f"prompt {item.prompt.id!r} has no demonstration"
        same = None if reply is None else float(item.completion.text.strip() == reply.strip())
        return Score(item_id=item.completion.id, value=same, error=error, scorer=self.name)
