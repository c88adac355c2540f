"""The online loop: sample, score, credit, learn, hand the weights back.

    for each update:
        y ~ policy(. | x)                                  behaviour log-probabilities are kept
        s = score(x, y); replaced or lowered where y does not end
        r_t = -kl_coef * KL_t, plus s at the last token;   whitened without shift, if asked
        A, R = GAE(r, V);                                  A whitened
        for each epoch, for each shuffled minibatch:
            policy: max(-A ratio, -A clip(ratio)) per token, mean over tokens
            value:  0.5 max((V - R)^2, (clip(V) - R)^2) per token, mean over tokens
        kl_coef <- controller(KL)

Sources: Ziegler et al. 2019, section 2.2; Stiennon et al. 2020, section 3.3; the defaults are those
of Huang et al. 2024 ("The N+ Implementation Details of RLHF with PPO"), table 7.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from heed import credit, kl, masked
from heed.algorithms import rollouts
from heed.algorithms.ppo_config import PPOConfig
from heed.algorithms.ppo_metrics import (
    MOST_BEHAVIOUR_GAP,
    SequenceKl,
    behaviour_gap,
    explain_gap,
    rollout_metrics,
    training_metrics,
)
from heed.algorithms.rollouts import Experience
from heed.algorithms.watch import Watch
from heed.data.batch import Row, TokenBatch, collate
from heed.data.order import Order
from heed.data.render import Renderer
from heed.engines.base import Engine
from heed.feedback.base import Scorer
from heed.ids import stream_seed
from heed.learners.base import Evaluator, Learner, LossTerms, Outputs, TokenLoss
from heed.learners.resume import Checkpoints
from heed.losses.likelihood import nll
from heed.losses.policy import clipped_surrogate, clipped_value
from heed.records import PolicyRef, Prompt
from heed.runs.run import Run


@dataclass(frozen=True)
class Parts:
    """What the loop is made of. `value` is None where the policy's own learner gives values."""

    engine: Engine
    policy: Learner
    value: Learner | None
    reference: Evaluator
    scorer: Scorer
    renderer: Renderer
    prompts: Sequence[Prompt]
    ptx_rows: Sequence[Row]
    watch: Watch
    ending: rollouts.Ending = rollouts.AS_SAMPLED
    exact_kl: Callable[[TokenBatch], Tensor] | None = None
    """Sequence KL over the whole vocabulary [B], where it is affordable."""

    @property
    def value_learner(self) -> Learner:
        """Whoever predicts values."""
        return self.value or self.policy


Controller = kl.FixedController | kl.AdaptiveController


def optimise(config: PPOConfig, run: Run, parts: Parts) -> None:
    """Run the loop of the module's docstring, with checkpoints, to its last update."""
    learners = {"policy": parts.policy} | ({"value": parts.value} if parts.value else {})
    checkpoints = Checkpoints(run, learners, config.run)
    controller = make_controller(config)
    start, state = checkpoints.resume()
    if state and config.kl_target is not None:
        controller.load_state(state["controller"])  # a fixed coefficient is that of the settings
    order = Order(len(parts.prompts), config.num_prompts, config.run.seed, "prompts")
    run.stage(config.title, config.num_updates)
    parts.engine.load(None, PolicyRef(run=run.folder.name, step=start))
    if start == 0:
        run.log(0, parts.watch.look(0), total=config.num_updates)
    for update in range(start + 1, config.num_updates + 1):
        prompts = [parts.prompts[i] for i in order.batch(update - 1)]
        metrics, coef = _update(config, run, parts, controller, prompts, update)
        parts.engine.load(None, PolicyRef(run=run.folder.name, step=update))
        if update % config.eval_every == 0 or update == config.num_updates:
            metrics |= parts.watch.look(update)
        metrics |= {"kl_coef": coef, "epoch": order.epoch(update)}
        run.log(update, metrics, total=config.num_updates)
        state = {"controller": controller.state()}
        written = checkpoints.maybe_write(update, state, last=update == config.num_updates)
        if written and not config.keep_rollouts:
            rollouts.drop_rollouts(run, before=update + 1)


