"""Several reward models as one scorer: their mean, their minimum, or their mean less their spread.

    mean            mu
    min             min_k s_k                        (worst case)
    mean_minus_std  mu - k sigma,  sigma the standard deviation over members, divided by K - 1

Members agree where there were comparisons and differ where there were none, so what is taken off
holds a policy back from answers that none of them has learned to judge. Scores must be on one
scale: `heed reward` gives each model mean 0 and deviation 1 on the completions it was trained on.

Sources: Coste et al. 2023, section 3 (mean, worst case, and variance in place of the standard
deviation); Eisenstein et al. 2023, section 4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from glob import glob
from typing import Literal

import numpy as np

from heed.errors import ConfigError
from heed.feedback.base import Item, Scorer
from heed.records import Score

How = Literal["mean", "min", "mean_minus_std"]
DISAGREEMENT = "disagreement"
"""Part of a score: the standard deviation over members."""

_WORD = re.compile(r"^(mean|min|mean-(\d+\.?\d*|\.\d+)?std)\((.*)\)$", re.DOTALL)


class Ensemble:
    """Combines the scores of members; one member without a value leaves the item without one.

    The parts of a score are each member's value and, under `disagreement`, their standard
    deviation.

    Args:
        members: two or more scorers with different names.
        how: mean, min or mean_minus_std.
        k: how many standard deviations are taken off.
        name: stands in scores.

    Raises:
        ConfigError: there are fewer than two members, two have one name, or k is not at least 0.
    """

    def __init__(
        self, members: Sequence[Scorer], how: How = "mean", k: float = 1.0, name: str = "ensemble"
    ) -> None:
        if len(members) < 2:
            raise ConfigError(f"an ensemble of {len(members)} scorers; give two or more")
        names = [member.name for member in members]
        if len(set(names)) < len(names) or DISAGREEMENT in names:
            raise ConfigError(
                f"the members are named {names}; give each a name of its own, not {DISAGREEMENT!r}"
            )
        if how not in ("mean", "min", "mean_minus_std"):
            raise ConfigError(f"how is {how!r}, expected mean, min or mean_minus_std")
        if not (math.isfinite(k) and k >= 0):
            raise ConfigError(f"k is {k}, expected a number of at least 0")
        self._members, self._how, self._k, self._name = tuple(members), how, k, name

    @property
    def name(self) -> str:
        """Stands in `Score.scorer`."""
        return self._name

    @property
    def members(self) -> tuple[Scorer, ...]:
        """The scorers that are combined."""
        return self._members

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Score items with every member, in order."""
        columns = [member.score(items) for member in self._members]
        return [
            self._combined(item, [column[i] for column in columns]) for i, item in enumerate(items)
        ]

    def _combined(self, item: Item, scores: Sequence[Score]) -> Score:
        parts: dict[str, float | None] = {
            member.name: score.value for member, score in zip(self._members, scores, strict=True)
        }
        errors = [f"{score.scorer}: {score.error}" for score in scores if score.value is None]
        value = None
        if not errors:
            found = np.array([score.value for score in scores], dtype=float)
            spread = float(found.std(ddof=1))
            parts[DISAGREEMENT] = spread
            value = float(found.min()) if self._how == "min" else float(found.mean())
            if self._how == "mean_minus_std":
                value -= self._k * spread
        return Score(
            item_id=item.completion.id,
            value=value,
            error="; ".join(errors) or None,
            parts=parts,
            scorer=self.name,
        )


def read_word(word: str) -> tuple[How, float, tuple[str, ...]] | None:
    """Read `mean(A, B)`, `min(A, B)` or `mean-0.5std(A, B)`; None where the word is no ensemble.

    A member with a star, a question mark or brackets stands for the paths that it matches.

    Returns:
        how, k, and the members' words.

    Raises:
        ConfigError: fewer than two members are named or found.
    """
    found = _WORD.match(word.strip())
    if found is None:
        return None
    members: list[str] = []
    for part in (part.strip() for part in found[3].split(",")):
        if any(sign in part for sign in "*?["):
            members += sorted(glob(part))
        elif part:
            members.append(part)
    if len(members) < 2:
        raise ConfigError(
            f"{word!r} names {len(members)} scorers; an ensemble has two or more, parted by commas "
            "(a star stands for several paths)"
        )
    how: How = "mean" if found[1] == "mean" else "min" if found[1] == "min" else "mean_minus_std"
    return how, float(found[2] or 1.0), tuple(members)


def sources_of(word: str) -> str | tuple[str, ...]:
    """What a scorer's word reads: itself, or the members of an ensemble."""
    found = read_word(word)
    return word if found is None else found[2]
