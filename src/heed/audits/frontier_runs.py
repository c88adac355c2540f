"""The runs behind a frontier: what each measured on each prompt, gathered by setting and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heed.errors import DataError
from heed.runs.files import read_lines
from heed.runs.run import Run

START = "warm-up"
"""The policy that all methods start from, as a method of its own."""
BEST_OF_N = "best of n"


@dataclass(frozen=True)
class Setting:
    """A method with its coefficients."""

    method: str
    tags: tuple[tuple[str, str | int | float], ...] = ()

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.tags)


@dataclass
class Measured:
    """One policy: quantity -> prompt -> values of its completions, None where missing."""

    setting: Setting
    seed: int
    source: str
    values: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)

    def add(self, prompt: str, **values: float | None) -> None:
        """Add a completion's values."""
        for name, value in values.items():
            self.values.setdefault(name, {}).setdefault(prompt, []).append(value)

    def mean(self, name: str, prompt: str) -> float | None:
        """Mean over a prompt's completions that have a value; None where none has."""
        known = [v for v in self.values[name].get(prompt, []) if v is not None]
        return float(np.mean(known)) if known else None


def read_runs(paths: Sequence[str], method: str, truth: str, proxy: str | None) -> list[Measured]:
    """Read measurements: of each policy, of the start, and of best of n at each n.

    Args:
        paths: run folders of `heed evaluate` and `heed best_of_n`.
        method: the tag that names the method.
        truth: name of the judge whose score is quality.
        proxy: name of the judge whose score was optimised, or None.

    Raises:
        DataError: a run is of another kind, has not finished, or lacks the tag or a judge.
    """
    found: list[Measured] = []
    for path in paths:
        run = Run.open(path)
        kind, config = run.manifest["kind"], run.manifest["config"]
        if run.status != "finished":
            raise DataError(f"{path} is {run.status}, expected a finished run; go on with it first")
        seed = int(run.manifest.get("seed") or 0)
        if kind == "evaluate":
            found += _evaluated(path, config, seed, (method, truth, proxy), found)
        elif kind == "best_of_n":
            found += _best_of_n(path, seed, with_proxy=proxy is not None)
        else:
            raise DataError(f"{path} is a run of {kind!r}, expected evaluate or best_of_n")
    return found


def _evaluated(
    path: str,
    config: Mapping[str, Any],
    seed: int,
    words: tuple[str, str, str | None],
    earlier: Sequence[Measured],
) -> list[Measured]:
    method, truth, proxy = words
    tags = dict(config.get("tags") or {})
    if method not in tags:
        raise DataError(
            f"{path} has no tag {method!r} (it has {', '.join(tags) or 'none'}); set "
            f"tags.{method} in its evaluation, or `method` here"
        )
    named = str(tags.pop(method))
    start = Measured(Setting(START), seed, path)
    policy = Measured(Setting(named, tuple(sorted(tags.items()))), seed, path)
    for row in read_lines(Path(path) / "judged.jsonl"):
        scores = row["scores"]
        absent = [judge for judge in (truth, proxy) if judge and judge not in scores]
        if absent:
            raise DataError(f"{path} has no judge {absent[0]!r}; it has {', '.join(scores)}")
        for made, side, kl in ((policy, "after", row["kl"]), (start, "before", 0.0)):
            values = {"true": scores[truth][side], "kl": kl}
            values |= {"proxy": scores[proxy][side]} if proxy else {}
            made.add(row["prompt_id"], **values)
    # All runs of a seed sampled the same start, so one of them is enough.
    again = any(m.setting == start.setting and m.seed == seed for m in earlier)
    return [policy] if again else [start, policy]


def _best_of_n(path: str, seed: int, *, with_proxy: bool) -> list[Measured]:
    by_n: dict[int, Measured] = {}
    for row in read_lines(Path(path) / "curve.jsonl"):
        n = int(row["n"])
        made = by_n.setdefault(n, Measured(Setting(BEST_OF_N, (("n", n),)), seed, path))
        values = {"true": row["gold"], "kl": row["kl"]}
        made.add(row["prompt_id"], **values | ({"proxy": row["proxy"]} if with_proxy else {}))
    return [made for n, made in by_n.items() if n > 1]


def by_setting(
    measured: Sequence[Measured], max_lost_frac: float
) -> tuple[dict[Setting, dict[str, NDArray]], list[str]]:
    """Gather the runs of each setting: quantity -> [S, P], and the prompts of the columns.

    A prompt that lacks a value in some run is left out of all, so that all are judged on the same.

    Raises:
        DataError: a setting lacks a seed that another has or has one twice, runs measured
            different prompts, or too many prompts are left out.
    """
    runs: dict[Setting, dict[int, Measured]] = {}
    for one in measured:
        seeds = runs.setdefault(one.setting, {})
        if one.seed in seeds:
            raise DataError(
                f"{seeds[one.seed].source} and {one.source} have the same tags and the same seed "
                f"{one.seed}; give a tag that tells them apart, or leave one out"
            )
        seeds[one.seed] = one
    every = sorted({one.seed for one in measured})
    for setting, seeds in runs.items():
        if sorted(seeds) != every:
            raise DataError(
                f"{setting.method} ({setting}) was run with seeds {sorted(seeds)}, and others "
                f"with {every}; run all settings with the same seeds"
            )
    first = measured[0]
    asked = list(first.values["true"])
    for one in measured:
        if set(one.values["true"]) != set(asked):
            raise DataError(
                f"{first.source} and {one.source} were measured on different prompts; measure all "
                "on the same"
            )
    kept = [prompt for prompt in asked if all(_whole(one, prompt) for one in measured)]
    if len(asked) - len(kept) > max_lost_frac * len(asked):
        raise DataError(
            f"{len(asked) - len(kept)} of {len(asked)} prompts have no score in some run, more "
            f"than the share {max_lost_frac:g}; mend the judge, or raise max_lost_frac"
        )
    tables = {
        setting: {
            name: np.array([[seeds[s].mean(name, p) for p in kept] for s in every])
            for name in first.values
        }
        for setting, seeds in runs.items()
    }
    return tables, kept


def _whole(one: Measured, prompt: str) -> bool:
    return all(one.mean(name, prompt) is not None for name in one.values)
