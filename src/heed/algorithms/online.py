"""The online loop: sample, score, credit, learn, hand the weights back.

    for each update:
        y ~ policy(. | x)                                  behaviour log-probabilities are kept
        s = score(x, y); changed where y does not end or is too long
        r_t = s at the last token, minus beta KL_t where the KL stands in the reward
        (s <- s - lambda cost, where a cost is held at a limit)
        A = credit(r)                                      values, a baseline, or the group
        for each epoch, for each shuffled minibatch:
            policy: surrogate(ratio, A), plus beta KL_t where the KL stands in the loss
            value:  0.5 max((V - R)^2, (clip(V) - R)^2), where the method has values
        beta <- controller(KL);  lambda <- multiplier(cost)

A method is a row of columns (`method`, `presets`); the loop knows none by its name. The columns
are read in `gather` (what is sampled), `advantages` (credit) and `updates` (losses, averages).

Sources: Ziegler et al. 2019, section 2.2; Stiennon et al. 2020, section 3.3; `presets` has those of
the rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from heed import kl
from heed.algorithms import rollouts
from heed.algorithms.advantages import credited
from heed.algorithms.gather import gather
from heed.algorithms.online_metrics import (
    MOST_BEHAVIOUR_GAP,
    Metrics,
    SequenceKl,
    behaviour_gap,
    explain_gap,
    group_metrics,
    rollout_metrics,
    training_metrics,
)
from heed.algorithms.online_settings import OnlineSettings
from heed.algorithms.parts import Parts
from heed.algorithms.rollouts import Experience
from heed.algorithms.updates import Steering, learn
from heed.data.batch import TokenBatch
from heed.data.order import Order
from heed.feedback.costed import COST
from heed.learners.base import Learner
from heed.learners.reference import MovingReference
from heed.learners.resume import Checkpoints
from heed.records import PolicyRef
from heed.runs.run import Run

Step = Callable[[OnlineSettings, Run, Parts, Steering, Order, int, int], tuple[Metrics, int]]
"""One update of a loop; its metrics, and how many batches of prompts were drawn by then."""


def optimise(config: OnlineSettings, run: Run, parts: Parts, step: Step | None = None) -> None:
    """Run the loop of the module's docstring, with checkpoints, to its last update.

    Args:
        step: one update; `update_once` by default.
    """
    once = step or update_once
    learners = {"policy": parts.policy} | ({"value": parts.value} if parts.value else {})
    if isinstance(parts.reference, MovingReference):
        learners["reference"] = cast(Learner, parts.reference)
    checkpoints = Checkpoints(run, learners, config.run)
    steering = Steering(config)
    start, state = checkpoints.resume()
    if state:
        steering.load_state(state["controller"])
    if parts.live is not None:
        parts.live.resume(start, state.get("live", {}))
    order = Order(len(parts.prompts), config.num_prompts, config.run.seed, "prompts")
    cursor = int(state.get("cursor", start)) if state else 0
    run.stage(config.stage_title, config.num_updates)
    parts.engine.load(None, PolicyRef(run=run.folder.name, step=start))
    if start == 0:
        run.log(0, parts.watch.look(0), total=config.num_updates)
    for update in range(start + 1, config.num_updates + 1):
        metrics, cursor = once(config, run, parts, steering, order, cursor, update)
        parts.engine.load(None, PolicyRef(run=run.folder.name, step=update))
        if update % config.eval_every == 0 or update == config.num_updates:
            metrics |= parts.watch.look(update)
        metrics["epoch"] = order.epoch(cursor)
        run.log(update, metrics, total=config.num_updates)
        state = {"controller": steering.state(), "cursor": cursor}
        if parts.live is not None:
            state["live"] = parts.live.state()
        written = checkpoints.maybe_write(update, state, last=update == config.num_updates)
        if written and not config.keep_rollouts:
            rollouts.drop_rollouts(run, before=update + 1)


def update_once(
    config: OnlineSettings,
    run: Run,
    parts: Parts,
    steering: Steering,
    order: Order,
    cursor: int,
    update: int,
) -> tuple[Metrics, int]:
    """One update; returns its metrics, and how many batches of prompts were drawn by now."""
    began = time.monotonic()
    gathered = gather(config, run, parts, order, cursor, update)
    seen = gathered.seen
    sampled = time.monotonic()
    coef = steering.kl.coef
    batch, scores, rewards = credited(config, parts, seen, coef, steering.multiplier)
    exact = None
    if parts.exact_kl and config.exact_kl_rows:
        few = batch.select(range(min(config.exact_kl_rows, len(batch))))
        exact = float(parts.exact_kl(few).mean())
    credited_at = time.monotonic()
    rate = parts.policy.learning_rate
    terms, norms = learn(config, parts, _taught(config, seen, batch), update, coef)
    divergence = SequenceKl.of(batch)
    metrics = rollout_metrics(seen, scores, rewards, batch, divergence)
    metrics |= group_metrics(config, seen, batch)
    metrics |= training_metrics(terms, norms)
    metrics["kl_error"] = steering.kl.update(divergence.k1, len(seen.completions))
    metrics |= steering.priced(seen.parts.get(COST))
    if config.max_refills:
        metrics["sampling/num_refills"] = gathered.num_refills
        metrics["sampling/groups_left_out"] = gathered.num_left_out
    metrics |= {
        "kl_coef": coef,
        "learning_rate": rate,
        "episode": update * config.batch_size,
        "num_failed": seen.num_failed,
        "objective/kl_exact": exact,
        "time/rollout_seconds": sampled - began,
        "time/credit_seconds": credited_at - sampled,
        "time/train_seconds": time.monotonic() - credited_at,
        "samples_per_second": len(seen.completions) / (time.monotonic() - began),
    }
    if terms:
        _alarm(run, update, divergence, *terms[0])
    return metrics, gathered.cursor


def _taught(config: OnlineSettings, seen: Experience, batch: TokenBatch) -> TokenBatch:
    """The batch, without the tokens of completions that shall teach nothing."""
    teaches = torch.ones_like(seen.ended)
    if config.drops_truncated:
        teaches = teaches & seen.ended
    if config.method.selects:
        teaches = teaches & (batch.stream("advantages") != 0).any(1)
    return batch if bool(teaches.all()) else replace(batch, learn=batch.learn & teaches[:, None])


def _alarm(
    run: Run,
    update: int,
    divergence: SequenceKl,
    batch: TokenBatch,
    terms: dict[str, Tensor],
) -> None:
    """Warn where sampler and learner do not see the same distribution, and name the cause.

    Args:
        batch, terms: of the first minibatch, before any step.
    """
    gap = behaviour_gap(batch, terms)
    if gap > MOST_BEHAVIOUR_GAP:
        run.warn(update, "val/ratio_first_max_deviation", explain_gap(gap))
    if divergence.standard_error is None:
        return
    cause = kl.diagnose(divergence.k1, divergence.k3, divergence.standard_error, behaviour_gap=gap)
    if cause:
        run.warn(update, "objective/kl", cause)
