"""The tie parameter of Davidson's model: fixed, or learned beside the score by its own gradient.

    log nu <- log nu - rate d loss / d log nu,   rate = RATE x (learning rate / its peak)

It is one number (one for each number of tied completions in rankings), and its gradient is the
share of ties that the model expects less the share that there is. Adam with the rate of a weight
would not move it; with a rate of its own it finds its value in tens of steps, and settles as the
schedule falls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from heed.data.groups import Group
from heed.data.judgements import LabelledPair
from heed.errors import DataError
from heed.losses.ranking import blocks

RATE = 1.0
"""Curvature is nu-dependent and at most 1/4, so a step of 1 times the gradient cannot overshoot."""


class TieParameter:
    """log nu [D - 1] for 2, 3, ... D tied completions; D is 2 for pairs.

    Args:
        start: its first values.
        learned: whether `step` changes it.
    """

    def __init__(self, start: Sequence[float], *, learned: bool = True) -> None:
        self.learned = learned
        self.log_nu: Tensor = torch.tensor(list(start), dtype=torch.float64)
        self.log_nu.requires_grad_(learned)

    def of_pairs(self) -> Tensor:
        """The parameter of two tied completions, a scalar."""
        return self.log_nu[0]

    def step(self, share: float) -> None:
        """Take the gradient that backward passes left, and clear it.

        Args:
            share: learning rate over its peak, 0 to 1.
        """
        if not self.learned or self.log_nu.grad is None:
            return
        with torch.no_grad():
            self.log_nu -= RATE * share * self.log_nu.grad
        self.log_nu.grad = None

    def values(self) -> list[float]:
        """Its values; a checkpoint keeps them exactly."""
        return [float(value) for value in self.log_nu.detach()]

    def restore(self, values: Sequence[float]) -> None:
        """Go on from values that a checkpoint kept."""
        with torch.no_grad():
            self.log_nu.copy_(torch.tensor(list(values), dtype=torch.float64))


def tie_parameter(pairs: Sequence[LabelledPair], fixed: float | None) -> TieParameter:
    """Start from what ties would be among equals: nu / (2 + nu) = the share of ties.

    Raises:
        DataError: there are no ties to learn from.
    """
    if fixed is not None:
        return TieParameter([fixed], learned=False)
    share = sum(pair.tie_share for pair in pairs) / max(1, len(pairs))
    if not 0 < share < 1:
        raise DataError(
            f"a share of {share:.0%} of the {len(pairs):,} training pairs are ties, so their rate "
            "has no estimate; use ties='soft', or fix it with tie_log_nu"
        )
    return TieParameter([math.log(2 * share / (1 - share))])


def ranking_tie_parameter(groups: Sequence[Group], fixed: float | None) -> TieParameter:
    """Start from how often 2, 3, ... completions share a rank, as if all were equally good.

    Raises:
        DataError: no two completions share a rank, so there is nothing to learn from.
    """
    counts: dict[int, int] = {}
    sizes = [len(group.replies) for group in groups]
    for group in groups:
        for block in blocks(group.ranks or ()):
            counts[len(block)] = counts.get(len(block), 0) + 1
    most = max(counts, default=1)
    if fixed is not None:
        return TieParameter([fixed] * max(1, most - 1), learned=False)
    if most < 2:
        raise DataError(
            "no two completions of a ranking share a rank, so ties have no rate to estimate; use "
            "ties='soft', or fix it with tie_log_nu"
        )
    mean = round(sum(sizes) / len(sizes))
    singles = (counts.get(1, 0) + 0.5) / max(1, mean)
    return TieParameter(
        [
            math.log((counts.get(t, 0) + 0.5) / math.comb(max(mean, t), t) / singles)
            for t in range(2, most + 1)
        ]
    )
