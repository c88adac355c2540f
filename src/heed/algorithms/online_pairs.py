"""From sampled groups to labelled pairs: who meets whom, and what the loss is told of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from heed.algorithms.advantages import shaped_scores
from heed.algorithms.comparison_presets import Labels
from heed.algorithms.online_preference_config import OnlinePreferenceConfig
from heed.algorithms.parts import Parts
from heed.algorithms.reward import PairRows
from heed.algorithms.rollouts import Experience
from heed.data.judgements import LabelledPair
from heed.feedback.versus import probability
from heed.ids import content_hash, stream_seed
from heed.records import Completion, Message, Prompt, Rollout, RolloutGroup


@dataclass(frozen=True)
class Met:
    """Two completions of one prompt.

    Args:
        own: of the policy; left.
        other: of its rival; right.
        p: probability that `own` is better.
    """

    prompt: Prompt
    own: Completion
    other: Completion
    p: float


@dataclass(frozen=True)
class Labelled:
    """The pairs of an update.

    Args:
        rows: each with its chosen side first.
        rival_chosen: for each, whether the rival's completion is the chosen one.
        num_ties: pairs left out because neither side is better.
        num_equal: pairs left out because both sides have the same tokens.
        num_missing: pairs left out because a side failed.
    """

    rows: list[PairRows]
    rival_chosen: list[bool]
    num_ties: int
    num_equal: int
    num_missing: int


def labelled_pairs(
    config: OnlinePreferenceConfig, parts: Parts, groups: Sequence[RolloutGroup], seen: Experience
) -> Labelled:
    """Pair each group's completions and label the pairs.

    Args:
        groups: as collected, the policy's completions first.
        seen: their completions that have a score.
    """
    scores = shaped_scores(config, seen).tolist()
    known = {c.id: score for c, score in zip(seen.completions, scores, strict=True)}
    rows: list[PairRows] = []
    rival: list[bool] = []
    ties = equal = missing = 0
    for group in groups:
        for own, other in meetings(config, group, known):
            if own.id not in known or other.id not in known:
                missing += 1
                continue
            if own.tokens == other.tokens:
                equal += 1
                continue
            met = Met(group.prompt, own, other, _probability(config, known, own, other))
            p = label(met.p, config.labels or "hard", config.run.seed, own.id, other.id)
            if p is None:
                ties += 1
                continue
            rows.append(lay_pair_out(parts, met, p))
            rival.append(p < 0.5)
    return Labelled(rows, rival, ties, equal, missing)


def meetings(
    config: OnlinePreferenceConfig, group: RolloutGroup, scores: dict[str, float]
) -> Iterator[tuple[Completion, Completion]]:
    """Who meets whom in a group; the policy's completion first where the rival is another.

    Args:
        scores: completion id -> score; those without one are no best and no worst.
    """
    completions = [rollout.completion for rollout in group.rollouts]
    if config.pairing == "best_worst":
        ranked = sorted(
            (c for c in completions if c.id in scores), key=lambda c: scores[c.id], reverse=True
        )
        if len(ranked) > 1:
            yield ranked[0], ranked[-1]
        return
    half = len(completions) // 2
    yield from zip(completions[:half], completions[half:], strict=True)


def _probability(
    config: OnlinePreferenceConfig, scores: dict[str, float], own: Completion, other: Completion
) -> float:
    """Probability that the policy's completion is better than the other one."""
    if config.row.rival == "demonstration":
        return 0.0
    if config.judge is not None and config.pairing == "halves":
        return scores[own.id]  # the win rate against that very completion
    return probability(scores[own.id] - scores[other.id], config.temperature)


def label(p: float, how: Labels, seed: int, *ids: str) -> float | None:
    """Turn a probability into the label that is learned; None leaves the pair out.

    Args:
        p: probability that left is better.
        how: hard, soft or sampled.
        seed, ids: name the draw of a sampled label.
    """
    if how == "hard":
        return None if p == 0.5 else float(p > 0.5)
    if how == "sampled":
        return float(Random(stream_seed(seed, "label", *ids)).random() < p)
    return p


def lay_pair_out(parts: Parts, met: Met, p: float) -> PairRows:
    """Lay a pair out, the likelier side as chosen."""
    sides = (met.own, met.other) if p >= 0.5 else (met.other, met.own)
    role = "text" if met.prompt.messages[-1].role == "text" else "assistant"
    said = [(Message(role=role, text=side.text),) for side in sides]
    pair = LabelledPair(
        "pair-" + content_hash([met.prompt.id, *(side.id for side in sides)]),
        met.prompt,
        said[0],
        said[1],
        max(p, 1.0 - p),
    )
    return (pair, *(parts.renderer.completion_row(met.prompt, side) for side in sides))  # type: ignore[return-value]


def own_groups(
    config: OnlinePreferenceConfig, groups: Sequence[RolloutGroup]
) -> list[RolloutGroup]:
    """The groups with the policy's own completions alone."""
    if config.row.rival == "policy":
        return list(groups)
    half = config.group_size // 2
    return [group.model_copy(update={"rollouts": _first(group.rollouts, half)}) for group in groups]


def _first(rollouts: Sequence[Rollout], num: int) -> tuple[Rollout, ...]:
    return tuple(rollouts[:num])
