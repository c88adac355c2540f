"""What is looked at while a policy learns from pairs, and the two alarms that it raises.

The first step: the policy is its own reference, so the loss must be that of the origin. If it is
not, log-probabilities are computed in two ways, and every step that follows is wrong.

Displacement: a loss of differences is content when both sides fall, rejected faster. The mass goes
to replies that nobody compared. So the held-out log-probability of chosen is watched.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from heed.runs.run import Run

ORIGIN_TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3, torch.bfloat16: 5e-2}
"""Largest share by which the first loss may miss the loss at the origin, by compute type."""

FALL_ERRORS = 2.0
"""Displacement is told from chance at this many standard errors."""


def check_origin(run: Run, loss: float, origin: float, dtype: torch.dtype) -> None:
    """Warn where the first loss is not the one of a policy that is its reference."""
    tolerance = ORIGIN_TOLERANCE.get(dtype, 2e-3)
    if abs(loss - origin) <= tolerance * max(1.0, abs(origin)):
        return
    run.warn(
        1,
        "origin",
        f"the first loss is {loss:.6g}, and where policy and reference agree it is {origin:.6g}; "
        "the two do not compute the same log-probabilities. Look for dropout, another precision, "
        "a reference that is not the starting policy, or rows that were cut differently",
    )


def check_displacement(run: Run, step: int, change: Tensor) -> bool:
    """Warn where the log-probability of chosen replies has clearly fallen.

    Args:
        run: that is warned.
        step: after which it was measured.
        change: [N] nats, log-probability now minus at the start, of the same replies.

    Returns:
        whether it did.
    """
    if len(change) < 2:
        return False
    mean = float(change.mean())
    error = float(change.std()) / math.sqrt(len(change))
    if mean + FALL_ERRORS * error >= 0:
        return False
    run.warn(
        step,
        "logps/chosen_change",
        f"the log-probability of chosen replies has fallen by {-mean:.3g} nats a reply since the "
        f"start (standard error {error:.2g}, {len(change)} replies): their mass goes to replies "
        "that nobody compared. Add the likelihood of chosen (loss_type sigmoid,sft or rpo), "
        "raise beta, lower optim.lr, or take nca_pair, which holds chosen up",
    )
    return True
