"""From sampled groups to pairs that people are asked about, and from their answers to a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heed.algorithms.advantages import shaped_scores
from heed.algorithms.live_labels import LiveLabels
from heed.algorithms.online_metrics import Metrics
from heed.algorithms.online_pairs import Labelled, Met, label, lay_pair_out, meetings
from heed.algorithms.online_preference_config import OnlinePreferenceConfig
from heed.algorithms.parts import Parts
from heed.algorithms.reward import PairRows
from heed.algorithms.rollouts import Experience
from heed.feedback.ensemble import Ensemble
from heed.feedback.versus import pair_of, probability
from heed.records import Pair, RolloutGroup
from heed.runs.run import Run


def live_pairs(
    config: OnlinePreferenceConfig,
    run: Run,
    parts: Parts,
    live: LiveLabels,
    groups: Sequence[RolloutGroup],
    seen: Experience,
    update: int,
) -> tuple[Labelled, Metrics]:
    """Ask about an update's pairs, and lay out those of any update whose labels have come back.

    Args:
        groups: as collected, the policy's completions first.
        seen: their completions that did not fail.
    """
    scores = shaped_scores(config, seen).tolist()
    known = {c.id: score for c, score in zip(seen.completions, scores, strict=True)}
    met: list[Met] = []
    candidates: list[Pair] = []
    equal = missing = 0
    for group in groups:
        for own, other in meetings(config, group, known):
            if own.id not in known or other.id not in known:
                missing += 1
            elif own.text == other.text:
                equal += 1
            elif live.is_simulated(update, own.id, other.id):
                better = probability(known[own.id] - known[other.id], config.temperature)
                met.append(Met(group.prompt, own, other, better))
            else:
                pair = pair_of(group.prompt, own, other)
                candidates.append(pair.model_copy(update={"origin": run.folder.name}))
    simulated = len(met)
    heard = live.hear(candidates, _gaps(config, parts, groups, candidates), update)
    for pair, p in heard.labels:
        if p is not None:
            met.append(Met(pair.prompt, pair.left, pair.right, p))
    rows: list[PairRows] = []
    rival: list[bool] = []
    for one in met:
        p = label(one.p, config.labels or "hard", config.run.seed, one.own.id, one.other.id)
        if p is not None:
            rows.append(lay_pair_out(parts, one, p))
            rival.append(p < 0.5)
    metrics: Metrics = {
        **heard.metrics,
        "labels/simulated": simulated,
        "labels/unjudged": sum(p is None for _, p in heard.labels),
    }
    return Labelled(rows, rival, len(met) - len(rows), equal, missing), metrics


def _gaps(
    config: OnlinePreferenceConfig,
    parts: Parts,
    groups: Sequence[RolloutGroup],
    pairs: Sequence[Pair],
) -> NDArray | None:
    """What each member of the ensemble says of the pairs, left minus right, [K, N]."""
    if config.selection == "uniform" or not isinstance(parts.scorer, Ensemble):
        return None
    scores = {r.completion.id: r.score.parts for group in groups for r in group.rollouts}
    names = [member.name for member in parts.scorer.members]
    gaps = [
        [_gap(scores[pair.left.id][name], scores[pair.right.id][name]) for pair in pairs]
        for name in names
    ]
    return np.array(gaps).reshape(len(names), len(pairs))


def _gap(left: float | None, right: float | None) -> float:
    # Candidates have a score, and an ensemble has one only where every member has.
    assert left is not None
    assert right is not None
    return left - right
