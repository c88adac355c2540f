"""Scores that are comparisons: the probability that a completion is preferred to an opponent.

    VersusScorer      to a completion of another policy, drawn when the score is asked for
    TournamentScorer  to others of the same group: its counterpart, or all of them

An opinion says of pairs the probability that left is better, or why it cannot say:

    by a scorer     sigmoid((score of left - score of right) / temperature), or the higher at 0
    by a labeller   what a judge, a rule or a simulated person says
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from heed.errors import FeedbackError
from heed.feedback.base import Item, Labeller, Scorer
from heed.feedback.rules import failed_completion
from heed.ids import content_hash, stream_seed
from heed.records import Completion, Pair, Prompt, Sampling, Score

if TYPE_CHECKING:
    from heed.engines.base import Engine

Opinion = Callable[[Sequence[Pair]], list[float | str]]
Pairing = Literal["halves", "all"]


def probability(gap: float, temperature: float) -> float:
    """Bradley-Terry's probability of the side that leads by `gap`; at temperature 0 who leads."""
    if temperature == 0:
        return 0.5 if gap == 0 else float(gap > 0)
    return 0.5 * (1.0 + math.tanh(0.5 * gap / temperature))


def by_scorer(scorer: Scorer, temperature: float) -> Opinion:
    """Compare by scores; each completion is scored once a call."""

    def opinion(pairs: Sequence[Pair]) -> list[float | str]:
        items = {
            side.id: Item(pair.prompt, side) for pair in pairs for side in (pair.left, pair.right)
        }
        scores = dict(zip(items, scorer.score(list(items.values())), strict=True))
        out: list[float | str] = []
        for pair in pairs:
            left, right = scores[pair.left.id], scores[pair.right.id]
            if left.value is None or right.value is None:
                out.append(left.error or right.error or "no score")
            else:
                out.append(probability(left.value - right.value, temperature))
        return out

    return opinion


def by_labeller(labeller: Labeller) -> Opinion:
    """Compare by a labeller; equal texts are a tie and are not shown, a pending pair is no verdict.

    Where several judge a pair, their mean counts.
    """

    def opinion(pairs: Sequence[Pair]) -> list[float | str]:
        asked = [pair for pair in pairs if pair.left.text != pair.right.text]
        said: dict[str, list[float]] = {}
        reasons: dict[str, str] = {}
        for preference in labeller.compare(asked).preferences if asked else ():
            if preference.p_left is None:
                reasons[preference.pair_id] = preference.reason or preference.outcome
            else:
                said.setdefault(preference.pair_id, []).append(preference.p_left)
        out: list[float | str] = []
        for pair in pairs:
            found = said.get(pair.id)
            if pair.left.text == pair.right.text:
                out.append(0.5)
            elif found:
                out.append(sum(found) / len(found))
            else:
                out.append(reasons.get(pair.id, "the labeller has not judged the pair"))
        return out

    return opinion


def pair_of(prompt: Prompt, left: Completion, right: Completion) -> Pair:
    """Make the pair of two completions of one prompt."""
    name = "pair-" + content_hash([prompt.id, left.id, right.id])
    return Pair(id=name, prompt=prompt, left=left, right=right)


