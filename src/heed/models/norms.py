"""RMS norms in one kernel on a CUDA device, where a model's own take eight.

    y = weight x / sqrt(mean(x^2) + eps)

computed in fp32 and rounded once, where the models of transformers round before the weight too. A
norm is exchanged only where numbers show that it computes this.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from heed.models.attention import adopt_attention
from heed.models.device import attend_without_plans


def adopt_kernels(module: nn.Module) -> None:
    """Let the models inside a module attend by `heed.models.attention`.

    On a CUDA device norms are fused as well, and attention has no plans to wait for.
    """
    adopt_attention(module)
    weight = next(module.parameters(), None)
    if weight is not None and weight.is_cuda:
        fuse_norms(module)
        attend_without_plans()


def fuse_norms(module: nn.Module) -> int:
    """Exchange the RMS norms inside a module; returns how many.

    The modules stay what they are for whoever copies, saves or names them: their class alone is
    replaced, by a subclass with another forward pass.
    """
    num = 0
    for part in module.modules():
        kind: Any = type(part)
        if _looks_like_one(part) and (fused := _fused(kind)) is not None:
            part.__class__ = fused
            num += 1
    return num


def _looks_like_one(module: nn.Module) -> bool:
    """Whether it has a norm's one weight and eps, and is not exchanged yet."""
    weight = getattr(module, "weight", None)
    return (
        isinstance(getattr(module, "variance_epsilon", None), float)
        and isinstance(weight, Tensor)
        and weight.ndim == 1
        and len(list(module.parameters())) == 1
        and not issubclass(type(module), _Fused)
    )


class _Fused:
    """The forward pass of an RMS norm as one operator."""

    weight: Tensor
    variance_epsilon: float

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalise the last axis: [..., D] to [..., D], of the input's type."""
        weight = self.weight.to(hidden_states.dtype)
        return nn.functional.rms_norm(hidden_states, weight.shape, weight, self.variance_epsilon)


@cache
def _fused(kind: Any) -> Any:
    """A subclass of a norm's class, or None where it computes something else."""
    fused: Any = type(kind.__name__, (_Fused, kind), {"__module__": kind.__module__})
    try:
        own, mine = kind(16, eps=1e-3), fused(16, eps=1e-3)
    except TypeError:
        return None
    generator = torch.Generator().manual_seed(0)
    weight = 1 + torch.rand(16, generator=generator)
    hidden = torch.randn(8, 16, generator=generator) * torch.logspace(-3, 3, 8)[:, None]
    with torch.no_grad():
        for norm in (own, mine):
            norm.weight.copy_(weight)
        found, expected = mine(hidden), own(hidden)
    return fused if torch.allclose(found, expected, rtol=1e-5, atol=1e-7) else None
