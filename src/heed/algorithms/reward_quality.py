"""How good a reward model is on comparisons that it has not seen, beside what is free.

Accuracy counts a tie in scores, and a label of one half, as half right. The baselines are always
preferring the longer completion, and a bag of words fitted to the training pairs and read on the
held-out ones; a reward model that does not beat them has learned little. Calibration is that of
sigmoid(score difference) before the score is normalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heed.data.judgements import LabelledPair
from heed.errors import DataError
from heed.records import Finding
from heed.stats.calibration import (
    Bin,
    accuracy_by_gap,
    bag_of_words_held_out,
    expected_calibration_error,
    fold,
    length_baseline,
    reliability,
)
from heed.stats.intervals import win_rate

_PAIRS = "share of held-out pairs, ties one half"


def texts_of(pair: LabelledPair) -> tuple[str, str]:
    """The texts of the chosen and of the rejected side of a pair."""
    chosen, rejected = (
        "\n".join(message.text for message in side) for side in (pair.chosen, pair.rejected)
    )
    return chosen, rejected


def judge_reward_model(
    pairs: Sequence[LabelledPair], gaps: NDArray, lengths: NDArray, train: Sequence[LabelledPair]
) -> tuple[list[Finding], dict[str, Any]]:
    """Measure a reward model on held-out pairs.

    Args:
        pairs: [N] held out.
        gaps: [N] score of chosen minus score of rejected, before normalisation.
        lengths: [N, 2] tokens of chosen and rejected.
        train: what the model was trained on; the bag of words is fitted to the same pairs.

    Returns:
        findings, and the facts behind them: reliability bins, their error, accuracy by gap.
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
            "gap_bins": [
                {"low": b.low, "high": b.high, "accuracy": b.observed.estimate, "n": b.observed.n}
                for b in accuracy_by_gap(gaps, outcomes)
            ],
        }
    }
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


def _bin(found: Bin) -> dict[str, float | int]:
    return {
        "low": found.low,
        "high": found.high,
        "mean_predicted": found.predicted,
        "mean_observed": found.observed.estimate,
        "n": found.observed.n,
    }
