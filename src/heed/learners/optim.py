"""The optimiser: Adam with decoupled weight decay, its schedule, and fp32 masters of bf16 weights.

    m <- b1 m + (1 - b1) g          v <- b2 v + (1 - b2) g^2
    torch:       w <- w - lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps)
    tensorflow:  w <- w - lr / (1 - b1^t) * m / ((sqrt(v) + eps) / sqrt(1 - b2^t))

Sources: Kingma and Ba 2015; Loshchilov and Hutter 2019 (decay); for where eps enters, Huang et al.
2024 ("The N+ Implementation Details of RLHF with PPO"), section on Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from heed.settings import OptimSettings

COSINE_FLOOR = 0.1
"""The cosine schedule ends at this share of the peak."""


def lr_at(step: int, total: int, settings: OptimSettings) -> float:
    """Give the learning rate of one step.

    warm-up of w = ceil(warmup_frac total) steps:  lr (step + 1) / w
    after it, with x = (step - w) / (total - w):   constant 1, linear 1 - x,
                                                   cosine 0.1 + 0.9 (1 + cos(pi x)) / 2

    Args:
        step: counted from 0; steps after the last have the last one's rate or less.
        total: steps of the whole run, at least 1.
    """
    warmup = math.ceil(settings.warmup_frac * total)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    if settings.schedule == "linear":
        return settings.lr * (1.0 - done)
    if settings.schedule == "cosine":
        half = 0.5 * (1.0 + math.cos(math.pi * done))
        return settings.lr * (COSINE_FLOOR + (1.0 - COSINE_FLOOR) * half)
    return settings.lr


def make_optimizer(weights: Iterable[Tensor], settings: OptimSettings) -> torch.optim.AdamW:
    """Make AdamW over weights; only matrices decay, not biases, gains and other vectors."""
    weights = list(weights)
    decayed = [w for w in weights if w.ndim >= 2]
    plain = [w for w in weights if w.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        fused=weights[0].device.type in ("cpu", "cuda"),
    )


def set_rate(
    optimizer: torch.optim.Optimizer, lr: float, update: int, settings: OptimSettings
) -> None:
    """Set rate and eps for the next update, the `update`-th one counted from 1.

    torch adds eps after bias correction. Dividing it by sqrt(1 - b2^t) first is the same as
    adding it before, which is what TensorFlow 1 does; early steps are then much smaller where
    gradients are not much larger than eps.
    """
    eps = settings.eps
    if settings.eps_placement == "tensorflow":
        eps = eps / math.sqrt(1.0 - settings.betas[1] ** update)
    for group in optimizer.param_groups:
        group["lr"] = lr
        group["eps"] = eps


def clip_gradients(weights: Iterable[Tensor], max_norm: float) -> float:
    """Scale gradients down to `max_norm` together (0: leave them); returns the norm before.

    A norm that is not finite is returned as it is and nothing is scaled: scaling by it would
    turn every gradient into NaN, also those that were sound.
    """
    with_gradient = [w for w in weights if w.grad is not None]
    gradients = [w.grad for w in with_gradient if w.grad is not None]
    if not gradients:
        return 0.0
    norm = torch.nn.utils.get_total_norm(gradients)
    if max_norm > 0 and bool(torch.isfinite(norm)):
        torch.nn.utils.clip_grads_with_norm_(with_gradient, max_norm, norm)
    return float(norm)


def non_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """Name the weights whose gradient is not finite."""
    return [
        name
        for name, w in weights.items()
        if w.grad is not None and not bool(torch.isfinite(w.grad).all())
    ]


class MasterWeights:
    """fp32 originals of parameters that compute in bf16.

    The parameters are cast once, here. In a backward pass each gradient is added to its master's
    fp32 gradient and freed, so micro-batches sum in fp32. `refresh` rounds the masters into the
    parameters after a step.

    Args:
        parameters: name -> parameter that is trained; cast in place.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.weights = {name: p.detach().float().clone() for name, p in parameters.items()}
        self._parameters = dict(parameters)
        for name, parameter in parameters.items():
            parameter.data = parameter.data.to(torch.bfloat16)
            parameter.register_post_accumulate_grad_hook(_moves_gradient(self.weights[name]))

    def refresh(self) -> None:
        """Round the masters into the parameters."""
        with torch.no_grad():
            torch._foreach_copy_(list(self._parameters.values()), list(self.weights.values()))


class AveragedWeights:
    """A moving average of trained weights, kept in their own precision (fp32).

        average <- decay * average + (1 - decay) * w        after every step

    It starts at the weights that training starts from.

    Source: Ouyang et al. 2022 (InstructGPT), appendix C.4: decay 0.992.

    Args:
        weights: name -> weight.
        decay: between 0 and 1.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.weights = {name: w.detach().clone() for name, w in weights.items()}
        self._decay = decay

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Move towards the weights after a step."""
        for name, average in self.weights.items():
            average.lerp_(weights[name], 1.0 - self._decay)


def _moves_gradient(master: Tensor) -> Callable[[Tensor], None]:
    def move(parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is None:
            return
        if master.grad is None:
            master.grad = gradient.float()
        else:
            master.grad.add_(gradient)
        parameter.grad = None

    return move
