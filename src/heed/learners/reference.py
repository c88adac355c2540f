"""The reference policy without a second copy: the policy's own weights with adapters off."""

from __future__ import annotations

from torch import Tensor, nn

from heed.data.batch import TokenBatch
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
