"""The posterior of noisy Bradley-Terry: its value, slope, curvature, mode and variances there.

Parameters are one vector: strengths [M], reliabilities [A], biases [A], and log nu where there are
ties. The curvature is sparse (four entries per comparison), so many thousand items are no obstacle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize, sparse
from scipy.sparse.linalg import cg

DENSE = 3000
"""Up to so many parameters the curvature is inverted whole; beyond, equations are solved by
conjugate gradients and strengths have no standard errors."""
RIDGE = 1e-9
"""Holds the mean of the strengths, which no comparison shows, where their prior is flat."""


@dataclass(frozen=True)
class Comparisons:
    """[N] numbers of left and right items and of people; `said` 1, 0 or 0.5 (tie)."""

    left: NDArray
    right: NDArray
    rater: NDArray
    said: NDArray
    num_items: int
    num_people: int

    @cached_property
    def ties(self) -> bool:
        """Whether there are any."""
        return bool((self.said == 0.5).any())

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.num_items + 2 * self.num_people + self.ties


@dataclass(frozen=True)
class Priors:
    """Standard deviations around strength 0, reliability 1 and bias 0; 0 fixes, inf is flat."""

    strength: float
    reliability: float
    bias: float

    def of(self, data: Comparisons) -> tuple[NDArray, NDArray, NDArray]:
        """Return centre, precision and whether it is free, for every parameter."""
        groups = ((0.0, self.strength, data.num_items), (1.0, self.reliability, data.num_people),
                  (0.0, self.bias, data.num_people), (0.0, np.inf, int(data.ties)))  # fmt: skip
        centre = np.concatenate([np.full(n, c) for c, _, n in groups])
        free = np.concatenate([np.full(n, sd > 0) for _, sd, n in groups])
        precision = np.concatenate([np.full(n, sd**-2 if sd > 0 else 0.0) for _, sd, n in groups])
        return centre, precision, free


@dataclass(frozen=True)
class Mode:
    """The most probable parameters, and the curvature there.

    `beyond` [A] is where each reliability would lie if it could fall below 0.
    """

    x: NDArray
    free: NDArray
    curvature: sparse.csc_array
    beyond: NDArray
    log_posterior: float

    def parts(self, data: Comparisons) -> tuple[NDArray, NDArray, NDArray, float | None]:
        """Split into strengths, reliabilities, biases and log nu."""
        return split(self.x, data)


@dataclass(frozen=True)
class Variances:
    """Posterior variances once mean strength is 0 and mean reliability 1.

    `strength` is None above `DENSE` parameters.
    """

    strength: NDArray | None
    reliability: NDArray
    bias: NDArray
    tie: float


def split(x: NDArray, data: Comparisons) -> tuple[NDArray, NDArray, NDArray, float | None]:
    """Split parameters into strengths, reliabilities, biases and log nu (None without ties)."""
    m, a = data.num_items, data.num_people
    return x[:m], x[m : m + a], x[m + a : m + 2 * a], float(x[-1]) if data.ties else None


def negative_log_posterior(x: NDArray, data: Comparisons, priors: Priors) -> tuple[float, NDArray]:
    """Return -log posterior, nats, up to a constant, and its gradient [parameters]."""
    s, reliability, bias, tie = split(x, data)
    centre, precision, _ = priors.of(data)
    gap = s[data.left] - s[data.right]
    log_z, slope, tied = _outcome(reliability[data.rater] * gap + bias[data.rater], tie, data.said)
    decided = data.said != 0.5
    half = (data.said - 0.5) * (reliability[data.rater] * gap + bias[data.rater])
    value = log_z.sum() - half.sum() - (0.0 if tie is None else tie * float((~decided).sum()))
    by_strength = slope * reliability[data.rater]
    gradient = [
        np.bincount(data.left, by_strength, minlength=data.num_items)
        - np.bincount(data.right, by_strength, minlength=data.num_items),
        np.bincount(data.rater, slope * gap, minlength=data.num_people),
        np.bincount(data.rater, slope, minlength=data.num_people),
    ]
    if tie is not None:
        gradient.append(np.array([float((~decided).sum()) - tied.sum()]))
    off = x - centre
    return (
        float(value + (precision * off**2).sum() / 2),
        -np.concatenate(gradient) + precision * off,
    )


def _outcome(x: NDArray, tie: float | None, said: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """log Z, slope of the log-likelihood in x, and P(tie), for every comparison."""
    log_z = np.logaddexp(x / 2, -x / 2)
    if tie is not None:
        log_z = np.logaddexp(log_z, tie)
    lead = (np.exp(x / 2 - log_z) - np.exp(-x / 2 - log_z)) / 2
    tied = np.zeros_like(x) if tie is None else np.exp(tie - log_z)
    return log_z, said - 0.5 - lead, tied


def curvature(x: NDArray, data: Comparisons, priors: Priors) -> sparse.csc_array:
    """Return the second derivatives of the negative log posterior. Sparse [size, size]."""
    s, reliability, bias, tie = split(x, data)
    m, a, n = data.num_items, data.num_people, len(data.said)
    gap, own = s[data.left] - s[data.right], reliability[data.rater]
    at = own * gap + bias[data.rater]
    log_z, slope, tied = _outcome(at, tie, data.said)
    win, lose = np.exp(at / 2 - log_z), np.exp(-at / 2 - log_z)
    lead = (win - lose) / 2
    row = np.arange(n)
    columns = [data.left, data.right, m + data.rater, m + a + data.rater]
    entries = [own, -own, gap, np.ones(n)]
    jacobian = sparse.csr_array(
        (np.concatenate(entries), (np.tile(row, 4), np.concatenate(columns))),
        shape=(n, data.size),
    )
    weight = (win + lose) / 4 - lead**2
    total = jacobian.T @ (jacobian * weight[:, None]).tocsr()
    # x is a product of reliability and gap, so its own second derivative enters.
    mixed = sparse.coo_array(
        (np.concatenate([-slope, slope]),
         (np.tile(m + data.rater, 2), np.concatenate([data.left, data.right]))),
        shape=(data.size, data.size),
    ).tocsr()  # fmt: skip
    _, precision, _ = priors.of(data)
    ridge = np.where(np.arange(data.size) < m, np.maximum(precision, RIDGE), precision)
    total = total + mixed + mixed.T + sparse.diags_array(ridge).tocsr()
    if tie is not None:
        column = jacobian.T @ (-lead * tied)
        column[-1] = (tied * (1 - tied)).sum() / 2
        last = sparse.csr_array(
            (column, (np.arange(data.size), np.full(data.size, data.size - 1))),
            shape=(data.size, data.size),
        )
        total = total + last + last.T
    return total.tocsc()


def maximise(data: Comparisons, priors: Priors) -> Mode:
    """Find the mode by L-BFGS with reliabilities at 0 or above, then Newton steps to the end."""
    centre, _, free = priors.of(data)
    first, last = data.num_items, data.num_items + data.num_people
    is_reliability = np.zeros(data.size, bool)
    is_reliability[first:last] = True
    x = centre.copy()

    def objective(part: NDArray) -> tuple[float, NDArray]:
        whole = x.copy()
        whole[free] = part
        value, slope = negative_log_posterior(whole, data, priors)
        return value, slope[free]

    bounds = [(0.0, None) if r else (None, None) for r in is_reliability[free]]
    found = optimize.minimize(
        objective, x[free], jac=True, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": 5000, "maxfun": 20000, "ftol": 1e-13, "gtol": 1e-8, "maxcor": 20},
    )  # fmt: skip
    x[free] = found.x
    inner = free & ~(is_reliability & (x <= 0))
    x = _newton(x, inner, data, priors)
    value, slope = negative_log_posterior(x, data, priors)
    bent = curvature(x, data, priors)
    # At the bound the slope pushes below 0; a Newton step says how far it would go.
    own, push = bent.diagonal()[first:last], slope[first:last]
    beyond = x[first:last] - np.where(x[first:last] <= 0, push / own, 0.0)
    return Mode(x, free, bent, beyond, -value)


def _newton(x: NDArray, inner: NDArray, data: Comparisons, priors: Priors) -> NDArray:
    places = np.flatnonzero(inner)
    value, slope = negative_log_posterior(x, data, priors)
    first, last = data.num_items, data.num_items + data.num_people
    for _ in range(20):
        bent = curvature(x, data, priors)[places][:, places].tocsc()
        step = _solver(bent)(slope[places][:, None])[:, 0]
        new = x.copy()
        new[places] -= step
        new_value, new_slope = negative_log_posterior(new, data, priors)
        worse = new_value > value + 1e-9 * abs(value)
        if worse or (new[first:last] < 0).any() or not np.isfinite(new).all():
            break
        x, value, slope = new, new_value, new_slope
        if np.abs(step).max(initial=0.0) < 1e-11:
            break
    return x


def _solver(bent: sparse.csc_array) -> Callable[[NDArray], NDArray]:
    """Return what solves bent @ out = rows, for rows [size, columns]."""
    if bent.shape[0] <= DENSE:
        factor = linalg.lu_factor(bent.toarray())
        return lambda rows: linalg.lu_solve(factor, rows)
    scale = sparse.diags_array(1 / bent.diagonal()).tocsr()

    def solve(rows: NDArray) -> NDArray:
        return np.stack([cg(bent, row, rtol=1e-7, maxiter=1000, M=scale)[0] for row in rows.T], 1)

    return solve


def variances(data: Comparisons, mode: Mode) -> Variances:
    """Invert the curvature for the variances of everything, in the scale of mean reliability 1."""
    m, a = data.num_items, data.num_people
    places = np.flatnonzero(mode.free)
    inverse = _solver(mode.curvature[places][:, places].tocsc())
    s, reliability, _, _ = mode.parts(data)
    functions = _unit(data.size, 0 if data.size <= DENSE else m)
    functions[:m] -= functions[:m].mean(0)
    mean_r = np.zeros((data.size, 1))
    mean_r[m : m + a] = 1 / a

    def covariance(columns: NDArray) -> NDArray:
        """Of every parameter with linear functions of them. [size, columns]."""
        out = np.zeros_like(columns)
        out[places] = inverse(columns[places])
        return out

    with_r = covariance(mean_r)[:, 0]
    spread_r = float(mean_r[:, 0] @ with_r)
    result = (functions * covariance(functions)).sum(0)
    strength, centred, scale = None, s - s.mean(), float(reliability.mean())
    if data.size <= DENSE:
        with_s = with_r[:m] - with_r[:m].mean()
        strength = scale**2 * result[:m] + 2 * scale * centred * with_s + centred**2 * spread_r
        strength, result = np.maximum(strength, 0), result[m:]
    r = reliability / scale
    rel = (result[:a] - 2 * r * with_r[m : m + a] + r**2 * spread_r) / scale**2
    tie = float(result[-1]) if data.ties else 0.0
    return Variances(strength, np.maximum(rel, 0), result[a : 2 * a], tie)


def _unit(size: int, first: int) -> NDArray:
    """Columns that pick the parameters from `first` on. [size, size - first]."""
    rows = np.zeros((size, size - first))
    rows[np.arange(first, size), np.arange(size - first)] = 1.0
    return rows
