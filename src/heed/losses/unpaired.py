"""Losses of single replies that were called good or bad: one value per reply, unreduced.

`log_ratio` is a = log pi(reply) - log ref(reply) in nats [B]; `p` [B] the probability that the
reply is good, 1 and 0 for plain labels. What depends on the whole batch, the baseline, comes in as
a number: it is measured over the whole batch before the first micro-batch.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from heed.errors import ConfigError, DataError


def kto(
    log_ratio: Tensor,
    p: Tensor,
    baseline: Tensor | float,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Move good replies above, bad ones below a baseline, by a value that saturates both ways.

    good: desirable_weight (1 - sigmoid(beta (a - z0)))
    bad:  undesirable_weight (1 - sigmoid(beta (z0 - a)))

    Args:
        baseline: z0 in nats, 0 or above, without gradient (`kto_baseline`); 0 gives APO-zero.

    Source: Ethayarajh et al. 2024, equations 7 and 8.
    """
    _check(log_ratio, p, beta)
    p = p.to(log_ratio.dtype)
    z = beta * (log_ratio - baseline)
    good = desirable_weight * (1.0 - z.sigmoid())
    bad = undesirable_weight * (1.0 - (-z).sigmoid())
    return p * good + (1.0 - p) * bad


def kto_baseline(mismatched: Tensor) -> Tensor:
    """Estimate how far the policy is from the reference: max(0, mean of log-ratios), a scalar.

    Args:
        mismatched: [B] log-ratios of other prompts' replies, of the whole batch.

    Source: Ethayarajh et al. 2024 (KTO).
    """
    return mismatched.detach().mean().clamp(min=0.0)


def bco(log_ratio: Tensor, p: Tensor, shift: Tensor | float, beta: float) -> Tensor:
    """Classify replies by their implicit reward beside the mean reward.

    r = beta a;  good: -log sigmoid(r - shift);  bad: -log sigmoid(shift - r)

    Args:
        shift: mean of the rewards r seen so far, without gradient.

    Source: Jung et al. 2024 (BCO).
    """
    _check(log_ratio, p, beta)
    p = p.to(log_ratio.dtype)
    z = beta * log_ratio - shift
    return -p * F.logsigmoid(z) - (1.0 - p) * F.logsigmoid(-z)


def _check(log_ratio: Tensor, p: Tensor, beta: float) -> None:
    if not beta > 0:
        raise ConfigError(f"beta is {beta}, expected above 0")
    if log_ratio.dim() != 1 or log_ratio.shape != p.shape:
        raise DataError(
            f"found log-ratios {tuple(log_ratio.shape)} and labels {tuple(p.shape)}; "
            "expected the same [B]"
        )
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise DataError("a label is outside [0, 1]; expected the probability that a reply is good")
