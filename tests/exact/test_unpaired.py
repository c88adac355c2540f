"""Losses of single replies reach their optima through the real loop.

KTO, where replies come from the reference and labels are certain: mass leaves the bad ones, and on
the good ones its value is concave in pi / ref, so the optimum is the reference given good.
BCO, where labels are soft: beta (log-ratio) - mean = logit(p), so ref * (p / (1 - p))^(1 / beta).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.exact.tabular import COMPLETIONS, PROMPT, PROMPT_TOKEN, TableHead

from heed.algorithms.unpaired import Parts, ReplyRow, optimise
from heed.algorithms.unpaired_config import UnpairedConfig
from heed.data.batch import Row
from heed.data.judgements import LabelledReply
from heed.learners.local import LocalLearner
from heed.records import Message
from heed.runs.run import Run
from heed.settings import LearnerSettings, OptimSettings
from heed.worlds.tabular import total_variation

FIRST = torch.tensor([1.0, 2.0, 1.0]).double()
"""Of 16 replies of the reference, 4, 8 and 4 begin with each symbol; ends are 1, 2, 1 in 4."""


def head() -> TableHead:
    return TableHead(FIRST.log(), FIRST.log().expand(3, 3))


def reply(which: int, p: float, weight: float | None = None) -> ReplyRow:
    row = Row(str(which), (PROMPT_TOKEN, *COMPLETIONS[which]), (False, True, True))
    text = (Message(role="text", text=str(which)),)
    return LabelledReply(str(which), PROMPT, text, p, weight), row


def learned(folder: Path, train: Sequence[ReplyRow], steps: int, **changes: object) -> np.ndarray:
    values: dict = {
        "run": {"folder": str(folder), "checkpoint_seconds": 1e9},
        "model": {"path": "table"},
        "data": {"path": "table"},
        "batch_size": len(train),
        "num_train_epochs": steps,
        "eval_frac": 0.0,
        "eval_every": 10_000,
        "optim": OptimSettings(lr=0.2, max_grad_norm=0.0, schedule="cosine"),
        "learner": LearnerSettings(precision="fp32", device="cpu"),
    }
    config = UnpairedConfig.model_validate(values | changes)
    policy = head()
    learner = LocalLearner(policy, config.optim, steps, config.learner)
    with Run.start(config.run, "unpaired", {}) as run:
        optimise(config, run, Parts(learner, learner, train, ()))
    return policy.probabilities()


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
def test_kto_ends_at_the_reference_given_good(tmp_path: Path, loss_type: str) -> None:
    reference = head().probabilities()
    good = np.array([1, 0, 1, 0, 1, 0, 0, 1, 1], dtype=bool)
    counts = np.rint(16 * reference).astype(int)
    train = [reply(i, float(good[i])) for i in range(9) for _ in range(counts[i])]
    assert len(train) == 16
    policy = learned(tmp_path / "run", train, 300, loss_type=loss_type, beta=0.5)
    given_good = np.where(good, reference, 0.0) / reference[good].sum()
    assert total_variation(policy, given_good) < 0.02
    assert total_variation(reference, given_good) > 0.3


def test_bco_fits_the_odds_of_soft_labels(tmp_path: Path) -> None:
    reference = head().probabilities()
    logits = np.array([1.0, -0.5, 0.25, -1.0, 0.5, -0.25, 0.75, 0.0, -0.75])
    assert logits.sum() == 0  # the mean reward is then the mean of the fitted ones
    p = 1 / (1 + np.exp(-logits))
    train = [reply(i, float(p[i])) for i in range(9)]
    policy = learned(tmp_path / "run", train, 300, loss_type="bco", beta=0.5)
    best = reference * np.exp(logits / 0.5)
    best /= best.sum()
    assert total_variation(policy, best) < 0.02
    assert total_variation(reference, best) > 0.3
