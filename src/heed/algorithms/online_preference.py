"""Learning online from comparisons: sample, let somebody compare, learn from who won.

    for each update, in the loop of `heed.algorithms.online`:
        (the reference <- alpha pi + (1 - alpha) ref every so many updates, where it follows)
        y ~ policy(. | x);  y' ~ rival(. | x)       the policy, the reference, or a demonstration
        p = probability that y is better            scores, or a judge
        for each epoch, for each shuffled minibatch of pairs:
            loss = mean of a row of `preference_rows`, plus alpha log pi(y') in XPO

Nash-MD has no pairs: its score is p against the mixture of policy and reference, and it learns by
policy gradient with the KL in the reward, so it is `online.update_once` with another scorer.

Sources: `comparison_presets` has those of the rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from heed import credit, masked
from heed.algorithms import online
from heed.algorithms.advantages import shaped_scores
from heed.algorithms.comparers import make_comparison_parts
from heed.algorithms.gather import collected
from heed.algorithms.live_labels import LiveLabels
from heed.algorithms.live_pairs import live_pairs
from heed.algorithms.online_metrics import OF_SCORES, Metrics, SequenceKl, rollout_metrics
from heed.algorithms.online_pairs import Labelled, labelled_pairs, own_groups
from heed.algorithms.online_preference_config import OnlinePreferenceConfig
from heed.algorithms.online_run import run_online
from heed.algorithms.online_settings import OnlineSettings
from heed.algorithms.parts import Parts
from heed.algorithms.preference_loss import lay_out, preference_loss, with_whole_batch
from heed.algorithms.references import Live
from heed.algorithms.rollouts import Experience, experience
from heed.algorithms.updates import Steering, minibatches
from heed.data.batch import PairBatch
from heed.data.order import Order
from heed.data.render import Renderer
from heed.feedback.unscored import Unscored
from heed.learners.base import LossTerms, Outputs, PairLoss
from heed.learners.local import LocalLearner
from heed.learners.reference import MovingReference
from heed.losses.preference import exploration_bonus
from heed.records import RolloutGroup
from heed.runs.run import Run
from heed.runs.sinks import Sink

__all__ = ["OnlinePreferenceConfig", "run", "update_pairs"]


def run(config: OnlinePreferenceConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Optimise, and leave the policy in `RUN/model`; raises as `run_online`."""

    def make(_: OnlineSettings, run: Run, causal: nn.Module, renderer: Renderer) -> Parts:
        return make_comparison_parts(config, run, causal, renderer)

    step = online.update_once if config.row.gradient else update_pairs
    return run_online("online_preference", config, sinks, make=make, step=step)


def update_pairs(
    config: OnlineSettings,
    run: Run,
    parts: Parts,
    steering: Steering,
    order: Order,
    cursor: int,
    update: int,
) -> tuple[Metrics, int]:
    """One update; returns its metrics, and how many batches of prompts were drawn by now."""
    assert isinstance(config, OnlinePreferenceConfig)
    began = time.monotonic()
    if update > 1 and (update - 1) % config.ref_model_sync_updates == 0:
        _follow(config, parts)
    prompts = [parts.prompts[i] for i in order.batch(cursor)]
    groups = collected(config, run, parts, prompts, update)
    allowed = config.max_failed_frac
    scored = not isinstance(parts.scorer, Unscored)
    seen = experience(
        groups, parts.renderer, 1.0, allowed, parts.ending, sampled=False, scored=scored
    )
    temperature = config.sampling.temperature
    mine = own_groups(config, groups)
    own = experience(mine, parts.renderer, temperature, 1.0, parts.ending, scored=scored)
    found, heard = labelled(config, run, parts, groups, seen, update)
    sampled = time.monotonic()
    reference = parts.reference.forward(own.batch).logprobs
    assert reference is not None
    batch = own.batch.with_streams(reference_logprobs=reference)
    scores = shaped_scores(config, own)
    rewards = credit.place_score(scores, batch.learn)
    metrics = rollout_metrics(own, scores, rewards, batch, SequenceKl.of(batch))
    if not scored:
        metrics = {name: value for name, value in metrics.items() if name not in OF_SCORES}
    metrics |= heard
    credited = time.monotonic()
    rate = parts.policy.learning_rate
    metrics |= learn_pairs(config, run, parts, found, update)
    metrics |= pair_metrics(found, rate)
    metrics |= {
        "episode": update * config.batch_size,
        "num_failed": seen.num_failed,
        "time/rollout_seconds": sampled - began,
        "time/credit_seconds": credited - sampled,
        "time/train_seconds": time.monotonic() - credited,
        "samples_per_second": len(seen.completions) / (time.monotonic() - began),
    }
    return metrics, cursor + 1


