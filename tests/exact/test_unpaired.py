"""Losses of single replies reach their optima through the real loop.

KTO, where replies come from the reference and labels are certain: mass leaves the bad ones, and on
the good ones its value is concave in pi / ref, so the optimum is the reference given good.
BCO, where a reply is good with probability sigmoid(reward / 2), rewards centred: beta (log-ratio)
is the log-odds but for a constant, so ref * exp(reward / (2 beta)) / Z. The constant is a mean over
the whole run, which comes to rest late: where the policy has to go far, that leaves a residue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from tests.exact.offline import good, settings_of, tables
from tests.exact.pair_ends import given_good
from tests.exact.tabular import COMPLETIONS, PROMPT, PROMPT_TOKEN, TableHead

from heed.algorithms.unpaired import Parts, ReplyRow, optimise
from heed.algorithms.unpaired_config import UnpairedConfig
from heed.data.batch import Row
from heed.data.judgements import LabelledReply
from heed.learners.local import LocalLearner
from heed.records import Message
from heed.runs.run import Run
from heed.worlds.tabular import Tabular, total_variation


def reply(which: int, p: float, weight: float | None = None) -> ReplyRow:
    row = Row(str(which), (PROMPT_TOKEN, *COMPLETIONS[which]), (False, True, True))
    text = (Message(role="text", text=str(which)),)
    return LabelledReply(str(which), PROMPT, text, p, weight), row


def certain(world: Tabular) -> list[ReplyRow]:
    """Each completion, good or bad, as often as the reference says it."""
    return [reply(i, float(good(world)[i]), 9 * float(world.reference[i])) for i in range(9)]


def graded(world: Tabular) -> list[ReplyRow]:
    """Each completion, good with the probability that its reward says."""
    odds = np.exp((world.rewards - world.rewards.mean()) / 2)
    return [reply(i, float(odds[i] / (1 + odds[i]))) for i in range(9)]


Make = Callable[[Tabular], list[ReplyRow]]
BCO_BETA = 2.0
UNPAIRED: dict[str, tuple[str, Make, Callable[[Tabular], np.ndarray], dict]] = {
    "kto": ("the reference given good", certain, given_good, {}),
    "apo_zero_unpaired": ("the reference given good", certain, given_good, {}),
    "bco": (
        "`beta a = logit(p)` but for a constant",
        graded,
        lambda world: world.optimum(2 * BCO_BETA),
        {"beta": BCO_BETA},
    ),
}
"""Where each loss ends in words, its replies, its end, and its settings."""


def learned(
    folder: Path, head: TableHead, train: Sequence[ReplyRow], steps: int, **changes: object
) -> np.ndarray:
    values = settings_of(folder, len(train), steps, lr=0.2)
    config = UnpairedConfig.model_validate(values | changes)
    policy = TableHead(head.first.data, head.second.data)
    learner = LocalLearner(policy, config.optim, steps, config.learner)
    with Run.start(config.run, "unpaired", {}) as run:
        optimise(config, run, Parts(learner, learner, train, ()))
    return policy.probabilities()


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("loss_type", UNPAIRED)
def test_each_loss_ends_at_its_own_optimum(tmp_path: Path, loss_type: str, seed: int) -> None:
    head, world = tables(seed)
    _, replies, end, settings = UNPAIRED[loss_type]
    policy = learned(tmp_path / "run", head, replies(world), 300, loss_type=loss_type, **settings)
    distance = total_variation(policy, end(world))
    assert distance < 0.02
    assert distance < 0.1 * total_variation(world.reference, end(world))


def test_every_loss_has_an_end() -> None:
    assert {*UNPAIRED} == {*get_args(UnpairedConfig.model_fields["loss_type"].annotation)}