def _update(
    config: PPOConfig,
    run: Run,
    parts: Parts,
    controller: Controller,
    prompts: Sequence[Prompt],
    update: int,
) -> tuple[dict[str, float | int | None], float]:
    """One update; returns its metrics and the KL coefficient that it used."""
    began = time.monotonic()
    sampling = config.sampling.model_copy(
        update={"n": config.num_generations, "seed": stream_seed(config.run.seed, "sample", update)}
    )
    groups = rollouts.collect(
        run, update, parts.engine, parts.scorer, prompts, sampling, parts.renderer, parts.ending
    )
    sampled = time.monotonic()
    seen = rollouts.experience(
        groups, parts.renderer, sampling.temperature, config.max_failed_frac, parts.ending
    )
    coef = controller.coef
    batch, scores, rewards = credited(config, parts, seen, coef)
    exact = None
    if parts.exact_kl and config.exact_kl_rows:
        few = batch.select(range(min(config.exact_kl_rows, len(batch))))
        exact = float(parts.exact_kl(few).mean())
    credited_at = time.monotonic()
    rate = parts.policy.learning_rate
    terms, norms = _learn(config, parts, batch, update)
    divergence = SequenceKl.of(batch)
    metrics = rollout_metrics(seen, scores, rewards, batch, divergence)
    metrics |= training_metrics(terms, norms)
    metrics["kl_error"] = controller.update(divergence.k1, len(seen.completions))
    metrics |= {
        "learning_rate": rate,
        "episode": update * config.batch_size,
        "num_failed": seen.num_failed,
        "objective/kl_exact": exact,
        "time/rollout_seconds": sampled - began,
        "time/credit_seconds": credited_at - sampled,
        "time/train_seconds": time.monotonic() - credited_at,
        "samples_per_second": len(seen.completions) / (time.monotonic() - began),
    }
    _alarm(run, update, divergence, *terms[0])
    return metrics, coef


def make_controller(config: PPOConfig) -> Controller:
    """The KL coefficient's controller: adaptive where a target is set, fixed otherwise."""
    if config.kl_target is None:
        return kl.FixedController(config.kl_coef)
    return kl.AdaptiveController(
        config.kl_coef, config.kl_target, horizon=config.kl_horizon, gain=config.kl_gain
    )


def shaped_scores(config: PPOConfig, seen: Experience) -> Tensor:
    """Apply the rule for completions that do not end, before any KL is added. [B]

    `missing_eos_score` replaces the score (Ziegler, N+ detail 23: -1); `missing_eos_penalty` is
    subtracted from it (TRL).
    """
    unended = ~seen.ended
    if config.missing_eos_score is not None:
        return torch.where(unended, config.missing_eos_score, seen.scores)
    if config.missing_eos_penalty is not None:
        return seen.scores - config.missing_eos_penalty * unended
    return seen.scores


def credited(
    config: PPOConfig, parts: Parts, seen: Experience, kl_coef: float
) -> tuple[TokenBatch, Tensor, Tensor]:
    """Write reference log-probabilities, values, advantages and returns on the tokens.

    Returns:
        the batch, the shaped scores [B], and the rewards [B, T] before whitening.
    """
    batch = seen.batch
    reference = parts.reference.forward(batch).logprobs
    values = parts.value_learner.forward(batch).values
    assert reference is not None
    assert values is not None
    estimator = {"k1": kl.k1, "k2": kl.k2, "k3": kl.k3}[config.kl_estimator]
    per_token = estimator(batch.stream("behaviour_logprobs"), reference)
    scores = shaped_scores(config, seen)
    rewards = credit.place_score(scores, batch.learn)
    rewards = rewards + kl.reward_penalty(per_token, kl_coef, batch.learn)
    streamed = rewards
    if config.whiten_rewards:
        streamed = masked.whiten(rewards, batch.learn, shift_mean=False)
    advantages, returns = credit.gae(streamed, values, batch.learn, config.gamma, config.lam)
    if config.whiten_advantages == "batch":
        advantages = masked.whiten(advantages, batch.learn)
    batch = batch.with_streams(
        reference_logprobs=reference, old_values=values, advantages=advantages, returns=returns
    )
    return batch, scores, rewards


