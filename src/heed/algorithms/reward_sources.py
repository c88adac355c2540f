"""From a configuration to an objective: the data of each `loss_type`, read, parted and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from heed.algorithms.reward_config import RewardConfig
from heed.algorithms.reward_groups import (
    best_found,
    group_gaps,
    group_loss,
    group_measures,
    group_scores,
    load_groups,
    pairs_of,
)
from heed.algorithms.reward_objective import Objective
from heed.algorithms.reward_pairs import (
    PairRows,
    accuracy_of,
    held_out_loss,
    pair_batch,
    preference_loss,
    prepared,
    refuse_only_ties,
    score_gaps,
)
from heed.algorithms.reward_quality import check_subsets, judge_reward_model, share_finding
from heed.algorithms.reward_ratings import (
    DEFAULT_ATTRIBUTES,
    judge_ratings,
    numbers_of,
    predicted,
    rating_batch,
    rating_loss,
    rating_measures,
    scale_of,
)
from heed.algorithms.reward_ties import TieParameter, ranking_tie_parameter, tie_parameter
from heed.data.batch import Row
from heed.data.datasets import load_demonstrations, load_preferences, load_ratings, split_by_prompt
from heed.data.groups import group_batch
from heed.data.render import Renderer
from heed.data.report import DataReport, settle
from heed.data.rows import group_rows, pair_rows, rating_rows, supervised_rows
from heed.errors import DataError
from heed.ids import stream_seed
from heed.learners.local import LocalLearner
from heed.models.heads import RewardHead
from heed.records import Finding
from heed.runs.run import Run
from heed.settings import DataSettings

_Load = Callable[[DataSettings], tuple[Sequence[Any], DataReport]]
_Judged = tuple[list[Finding], dict[str, Any]]


def load_rows(
    config: RewardConfig, renderer: Renderer, run: Run
) -> tuple[list[PairRows], list[PairRows], list[Row]]:
    """Pairs to train on, pairs held out (no prompt in both), and rows to normalise on."""

    def load(data: DataSettings) -> tuple[Sequence[Any], DataReport]:
        pairs, report = load_preferences(data, config.both_bad)
        return prepared(pairs, config, report), report

    return _parted(
        config, renderer, run, load, pair_rows, lambda example: list(example[1:]), "pairs"
    )


def pairs_objective(
    config: RewardConfig, renderer: Renderer, run: Run, head: RewardHead
) -> Objective:
    """Learn from pairs, each by itself."""
    train, held_out, normal = load_rows(config, renderer, run)
    pairs = [pair for pair, _, _ in train]
    known = [pair for pair, _, _ in held_out]
    refuse_only_ties(pairs)
    check_subsets(known, config.subset_column)
    ties = tie_parameter(pairs, config.tie_log_nu) if config.ties == "davidson" else None

    def measure(learner: LocalLearner) -> dict[str, float | None]:
        gaps, _ = score_gaps(learner, held_out)
        return {
            "eval/accuracy": accuracy_of(known, gaps),
            "eval/loss": float(held_out_loss(config, known, gaps, ties).mean()),
        }

    def judge(learner: LocalLearner) -> _Judged:
        gaps, lengths = score_gaps(learner, held_out)
        found = judge_reward_model(known, gaps, lengths, pairs, config.subset_column)
        return _with_ties(found, ties, len(pairs))

    loss = preference_loss(config, ties)
    return Objective(train, held_out, normal, pair_batch, loss, measure, judge, ties)


def groups_objective(
    config: RewardConfig, renderer: Renderer, run: Run, head: RewardHead
) -> Objective:
    """Learn from all completions of a prompt at once."""
    train, held_out, normal = _parted(
        config,
        renderer,
        run,
        lambda data: load_groups(data, config),
        group_rows,
        lambda example: list(example[1]),
        "rankings",
    )
    pairs, known = pairs_of(train), pairs_of(held_out)
    refuse_only_ties(pairs)
    check_subsets(known, config.subset_column)
    ties: TieParameter | None = None
    if config.ties == "davidson" and config.loss_type == "k_wise":
        ties = tie_parameter(pairs, config.tie_log_nu)
    elif config.ties == "davidson":
        groups = [group for group, _ in (*train, *held_out)]
        ties = ranking_tie_parameter(groups, config.tie_log_nu)
    loss = group_loss(config, ties)

    def measure(learner: LocalLearner) -> dict[str, float | None]:
        return group_measures(loss, held_out, group_scores(learner, held_out))

    def judge(learner: LocalLearner) -> _Judged:
        scores = group_scores(learner, held_out)
        gaps, lengths = group_gaps(held_out, scores)
        found = judge_reward_model(known, gaps, lengths, pairs, config.subset_column)
        best = best_found(held_out, scores)
        if best:
            unit = "share of held-out rankings"
            found[0].append(share_finding("best completion ranked first", best, unit))
        return _with_ties(found, ties, len(pairs))

    return Objective(train, held_out, normal, group_batch, loss, measure, judge, ties)


def ratings_objective(
    config: RewardConfig, renderer: Renderer, run: Run, head: RewardHead
) -> Objective:
    """Learn the numbers that completions were given."""
    attributes = config.attributes or DEFAULT_ATTRIBUTES
    train, held_out, normal = _parted(
        config,
        renderer,
        run,
        lambda data: load_ratings(data, attributes),
        rating_rows,
        lambda example: [example[1]],
        "rated completions",
    )
    centre, spread = scale_of(train, attributes)
    head.set_attributes(
        centre=centre.tolist(), spread=spread.tolist(), weights=config.attribute_weights
    )
    labels = numbers_of(held_out)
    prompts = [rating.prompt.id for rating, _ in held_out]

    def measure(learner: LocalLearner) -> dict[str, float | None]:
        return rating_measures(predicted(learner, held_out), labels)

    def judge(learner: LocalLearner) -> _Judged:
        return judge_ratings(predicted(learner, held_out), labels, prompts, attributes)

    return Objective(train, held_out, normal, rating_batch, rating_loss, measure, judge)


OBJECTIVES: Mapping[str, Callable[[RewardConfig, Renderer, Run, RewardHead], Objective]] = (
    MappingProxyType(
        {
            "bradley_terry": pairs_objective,
            "k_wise": groups_objective,
            "plackett_luce": groups_objective,
            "regression": ratings_objective,
        }
    )
)
"""`loss_type` -> what makes its objective."""


def _with_ties(found: _Judged, ties: TieParameter | None, num: int) -> _Judged:
    if ties is None:
        return found
    findings, facts = found
    values = ties.values()
    for tied, log_nu in enumerate(values, start=2):
        name = "tie parameter" if len(values) == 1 else f"tie parameter of {tied} completions"
        how = "learned" if ties.learned else "fixed"
        unit = f"nu, {how}; equals tie with nu / (2 + nu)" if tied == 2 else f"nu, {how}"
        findings.append(Finding(name=name, estimate=float(np.exp(log_nu)), n=num, unit=unit))
    return findings, {**facts, "tie_log_nu": values}


def _parted(
    config: RewardConfig,
    renderer: Renderer,
    run: Run,
    load: _Load,
    make_rows: Callable[..., list[Any]],
    rows_of: Callable[[Any], list[Row]],
    what: str,
) -> tuple[list[Any], list[Any], list[Row]]:
    """Load, part by prompt, lay out, count, and pick the rows to normalise on."""
    loaded, report = load(config.data)
    records = list(loaded)
    reports = [(config.data, report)]
    if config.eval_data is None:
        records, others = split_by_prompt(records, config.eval_frac, config.run.seed)
        other_report = report
    else:
        loaded, other_report = load(config.eval_data)
        others = list(loaded)
        reports.append((config.eval_data, other_report))
    train = _laid_out(records, renderer, report, config.data, make_rows)
    held_out = _laid_out(others, renderer, other_report, config.eval_data or config.data, make_rows)
    normal = [row for example in train for row in rows_of(example)]
    if config.normalise_data is not None:
        completions, third = load_demonstrations(config.normalise_data)
        data = config.normalise_data
        normal = supervised_rows(
            completions, renderer, third, max_length=data.max_length, on_overlong=data.on_overlong
        )
        reports.append((data, third))
    settle(run, [(found, data.max_loss_frac) for data, found in reports])
    if not train or not held_out:
        raise DataError(
            f"{len(train)} {what} to train on and {len(held_out)} held out remain; give more "
            f"{what} with different prompts, or eval_data"
        )
    rng = np.random.default_rng(stream_seed(config.run.seed, "normalise"))
    picked = rng.permutation(len(normal))[: config.num_normalise]
    return train, held_out, [normal[i] for i in picked]


def _laid_out(
    records: Sequence[Any],
    renderer: Renderer,
    report: DataReport,
    data: DataSettings,
    make_rows: Callable[..., list[Any]],
) -> list[Any]:
    return make_rows(
        records, renderer, report, max_length=data.max_length, on_overlong=data.on_overlong
    )
