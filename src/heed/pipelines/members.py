"""Several reward models of one kind: measure them on the same pairs, keep the best or the mean.

    select   half of the prompts choose the model, the other half say how good it is
    average  one model whose weights are the mean (WARM)

A model chosen for its accuracy on some pairs looks better on these than it is; hence the halves.

Sources: Stiennon et al. 2020, section 3.4 (3 to 10 seeds, keep the best); Ramé et al. 2024 (WARM).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from glob import glob
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from heed.algorithms.reward_pairs import PairRows, likelier_first, score_gaps
from heed.algorithms.reward_quality import share_finding
from heed.data.datasets import load_preferences, split_by_prompt
from heed.data.judgements import LabelledPair
from heed.data.render import Renderer
from heed.data.report import DataReport, settle
from heed.data.rows import pair_rows
from heed.errors import ConfigError, DataError
from heed.learners.local import LocalLearner
from heed.models.average import average_reward_models
from heed.models.heads import RewardHead
from heed.models.load import load_tokenizer, resolve_path
from heed.records import Finding
from heed.runs.run import Run
from heed.runs.sinks import Sink
from heed.settings import DataSettings, LearnerSettings, RunSettings, Settings

_UNIT = "share of held-out pairs, ties one half"


class SelectConfig(Settings):
    """Keep the best of several reward models, such as those of several seeds."""

    run: RunSettings
    models: tuple[str, ...] = Field(min_length=1)
    """Run folders of `heed reward`; a star stands for several."""
    data: DataSettings
    """Comparisons that none of them was trained on: half choose, half judge the choice."""
    learner: LearnerSettings = LearnerSettings()


class AverageConfig(Settings):
    """Average the weights of reward models that were trained from one start (WARM)."""

    run: RunSettings
    models: tuple[str, ...] = Field(min_length=1)
    """Run folders of `heed reward` with one `head_seed`; a star stands for several."""
    weights: tuple[float, ...] | None = None
    """Weight of each model; equal ones by default."""
    check_start: bool = True
    """Make sure that all began at the same weights and the same score head."""
    data: DataSettings | None = None
    """Comparisons that none of them was trained on, to judge the average beside its members."""
    learner: LearnerSettings = LearnerSettings()


def select(config: SelectConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Measure every model on the same pairs, and leave the best in `RUN/model`.

    Raises:
        ConfigError: fewer than two models are found.
        DataError: the pairs have fewer than two prompts.
    """
    paths = found_models(config.models)
    inputs = {"models": paths, "data": config.data.path}
    with Run.start(config.run, "select", config, inputs, sinks) as run:
        pairs = _pairs(run, config.data)
        judging, choosing = split_by_prompt(pairs, 0.5, config.run.seed)
        if not judging or not choosing:
            raise DataError(
                "the pairs have fewer than two prompts, and half of them choose the model; "
                "give pairs of more prompts"
            )
        run.stage("measuring models", len(paths))
        right: dict[str, tuple[NDArray, NDArray]] = {}
        for i, (name, path) in enumerate(paths_by_name(paths).items(), start=1):
            found = [_right(path, part, config.learner) for part in (choosing, judging)]
            right[name] = (found[0], found[1])
            run.progress(i, len(paths))
        accuracies = {name: float(chosen.mean()) for name, (chosen, _) in right.items()}
        best = max(accuracies, key=lambda name: accuracies[name])
        prompts = [pair.prompt.id for pair in judging]
        run.add_findings(_spread(best, right, prompts))
        chosen = resolve_path(paths_by_name(paths)[best])
        shutil.copytree(chosen, run.path("model"), dirs_exist_ok=True)
        facts = {"best": best, "accuracy_by_model": accuracies, "num_choosing": len(choosing)}
        run.finish({"model": run.path("model")}, facts=facts)
    return run


