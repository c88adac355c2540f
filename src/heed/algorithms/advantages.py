"""From scores to advantages on tokens: the columns baseline, scale, credit, whitening and KL.

s = score, after the rules for completions that do not end or are too long
r_t = s at the last token, minus beta KL_t where the KL stands in the reward
with values:     A, returns = GAE(r, V)
without values:  A_t = (R - baseline, or what comes from token t on - baseline) / scale
A whitened over the batch, where the method does so
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from heed import credit, kl, masked
from heed.algorithms.method import Method
from heed.algorithms.online_settings import OnlineSettings
from heed.algorithms.parts import Parts
from heed.algorithms.rollouts import Experience
from heed.data.batch import TokenBatch
from heed.errors import DataError
from heed.feedback.costed import COST
from heed.lagrange import constrained_score
from heed.losses.importance import importance_weights

SCALE_EPS = 1e-4
"""Added to a standard deviation that divides, as in TRL."""

ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "k1": kl.k1,
    "k2": kl.k2,
    "k3": kl.k3,
}


def shaped_scores(config: OnlineSettings, seen: Experience, multiplier: float = 0.0) -> Tensor:
    """Apply the rules for completions that do not end or are too long, before any KL. [B]

    `missing_eos_score` replaces the score (Ziegler, N+ detail 23: -1); `missing_eos_penalty` is
    subtracted from it (TRL); near the longest length it falls linearly (DAPO). Last, the cost is
    taken off at the price `multiplier`.
    """
    unended = ~seen.ended
    scores = seen.scores
    if config.missing_eos_score is not None:
        scores = torch.where(unended, config.missing_eos_score, scores)
    elif config.missing_eos_penalty is not None:
        scores = scores - config.missing_eos_penalty * unended
    if config.overlong:
        last, cost = config.overlong
        lengths = torch.tensor([float(c.num_tokens) for c in seen.completions])
        longest = config.sampling.max_tokens
        scores = scores + cost * credit.overlong_penalty(lengths, longest, last)
    if config.cost is not None:
        costs = seen.parts[COST]
        scores = constrained_score(scores, costs, multiplier, rescale=config.cost.rescale)
    return scores


def credited(
    config: OnlineSettings,
    parts: Parts,
    seen: Experience,
    kl_coef: float,
    multiplier: float = 0.0,
) -> tuple[TokenBatch, Tensor, Tensor]:
    """Write reference log-probabilities and advantages on the tokens; values and returns too.

    Returns:
        the batch, the shaped scores [B], and the rewards [B, T] before whitening.
    """
    method = config.method
    batch = _corrected(method, parts, seen.batch)
    reference = parts.reference.forward(batch).logprobs
    assert reference is not None
    scores = shaped_scores(config, seen, multiplier)
    rewards = credit.place_score(scores, batch.learn)
    if method.kl_place == "reward":
        per_token = ESTIMATORS[method.kl_estimator](batch.stream("behaviour_logprobs"), reference)
        rewards = rewards + kl.reward_penalty(per_token, kl_coef, batch.learn)
    batch = batch.with_streams(reference_logprobs=reference)
    if method.has_values:
        batch = _with_values(method, parts, batch, rewards)
    else:
        greedy = (
            None if seen.greedy is None else _by_group(config, seen.greedy, seen.group, multiplier)
        )
        advantages = without_values(method, rewards, scores, batch.learn, seen.group, greedy)
        batch = batch.with_streams(advantages=advantages)
    if method.whiten_advantages == "batch":
        whitened = masked.whiten(batch.stream("advantages"), batch.learn)
        batch = batch.with_streams(advantages=whitened)
    return batch, scores, rewards


def _with_values(method: Method, parts: Parts, batch: TokenBatch, rewards: Tensor) -> TokenBatch:
    values = parts.value_learner.forward(batch).values
    assert values is not None
    if method.whiten_rewards:
        rewards = masked.whiten(rewards, batch.learn, shift_mean=False)
    advantages, returns = credit.gae(rewards, values, batch.learn, method.gamma, method.lam)
    return batch.with_streams(old_values=values, advantages=advantages, returns=returns)


def _by_group(
    config: OnlineSettings, greedy: Experience, group: Tensor, multiplier: float
) -> Tensor:
    """The shaped score of each completion's greedy sibling. [B]"""
    scores = shaped_scores(config, greedy, multiplier)
    places = {int(place): i for i, place in enumerate(greedy.group)}
    return scores[[places[int(place)] for place in group]]


