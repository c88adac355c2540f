"""The price of a cost: a Lagrange multiplier that rises while a mean cost is above its limit.

    maximise E[reward] - beta KL   subject to   E[cost] <= limit
    by the score                   reward - lambda cost, or that over 1 + lambda
    log lambda <- log lambda + lr lambda (mean cost - limit)

Where the constraint binds, lambda settles where the policy's mean cost is the limit; where it does
not, lambda goes to 0.

Source: Dai et al. 2023 (Safe RLHF, arXiv 2310.12773), section 3.3 and its appendix's update.
"""

from __future__ import annotations

import math
from typing import Any, Self

from torch import Tensor

from heed.errors import ConfigError, DataError


def constrained_score(
    scores: Tensor, costs: Tensor, multiplier: float, *, rescale: bool = False
) -> Tensor:
    """Take a priced cost off a score, [B], unreduced.

    score - lambda cost, divided by 1 + lambda with `rescale`, which keeps its scale as the price
    rises; a KL penalty beside it then holds as with beta (1 + lambda).

    Args:
        scores, costs: [B].
        multiplier: lambda, at least 0.
        rescale: divide, as Safe RLHF does.
    """
    priced = scores - multiplier * costs
    return priced / (1.0 + multiplier) if rescale else priced


class Multiplier:
    """The multiplier lambda, which stays above 0 because its logarithm is what moves.

    Args:
        coef: lambda to start from, above 0.
        limit: of the mean cost.
        lr: of the logarithm, per unit of cost and of lambda.
        most: largest lambda, or None.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(self, coef: float, limit: float, lr: float, most: float | None = None) -> None:
        if not (coef > 0 and lr >= 0 and (most is None or most >= coef)):
            raise ConfigError(
                f"multiplier {coef}, its rate {lr}, its maximum {most}: expected above 0, at least "
                "0, and at least the multiplier"
            )
        self.coef, self.limit, self.lr, self.most = float(coef), limit, lr, most

    def update(self, mean_cost: float) -> float:
        """Move after a batch whose mean cost is known; returns mean cost - limit.

        Raises:
            DataError: the cost is not finite, which would spoil the multiplier for good.
        """
        if not math.isfinite(mean_cost):
            raise DataError(f"the mean cost is {mean_cost}, expected a finite number")
        excess = mean_cost - self.limit
        # A step of the logarithm is held to +-1, so that no batch changes lambda more than e-fold.
        step = min(max(self.lr * self.coef * excess, -1.0), 1.0)
        self.coef *= math.exp(step)
        if self.most is not None:
            self.coef = min(self.coef, self.most)
        return excess

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs, JSON-able."""
        return {"coef": self.coef}

    def load_state(self, state: dict[str, Any]) -> Self:
        """Continue from `state()`."""
        self.coef = float(state["coef"])
        return self