def labelled(
    config: OnlinePreferenceConfig,
    run: Run,
    parts: Parts,
    groups: Sequence[RolloutGroup],
    seen: Experience,
    update: int,
) -> tuple[Labelled, Metrics]:
    """The pairs that an update learns from: its own, or those that people have answered by now."""
    if isinstance(parts.live, LiveLabels):
        return live_pairs(config, run, parts, parts.live, groups, seen, update)
    return labelled_pairs(config, parts, groups, seen), {}


def _follow(config: OnlinePreferenceConfig, parts: Parts) -> None:
    if isinstance(parts.reference, MovingReference):
        assert isinstance(parts.policy, LocalLearner)
        parts.reference.follow(parts.policy, config.ref_model_mixup_alpha)


def learn_pairs(
    config: OnlinePreferenceConfig, run: Run, parts: Parts, found: Labelled, update: int
) -> Metrics:
    """Take the update's optimiser steps; returns means over minibatches.

    An update without a pair takes none, and says so; where people label, that is no news.
    """
    if not found.rows:
        if parts.live is not None:
            return {}
        why = f"{found.num_ties} ties, {found.num_equal} equal, {found.num_missing} with a failure"
        run.warn(update, "pairs/num", f"no pair is left to learn from ({why})")
        return {}
    assert isinstance(parts.policy, LocalLearner)
    references = Live(parts.reference)
    base = preference_loss(config, parts.reference)
    loss = with_bonus(base, config.xpo_alpha or 0.0)
    sums: dict[str, float] = {}
    norms: list[float] = []
    for rows in minibatches(config, len(found.rows), update):
        batch = lay_out(config, references, [found.rows[i] for i in rows])
        batch = with_whole_batch(config, parts.policy, batch)
        rival = torch.tensor([float(found.rival_chosen[i]) for i in rows])
        batch = replace(batch, chosen=batch.chosen.with_row_values(rival_chosen=rival))
        terms = parts.policy.backward(batch, loss, len(batch), also=config.also)
        norms.append(parts.policy.step())
        for name, values in terms.items():
            sums[name] = sums.get(name, 0.0) + float(values.mean())
    means: Metrics = {name: total / len(norms) for name, total in sums.items()}
    return means | {"policy/grad_norm": sum(norms) / len(norms)}


def with_bonus(base: PairLoss, alpha: float) -> PairLoss:
    """A loss of pairs plus alpha log pi(the rival's completion), unreduced [b]; itself at 0."""
    if alpha == 0:
        return base

    def loss(chosen: Outputs, rejected: Outputs, batch: PairBatch) -> LossTerms:
        terms = base(chosen, rejected, batch)
        assert chosen.logprobs is not None
        assert rejected.logprobs is not None
        sides = (
            masked.sum(chosen.logprobs, batch.chosen.learn, dim=1),
            masked.sum(rejected.logprobs, batch.rejected.learn, dim=1),
        )
        rival: Tensor = torch.where(batch.chosen.row_values("rival_chosen") > 0, *sides)
        values = terms.values + exploration_bonus(rival, alpha)
        return LossTerms(values, terms.metrics | {"logps/rival": rival.detach()})

    return loss


def pair_metrics(found: Labelled, rate: float) -> Metrics:
    """Figures of the pairs themselves."""
    num = len(found.rows)
    return {
        "learning_rate": rate,
        "pairs/num": num,
        "pairs/num_ties": found.num_ties,
        "pairs/num_equal": found.num_equal,
        "pairs/num_missing": found.num_missing,
        "pairs/label": sum(pair.p for pair, *_ in found.rows) / num if num else None,
        "pairs/rival_chosen_frac": sum(found.rival_chosen) / num if num else None,
    }
