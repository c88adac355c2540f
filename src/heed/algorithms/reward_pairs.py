"""Reward models from pairs: labels, ties, margins, loss and held-out measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from heed.algorithms.reward_config import RewardConfig
from heed.algorithms.reward_ties import TieParameter
from heed.data.batch import PairBatch, Row, collate
from heed.data.judgements import LabelledPair
from heed.data.report import DataReport
from heed.errors import DataError
from heed.learners.base import LossTerms, Outputs, PairLoss
from heed.learners.local import LocalLearner
from heed.losses.reward import bradley_terry, centring, davidson

PairRows = tuple[LabelledPair, Row, Row]


def prepared(
    pairs: Sequence[LabelledPair], config: RewardConfig, report: DataReport
) -> list[LabelledPair]:
    """Turn pairs the likelier side first, set ties aside where asked, fill margins in."""
    out = []
    for pair in map(likelier_first, pairs):
        if config.ties == "drop" and pair.p == 0.5:
            report.set_aside("a tie", pair.id)
            continue
        if config.margin_per_strength and pair.margin is None and pair.strength is not None:
            # Labellers who disagree can leave the likelier side with a strength below 0.
            margin = config.margin_per_strength * max(0.0, pair.strength)
            pair = replace(pair, margin=margin)
        out.append(pair)
    return out


def likelier_first(pair: LabelledPair) -> LabelledPair:
    """Turn a pair round whose label says that `rejected` is the likelier better one.

    The loss is the same either way; accuracies then count what the label says.
    """
    if pair.p >= 0.5:
        return pair
    margin = None if pair.margin is None else -pair.margin
    strength = None if pair.strength is None else -pair.strength
    return replace(
        pair,
        chosen=pair.rejected,
        rejected=pair.chosen,
        p=1.0 - pair.p,
        margin=margin,
        strength=strength,
    )


def refuse_only_ties(pairs: Sequence[LabelledPair]) -> None:
    """Stop where no training pair says which side is better.

    Raises:
        DataError: all are ties.
    """
    if pairs and all(pair.p == 0.5 for pair in pairs):
        raise DataError(
            f"all {len(pairs):,} training pairs are ties, so nothing says what is better; check "
            "the labels (column p, or the outcomes of the preferences)"
        )


def pair_values(
    config: RewardConfig,
    chosen: Tensor,
    rejected: Tensor,
    p: Tensor | None,
    tie: Tensor | None,
    margin: Tensor | None,
    ties: TieParameter | None,
) -> Tensor:
    """Loss of each comparison under the configuration, without centring. [B] nats."""
    smoothing = config.label_smoothing
    if ties is None:
        return bradley_terry(chosen, rejected, p=p, margin=margin, label_smoothing=smoothing)
    log_nu = ties.of_pairs().to(chosen.device)
    return davidson(chosen, rejected, log_nu, p, tie, margin, smoothing)


def preference_loss(config: RewardConfig, ties: TieParameter | None = None) -> PairLoss:
    """Bradley-Terry or Davidson with soft labels and margins, plus centring; unreduced [b]."""

    def loss(chosen: Outputs, rejected: Outputs, batch: PairBatch) -> LossTerms:
        assert chosen.scores is not None
        assert rejected.scores is not None
        values = pair_values(
            config, chosen.scores, rejected.scores, batch.p, batch.tie, batch.margin, ties
        )
        if config.center_rewards_coefficient:
            values = values + config.center_rewards_coefficient * centring(
                chosen.scores, rejected.scores
            )
        if batch.weights is not None:
            values = values * batch.weights
        margin = (chosen.scores - rejected.scores).detach()
        metrics = {
            "margin": margin,
            "accuracy": (margin > 0).float() + 0.5 * (margin == 0).float(),
            "mean_reward": 0.5 * (chosen.scores + rejected.scores).detach(),
        }
        return LossTerms(values, metrics)

    return loss


def pair_batch(rows: Sequence[PairRows]) -> PairBatch:
    """Lay pairs out as a batch; a margin or weight is used where every pair has one."""
    pairs = [pair for pair, _, _ in rows]
    margins = [pair.margin for pair in pairs]
    weights = [pair.weight for pair in pairs]
    return PairBatch(
        chosen=collate([chosen for _, chosen, _ in rows]),
        rejected=collate([rejected for _, _, rejected in rows]),
        p=torch.tensor([pair.p for pair in pairs]),
        margin=None if None in margins else torch.tensor(margins),
        weights=None if None in weights else torch.tensor(weights),
        tie=torch.tensor([pair.tie_share for pair in pairs]),
    )


def score_gaps(
    learner: LocalLearner, rows: Sequence[PairRows], batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Score of chosen minus score of rejected [N], and the tokens of both [N, 2]."""
    gaps: list[float] = []
    for first in range(0, len(rows), batch_size):
        batch = pair_batch(rows[first : first + batch_size])
        chosen = learner.forward(batch.chosen).scores
        rejected = learner.forward(batch.rejected).scores
        assert chosen is not None
        assert rejected is not None
        gaps += (chosen - rejected).tolist()
    lengths = [(sum(chosen.learn), sum(rejected.learn)) for _, chosen, rejected in rows]
    return np.array(gaps), np.array(lengths)


def held_out_loss(
    config: RewardConfig,
    pairs: Sequence[LabelledPair],
    gaps: np.ndarray,
    ties: TieParameter | None = None,
) -> Tensor:
    """Loss of each pair in nats, with the pairs' labels and margins. [N]"""
    chosen = torch.from_numpy(gaps)
    with torch.no_grad():
        return pair_values(
            config,
            chosen,
            torch.zeros_like(chosen),
            chosen.new_tensor([pair.p for pair in pairs]),
            chosen.new_tensor([pair.tie_share for pair in pairs]),
            chosen.new_tensor([pair.margin or 0.0 for pair in pairs]),
            ties,
        )


def accuracy_of(pairs: Sequence[LabelledPair], gaps: np.ndarray) -> float:
    """Share of pairs with chosen scored higher, equal scores one half."""
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())
