"""Likelihood of demonstrations."""

from __future__ import annotations

import torch
from torch import Tensor

from heed.errors import DataError


def nll(logprobs: Tensor, learn: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the negative logprob of each learned token: -weight * logprob.

    Args:
        logprobs: [B, T] nats.
        learn: [B, T] bool.
        weights: per token [B, T] or per row [B], 0 or above; None for 1. Weights change a token's
            pull, not the count that `masked.reduce` divides by.

    Returns:
        [B, T] nats, unreduced, 0 where not learned.

    Raises:
        DataError: the weights fit neither rows nor tokens.
    """
    nothing = torch.zeros_like(logprobs)
    values = -torch.where(learn, logprobs, nothing)
    if weights is None:
        return values
    if weights.shape == logprobs.shape[:1]:
        weights = weights.unsqueeze(1).expand_as(logprobs)
    if weights.shape != logprobs.shape:
        raise DataError(
            f"weights have shape {tuple(weights.shape)}, expected {tuple(logprobs.shape)} "
            f"or {tuple(logprobs.shape[:1])}"
        )
    return values * torch.where(learn, weights.to(values.dtype), nothing)
