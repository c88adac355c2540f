"""Run folders of evaluations whose truth is known, for tests of the frontier."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from heed.data.exchange import write_rows
from heed.runs.run import Run
from heed.settings import RunSettings


def evaluation(
    folder: Path,
    tags: dict[str, Any],
    seed: int,
    *,
    kl: float,
    true: float,
    prompts: int = 40,
    noise: float = 0.0,
    lost: tuple[int, ...] = (),
    judges: tuple[str, ...] = ("true", "proxy"),
) -> str:
    """Write what `heed evaluate` leaves; returns the folder.

    Args:
        folder: above the run's.
        tags: of the evaluation.
        seed: of the run.
        kl: nats of every completion.
        true: mean quality, of all judges.
        prompts: how many, with two completions each.
        noise: standard deviation of quality over prompts, and within them.
        lost: prompts whose completions have no score.
        judges: their names.
    """
    name = "-".join(str(value) for value in (*tags.values(), seed))
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    hard = np.random.default_rng(7).normal(size=prompts)
    rows = []
    for i in range(prompts):
        for _ in range(2):
            after = None if i in lost else true + noise * (hard[i] + rng.normal())
            scores = {judge: {"after": after, "before": 0.1 * hard[i]} for judge in judges}
            rows.append({"prompt_id": f"p{i}", "scores": scores, "kl": kl})
    config = {"tags": tags}
    settings = RunSettings(folder=str(folder / name), seed=seed)
    with Run.start(settings, "evaluate", config, {}) as run:
        write_rows(run.path("judged.jsonl"), rows)
        run.finish({"judged": run.path("judged.jsonl")})
    return str(folder / name)
