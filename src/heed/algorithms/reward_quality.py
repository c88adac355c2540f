"""How good a reward model is on comparisons that it has not seen, beside what is free.

Accuracy counts a tie in scores, and a label of one half, as half right. The baselines are always
preferring the longer completion, and a bag of words fitted to the training pairs and read on the
held-out ones; a reward model that does not beat them has learned little. Calibration is that of
sigmoid(score difference) before the score is normalised. Accuracy is also told by score gap, by
difference in length, by the labels' own margin or strength, and by subset where a column names one:
a mean hides what a model has not learned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heed.data.judgements import LabelledPair
from heed.errors import DataError
from heed.records import Finding
from heed.stats.calibration import (
    Bin,
    accuracy_by,
    accuracy_by_gap,
    bag_of_words_held_out,
    expected_calibration_error,
    fold,
    length_baseline,
    reliability,
)
from heed.stats.intervals import win_rate

MAX_SUBSETS = 20
"""Subsets that are told apart; the others are pooled."""
_PAIRS = "share of held-out pairs, ties one half"


def texts_of(pair: LabelledPair) -> tuple[str, str]:
    """The texts of the chosen and of the rejected side of a pair."""
    chosen, rejected = (
        "\n".join(message.text for message in side) for side in (pair.chosen, pair.rejected)
    )
    return chosen, rejected


def judge_reward_model(
    pairs: Sequence[LabelledPair],
    gaps: NDArray,
    lengths: NDArray,
    train: Sequence[LabelledPair],
    subset_column: str | None = None,
) -> tuple[list[Finding], dict[str, Any]]:
    """Measure a reward model on held-out pairs.

    Args:
        pairs: [N] held out.
        gaps: [N] score of chosen minus score of rejected, before normalisation.
        lengths: [N, 2] tokens of chosen and rejected.
        train: what the model was trained on; the bag of words is fitted to the same pairs.
        subset_column: column of the prompts whose values part the pairs.

    Returns:
        findings, and the facts behind them: reliability bins, their error, accuracy by gap, by
        length difference, by margin or strength, and by subset.
    """
    prompts = [pair.prompt.id for pair in pairs]
    outcomes = np.array([1.0 if pair.p > 0.5 else 0.5 for pair in pairs])
    confidence, correct = fold(gaps, outcomes)
    accuracy = win_rate(correct, prompts)
    longer = length_baseline(lengths[:, 0], lengths[:, 1], prompts)
    findings = [
        Finding.of("reward model accuracy", accuracy, _PAIRS),
        Finding.of("always-longer accuracy", longer, _PAIRS),
    ]
    facts: dict[str, Any] = {
        "calibration": {
            "bins": [_bin(b) for b in reliability(confidence, correct)],
            "ece": expected_calibration_error(confidence, correct),
            "gap_bins": _accuracies(accuracy_by_gap(gaps, outcomes)),
        },
        **_by_label(pairs, lengths, correct),
    }
    if subset_column is not None:
        by_subset, facts["subsets"] = _by_subset(pairs, correct, prompts, subset_column)
        findings += by_subset
    try:
        words = bag_of_words_held_out(
            [texts_of(pair) for pair in train if pair.p > 0.5],
            [texts_of(pair) for pair in pairs],
            prompts,
            outcomes=outcomes,
        )
    except (DataError, ValueError) as error:
        findings.append(Finding.unknown("bag-of-words accuracy", _PAIRS, str(error)))
    else:
        findings.append(Finding.of("bag-of-words accuracy", words.accuracy, _PAIRS))
        facts["words"] = [list(word) for word in words.words]
    return findings, facts


def check_subsets(pairs: Sequence[LabelledPair], column: str | None) -> None:
    """Make sure before training that the held-out pairs have the column that parts them.

    Raises:
        DataError: none has.
    """
    if column is None or any(pair.prompt.meta.get(column) is not None for pair in pairs):
        return
    found = sorted({name for pair in pairs for name in pair.prompt.meta})
    raise DataError(
        f"no held-out row has the column {column!r} of subset_column; the columns beside the text "
        f"and its labels are {', '.join(found) or '(none)'}"
    )


def share_finding(
    name: str,
    values: Sequence[float] | NDArray,
    unit: str,
    clusters: Sequence[str] | None = None,
) -> Finding:
    """The mean of shares with its interval, over clusters such as prompts where they are given."""
    return Finding.of(name, win_rate(values, clusters), unit)


def _by_label(
    pairs: Sequence[LabelledPair], lengths: NDArray, correct: NDArray
) -> dict[str, list[dict[str, float | int]]]:
    """Accuracy by how much longer chosen is, and by what the labels say of the lead."""
    longer = (lengths[:, 0] - lengths[:, 1]).astype(float)
    out = {"length_bins": _accuracies(accuracy_by(longer, correct))}
    for name in ("margin", "strength"):
        found = [(i, v) for i, pair in enumerate(pairs) if (v := getattr(pair, name)) is not None]
        if found:
            at = [i for i, _ in found]
            out[f"{name}_bins"] = _accuracies(accuracy_by([v for _, v in found], correct[at]))
    return out


def _by_subset(
    pairs: Sequence[LabelledPair], correct: NDArray, prompts: Sequence[str], column: str
) -> tuple[list[Finding], list[dict[str, Any]]]:
    """Accuracy of each value of a column, the most frequent first; rare ones are pooled."""
    names = [str(pair.prompt.meta.get(column, "(none)")) for pair in pairs]
    counts = Counter(names)
    shown = [name for name, _ in counts.most_common(MAX_SUBSETS)]
    rest = set(counts) - set(shown)
    findings, facts = [], []
    for name in [*shown, *(["(others)"] if rest else [])]:
        at = [
            i for i, own in enumerate(names) if own == name or (name == "(others)" and own in rest)
        ]
        interval = win_rate(correct[at], [prompts[i] for i in at])
        findings.append(Finding.of(f"reward model accuracy, subset {name}", interval, _PAIRS))
        facts.append(
            {
                "name": name,
                "accuracy": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "n": len(at),
            }
        )
    return findings, facts


def _accuracies(bins: Sequence[Bin]) -> list[dict[str, float | int]]:
    return [
        {"low": b.low, "high": b.high, "accuracy": b.observed.estimate, "n": b.observed.n}
        for b in bins
    ]


def _bin(found: Bin) -> dict[str, float | int]:
    return {
        "low": found.low,
        "high": found.high,
        "mean_predicted": found.predicted,
        "mean_observed": found.observed.estimate,
        "n": found.observed.n,
    }
