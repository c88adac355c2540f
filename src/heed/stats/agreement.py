"""Agreement beyond chance: Krippendorff's alpha, Cohen's and Fleiss' kappa, Gwet's AC1 and AC2.

Every statistic comes with the number of items and a bootstrap interval over items. Where it has no
value the answer is `Undefined` with the reason, for example when everybody always said the same.
"""

from __future__ import annotations

from collections.abc import Hashable
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heed.errors import DataError
from heed.stats.answers import Answers, Statistic, bootstrap_patterns
from heed.stats.intervals import Measured, Undefined

Metric = Literal["nominal", "ordinal", "interval", "ratio"]
Weights = Literal["identity", "linear", "quadratic"]

ONE_ANSWER = (
    "every answer is the same, so agreement cannot be told from chance; read the raw agreement"
)


def krippendorff_alpha(
    answers: Answers,
    metric: Metric = "nominal",
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    num_resamples: int = 1000,
) -> Measured:
    """Compute alpha = 1 - D_observed / D_expected, for any number of answers per item.

    D averages a squared distance of answers, within items (observed) and over all pairs of
    answers (expected): nominal [c != k]; interval (c - k)^2; ratio ((c - k) / (c + k))^2; ordinal
    the squared difference of mid-ranks among all answers. Items with one answer are left out.

    Args:
        answers: for "ordinal" in the order of `values`; numbers for "interval" and "ratio"
            (not negative).
        metric: which distance.
        rng, level, num_resamples: of the bootstrap over items.

    Returns:
        1 for perfect agreement, 0 for chance; n is the number of items with two answers or more.

    Raises:
        DataError: the metric needs numbers and the answers are none.

    Source: Krippendorff 2011, "Computing Krippendorff's alpha-reliability".
    """
    counts = answers.counts()
    rows = counts[counts.sum(1) >= 2]
    statistic: Statistic = _alpha_of_ranks
    if metric == "interval":
        rows, statistic = _moments(rows, _numbers(answers, metric)), _alpha_of_moments
    elif metric != "ordinal":
        statistic = _alpha_of(_distance(answers, metric))
    return bootstrap_patterns(
        rows, statistic, ONE_ANSWER, rng=rng, level=level, num_resamples=num_resamples
    )


def _distance(answers: Answers, metric: Metric) -> NDArray:
    """Squared distances of the values, nominal or ratio. [C, C]."""
    if metric == "nominal":
        return 1.0 - np.eye(len(answers.values))
    x = _numbers(answers, metric)
    total = np.add.outer(x, x)
    return (np.subtract.outer(x, x) / np.where(total == 0, 1, total)) ** 2


def _alpha_of(distance: NDArray) -> Statistic:
    def alpha(times: NDArray, patterns: NDArray) -> NDArray:
        size = patterns.sum(1)
        within = ((patterns @ distance) * patterns).sum(1) / (size - 1)
        marginal, total = times @ patterns, times @ size
        expected = ((marginal @ distance) * marginal).sum(1) / (total - 1)
        return _one_minus(times @ within, expected)

    return alpha


def _alpha_of_ranks(times: NDArray, patterns: NDArray) -> NDArray:
    """Ordinal: squared differences of mid-ranks, which differ from resample to resample.

    sum_ij (x_i - x_j)^2 = 2 (m sum x^2 - (sum x)^2), so no table of pairs is needed.
    """
    size, marginal = patterns.sum(1), times @ patterns
    total = marginal.sum(1)
    rank = np.cumsum(marginal, 1) - marginal / 2 - total[:, None] / 2
    within = size * (rank**2 @ patterns.T) - (rank @ patterns.T) ** 2
    observed = (times * 2 * within / (size - 1)).sum(1)
    expected = 2 * total * (marginal * rank**2).sum(1) / (total - 1)
    return _one_minus(observed, expected)


def _moments(rows: NDArray, x: NDArray) -> NDArray:
    """Number of answers, their sum and sum of squares, for every item, around the mean. [U, 3]."""
    if len(rows):
        x = x - (rows @ x).sum() / rows.sum()
    return np.stack([rows.sum(1), rows @ x, rows @ x**2], 1)


def _alpha_of_moments(times: NDArray, patterns: NDArray) -> NDArray:
    """Interval: squared differences need the first two moments of every item only."""
    size, first, second = patterns.T
    observed = times @ (2 * (size * second - first**2) / (size - 1))
    total, squares = times @ size, times @ second
    spread = total * squares - (times @ first) ** 2
    # Equal answers leave a rest by rounding.
    spread = np.where(spread > 1e-11 * total * squares, spread, 0.0)
    return _one_minus(observed, 2 * spread / (total - 1))


def fleiss_kappa(
    answers: Answers,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    num_resamples: int = 1000,
) -> Measured:
    """Compute Fleiss' kappa = (P - P_e) / (1 - P_e), where every item has the same count.

    P is the share of agreeing pairs of answers within items; P_e = sum_c p_c^2.

    Returns:
        `Undefined` where the counts of answers differ between items.

    Source: Fleiss 1971.
    """
    rows = answers.counts()
    sizes = rows.sum(1)
    if len(rows) and sizes.min() != sizes.max():
        return Undefined(
            f"items have from {sizes.min()} to {sizes.max()} answers and Fleiss' kappa needs the "
            "same number on each; read Krippendorff's alpha",
            len(rows),
        )
    num_raters = int(sizes.max(initial=0))
    if num_raters < 2:
        rows = rows[:0]

    def kappa(times: NDArray, patterns: NDArray) -> NDArray:
        agree = ((patterns**2).sum(1) - num_raters) / (num_raters * (num_raters - 1))
        share = times @ patterns / (times.sum(1) * num_raters)[:, None]
        return _one_minus(1 - times @ agree / times.sum(1), 1 - (share**2).sum(1))

    return bootstrap_patterns(
        rows, kappa, ONE_ANSWER, rng=rng, level=level, num_resamples=num_resamples
    )


