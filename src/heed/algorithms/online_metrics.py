"""The figures of one update, under the names that users of TRL know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heed import credit, kl, masked
from heed.algorithms.online_settings import OnlineSettings
from heed.algorithms.rollouts import Experience
from heed.data.batch import TokenBatch
from heed.losses.policy import approx_kl, explained_variance

Metrics = dict[str, float | int | None]

OF_SCORES = (
    "objective/scores", "objective/scores_std", "objective/rlhf_reward",
    "objective/non_score_reward",
)  # fmt: skip
"""Figures that there are only where somebody gives scores."""

MOST_BEHAVIOUR_GAP = 0.05
"""Nats per token by which sampler and learner may differ: some times what bf16 leaves."""


@dataclass(frozen=True)
class SequenceKl:
    """Estimates of KL(policy || reference) in nats per completion, means over the batch."""

    k1: float
    k3: float
    standard_error: float | None
    """Of k1; None for a single completion."""

    @classmethod
    def of(cls, batch: TokenBatch) -> SequenceKl:
        """Estimate from the streams of behaviour and reference log-probabilities."""
        ours, theirs = batch.stream("behaviour_logprobs"), batch.stream("reference_logprobs")
        k1 = (kl.k1(ours, theirs) * batch.learn).sum(1)
        k3 = (kl.k3(ours, theirs) * batch.learn).sum(1)
        error = float(k1.std() / math.sqrt(len(k1))) if len(k1) > 1 else None
        return cls(float(k1.mean()), float(k3.mean()), error)


def rollout_metrics(
    seen: Experience,
    scores: Tensor,
    rewards: Tensor,
    batch: TokenBatch,
    divergence: SequenceKl,
) -> Metrics:
    """Figures of the completions before anything is learned from them.

    Args:
        scores: [B] after the rule for completions that do not end.
        rewards: [B, T] before whitening.
    """
    behaviour = batch.stream("behaviour_logprobs")
    lengths = torch.tensor([float(c.num_tokens) for c in seen.completions])
    ended = seen.ended.float()
    num = len(seen.completions)
    metrics: Metrics = {
        "objective/kl": divergence.k1,
        "objective/kl_standard_error": divergence.standard_error,
        "objective/kl_k3": divergence.k3,
        "objective/kl_per_token": divergence.k1 * num / batch.num_learned,
        "objective/scores": float(scores.mean()),
        "objective/scores_std": float(scores.std()) if num > 1 else None,
        "objective/rlhf_reward": float(rewards.sum(1).mean()),
        "objective/non_score_reward": float((rewards.sum(1) - scores).mean()),
        "objective/entropy": float(-(behaviour * batch.learn).sum(1).mean()),
        "val/num_eos_tokens": int(ended.sum()),
        "completions/clipped_ratio": float(1 - ended.mean()),
        "completions/mean_length": float(lengths.mean()),
        "completions/min_length": float(lengths.min()),
        "completions/max_length": float(lengths.max()),
    }
    if "old_values" in batch.streams:
        metrics["value/explained_variance"] = explained_variance(
            batch.stream("old_values"), batch.stream("returns"), batch.learn
        )
    for name, values in seen.parts.items():
        metrics[f"rewards/{name}/mean"] = float(values.mean())
        metrics[f"rewards/{name}/std"] = float(values.std()) if num > 1 else None
    return metrics


def group_metrics(config: OnlineSettings, seen: Experience, batch: TokenBatch) -> Metrics:
    """Figures of the groups and of importance weights, where there are such."""
    metrics: Metrics = {}
    if config.group_size > 1:
        metrics["frac_reward_zero_std"] = credit.constant_group_frac(seen.scores, seen.group)
        alone = int((credit.group_size(seen.group) == 1).sum())
        metrics["num_alone"] = alone
    if config.method.selects:
        chosen = (batch.stream("advantages") != 0).any(1)
        metrics["selected_frac"] = float(chosen.float().mean())
    if not config.method.has_values:
        advantage = (batch.stream("advantages") * batch.learn).sum(1)
        lengths = torch.tensor([float(c.num_tokens) for c in seen.completions])
        for name, rows in (("better", advantage > 0), ("worse", advantage < 0)):
            mean = float(lengths[rows].mean()) if bool(rows.any()) else None
            metrics[f"completions/mean_length_{name}"] = mean
    if "weights" in batch.streams:
        weights = batch.stream("weights")[batch.learn]
        metrics |= {
            "importance/mean": float(weights.mean()),
            "importance/min": float(weights.min()),
            "importance/max": float(weights.max()),
            "importance/masked_frac": float((weights == 0).float().mean()),
            "importance/effective_frac": _effective_frac(weights),
        }
    return metrics


def _effective_frac(weights: Tensor) -> float:
    """Effective share of the samples: (sum w)^2 / (N sum w^2), 1 where all weights are equal."""
    squares = float(weights.square().sum())
    return float(weights.sum()) ** 2 / (len(weights) * squares) if squares > 0 else 0.0


def training_metrics(
    minibatches: Sequence[tuple[TokenBatch, dict[str, Tensor]]], norms: Sequence[float]
) -> Metrics:
    """Figures of the optimiser steps, averaged over minibatches (each a mean over tokens).

    Nothing, where no minibatch had a token to learn from.
    """
    if not minibatches:
        return {}

    def average(name: str) -> float:
        means = [masked.mean(terms[name], batch.learn) for batch, terms in minibatches]
        return float(torch.stack(means).mean())

    def summed(name: str) -> float:
        losses = [float(terms[name].sum()) / batch.num_learned for batch, terms in minibatches]
        return sum(losses) / len(losses)

    first_batch, first = minibatches[0]
    ratios = torch.cat([terms["ratio"][batch.learn] for batch, terms in minibatches])
    kls = [
        masked.mean(
            approx_kl(terms["new_logprobs"], batch.stream("behaviour_logprobs"), batch.learn),
            batch.learn,
        )
        for batch, terms in minibatches
    ]
    low, high = average("clipped_low"), average("clipped_high")
    metrics: Metrics = {
        "loss/policy_avg": summed("policy_loss"),
        "policy/approxkl_avg": float(torch.stack(kls).mean()),
        "policy/clipfrac_low": low,
        "policy/clipfrac_high": high,
        "policy/clipfrac_avg": low + high,
        "policy/grad_norm": sum(norms) / len(norms),
        "val/ratio": float(ratios.mean()),
        "val/ratio_var": float(ratios.var()) if len(ratios) > 1 else 0.0,
        "val/ratio_first_max_deviation": float((first["ratio"][first_batch.learn] - 1).abs().max()),
    }
    if "value_loss" in first:
        metrics["loss/value_avg"] = summed("value_loss")
        metrics["val/clipfrac_avg"] = average("value_clipped")
    if "kl_loss" in first:
        metrics["loss/kl_avg"] = average("kl_loss")
    if "ptx_loss" in first:
        terms = [float(t["ptx_loss"].sum()) for _, t in minibatches]
        metrics["loss/ptx_avg"] = sum(terms) / len(terms)
    return metrics


def behaviour_gap(batch: TokenBatch, terms: dict[str, Tensor]) -> float:
    """Mean |behaviour log-probability - recomputed one| in nats per token, before any step.

    Near 0 where the sampler and the learner see the same distribution; bf16 leaves about 0.01.
    """
    name = "sampled_logprobs" if "sampled_logprobs" in batch.streams else "behaviour_logprobs"
    gap = (terms["new_logprobs"] - batch.stream(name)).abs()
    return float(masked.mean(gap, batch.learn))


def explain_gap(gap: float) -> str:
    """Say what it means that sampler and learner differ by `gap` nats a token."""
    return (
        f"the sampler's log-probabilities differ from the learner's by {gap:.3g} nats a token "
        "before the first step, expected about 0: they do not see the same distribution (another "
        "temperature, other weights, dropout, or positions that padding shifted), so ratios and "
        "KL are wrong"
    )
