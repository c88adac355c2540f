"""Weights that undo the difference between the sampler's and the learner's probabilities."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from heed.errors import ConfigError

Level = Literal["token", "sequence"]
How = Literal["truncate", "mask"]


@torch.no_grad()
def importance_weights(
    logprobs: Tensor, sampled_logprobs: Tensor, learn: Tensor, level: Level, how: How, cap: float
) -> Tensor:
    """Weigh what was sampled by learner / sampler probability, bounded.

    w_t = exp(logprob_t - sampled_t), or for level "sequence" exp of their sum over the completion
    truncate: min(w, cap)                              TIS: bounded variance, a bias where w > cap
    mask:     w where 1 / cap <= w <= cap, else 0      MIS: what is far off teaches nothing

    Args:
        logprobs: [B, T] nats, of the learner, before the update.
        sampled_logprobs: [B, T] nats, as the engine gave them.
        learn: [B, T] bool.
        level: what one weight belongs to.
        how: what happens to a weight that is out of bounds.
        cap: above 1.

    Returns:
        [B, T], detached; 1 where not learned.

    Raises:
        ConfigError: the cap is not above 1, or level or how is unknown.

    Source: TIS (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
    training"); masks at both ends IcePop (Ling team 2025).
    """
    if not cap > 1:
        raise ConfigError(f"the cap of importance weights is {cap}, expected above 1")
    if level not in ("token", "sequence") or how not in ("truncate", "mask"):
        raise ConfigError(
            f"level is {level!r} and how is {how!r}; expected token or sequence, truncate or mask"
        )
    log_weight = torch.where(learn, logprobs - sampled_logprobs, torch.zeros_like(logprobs))
    if level == "sequence":
        log_weight = log_weight.sum(1, keepdim=True).expand_as(log_weight)
    weight = log_weight.exp()
    if how == "truncate":
        weight = weight.clamp(max=cap)
    else:
        outside = (weight > cap) | (weight < 1.0 / cap)
        weight = weight.masked_fill(outside, 0.0)
    return torch.where(learn, weight, torch.ones_like(weight))