def gwet(
    answers: Answers,
    weights: Weights = "identity",
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    num_resamples: int = 1000,
) -> Measured:
    """Compute Gwet's AC1 ("identity") or AC2 (other weights) = (p_a - p_e) / (1 - p_e).

    p_e = sum_kl w_kl / (q (q - 1)) * sum_k pi_k (1 - pi_k), with q values that could be given and
    pi_k the mean share of value k over items. Steady where one answer dominates.

    Args:
        answers: `values` must be all that could be given: their number enters.
        weights: 1 for equal answers, less with the distance in the order of `values`.

    Returns:
        n is the number of items with two answers or more; items with one answer enter pi.

    Source: Gwet 2008 (AC1); Gwet 2014, Handbook of Inter-Rater Reliability (AC2).
    """
    rows = answers.counts()
    num_values, n = rows.shape[1], int((rows.sum(1) >= 2).sum())
    if num_values < 2:
        return Undefined(
            "only one value is known; pass every answer that could be given as values", n
        )
    weight = 1 - _disagreement(num_values, weights)

    def coefficient(times: NDArray, patterns: NDArray) -> NDArray:
        size = patterns.sum(1)
        twice = size >= 2
        agree = (patterns * (patterns @ weight - 1)).sum(1) / np.maximum(size * (size - 1), 1)
        num = times @ twice
        observed = np.divide(times @ (agree * twice), num, out=np.full(len(num), np.nan),
                             where=num > 0)  # fmt: skip
        share = times @ (patterns / size[:, None]) / times.sum(1)[:, None]
        chance = weight.sum() / (num_values * (num_values - 1)) * (share * (1 - share)).sum(1)
        return _one_minus(1 - observed, 1 - chance)

    return bootstrap_patterns(
        rows, coefficient, ONE_ANSWER, rng=rng, level=level, num_resamples=num_resamples, n=n
    )


def cohen_kappa(
    answers: Answers,
    first: Hashable,
    second: Hashable,
    weights: Weights = "identity",
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    num_resamples: int = 1000,
) -> Measured:
    """Compute Cohen's kappa of two persons on the items that both answered.

    kappa = 1 - sum_kl v_kl o_kl / sum_kl v_kl e_kl, where o are the shares of (first said k,
    second said l), e the product of their marginal shares, and v_kl = [k != l], |k - l| ("linear")
    or (k - l)^2 ("quadratic") by places in `values`.

    Source: Cohen 1960, 1968.
    """
    one, other = answers.of(first), answers.of(second)
    _, i, j = np.intersect1d(one[0], other[0], assume_unique=True, return_indices=True)
    num_values = len(answers.values)
    disagree = _disagreement(num_values, weights)
    cells = one[1][i] * num_values + other[1][j]
    if not len(cells):
        return Undefined(f"{first!r} and {second!r} answered no item in common", 0)

    def kappa(times: NDArray, patterns: NDArray) -> NDArray:
        table = np.zeros((len(times), num_values**2))
        table[:, patterns[:, 0]] = times
        table = table.reshape(-1, num_values, num_values) / times.sum(1)[:, None, None]
        observed = (table * disagree).sum((1, 2))
        expected = np.einsum("rk,kl,rl->r", table.sum(2), disagree, table.sum(1))
        return _one_minus(observed, expected)

    return bootstrap_patterns(
        cells[:, None], kappa, ONE_ANSWER, rng=rng, level=level, num_resamples=num_resamples
    )


def cohen_matrix(
    answers: Answers,
    weights: Weights = "identity",
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    num_resamples: int = 1000,
) -> dict[tuple[Hashable, Hashable], Measured]:
    """Compute Cohen's kappa of every two persons, in the order of `answers.raters`."""
    return {
        (a, b): cohen_kappa(
            answers, a, b, weights, rng=rng, level=level, num_resamples=num_resamples
        )
        for a, b in combinations(answers.raters, 2)
    }


def _one_minus(observed: NDArray, expected: NDArray) -> NDArray:
    """1 - observed / expected; NaN where nothing is expected."""
    none = np.full(len(observed), np.nan)
    return 1 - np.divide(observed, expected, out=none, where=expected > 1e-12)


def _disagreement(num_values: int, weights: Weights) -> NDArray:
    gap = np.abs(np.subtract.outer(np.arange(num_values), np.arange(num_values)))
    if weights == "identity":
        return (gap > 0).astype(float)
    return (gap / max(num_values - 1, 1)) ** (1 if weights == "linear" else 2)


def _numbers(answers: Answers, metric: Metric) -> NDArray:
    try:
        x = np.array([float(value) for value in answers.values])  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"alpha with {metric} distances needs numbers, and found {answers.values[:8]}; "
            "use nominal or ordinal"
        ) from error
    if metric == "ratio" and (x < 0).any():
        raise DataError("ratio distances need numbers of 0 or above; use interval")
    return x
