"""Reward models from several completions of one prompt: all pairs at once, or the whole ranking.

    k_wise         loss of a prompt = mean over its comparisons of the loss of a pair
    plackett_luce  loss of a prompt = -log P(its ranking)

A prompt is one element: each completion runs once, and its comparisons are never spread over steps.

Sources: InstructGPT 2022, equation 1; Plackett 1975.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from heed.algorithms.reward_config import RewardConfig
from heed.algorithms.reward_pairs import pair_values, prepared
from heed.algorithms.reward_ties import TieParameter
from heed.data.batch import GroupBatch
from heed.data.datasets import load_preferences, load_rankings, recognise
from heed.data.groups import Group, GroupRows, group_batch, group_of, groups_of, that_order
from heed.data.judgements import LabelledPair
from heed.data.report import DataReport
from heed.errors import DataError
from heed.learners.base import GroupLoss, LossTerms, Outputs
from heed.learners.local import LocalLearner
from heed.losses.ranking import MAX_RANKED, MAX_TIED, blocks, plackett_luce
from heed.losses.reward import centring, group_mean
from heed.settings import DataSettings


def load_groups(data: DataSettings, config: RewardConfig) -> tuple[list[Group], DataReport]:
    """Load rankings, or for `k_wise` also all labelled pairs of each prompt.

    Raises:
        DataError: nothing readable is there, or pairs stand where whole rankings are needed.
    """
    if recognise(data) == "preferences":
        if config.loss_type == "plackett_luce":
            raise DataError(
                f"{data.path} holds pairs, and plackett_luce learns whole rankings (columns "
                "prompt, completions and ranks); use loss_type k_wise or bradley_terry"
            )
        pairs, report = load_preferences(data, config.both_bad)
        return groups_of(prepared(pairs, config, report)), report
    rankings, report = load_rankings(data)
    groups = [group_of(ranking) for ranking in rankings]
    if config.loss_type == "k_wise":
        return that_order(groups, report, config.ties == "drop"), report
    if config.ties == "drop":
        # The ranks say all; only rankings without any order are set aside.
        ordered = {group.id for group in that_order(groups, report, drop_ties=True)}
        groups = [group for group in groups if group.id in ordered]
    kept = []
    for group in groups:
        if config.ties == "davidson" and len(group.replies) > MAX_RANKED:
            report.drop(f"more than {MAX_RANKED} completions, too many for davidson", group.id)
        elif config.ties != "davidson" and max(map(len, blocks(group.ranks or ()))) > MAX_TIED:
            report.drop(f"more than {MAX_TIED} completions share a rank", group.id)
        else:
            kept.append(group)
    return kept, report


def pairs_of(elements: Sequence[GroupRows]) -> list[LabelledPair]:
    """All comparisons of elements, in order."""
    return [pair for group, _ in elements for pair in group.pairs]


def group_loss(config: RewardConfig, ties: TieParameter | None = None) -> GroupLoss:
    """One value for each prompt, plus centring; unreduced [b]."""

    def loss(outputs: Outputs, batch: GroupBatch) -> LossTerms:
        scores, num = outputs.scores, len(batch)
        assert scores is not None
        assert batch.edges is not None
        chosen, rejected = scores[batch.edges[:, 0]], scores[batch.edges[:, 1]]
        whose = batch.group[batch.edges[:, 0]]
        p, labels = batch.labels["p"], batch.labels
        if config.loss_type == "k_wise":
            pairs = pair_values(
                config, chosen, rejected, p, labels["tie"], labels.get("margin"), ties
            )
            values = group_mean(pairs * labels.get("weight", 1.0), whose, num)
        else:
            assert batch.targets is not None
            log_nu = None if ties is None else ties.log_nu.to(scores.device)
            ranks = batch.targets[:, 0]
            values = plackett_luce(scores, ranks, batch.group, config.ties, log_nu)
        if config.center_rewards_coefficient:
            pulled = group_mean(centring(chosen, rejected), whose, num)
            values = values + config.center_rewards_coefficient * pulled
        gap = (chosen - rejected).detach()
        right = torch.where(p == 0.5, 0.5, (gap > 0).float() + 0.5 * (gap == 0).float())
        metrics = {
            "margin": group_mean(gap, whose, num),
            "accuracy": group_mean(right, whose, num),
            "mean_reward": group_mean(scores.detach(), batch.group, num),
        }
        return LossTerms(values, metrics)

    return loss


def group_scores(
    learner: LocalLearner, elements: Sequence[GroupRows], batch_size: int = 32
) -> list[Tensor]:
    """Scores of each element's completions: [K] each."""
    out: list[Tensor] = []
    for first in range(0, len(elements), batch_size):
        batch = group_batch(elements[first : first + batch_size])
        scores = learner.forward(batch.rows).scores
        assert scores is not None
        out += scores.split(batch.sizes.tolist())
    return out


def group_gaps(
    elements: Sequence[GroupRows], scores: Sequence[Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """Score gap of each comparison [M], and the tokens of its two completions [M, 2]."""
    gaps, lengths = [], []
    for (group, rows), found in zip(elements, scores, strict=True):
        for i, j in group.at:
            gaps.append(float(found[i] - found[j]))
            lengths.append((sum(rows[i].learn), sum(rows[j].learn)))
    return np.array(gaps), np.array(lengths)


def group_measures(
    loss: GroupLoss, elements: Sequence[GroupRows], scores: Sequence[Tensor], batch_size: int = 32
) -> dict[str, float | None]:
    """Loss and accuracy of held-out elements, each the mean over prompts."""
    values: list[Tensor] = []
    right: list[Tensor] = []
    with torch.no_grad():
        for first in range(0, len(elements), batch_size):
            part = slice(first, first + batch_size)
            batch = group_batch(elements[part])
            terms = loss(Outputs(scores=torch.cat(list(scores[part]))), batch)
            values.append(terms.values)
            right.append(terms.metrics["accuracy"])
    return {
        "eval/loss": float(torch.cat(values).mean()),
        "eval/accuracy": float(torch.cat(right).mean()),
    }


def best_found(elements: Sequence[GroupRows], scores: Sequence[Tensor]) -> list[float]:
    """Whether each ranking's highest score is on a best completion; a share where scores tie."""
    out = []
    for (group, _), found in zip(elements, scores, strict=True):
        if group.ranks is None or len(set(group.ranks)) < 2:
            continue
        top = (found == found.max()).nonzero().flatten().tolist()
        out.append(sum(group.ranks[i] == 1 for i in top) / len(top))
    return out
