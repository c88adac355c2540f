"""Reward models that regress on numbers: one score, or one for each named attribute.

    loss of a completion = mean over the attributes k that it has of (number_k - label_k)^2

Numbers keep the unit of their labels; an attribute that a completion lacks enters nothing. The
score is the weighted sum of the numbers.

Sources: HelpSteer 2 (Wang et al. 2024), regression reward models; lm-human-preferences,
`ScalarRating`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from heed.data.batch import GroupBatch, Row, collate
from heed.data.labels import Rating
from heed.errors import DataError
from heed.learners.base import LossTerms, Outputs
from heed.learners.local import LocalLearner
from heed.losses.reward import attribute_regression
from heed.records import Finding
from heed.stats.intervals import Interval

RatingRows = tuple[Rating, Row]
DEFAULT_ATTRIBUTES = ("score",)


def numbers_of(elements: Sequence[RatingRows]) -> NDArray:
    """The labels as a table [N, K], NaN where one is missing."""
    table = [[np.nan if n is None else n for n in rating.numbers] for rating, _ in elements]
    return np.array(table, dtype=float)


def scale_of(elements: Sequence[RatingRows], attributes: Sequence[str]) -> tuple[NDArray, NDArray]:
    """Mean and deviation of each attribute's labels, [K] each.

    Raises:
        DataError: an attribute has no label, or all its labels are equal.
    """
    table = numbers_of(elements)
    for k, name in enumerate(attributes):
        known = table[:, k][~np.isnan(table[:, k])]
        if not len(known):
            raise DataError(f"no training completion has a number for {name!r}; leave it out")
        if known.min() == known.max():
            raise DataError(
                f"all {len(known):,} training labels of {name!r} are {known[0]:g}, so there is "
                "nothing to learn; leave the attribute out, or check its column"
            )
    return np.nanmean(table, 0), np.nanstd(table, 0)


def rating_batch(elements: Sequence[RatingRows]) -> GroupBatch:
    """Lay completions with their numbers out as a batch of elements of one row each."""
    return GroupBatch(
        collate([row for _, row in elements]),
        torch.arange(len(elements)),
        torch.tensor(numbers_of(elements), dtype=torch.float32),
    )


def rating_loss(outputs: Outputs, batch: GroupBatch) -> LossTerms:
    """Squared error, mean over each completion's attributes; unreduced [b]."""
    assert outputs.attributes is not None
    assert outputs.scores is not None
    assert batch.targets is not None
    values = attribute_regression(outputs.attributes, batch.targets)
    return LossTerms(values, {"mean_reward": outputs.scores.detach()})


def predicted(
    learner: LocalLearner, elements: Sequence[RatingRows], batch_size: int = 64
) -> NDArray:
    """What the model gives each completion, by attribute: [N, K] in the labels' units."""
    parts = []
    for first in range(0, len(elements), batch_size):
        rows = rating_batch(elements[first : first + batch_size]).rows
        found = learner.forward(rows).attributes
        assert found is not None
        parts.append(found.double().numpy())
    return np.concatenate(parts)


def rating_measures(found: NDArray, labels: NDArray) -> dict[str, float | None]:
    """Held-out loss, mean over completions."""
    known = ~np.isnan(labels)
    errors = np.where(known, (found - np.where(known, labels, 0.0)) ** 2, 0.0)
    return {"eval/loss": float((errors.sum(1) / np.maximum(known.sum(1), 1)).mean())}


def judge_ratings(
    found: NDArray, labels: NDArray, prompts: Sequence[str], attributes: Sequence[str]
) -> tuple[list[Finding], dict[str, Any]]:
    """Explained variance and correlation of each attribute on held-out completions.

    The intervals are bootstraps over prompts; an explained variance of 0 is what the mean gives.
    """
    findings, facts = [], {}
    for k, name in enumerate(attributes):
        known = ~np.isnan(labels[:, k])
        x, y = found[known, k], labels[known, k]
        whose = np.array(prompts)[known]
        facts[name] = {"mean_predicted": _mean(x), "mean_label": _mean(y), "n": len(y)}
        for title, measure, unit in (
            ("explained variance", _explained, "share of the held-out variance"),
            ("correlation", _correlation, "Pearson's r on held-out completions"),
        ):
            findings.append(_finding(f"{title} of {name}", measure, x, y, whose, unit))
    return findings, {"attributes": facts}


def _finding(name: str, measure: Any, x: NDArray, y: NDArray, whose: NDArray, unit: str) -> Finding:
    estimate = measure(x, y)
    num = len(np.unique(whose))
    if estimate is None or num < 2:
        reason = "the held-out labels or predictions do not vary, or there are too few"
        return Finding(name=name, estimate=None, n=num, unit=unit, reason=reason)
    ends = _bootstrap(measure, x, y, whose)
    return Finding(name=name, estimate=estimate, low=ends.low, high=ends.high, n=num, unit=unit)


def _bootstrap(measure: Any, x: NDArray, y: NDArray, whose: NDArray, num: int = 300) -> Interval:
    rng = np.random.default_rng(0)
    names, index = np.unique(whose, return_inverse=True)
    places = [np.flatnonzero(index == i) for i in range(len(names))]
    draws = []
    for _ in range(num):
        at = np.concatenate([places[i] for i in rng.integers(len(names), size=len(names))])
        value = measure(x[at], y[at])
        if value is not None:
            draws.append(value)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(measure(x, y)), float(low), float(high), len(names))


def _explained(x: NDArray, y: NDArray) -> float | None:
    spread = float(((y - y.mean()) ** 2).mean()) if len(y) else 0.0
    return None if spread == 0 else 1 - float(((x - y) ** 2).mean()) / spread


def _correlation(x: NDArray, y: NDArray) -> float | None:
    if len(y) < 2 or x.std() == 0 or y.std() == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _mean(values: NDArray) -> float | None:
    return float(values.mean()) if len(values) else None
