"""Losses of policy optimisation: surrogates, the value loss, and what they report.

All take and return [B, T]; entries that are not learned are 0 and have no gradient.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from heed import masked
from heed.errors import ConfigError

Level = Literal["token", "sequence", "sequence_mean", "sequence_mean_token"]

LEAST_LOG_RATIO, MOST_LOG_RATIO = -18.420680743952367, 20.0
"""Bounds of a completion's log-ratio in `gamma_weight`: log 1e-8, and 20."""


class SurrogateTerms(NamedTuple):
    """What a surrogate returns, all [B, T].

    values: the loss, unreduced.
    ratio: policy / behaviour policy, detached; 1 where not learned.
    clipped_low, clipped_high: bool, where the lower or the upper bound is in force, so that the
        token has no gradient.
    """

    values: Tensor
    ratio: Tensor
    clipped_low: Tensor
    clipped_high: Tensor


def clipped_surrogate(
    logprobs: Tensor,
    behaviour_logprobs: Tensor,
    advantages: Tensor,
    learn: Tensor,
    low: float | None = 0.2,
    high: float | None = 0.2,
    level: Level = "token",
    most: float | None = None,
) -> SurrogateTerms:
    """Compute the pessimistic, clipped policy-gradient loss.

    loss = max( -A min(r, most), -A clip(r, 1 - low, 1 + high) )
    token:          r_t = exp(logprob_t - behaviour_t)                        PPO, GRPO, DAPO
    sequence:       r   = exp(sum_t (logprob_t - behaviour_t))                RLOO
    sequence_mean:  r   = exp(mean_t (logprob_t - behaviour_t))               GSPO
    sequence_mean_token: the same value; its gradient belongs to token t      GSPO-token

    A ratio per sequence is given to each of its learned tokens; reduce it by "sequence".

    Args:
        logprobs: [B, T] nats, of the policy, with gradient.
        behaviour_logprobs: [B, T] nats, of the policy that sampled.
        advantages: [B, T].
        learn: [B, T] bool.
        low: the ratio's room below 1, in [0, 1]; None for no bound.
        high: the ratio's room above 1, 0 or above; None for no bound.
        level: what one ratio belongs to.
        most: dual clip: a larger ratio counts as this where the advantage is negative, so that the
            loss is at most -most * A; above 1 + high; None for no such bound.

    Raises:
        ConfigError: a bound is out of range or the level is unknown.

    Source: Schulman et al. 2017, equation 7; asymmetric bounds DAPO (Yu et al. 2025);
    sequence_mean GSPO (Zheng et al. 2025), equation 7, sequence_mean_token equation 14; dual clip
    Ye et al. 2020, equation 5.
    """
    _check_bounds(low, high, most)
    advantages = _learned(advantages, learn).detach()
    ratio = _ratio(logprobs, behaviour_logprobs, learn, level)
    bounded = ratio
    if low is not None or high is not None:
        floor = None if low is None else 1.0 - low
        ceiling = None if high is None else 1.0 + high
        bounded = ratio.clamp(floor, ceiling)
    free = ratio if most is None else ratio.clamp(max=most)
    values = torch.maximum(-advantages * free, -advantages * bounded)
    fixed = ratio.detach()
    no = torch.zeros_like(learn)
    too_high = no if high is None else learn & (fixed > 1.0 + high) & (advantages > 0)
    if most is not None:
        too_high = too_high | (learn & (fixed > most) & (advantages < 0))
    return SurrogateTerms(
        values=_learned(values, learn),
        ratio=fixed,
        clipped_low=no if low is None else learn & (fixed < 1.0 - low) & (advantages < 0),
        clipped_high=too_high,
    )


def plain_gradient(
    logprobs: Tensor, behaviour_logprobs: Tensor, advantages: Tensor, learn: Tensor
) -> SurrogateTerms:
    """Compute the policy-gradient loss without a ratio: -A * logprob.

    Right where the tokens come from the policy itself, which is for one step after sampling; the
    ratio is only reported. Arguments as in `clipped_surrogate`.

    Source: Williams 1992, equation 4; GPG (Chu et al. 2025).
    """
    ratio = _ratio(logprobs, behaviour_logprobs, learn, "token").detach()
    values = -_learned(advantages, learn).detach() * _learned(logprobs, learn)
    no = torch.zeros_like(learn)
    return SurrogateTerms(_learned(values, learn), ratio, no, no)


