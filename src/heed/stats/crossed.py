"""The mean of values that share both a training seed and a prompt, with an interval over both."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from heed.errors import DataError
from heed.stats.intervals import Interval, tail_share


def crossed_mean(values: ArrayLike, level: float = 0.95) -> Interval:
    """Bound the mean of a table of seeds by prompts, both drawn at random (two-way model).

    x_sp = m + a_s + b_p + e_sp; with the mean squares of seeds, prompts and rest
    var(mean) = (MS_s + MS_p - MS_e) / (S P), where MS_s and MS_p count at least as MS_e;
    Student's quantile with Satterthwaite's degrees of freedom. One seed shows no spread between
    seeds: then the interval is over prompts alone.

    Args:
        values: [S, P], a row a seed.
        level: in (0, 1).

    Returns:
        n is the number of prompts.

    Raises:
        DataError: not a table, fewer than two prompts, or a value that is not finite.

    Source: Satterthwaite 1946; Searle, Casella and McCulloch 1992, section 4.3.
    """
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < 2 or not np.isfinite(table).all():
        raise DataError(
            f"found values of shape {table.shape}, expected seeds by prompts, at least two "
            "prompts, all finite; leave prompts with missing values out"
        )
    seeds, prompts = table.shape
    if table.min() == table.max():
        same = float(table[0, 0])
        return Interval(same, same, same, prompts)
    mean = float(table.mean())
    by_seed, by_prompt = table.mean(1), table.mean(0)
    of_prompts = seeds * float(by_prompt.var(ddof=1))
    if seeds == 1:
        parts = [(of_prompts, prompts - 1.0)]
    else:
        rest = table - by_seed[:, None] - by_prompt[None, :] + mean
        free = (seeds - 1.0) * (prompts - 1.0)
        error = float(np.square(rest).sum()) / free
        of_seeds = max(prompts * float(by_seed.var(ddof=1)), error)
        parts = [
            (of_seeds, seeds - 1.0), (max(of_prompts, error), prompts - 1.0), (-error, free)
        ]  # fmt: skip
    total = sum(square for square, _ in parts)
    degrees = total**2 / sum(square**2 / df for square, df in parts)
    half = float(stats.t.ppf(1 - tail_share(level), degrees)) * np.sqrt(total / table.size)
    return Interval(mean, mean - float(half), mean + float(half), prompts)
