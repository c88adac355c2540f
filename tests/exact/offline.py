"""Offline learning from pairs in the exact world: the tables, the pairs, and the real loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tests.exact.tabular import COMPLETIONS, PROMPT, PROMPT_TOKEN, TableHead

from heed.algorithms.preference import Parts, optimise
from heed.algorithms.preference_config import PreferenceConfig
from heed.algorithms.reward import PairRows
from heed.data.batch import Row
from heed.data.judgements import LabelledPair
from heed.learners.local import LocalLearner
from heed.records import Message
from heed.runs.run import Run
from heed.settings import LearnerSettings, OptimSettings
from heed.worlds.tabular import Tabular

BETA = 0.5


def tables(seed: int) -> tuple[TableHead, Tabular]:
    """A reference policy and the world of which it is the reference."""
    generator = torch.Generator().manual_seed(seed)
    head = TableHead(
        torch.randn(3, generator=generator), torch.randn(3, 3, generator=generator)
    ).double()
    rewards = torch.randn(9, generator=generator).double().numpy()
    reference = head.probabilities()
    return head, Tabular(reference / reference.sum(), rewards)


def pair(left: int, right: int, p: float, weight: float | None = None, longer: int = 0) -> PairRows:
    """A pair of completions; `left` is followed by `longer` more tokens that are certain."""
    rows = []
    for which, more in ((left, longer), (right, 0)):
        tokens = (PROMPT_TOKEN, *COMPLETIONS[which], *[0] * more)
        rows.append(Row(f"{which}", tokens, (False, *[True] * (len(tokens) - 1))))
    texts = [(Message(role="text", text=str(i)),) for i in (left, right)]
    return LabelledPair(f"{left}-{right}", PROMPT, *texts, p, weight=weight), *rows


def every_pair(world: Tabular, flip: float = 0.0) -> list[PairRows]:
    """All pairs under their true probabilities, of which a share of labels is turned round."""

    def label(i: int, j: int) -> float:
        return world.preference(i, j) * (1 - 2 * flip) + flip

    return [pair(i, j, label(i, j)) for i in range(9) for j in range(i + 1, 9)]


def star(world: Tabular, longer: int = 0) -> list[PairRows]:
    """Completion 0 against each other one."""
    return [pair(0, j, world.preference(0, j), longer=longer) for j in range(1, 9)]


def sure_star(world: Tabular) -> list[PairRows]:
    """Completion 0 better than each other one, for certain."""
    return [pair(0, j, 1.0) for j in range(1, 9)]


def spare(world: Tabular) -> int:
    """The completion that is in none of the pairs of `matching`."""
    return int(world.reference.argmax())


def matching(world: Tabular) -> list[tuple[int, int, float]]:
    """Four pairs of eight completions, the better one first, with its true probability."""
    order = [int(i) for i in np.argsort(world.reference) if i != spare(world)]
    found = []
    for i, j in zip(order[::2], order[1::2], strict=True):
        better, worse = (i, j) if world.rewards[i] > world.rewards[j] else (j, i)
        found.append((better, worse, world.preference(better, worse)))
    return found


def apart(world: Tabular) -> list[PairRows]:
    """Pairs that share no completion, so that the height of each side is free."""
    return [pair(*each) for each in matching(world)]


def sure_apart(world: Tabular) -> list[PairRows]:
    """The same with certain labels."""
    return [pair(i, j, 1.0) for i, j, _ in matching(world)]


def good(world: Tabular) -> np.ndarray:
    """Which completions have more than the median reward."""
    return np.asarray(world.rewards > np.median(world.rewards))


def good_and_bad(world: Tabular) -> list[PairRows]:
    """Each good completion with each bad one, as often as the reference says both."""
    sides = good(world)
    at = [(int(i), int(j)) for i in np.flatnonzero(sides) for j in np.flatnonzero(~sides)]
    weights = [world.reference[i] * world.reference[j] for i, j in at]
    mean = float(np.mean(weights))
    return [pair(i, j, 1.0, float(w) / mean) for (i, j), w in zip(at, weights, strict=True)]


def settings_of(folder: Path, num_rows: int, steps: int, lr: float) -> dict[str, object]:
    """Settings of an offline stage that takes all rows in each step, and looks at nothing else."""
    return {
        "run": {"folder": str(folder), "checkpoint_seconds": 1e9},
        "model": {"path": "table"},
        "data": {"path": "table"},
        "beta": BETA,
        "batch_size": num_rows,
        "num_train_epochs": steps,
        "eval_frac": 0.0,
        "eval_every": 10_000,
        "optim": OptimSettings(lr=lr, max_grad_norm=0.0, schedule="cosine"),
        "learner": LearnerSettings(precision="fp32", device="cpu"),
    }


def learned(
    folder: Path, head: TableHead, train: Sequence[PairRows], steps: int = 150, **changes: object
) -> np.ndarray:
    """Run the real loop; returns the policy that it ends with."""
    values = settings_of(folder, len(train), steps, lr=0.25)
    config = PreferenceConfig.model_validate(values | changes)
    policy = TableHead(head.first.data, head.second.data)
    learner = LocalLearner(policy, config.optim, steps, config.learner)
    frozen = LocalLearner.frozen(TableHead(head.first.data, head.second.data), config.learner)
    with Run.start(config.run, "preference", {}) as run:
        optimise(config, run, Parts(learner, frozen, train, ()))
    return policy.probabilities()