def clipped_weight(
    logprobs: Tensor,
    behaviour_logprobs: Tensor,
    advantages: Tensor,
    learn: Tensor,
    max_ratio: float,
) -> SurrogateTerms:
    """Weight the policy gradient by a bounded ratio, keeping a gradient for every token.

    loss = -stop_gradient(min(r, max_ratio)) * A * logprob

    Args:
        max_ratio: the largest weight, above 0 (not the room above 1).
        Others as in `clipped_surrogate`.

    Returns:
        `clipped_high` marks tokens whose weight is bounded; they still learn.

    Source: CISPO (MiniMax-M1, 2025), equation 4.
    """
    if not max_ratio > 0:
        raise ConfigError(f"max_ratio is {max_ratio}, expected above 0")
    ratio = _ratio(logprobs, behaviour_logprobs, learn, "token").detach()
    weight = ratio.clamp(max=max_ratio) * _learned(advantages, learn).detach()
    values = -weight * _learned(logprobs, learn)
    high = learn & (ratio > max_ratio)
    return SurrogateTerms(_learned(values, learn), ratio, torch.zeros_like(learn), high)


def soft_gate(
    logprobs: Tensor,
    behaviour_logprobs: Tensor,
    advantages: Tensor,
    learn: Tensor,
    level: Level = "token",
    rise: float = 1.0,
    fall: float = 1.05,
) -> SurrogateTerms:
    """Gate the ratio smoothly where the clipped surrogate cuts it off.

    loss = -A * 4 / tau * sigmoid(tau (r - 1)),   tau = rise for A > 0, fall otherwise

    At r = 1 the gradient is that of the plain policy gradient. Others as in `clipped_surrogate`.

    Args:
        rise, fall: temperatures, above 0.

    Returns:
        nothing is marked as clipped.

    Source: SAPO, as TRL 1.16 computes it.
    """
    if not (rise > 0 and fall > 0):
        raise ConfigError(f"rise is {rise} and fall is {fall}, expected both above 0")
    advantages = _learned(advantages, learn).detach()
    ratio = _ratio(logprobs, behaviour_logprobs, learn, level)
    tau = torch.where(advantages > 0, rise, fall).to(ratio.dtype)
    values = -advantages * torch.sigmoid(tau * (ratio - 1.0)) * 4.0 / tau
    no = torch.zeros_like(learn)
    return SurrogateTerms(_learned(values, learn), ratio.detach(), no, no)


def gamma_weight(
    logprobs: Tensor,
    behaviour_logprobs: Tensor,
    advantages: Tensor,
    learn: Tensor,
    rising: tuple[float, float] = (2.0, 3.0),
    falling: tuple[float, float] = (3.0, 2.0),
) -> SurrogateTerms:
    """Weight the policy gradient by a smooth function of the completion's ratio.

    loss = -stop_gradient(phi(w)) * A * logprob,   w = exp(sum_t (logprob_t - behaviour_t))
    phi(w) = e^c w^k e^(-c w),   (k, c) = rising for A >= 0, falling otherwise;   phi(1) = 1

    Each token's log-ratio and their sum are bounded, as in the source.

    Returns:
        `ratio` is the completion's, bounded; nothing is marked as clipped.

    Source: VESPO, as TRL 1.16 computes it.
    """
    advantages = _learned(advantages, learn).detach()
    with torch.no_grad():
        log_ratio = _learned(logprobs - behaviour_logprobs, learn)
        log_ratio = log_ratio.clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO)
        log_w = log_ratio.sum(1, keepdim=True).clamp(LEAST_LOG_RATIO, MOST_LOG_RATIO)
        up = advantages >= 0
        power = torch.where(up, rising[0], falling[0]).to(log_w.dtype)
        rate = torch.where(up, rising[1], falling[1]).to(log_w.dtype)
        weight = (rate + power * log_w - rate * log_w.exp()).exp()
    values = -weight * advantages * _learned(logprobs, learn)
    ratio = _ones_outside(log_w.exp().expand_as(log_ratio), learn)
    no = torch.zeros_like(learn)
    return SurrogateTerms(_learned(values, learn), ratio, no, no)


