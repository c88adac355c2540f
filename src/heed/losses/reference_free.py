"""Losses of pairs that need no reference: of log-probabilities, or their means over tokens.

`p` [B] is the probability that chosen is better, as in `heed.losses.preference`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from heed.errors import ConfigError
from heed.losses.preference import check_pairs


def simpo(
    chosen: Tensor,
    rejected: Tensor,
    beta: float,
    gamma: float,
    p: Tensor | None = None,
) -> Tensor:
    """Ask that mean log-probabilities differ by a margin.

    loss = -log sigmoid( beta (chosen - rejected) - gamma )

    Args:
        chosen, rejected: [B] nats, mean over the reply's tokens.
        beta: above 0; the paper's best lie from 2 to 10.
        gamma: the margin in the unit of beta x nats; the paper's best lie from 0.1 to 0.8 beta.
        p: of a pair that is turned round the margin is turned too.

    Differs: TRL's `label_smoothing` keeps the margin on the side of chosen for a flipped label, so
    that at e = 1/2 chosen would still be favoured.

    Source: Meng et al. 2024, equation 6.
    """
    check_pairs(chosen, rejected, p)
    if not beta > 0:
        raise ConfigError(f"beta is {beta}, expected above 0")
    z = beta * (chosen - rejected)
    if p is None:
        return -F.logsigmoid(z - gamma)
    p = p.to(z.dtype)
    return -p * F.logsigmoid(z - gamma) - (1.0 - p) * F.logsigmoid(-z - gamma)


def alpha_reward(mean_logprobs: Tensor, alpha: float) -> Tensor:
    """Bend the reward of SimPO: (1 - q^-alpha) / alpha, q = exp(mean log-probability).

    alpha = 0 is its limit log q. Give the result to `simpo` for AlphaPO.

    Source: Gupta et al. 2025 (AlphaPO); formula as in TRL's CPO trainer.
    """
    if alpha == 0:
        return mean_logprobs
    return -torch.expm1(-alpha * mean_logprobs) / alpha


def log_odds(mean_logprobs: Tensor) -> Tensor:
    """Log-odds of a probability given by its logarithm: x - log(1 - exp(x)), x below 0."""
    x = mean_logprobs
    # Two forms of log(1 - e^x), each exact on its side of -log 2.
    far, near = x.clamp(max=-math.log(2.0)), x.clamp(min=-math.log(2.0))
    rest = torch.where(
        x < -math.log(2.0), torch.log1p(-torch.exp(far)), torch.log(-torch.expm1(near))
    )
    return x - rest


def odds_ratio(chosen: Tensor, rejected: Tensor, p: Tensor | None = None) -> Tensor:
    """Raise the odds of chosen over those of rejected: -log sigmoid(log-odds ratio).

    ORPO adds it, times lambda, to the likelihood of chosen.

    Args:
        chosen, rejected: [B] nats, mean over the reply's tokens, below 0.

    Source: Hong et al. 2024, equations 4 and 7.
    """
    check_pairs(chosen, rejected, p)
    gap = log_odds(chosen) - log_odds(rejected)
    if p is None:
        return -F.logsigmoid(gap)
    p = p.to(gap.dtype)
    return -p * F.logsigmoid(gap) - (1.0 - p) * F.logsigmoid(-gap)
