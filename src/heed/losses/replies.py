"""Numbers of a whole reply that losses of pairs build on: weights of its tokens, bent log-ratios.

Shape letters are those of `heed.data.batch`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from heed import masked
from heed.errors import ConfigError

Divergence = Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]


def length_weights(learn: Tensor, shared_lengths: Tensor, alpha: float) -> Tensor:
    """Weigh down what a reply has beyond the shorter one of its pair (LD-DPO).

    1 for the first `shared_lengths` learned tokens of a row, `alpha` for those after

    Args:
        learn: [B, T] bool.
        shared_lengths: [B] learned tokens of the shorter side.
        alpha: in [0, 1]; 1 changes nothing, 0 leaves the tail out.

    Returns:
        [B, T], 0 where not learned.

    Source: Liu et al. 2024 (LD-DPO).
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"ld_alpha is {alpha}, expected in [0, 1]")
    place = learn.cumsum(1)
    weights = torch.where(place <= shared_lengths.unsqueeze(1), 1.0, alpha)
    return torch.where(learn, weights, 0.0)


def bend(log_ratio: Tensor, divergence: Divergence, alpha: float = 0.5) -> Tensor:
    """Turn a log-ratio into the implicit reward under another divergence: f'(pi / ref).

    reverse_kl  a        forward_kl  1 - exp(-a)        js_divergence  log 2 + log sigmoid(a)
    alpha_divergence  (exp((alpha - 1) a) - 1) / (alpha - 1), a in the limit alpha = 1

    All are 0 with slope above 0 at a = 0. Exponents are cut off before they overflow.

    Source: Wang et al. 2023 (f-DPO).
    """
    if divergence == "reverse_kl":
        return log_ratio
    largest = 80.0 if log_ratio.dtype != torch.float64 else 700.0
    if divergence == "forward_kl":
        return -torch.expm1((-log_ratio).clamp(max=largest))
    if divergence == "js_divergence":
        return math.log(2.0) + F.logsigmoid(log_ratio)
    if divergence == "alpha_divergence":
        if abs(alpha - 1.0) < 1e-6:
            return log_ratio
        return torch.expm1(((alpha - 1.0) * log_ratio).clamp(max=largest)) / (alpha - 1.0)
    raise ConfigError(
        f"the divergence is {divergence!r}, expected reverse_kl, forward_kl, js_divergence or "
        "alpha_divergence"
    )


def alignment(logprobs: Tensor, log_collision: Tensor, learn: Tensor) -> Tensor:
    """Mean over a reply's tokens of log p(token) - log sum over the vocabulary of p^2, fixed.

    About 0 for a reply that the policy would sample, below for one that it would not.

    Args:
        logprobs, log_collision: [B, T] nats.
        learn: [B, T] bool.

    Returns:
        [B] nats, without gradient; 0 for a row without a learned token.

    Source: Zhou et al. 2024 (WPO), the sampled alignment.
    """
    gap = masked.sum(logprobs.detach() - log_collision.detach(), learn, dim=1)
    return gap / learn.sum(1).clamp(min=1)


def wpo_weights(chosen: Tensor, rejected: Tensor, *, clamped: bool = True) -> Tensor:
    """Weigh a pair by how likely the policy would sample it: exp of both sides' alignment.

    Args:
        chosen, rejected: [B] of `alignment`.
        clamped: at most 1, as in the authors' code; TRL does not clamp.

    Source: Zhou et al. 2024, equation 2.
    """
    weights = (chosen + rejected).detach().exp()
    return weights.clamp(max=1.0) if clamped else weights