class VersusScorer:
    """Scores a completion by the probability that it is preferred to one of an opponent.

    Each completion meets an opponent of its own, drawn with its sampling's settings from a stream
    that is named by that sampling's seed, so that the same completions meet the same opponents.

    Args:
        opinion: who compares.
        opponent: samples the opponents.
        name: stands in scores.
    """

    def __init__(self, opinion: Opinion, opponent: Engine, name: str = "win rate") -> None:
        self._opinion, self._opponent, self.name = opinion, opponent, name

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Score items, in order; one whose completion or opponent failed has an error."""
        failed = [failed_completion(item, self.name) for item in items]
        whole = [i for i, score in enumerate(failed) if score is None]
        rivals = self._drawn([items[i] for i in whole])
        found: dict[int, float | str] = {}
        fine: list[tuple[int, Pair]] = []
        for i, rival in zip(whole, rivals, strict=True):
            if rival.finish == "error":
                found[i] = f"the opponent's completion failed: {rival.error}"
            else:
                fine.append((i, pair_of(items[i].prompt, items[i].completion, rival)))
        said = self._opinion([pair for _, pair in fine]) if fine else []
        found |= {i: p for (i, _), p in zip(fine, said, strict=True)}
        return [
            failed[i] or _score(item.completion.id, found[i], self.name)
            for i, item in enumerate(items)
        ]

    def _drawn(self, items: Sequence[Item]) -> list[Completion]:
        """One opponent for each item: those of a prompt and a sampling are drawn together."""
        wanted: Counter[tuple[str, str]] = Counter()
        of: dict[tuple[str, str], tuple[Prompt, Sampling]] = {}
        places = []
        for item in items:
            sampling = item.completion.sampling or Sampling()
            key = (item.prompt.id, sampling.model_dump_json())
            places.append((key, wanted[key]))
            wanted[key] += 1
            of[key] = item.prompt, sampling
        drawn: dict[tuple[str, str], list[Completion]] = {}
        together: dict[tuple[str, int], list[tuple[str, str]]] = {}
        for key, n in wanted.items():
            together.setdefault((key[1], n), []).append(key)
        for (_, n), keys in together.items():
            sampling = of[keys[0]][1]
            seed = stream_seed(sampling.seed, "opponent")
            settings = sampling.model_copy(update={"n": n, "seed": seed})
            groups = self._opponent.generate([of[key][0] for key in keys], settings)
            drawn |= dict(zip(keys, groups, strict=True))
        return [drawn[key][index] for key, index in places]


class TournamentScorer:
    """Scores a completion by its mean probability of being preferred within its group.

    Args:
        opinion: who compares.
        group_size: completions of each group; items come group by group.
        pairing: halves: completion i meets i + group_size / 2 alone; all: everyone meets everyone.
        name: stands in scores.
    """

    def __init__(
        self, opinion: Opinion, group_size: int, pairing: Pairing, name: str = "win rate"
    ) -> None:
        half = group_size // 2
        self._meet = (
            [(i, i + half) for i in range(half)]
            if pairing == "halves"
            else list(combinations(range(group_size), 2))
        )
        self._opinion, self._size, self.name = opinion, group_size, name

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Score items, in order; one of which no comparison succeeded has an error.

        Raises:
            FeedbackError: the items are no whole groups.
        """
        if len(items) % self._size:
            raise FeedbackError(
                f"{len(items)} items are no whole groups of {self._size}, which a comparison "
                "within groups needs"
            )
        meetings = [
            (first + i, first + j)
            for first in range(0, len(items), self._size)
            for i, j in self._meet
            if "error"
            not in (items[first + i].completion.finish, items[first + j].completion.finish)
        ]
        pairs = [pair_of(items[i].prompt, items[i].completion, items[j].completion)
                 for i, j in meetings]  # fmt: skip
        said = self._opinion(pairs) if pairs else []
        won: dict[int, list[float]] = {}
        reasons: dict[int, str] = {}
        for (i, j), p in zip(meetings, said, strict=True):
            if isinstance(p, str):
                reasons |= {i: p, j: p}
            else:
                won.setdefault(i, []).append(p)
                won.setdefault(j, []).append(1.0 - p)
        out = []
        for i, item in enumerate(items):
            wins = won.get(i)
            found: float | str = reasons.get(i, "what it meets failed")
            if wins:
                found = sum(wins) / len(wins)
            failed = failed_completion(item, self.name)
            out.append(failed or _score(item.completion.id, found, self.name))
        return out


def _score(item_id: str, found: float | str, scorer: str) -> Score:
    if isinstance(found, str):
        return Score(item_id=item_id, value=None, error=found, scorer=scorer)
    return Score(item_id=item_id, value=found, scorer=scorer)
