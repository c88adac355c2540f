"""Fits of over-optimisation: gold score against distance from the initial policy.

With d = sqrt(KL(policy || initial)), KL in nats, and gold scores relative to the initial policy:

    best of n                R(d) = d (alpha - beta d)
    reinforcement learning   R(d) = d (alpha - beta log d)

alpha is the gain at the start, beta how fast it is lost to optimising the proxy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from heed.errors import DataError
from heed.stats.intervals import Interval, tail_share

Form = Literal["best_of_n", "rl"]


@dataclass(frozen=True)
class Peak:
    """Where the fitted curve is highest: distance, KL in nats, and gold score there."""

    distance: float
    kl: float
    score: float


@dataclass(frozen=True)
class OverOptimisation:
    """A fit. `peak` is None where the curve does not turn (beta 0 or below, or alpha 0 or below
    for best of n); `r_squared` is about the mean score; `aic` compares forms on the same points,
    lower is better, and is None for an exact fit."""

    form: Form
    alpha: Interval
    beta: Interval
    peak: Peak | None
    r_squared: float | None
    aic: float | None
    num_points: int

    def predict(self, distance: ArrayLike) -> NDArray:
        """Predict the gold score at distances [N]."""
        d = np.asarray(distance, dtype=float)
        alpha, beta = self.alpha.estimate, self.beta.estimate
        return np.asarray(_design(d, self.form) @ np.array([alpha, beta]))


def fit(kl: ArrayLike, gold: ArrayLike, form: Form, *, level: float = 0.95) -> OverOptimisation:
    """Fit one form by least squares, with Student's intervals of alpha and beta.

    Args:
        kl: [N] KL(policy || initial), nats, 0 or above; `best_of_n.kl` for best of n.
        gold: [N] scores of one curve, or [S, N] of S seeds on the same KL; the initial policy
            scores 0.
        form: which.
        level: in (0, 1).

    Returns:
        With seeds the intervals come from how the seeds differ (n is S), which is what a new seed
        would show. With one curve they come from its residuals (n is N), which takes the points as
        independent; points of best of n from one set of samples are not.

    Raises:
        DataError: shapes that do not fit, a number that is not finite, a KL below 0, or fewer than
            three different KL above 0.

    Source: Gao, Schulman and Hilton 2022.
    """
    d, scores = _points(kl, gold)
    design = _design(d, form)
    solve = np.linalg.pinv(design)
    by_seed, mean = scores @ solve.T, scores.mean(0)
    best = by_seed.mean(0)
    rest = float(((mean - design @ best) ** 2).sum())
    if len(scores) > 1:
        n, freedom = len(scores), len(scores) - 1
        error = by_seed.std(0, ddof=1) / np.sqrt(n)
    else:
        n, freedom = len(d), len(d) - 2
        error = np.sqrt(rest / freedom * (solve**2).sum(1))
    half = float(stats.t.ppf(1 - tail_share(level), freedom)) * error
    alpha, beta = (
        Interval(float(b), float(b - h), float(b + h), n) for b, h in zip(best, half, strict=True)
    )
    total = float(((mean - mean.mean()) ** 2).sum())
    exact = rest <= 1e-24 * max(total, 1e-300)
    return OverOptimisation(
        form, alpha, beta, _peak(alpha.estimate, beta.estimate, form),
        1 - rest / total if total > 0 else None,
        None if exact else len(d) * float(np.log(rest / len(d))) + 4,
        len(d),
    )  # fmt: skip


def _points(kl: ArrayLike, gold: ArrayLike) -> tuple[NDArray, NDArray]:
    nats, scores = np.asarray(kl, dtype=float), np.atleast_2d(np.asarray(gold, dtype=float))
    if nats.ndim != 1 or scores.ndim != 2 or scores.shape[1] != len(nats) or not len(scores):
        raise DataError(
            f"found KL {nats.shape} and gold scores {np.shape(gold)}; expected [N] and [N], or "
            "[seeds, N]"
        )
    if not (np.isfinite(nats).all() and np.isfinite(scores).all()) or (nats < 0).any():
        raise DataError("a KL or a gold score is not finite, or a KL is below 0")
    if len(np.unique(nats[nats > 0])) < 3:
        raise DataError("a curve of two numbers needs three different KL above 0 or more")
    return np.sqrt(nats), scores


def _design(d: NDArray, form: Form) -> NDArray:
    """Columns that alpha and beta multiply. [N, 2]; d log d is 0 at 0."""
    if form == "best_of_n":
        return np.stack([d, -(d**2)], -1)
    return np.stack([d, -d * np.log(np.where(d > 0, d, 1.0))], -1)


def _peak(alpha: float, beta: float, form: Form) -> Peak | None:
    """Best of n: d* = alpha / (2 beta). RL: d* = exp(alpha / beta - 1), R* = beta d*."""
    if beta <= 0 or (form == "best_of_n" and alpha <= 0):
        return None
    log_d = np.log(alpha / (2 * beta)) if form == "best_of_n" else alpha / beta - 1
    if log_d > 300:
        return None
    d = float(np.exp(log_d))
    return Peak(d, d * d, alpha * d / 2 if form == "best_of_n" else beta * d)
