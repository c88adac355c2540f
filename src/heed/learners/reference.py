"""Reference policies: the policy's own weights with adapters off, or a copy that follows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from heed.data.batch import TokenBatch
from heed.learners import state
from heed.learners.base import Outputs
from heed.learners.local import LocalLearner
from heed.models.adapters import reference_disabled


class AdapterReference:
    """Evaluates the model that a policy with adapters was made from.

    Args:
        policy: the learner whose module holds base weights and adapters.
        causal: that module's language model, as `add_lora` returned it.
    """

    def __init__(self, policy: LocalLearner, causal: nn.Module) -> None:
        self._policy = policy
        self._causal = causal

    def forward(self, batch: TokenBatch, *, entropy: bool = False) -> Outputs:
        """Evaluate without gradients and without adapters."""
        with reference_disabled(self._causal):
            return self._policy.forward(batch, entropy=entropy)

    def log_distribution(self, batch: TokenBatch) -> Tensor:
        """Whole log-distributions at learned tokens, [N, V], without adapters."""
        with reference_disabled(self._causal):
            return self._policy.log_distribution(batch)


class MovingReference:
    """A reference with weights of its own that now and then follow the policy's (TR-DPO).

    Args:
        frozen: a learner that holds the reference; see `LocalLearner.frozen`.
    """

    def __init__(self, frozen: LocalLearner) -> None:
        self._frozen = frozen

    def forward(self, batch: TokenBatch, *, entropy: bool = False) -> Outputs:
        """Evaluate without gradients."""
        return self._frozen.forward(batch, entropy=entropy)

    def log_distribution(self, batch: TokenBatch) -> Tensor:
        """Whole log-distributions at learned tokens, [N, V]."""
        return self._frozen.log_distribution(batch)

    @torch.no_grad()
    def follow(self, policy: LocalLearner, alpha: float) -> None:
        """Move towards the policy: reference <- alpha policy + (1 - alpha) reference.

        Source: Gorbatovski et al. 2024 (TR-DPO); alpha 1 is its hard update.
        """
        theirs = dict(policy.head.named_parameters())
        # A weight that is tied stands once among the parameters, so it moves once.
        for name, weight in self._frozen.head.named_parameters():
            wide = torch.promote_types(weight.dtype, torch.float32)
            mixed = alpha * theirs[name].to(wide) + (1.0 - alpha) * weight.to(wide)
            weight.copy_(mixed)

    def weights(self) -> Mapping[str, Any]:
        """The reference's weights by name, as views."""
        return self._frozen.weights()

    def save(self, folder: Path) -> None:
        """Write the weights, for a checkpoint."""
        state.save(folder, dict(self._frozen.head.named_parameters()), {}, None, _NO_COUNTS)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            StoreError: it was written for another model.
        """
        state.load(folder, dict(self._frozen.head.named_parameters()), {}, None)


_NO_COUNTS = {"steps": 0, "updates": 0}