def policy_loss(config: PPOConfig) -> TokenLoss:
    """The clipped surrogate, unreduced [b, T]."""

    def loss(outputs: Outputs, batch: TokenBatch) -> LossTerms:
        assert outputs.logprobs is not None
        terms = clipped_surrogate(
            outputs.logprobs,
            batch.stream("behaviour_logprobs"),
            batch.stream("advantages"),
            batch.learn,
            low=config.cliprange,
            high=config.cliprange if config.cliprange_high is None else config.cliprange_high,
        )
        return LossTerms(
            terms.values,
            {
                "ratio": terms.ratio.detach(),
                "clipped_low": terms.clipped_low.float(),
                "clipped_high": terms.clipped_high.float(),
                "new_logprobs": outputs.logprobs.detach(),
                "policy_loss": terms.values.detach(),
            },
        )

    return loss


def value_loss(config: PPOConfig) -> TokenLoss:
    """The clipped value loss times `vf_coef`, unreduced [b, T]."""

    def loss(outputs: Outputs, batch: TokenBatch) -> LossTerms:
        assert outputs.values is not None
        values, clipped = clipped_value(
            outputs.values,
            batch.stream("old_values"),
            batch.stream("returns"),
            batch.learn,
            clip=config.cliprange_value,
        )
        metrics = {"value_clipped": clipped.float(), "value_loss": values.detach()}
        return LossTerms(config.vf_coef * values, metrics)

    return loss


def _both(first: TokenLoss, second: TokenLoss) -> TokenLoss:
    """The sum of two losses of one model (a value head on the policy's own trunk)."""

    def loss(outputs: Outputs, batch: TokenBatch) -> LossTerms:
        a, b = first(outputs, batch), second(outputs, batch)
        return LossTerms(a.values + b.values, {**a.metrics, **b.metrics})

    return loss


def _ptx_loss(coef: float) -> TokenLoss:
    """Negative log-likelihood of pretraining text times `ptx_coef` (InstructGPT), [b, T]."""

    def loss(outputs: Outputs, batch: TokenBatch) -> LossTerms:
        assert outputs.logprobs is not None
        values = nll(outputs.logprobs, batch.learn)
        return LossTerms(coef * values, {"nll": values.detach()})

    return loss


def _learn(
    config: PPOConfig, parts: Parts, batch: TokenBatch, update: int
) -> tuple[list[tuple[TokenBatch, dict[str, Tensor]]], list[float]]:
    """All epochs of one update; returns each minibatch with its metrics, and gradient norms."""
    of_policy, of_value = policy_loss(config), value_loss(config)
    joint = _both(of_policy, of_value)
    seen, norms = [], []
    for index, rows in enumerate(minibatches(config, len(batch), update)):
        mini = batch.select(rows)
        if config.whiten_advantages == "minibatch":
            whitened = masked.whiten(mini.stream("advantages"), mini.learn)
            mini = mini.with_streams(advantages=whitened)
        denominator = mini.num_learned
        if parts.value is None:
            terms = parts.policy.backward(mini, joint, denominator)
        else:
            terms = parts.policy.backward(mini, of_policy, denominator)
            terms = terms | parts.value.backward(mini, of_value, denominator)
            parts.value.step()
        if parts.ptx_rows:
            step = (update - 1) * config.steps_per_update + index
            text = ptx_batch(config, parts, step)
            of_text = parts.policy.backward(text, _ptx_loss(config.ptx_coef), text.num_learned)
            terms["ptx_loss"] = of_text["nll"] / text.num_learned
        norms.append(parts.policy.step())
        seen.append((mini, terms))
    return seen, norms


def minibatches(config: PPOConfig, num_rows: int, update: int) -> list[list[int]]:
    """Row numbers of every minibatch of every epoch; each epoch is shuffled anew."""
    out = []
    for epoch in range(config.num_ppo_epochs):
        generator = torch.Generator().manual_seed(
            stream_seed(config.run.seed, "minibatches", update, epoch)
        )
        order = torch.randperm(num_rows, generator=generator).tolist()
        # Sizes differ by one at most, so that every step counts alike and none is missing.
        count = min(config.num_mini_batches, num_rows)
        bounds = [part * num_rows // count for part in range(count + 1)]
        out += [order[first:last] for first, last in pairwise(bounds)]
    return out


def ptx_batch(config: PPOConfig, parts: Parts, step: int) -> TokenBatch:
    """The pretraining rows that are mixed into optimiser step `step`."""
    order = Order(len(parts.ptx_rows), config.ptx_batch_size, config.run.seed, "ptx")
    rows = [parts.ptx_rows[i] for i in order.batch(step)]
    return collate(rows, pad_id=parts.renderer.pad_id)


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