def average(config: AverageConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Average the models' weights, and leave the result in `RUN/model`.

    Raises:
        ConfigError: as `average_reward_models`.
    """
    paths = found_models(config.models)
    inputs: dict[str, Any] = {"models": paths}
    inputs |= {"data": config.data.path} if config.data else {}
    with Run.start(config.run, "average", config, inputs, sinks) as run:
        run.stage("averaging", 1)
        head = average_reward_models(paths, config.weights, check_start=config.check_start)
        head.save(run.path("model"), load_tokenizer(paths[0]), {"averaged": list(paths)})
        if config.data is not None:
            pairs = _pairs(run, config.data)
            prompts = [pair.prompt.id for pair in pairs]
            named = {**paths_by_name(paths), "average": str(run.path("model"))}
            for name, path in named.items():
                right = _right(path, pairs, config.learner)
                run.add_findings([share_finding(_accuracy(name), right, _UNIT, prompts)])
        run.finish({"model": run.path("model")}, facts={"num_models": len(paths)})
    return run


def found_models(words: Sequence[str]) -> tuple[str, ...]:
    """Paths of models, stars resolved.

    Raises:
        ConfigError: fewer than two are found.
    """
    found: list[str] = []
    for word in words:
        found += sorted(glob(word)) if any(sign in word for sign in "*?[") else [word]
    if len(found) < 2:
        raise ConfigError(
            f"{', '.join(words)} names {len(found)} models, and it takes two or more; give their "
            "run folders, or a pattern such as 'runs/rm-*'"
        )
    return tuple(found)


def paths_by_name(paths: Sequence[str]) -> dict[str, str]:
    """Names for models: their folders' names, or the paths where two are equal."""
    names = [Path(path).name for path in paths]
    return dict(zip(names if len(set(names)) == len(names) else paths, paths, strict=True))


def _pairs(run: Run, data: DataSettings) -> list[LabelledPair]:
    pairs, report = load_preferences(data)
    settle(run, [(report, data.max_loss_frac)])
    return [likelier_first(pair) for pair in pairs]


def _right(path: str, pairs: Sequence[LabelledPair], settings: LearnerSettings) -> NDArray:
    """Whether a model scores the better side higher: [N] of 0, 0.5 and 1.

    A pair that does not fit its longest row loses the oldest tokens of its prompt.
    """
    renderer = Renderer(load_tokenizer(path))
    head = RewardHead.load(path)
    longest = getattr(head.backbone.config, "max_position_embeddings", None) or 1024
    report = DataReport(path)
    rows: list[PairRows] = pair_rows(
        pairs, renderer, report, max_length=int(longest), on_overlong="truncate"
    )
    if len(rows) < len(pairs):
        raise DataError(
            f"{path}: {len(pairs) - len(rows)} of {len(pairs)} pairs cannot be laid out with its "
            f"tokenizer ({', '.join(report.reasons)}); leave them out, so that all models are "
            "measured on the same pairs"
        )
    gaps, _ = score_gaps(LocalLearner.frozen(head, settings), rows)
    outcome = np.array([1.0 if pair.p > 0.5 else 0.5 for pair in pairs])
    return np.where(gaps == 0, 0.5, np.where(gaps > 0, outcome, 1 - outcome))


def _spread(
    best: str, right: dict[str, tuple[NDArray, NDArray]], prompts: Sequence[str]
) -> list[Finding]:
    """The choice's accuracy on pairs that did not choose it, and how far the models differ."""
    judged = {name: own for name, (_, own) in right.items()}
    values = [float(own.mean()) for own in judged.values()]
    num = len(values)
    same = [float((a == b).mean()) for a, b in combinations(judged.values(), 2)]
    out = [share_finding("reward model accuracy", judged[best], _UNIT, prompts)]
    out += [share_finding(_accuracy(name), own, _UNIT, prompts) for name, own in judged.items()]
    for name, value, unit in (
        ("spread over seeds, highest less lowest", max(values) - min(values), "share of pairs"),
        ("spread over seeds, standard deviation", float(np.std(values, ddof=1)), "share of pairs"),
        ("agreement of two models", float(np.mean(same)), "share of held-out pairs"),
    ):
        out.append(Finding(name=name, estimate=value, n=num, unit=unit))
    return out


def _accuracy(name: str) -> str:
    return f"held-out accuracy, member {name}"
