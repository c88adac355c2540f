"""What every head is: a module that evaluates a batch; and how one number a token is read."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from heed.data.batch import TokenBatch
from heed.models.backbone import Layout


class Head(nn.Module):
    """Base of the heads: outputs that a head does not have are None."""

    def outputs(
        self, batch: TokenBatch, *, entropy: bool = False, layout: Layout = "auto"
    ) -> dict[str, Tensor | None]:
        """Evaluate a batch.

        Args:
            batch: rows on this module's device.
            entropy: whether the entropy is computed where there is one.
            layout: padded runs the rows side by side, packed joins them end to end, auto joins
                them where the model attends by rows.

        Returns:
            logprobs [B, T], entropy [B, T] (detached), values [B, T], scores [B], attributes
            [B, K], each fp32 or None; per-token outputs are 0 where nothing is learned.
        """
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def gradient_checkpointing_enable(self) -> None:
        """Recompute activations in the backward pass (in training mode)."""
        for module in self.modules():
            if isinstance(module, PreTrainedModel):
                # transformers renamed it in 5.x; the old name goes with version 6.
                enable = getattr(module, "activation_checkpointing_enable", None)
                (enable or module.gradient_checkpointing_enable)()
                return


def read_out(head: nn.Linear, hidden: Tensor) -> Tensor:
    """Apply a small linear layer in fp32: [N, D] -> [N, K]; [N] where it has one output."""
    # One dot product a token: fp32 costs nothing, and a score in bf16 would have 3 digits.
    bias = None if head.bias is None else head.bias.float()
    with torch.autocast(hidden.device.type, enabled=False):
        wide = torch.promote_types(hidden.dtype, torch.float32)
        weight = head.weight.to(wide)
        return nn.functional.linear(
            hidden.to(wide), weight, None if bias is None else bias.to(wide)
        ).squeeze(-1)