def _corrected(method: Method, parts: Parts, batch: TokenBatch) -> TokenBatch:
    """Let the learner's own probabilities stand for the sampler's, with importance weights."""
    if method.importance_sampling == "none":
        return batch
    level, _, how = method.importance_sampling.partition("_")
    sampled = batch.stream("behaviour_logprobs")
    own = parts.policy.forward(batch).logprobs
    assert own is not None
    weights = importance_weights(
        own,
        sampled,
        batch.learn,
        level,  # type: ignore[arg-type]
        how,  # type: ignore[arg-type]
        method.importance_sampling_cap,
    )
    return batch.with_streams(sampled_logprobs=sampled, behaviour_logprobs=own, weights=weights)


# -- without a value model ------------------------------------------------------------------------


def without_values(
    method: Method,
    rewards: Tensor,
    scores: Tensor,
    learn: Tensor,
    group: Tensor,
    greedy: Tensor | None = None,
) -> Tensor:
    """Compute advantages from rewards alone.

    A_t = (R - baseline) / scale                                        credit "sequence"
    A_t = (sum of the rewards from token t on - baseline) / scale       credit "token"

    A completion whose siblings all failed has nothing to be compared with, and learns nothing,
    where the method compares.

    Args:
        rewards: [B, T], 0 where not learned; R is a row's sum.
        scores: [B] the score alone, which says whether a group varies.
        learn: [B, T] bool.
        group: [B] int64.
        greedy: [B] the score of the prompt's greedy completion, for the baseline "greedy".

    Returns:
        [B, T], 0 where not learned.
    """
    whole = rewards.sum(1)
    usable = torch.ones_like(group, dtype=torch.bool)
    if method.needs_groups:
        usable = credit.group_size(group) > 1
    if not bool(usable.any()):
        return torch.zeros_like(rewards)
    totals, kinds, points = whole[usable], group[usable], scores[usable]
    compared = None if greedy is None else greedy[usable]
    centred = torch.zeros_like(whole)
    centred[usable] = BASELINES[method.baseline](method, totals, kinds, compared)
    divisor = torch.ones_like(whole)
    divisor[usable] = SCALES[method.scale_rewards](totals, kinds, points)
    advantages = credit.broadcast(centred, learn)
    if method.credit == "token":
        later = credit.discounted_returns(rewards, learn, method.gamma)
        advantages = advantages + later - credit.broadcast(whole, learn)
    advantages = torch.where(usable[:, None], advantages, torch.zeros_like(advantages))
    return advantages / divisor[:, None]


def _above_greedy(method: Method, rewards: Tensor, group: Tensor, greedy: Tensor | None) -> Tensor:
    assert greedy is not None
    return rewards - greedy


def _over_mean(rewards: Tensor, group: Tensor, scores: Tensor) -> Tensor:
    if bool((scores < 0).any()):
        raise DataError(
            f"the lowest score is {float(scores.min()):.4g}, and scale_rewards 'mean' divides by a "
            "group's mean score, which is right for scores of 0 and above; shift or rescale them"
        )
    mean = credit.group_mean(scores, group)
    return torch.where(mean > 0, mean, torch.ones_like(mean))


def _over_varied(rewards: Tensor, group: Tensor, scores: Tensor) -> Tensor:
    varied = 1.0 - credit.constant_group_frac(scores, group)
    return torch.full_like(rewards, varied if varied > 0 else 1.0)


BASELINES: dict[str, Callable[[Method, Tensor, Tensor, Tensor | None], Tensor]] = {
    "none": lambda method, rewards, group, greedy: rewards,
    "batch": lambda method, rewards, group, greedy: credit.group_centred(
        rewards, torch.zeros_like(group)
    ),
    "group": lambda method, rewards, group, greedy: credit.group_centred(rewards, group),
    "leave_one_out": lambda method, rewards, group, greedy: credit.leave_one_out(rewards, group),
    "greedy": _above_greedy,
    "even": lambda method, rewards, group, greedy: rewards - 0.5,
    "best": lambda method, rewards, group, greedy: credit.best_of_group(rewards, group),
    "above": lambda method, rewards, group, greedy: (rewards >= method.threshold).to(rewards),
    "softmax": lambda method, rewards, group, greedy: credit.softmax_of_group(
        rewards, group, method.softmax_temperature
    ),
}
"""Whole rewards [B], groups [B] and greedy scores -> rewards above the baseline [B]."""

SCALES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "none": lambda rewards, group, scores: torch.ones_like(rewards),
    "group": lambda rewards, group, scores: credit.group_std(rewards, group) + SCALE_EPS,
    "batch": lambda rewards, group, scores: (
        credit.group_std(rewards, torch.zeros_like(group)) + SCALE_EPS
    ),
    "mean": _over_mean,
    "varied": _over_varied,
}
"""Whole rewards [B], groups [B] and scores [B] -> what advantages are divided by [B]."""