def clipped_value(
    values: Tensor, old_values: Tensor, returns: Tensor, learn: Tensor, clip: float | None
) -> tuple[Tensor, Tensor]:
    """Compute the value loss, whose step away from the old value is bounded.

    0.5 * max( (v - R)^2, (clip(v, old - clip, old + clip) - R)^2 )

    Args:
        values: [B, T], with gradient.
        old_values: [B, T], of the value model before the update.
        returns: [B, T].
        learn: [B, T] bool.
        clip: in the unit of the values, 0 or above; None for plain squared error.

    Returns:
        loss [B, T], unreduced, the factor 0.5 included; and [B, T] bool, true where the clip is
        in force, so that the value has no gradient.

    Source: lm-human-preferences `train_policy.loss`; the N implementation details, P10.
    """
    # Masked before the square: a NaN outside the mask would otherwise reach the gradient.
    values = _learned(values, learn)
    old_values, returns = _learned(old_values.detach(), learn), _learned(returns.detach(), learn)
    plain = (values - returns).square()
    if clip is None:
        return _learned(0.5 * plain, learn), torch.zeros_like(learn)
    if not clip >= 0:
        raise ConfigError(f"clip is {clip}, expected 0 or above, or None for no clip")
    near = torch.minimum(torch.maximum(values, old_values - clip), old_values + clip)
    bounded = (near - returns).square()
    loss = _learned(0.5 * torch.maximum(plain, bounded), learn)
    return loss, learn & (bounded > plain).detach()


def approx_kl(logprobs: Tensor, behaviour_logprobs: Tensor, learn: Tensor) -> Tensor:
    """Measure how far the policy moved from the behaviour policy: (difference)^2 / 2 per token.

    Returns:
        [B, T] nats, unreduced, detached; its masked mean is the usual `approxkl`.
    """
    return 0.5 * _learned(logprobs - behaviour_logprobs, learn).detach().square()


@torch.no_grad()
def explained_variance(values: Tensor, returns: Tensor, learn: Tensor) -> float | None:
    """Measure how much of the returns the values predict: 1 - var(R - v) / var(R).

    Returns:
        At most 1; 0 for a constant guess; None when the returns do not vary or nothing is learned.
    """
    if int(learn.sum()) == 0:
        return None
    spread = float(masked.std(returns, learn)) ** 2
    if spread == 0:
        return None
    return 1.0 - float(masked.std(returns - values, learn)) ** 2 / spread


def _ratio(logprobs: Tensor, behaviour: Tensor, learn: Tensor, level: Level) -> Tensor:
    log_ratio = _learned(logprobs - behaviour.detach(), learn)
    if level == "token":
        return log_ratio.exp()
    if level not in get_args(Level):
        raise ConfigError(f"level is {level!r}, expected one of {', '.join(get_args(Level))}")
    total = log_ratio.sum(1, keepdim=True)
    if level != "sequence":
        total = total / learn.sum(1, keepdim=True).clamp(min=1)
    ratio = total.exp().expand_as(log_ratio)
    if level == "sequence_mean_token":
        # One in value, so that the ratio is the completion's and the gradient the token's.
        ratio = ratio.detach() * (log_ratio - log_ratio.detach()).exp()
    return _ones_outside(ratio, learn)


def _check_bounds(low: float | None, high: float | None, most: float | None) -> None:
    if low is not None and not 0 <= low <= 1:
        raise ConfigError(f"low is {low}, expected in [0, 1], or None for no bound")
    if high is not None and not high >= 0:
        raise ConfigError(f"high is {high}, expected 0 or above, or None for no bound")
    if most is not None and not most > 1.0 + (high or 0.0):
        raise ConfigError(f"most is {most}, expected above 1 + high, {1.0 + (high or 0.0):g}")


def _learned(values: Tensor, learn: Tensor) -> Tensor:
    return torch.where(learn, values, torch.zeros_like(values))


def _ones_outside(ratio: Tensor, learn: Tensor) -> Tensor:
    return torch.where(learn, ratio, torch.ones_like(ratio))
