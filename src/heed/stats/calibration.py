"""Whether scores mean what they say, and whether something simpler predicts preferences as well."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, sparse
from scipy.special import expit, log_expit

from heed.errors import ConfigError, DataError
from heed.stats.intervals import Interval, group_values, win_rate

WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Bin:
    """Predictions between two edges: how many, what they say, and what happened (n = num)."""

    low: float
    high: float
    predicted: float
    observed: Interval


@dataclass(frozen=True)
class Baseline:
    """What a simple predictor reaches on rows it did not see.

    `words` are the heaviest features with their weight in nats per log count, for reading.
    """

    accuracy: Interval
    num_features: int
    words: tuple[tuple[str, float], ...]


def reliability(probabilities: ArrayLike, outcomes: ArrayLike, num_bins: int = 10) -> list[Bin]:
    """Sort predictions into bins of equal width and compare them with what happened.

    Pairs stored as (chosen, rejected) all have outcome 1, which says nothing: fold them first with
    `fold`.

    Args:
        probabilities: [N] in [0, 1].
        outcomes: [N] of 0, 0.5 or 1.
        num_bins: at least 1.

    Returns:
        The bins that hold anything, ascending.

    Raises:
        DataError: a probability outside [0, 1], an outcome that is another number, or no rows.
    """
    if num_bins < 1:
        raise ConfigError(f"num_bins is {num_bins}, expected at least 1")
    p, _ = group_values(probabilities, None)
    y, _ = group_values(outcomes, None)
    if p.shape != y.shape or p.min() < 0 or p.max() > 1:
        raise DataError(
            f"found {len(p)} probabilities from {p.min():.3g} to {p.max():.3g} and {len(y)} "
            "outcomes; expected as many of each, probabilities in [0, 1]"
        )
    place = np.minimum((p * num_bins).astype(int), num_bins - 1)
    edges = np.linspace(0, 1, num_bins + 1)
    return [_bin(edges[b], edges[b + 1], p[place == b], y[place == b]) for b in np.unique(place)]


def expected_calibration_error(
    probabilities: ArrayLike, outcomes: ArrayLike, num_bins: int = 10
) -> float:
    """Average the distance between prediction and outcome over bins, weighted by their size.

    sum_b n_b / N * | mean predicted - mean observed |, in [0, 1]. Finite bins make it a little
    above 0 for a perfect predictor too.

    Args as in `reliability`.

    Source: Guo et al. 2017, equation 3.
    """
    bins = reliability(probabilities, outcomes, num_bins)
    total = sum(b.observed.n for b in bins)
    return float(sum(b.observed.n / total * abs(b.predicted - b.observed.estimate) for b in bins))


def fold(gaps: ArrayLike, outcomes: ArrayLike) -> tuple[NDArray, NDArray]:
    """Turn score gaps into confidence in the predicted side, and whether that side was right.

    Args:
        gaps: [N] score of the first minus score of the second, nats.
        outcomes: [N], 1 when the first is better, 0 when the second is, 0.5 for a tie.

    Returns:
        confidence [N] = sigmoid(|gap|) in [0.5, 1], and correct [N] of 0, 0.5, 1; a gap of 0
        predicts nothing and counts half.
    """
    gap, _ = group_values(gaps, None)
    y = np.asarray(outcomes, dtype=float)
    if y.shape != gap.shape:
        raise DataError(f"found {len(gap)} gaps and outcomes of shape {y.shape}; expected [N] each")
    correct = np.where(gap == 0, 0.5, np.where(gap > 0, y, 1 - y))
    return expit(np.abs(gap)), correct


def accuracy_by_gap(gaps: ArrayLike, outcomes: ArrayLike, num_bins: int = 5) -> list[Bin]:
    """Measure the accuracy of scores in bins of |gap| that hold equally many pairs.

    Args:
        gaps, outcomes: as in `fold`.
        num_bins: at least 1; fewer come back when gaps repeat.

    Returns:
        Bins ascending; edges in nats, `predicted` the mean confidence, `observed` the accuracy.
    """
    confidence, correct = fold(gaps, outcomes)
    return _equal_bins(np.abs(np.asarray(gaps, dtype=float)), confidence, correct, num_bins)


def accuracy_by(values: ArrayLike, correct: ArrayLike, num_bins: int = 5) -> list[Bin]:
    """Measure accuracy in bins of any quantity (a difference in length, a margin).

    Args:
        values: [N] finite.
        correct: [N] of 0, 0.5 or 1.
        num_bins: at least 1, of equally many pairs; fewer come back when values repeat.

    Returns:
        Bins ascending; edges and `predicted` (the bin's mean) in the quantity's unit, `observed`
        the accuracy.

    Raises:
        DataError: the two do not match, or there are none.
    """
    x, _ = group_values(values, None)
    y, _ = group_values(correct, None)
    if x.shape != y.shape:
        raise DataError(f"found {len(x)} values and {len(y)} outcomes; expected as many of each")
    return _equal_bins(x, x, y, num_bins)


def _equal_bins(size: NDArray, predicted: NDArray, correct: NDArray, num_bins: int) -> list[Bin]:
    if num_bins < 1:
        raise ConfigError(f"num_bins is {num_bins}, expected at least 1")
    edges = np.unique(np.quantile(size, np.linspace(0, 1, num_bins + 1)))
    place = np.clip(np.searchsorted(edges, size, side="right") - 1, 0, max(len(edges) - 2, 0))
    top = np.minimum(np.arange(len(edges)) + 1, len(edges) - 1)
    return [
        _bin(edges[b], edges[top[b]], predicted[place == b], correct[place == b])
        for b in np.unique(place)
    ]


def length_baseline(
    len_chosen: ArrayLike,
    len_rejected: ArrayLike,
    clusters: Sequence[Hashable] | NDArray | None = None,
    level: float = 0.95,
) -> Interval:
    """Measure how often the longer completion is the chosen one; equal lengths count half.

    An accuracy of 0.5 means length tells nothing. A reward model that is not clearly above this
    (or above 1 minus this) may have learned length alone.

    Args:
        len_chosen, len_rejected: [N] lengths, in one unit.
        clusters: [N] labels, for example prompt ids.
        level: in (0, 1).
    """
    chosen, _ = group_values(len_chosen, None)
    rejected, _ = group_values(len_rejected, None)
    if chosen.shape != rejected.shape:
        raise DataError(f"found {len(chosen)} chosen and {len(rejected)} rejected lengths")
    return win_rate((np.sign(chosen - rejected) + 1) / 2, clusters, level)


def bag_of_words_baseline(
    chosen: Sequence[str],
    rejected: Sequence[str],
    prompts: Sequence[Hashable],
    *,
    rng: np.random.Generator,
    num_folds: int = 5,
    l2: float = 1.0,
    min_pairs: int = 2,
    num_words: int = 20,
    level: float = 0.95,
) -> Baseline:
    """Predict preferences from words alone: Bradley-Terry on the difference of log(1 + count).

    Every pair is predicted by weights fitted without its prompt. The predictor sees neither order
    nor prompt, so a reward model should beat it.

    Args:
        chosen, rejected: [N] texts.
        prompts: [N] labels; all pairs of a prompt fall into one fold.
        rng: shuffles prompts into folds.
        num_folds: from 2 to the number of prompts.
        l2: weight of half the squared weights, summed over pairs; above 0.
        min_pairs: a word counts when it appears in at least this many pairs.
        num_words: how many of the heaviest words to return.
        level: of the interval, which is clustered by prompt.

    Returns:
        Accuracy on unseen prompts; pairs without any counted word are predicted at random (0.5).

    Raises:
        ConfigError: an option out of range.
        DataError: lists of different lengths, or fewer prompts than folds.
    """
    if not len(chosen) == len(rejected) == len(prompts):
        raise DataError(
            f"found {len(chosen)} chosen, {len(rejected)} rejected, {len(prompts)} prompts; "
            "expected one of each per pair"
        )
    _, prompt = group_values(np.zeros(len(chosen)), prompts)
    num_prompts = int(prompt.max()) + 1
    if not 2 <= num_folds <= num_prompts or not l2 > 0:
        raise ConfigError(
            f"num_folds is {num_folds} for {num_prompts} prompts and l2 is {l2}; expected from 2 "
            "folds to one per prompt, and l2 above 0"
        )
    features, words = _differences(list(zip(chosen, rejected, strict=True)), min_pairs)
    fold_of = rng.permutation(num_prompts)[prompt] % num_folds
    correct = np.empty(len(chosen))
    for k in range(num_folds):
        weights = _fit_differences(features[fold_of != k], l2)
        correct[fold_of == k] = (np.sign(features[fold_of == k] @ weights) + 1) / 2
    weights = _fit_differences(features, l2)
    return _baseline(correct, prompts, level, words, weights, num_words)


def bag_of_words_held_out(
    train: Sequence[tuple[str, str]],
    held_out: Sequence[tuple[str, str]],
    prompts: Sequence[Hashable],
    *,
    outcomes: ArrayLike | None = None,
    l2: float = 1.0,
    min_pairs: int = 2,
    num_words: int = 20,
    level: float = 0.95,
) -> Baseline:
    """Fit `bag_of_words_baseline` to training pairs and read it on held-out ones.

    What a reward model that was trained on the same pairs has to beat.

    Args:
        train: (chosen, rejected) texts to fit to.
        held_out: [N] (chosen, rejected) texts to predict.
        prompts: [N] labels of the held-out pairs; the interval is clustered by them.
        outcomes: [N] 1 where chosen is better, 0.5 where neither is; all 1 by default.
        l2, min_pairs, num_words, level: as there; words are counted in the training pairs.

    Raises:
        ConfigError: l2 is not above 0.
        DataError: no pairs on one side, or lists of different lengths.
    """
    known = np.ones(len(held_out)) if outcomes is None else np.asarray(outcomes, dtype=float)
    if not train or not held_out or not len(held_out) == len(prompts) == len(known):
        raise DataError(
            f"found {len(train)} training pairs, {len(held_out)} held out, {len(prompts)} prompts "
            f"and {len(known)} outcomes; expected pairs on both sides, and one of each held out"
        )
    if not l2 > 0:
        raise ConfigError(f"l2 is {l2}; expected above 0")
    features, words = _differences(train, min_pairs)
    weights = _fit_differences(features, l2)
    seen, _ = _differences(held_out, min_pairs, words)
    right = (np.sign(seen @ weights) + 1) / 2
    return _baseline(np.where(known == 0.5, 0.5, right), prompts, level, words, weights, num_words)


def _baseline(
    correct: NDArray,
    prompts: Sequence[Hashable],
    level: float,
    words: Sequence[str],
    weights: NDArray,
    num_words: int,
) -> Baseline:
    heaviest = np.argsort(-np.abs(weights))[:num_words]
    return Baseline(
        win_rate(correct, prompts, level),
        len(words),
        tuple((words[i], float(weights[i])) for i in heaviest),
    )


def _bin(low: float, high: float, predicted: NDArray, observed: NDArray) -> Bin:
    return Bin(float(low), float(high), float(predicted.mean()), win_rate(observed))


def _differences(
    pairs: Sequence[tuple[str, str]], min_pairs: int, words: list[str] | None = None
) -> tuple[sparse.csr_array, list[str]]:
    counts = [
        (Counter(WORD.findall(a.lower())), Counter(WORD.findall(b.lower()))) for a, b in pairs
    ]
    if words is None:
        having = Counter(word for a, b in counts for word in a.keys() | b.keys())
        words = sorted(word for word, num in having.items() if num >= min_pairs)
    column = {word: i for i, word in enumerate(words)}
    rows, columns, values = [], [], []
    for row, (a, b) in enumerate(counts):
        for word in sorted(a.keys() | b.keys()):
            if word in column and a[word] != b[word]:
                rows.append(row)
                columns.append(column[word])
                values.append(np.log1p(a[word]) - np.log1p(b[word]))
    return sparse.csr_array((values, (rows, columns)), shape=(len(counts), len(words))), words


def _fit_differences(features: sparse.csr_array, l2: float) -> NDArray:
    """Minimise -sum log sigmoid(X w) + l2/2 |w|^2: logistic regression whose labels are all 1."""

    def objective(w: NDArray) -> tuple[float, NDArray]:
        z = features @ w
        slope = -(features.T @ expit(-z)) + l2 * w
        return float(-log_expit(z).sum() + l2 / 2 * (w @ w)), slope

    start = np.zeros(features.shape[1])
    return optimize.minimize(objective, start, jac=True, method="L-BFGS-B").x
