"""What is trained: a causal model read as a policy, as a value function, or as a reward model.

Each head is a module with one method, `outputs(batch)`, which returns per-token or per-row tensors
in the batch's own layout. Left or right padding, the padding id and the rows beside a row change
no number.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from heed import logprobs
from heed.data.batch import TokenBatch
from heed.errors import ConfigError
from heed.models.backbone import (
    Layout,
    backbone_of,
    hidden_size,
    hidden_states,
    lay_out,
    model_arguments,
    plain_head,
    unwrap,
)
from heed.models.head import Head, read_out
from heed.models.reward_head import RewardHead

__all__ = ["Head", "PolicyHead", "RewardHead", "SharedHead", "ValueHead"]


class PolicyHead(Head):
    """Log-probabilities of the learned tokens under a causal language model.

    logprob[t] = log softmax(logits[t - 1] / temperature)[token t], over the kept ids where given

    Where logits are one linear map of the hidden states (checked with numbers), it runs at
    learned tokens only and in chunks; else (capped or scaled logits) whole logits are made.
    """

    def __init__(self, causal: nn.Module) -> None:
        super().__init__()
        self.causal = causal
        self.is_plain = plain_head(causal) is not None

    def outputs(
        self,
        batch: TokenBatch,
        *,
        entropy: bool = False,
        layout: Layout = "auto",
        also: Collection[str] = (),
    ) -> dict[str, Tensor | None]:
        """Evaluate a batch; see `Head.outputs`, and `learners.base.Further` for `also`."""
        targets = batch.tokens[batch.learn]
        kept = None if batch.kept is None else batch.kept[batch.learn]
        selected, spread = self._selected(batch, layout), None
        if self.is_plain:
            output = unwrap(self.causal).get_output_embeddings()
            chosen, spread = logprobs.token_logprobs(
                selected,
                output.weight,
                output.bias,
                targets,
                batch.temperature,
                kept,
                with_entropy=entropy,
            )
        else:
            chosen = logprobs.from_logits(selected, targets, batch.temperature, kept)
            if entropy:
                spread = logprobs.entropy(selected, batch.temperature, kept)
        return {
            "logprobs": logprobs.scatter(chosen, batch.learn),
            "entropy": None if spread is None else logprobs.scatter(spread.detach(), batch.learn),
            "values": None,
            "scores": None,
            **self._further(selected, batch, also),
        }

    def _further(
        self, selected: Tensor, batch: TokenBatch, also: Collection[str]
    ) -> dict[str, Tensor | None]:
        """Outputs that need the whole vocabulary a second time."""
        kept = None if batch.kept is None else batch.kept[batch.learn]
        found: dict[str, Tensor | None] = {}
        if "log_collision" in also:
            values = logprobs.log_collision(self._logits, selected, batch.temperature, kept)
            found["log_collision"] = logprobs.scatter(values, batch.learn)
        if "log_distribution" in also:
            logits = self._logits(selected)
            found["log_distribution"] = logprobs.distribution(logits, batch.temperature, kept)
        return found

    def log_distribution(self, batch: TokenBatch, *, layout: Layout = "auto") -> Tensor:
        """Evaluate the whole distribution that predicts each learned token: [N, V] nats, fp32.

        Ids that the sampler could not choose from (`batch.kept`) have -inf.
        """
        logits = self._logits(self._selected(batch, layout))
        kept = None if batch.kept is None else batch.kept[batch.learn]
        return logprobs.distribution(logits, batch.temperature, kept)

    def _logits(self, selected: Tensor) -> Tensor:
        if not self.is_plain:
            return selected
        return unwrap(self.causal).get_output_embeddings()(selected)

    def _selected(self, batch: TokenBatch, layout: Layout) -> Tensor:
        """What predicts each learned token: hidden states [N, D], or logits [N, V]."""
        if self.is_plain:
            states, laid = hidden_states(backbone_of(self.causal), batch, layout)
        else:
            model = unwrap(self.causal)
            laid = lay_out(batch, layout, model)
            states = model(**model_arguments(model, laid)).logits.flatten(0, 1)
        return states.index_select(0, laid.sources)


class SharedHead(PolicyHead):
    """A policy with a zero value head on its own trunk.

    value[t] = w . hidden[t - 1] + b,   both 0 at first

    Source: Ziegler et al. 2019, code; the value head is not saved with the policy.
    """

    def __init__(self, causal: nn.Module) -> None:
        super().__init__(causal)
        if not self.is_plain:
            raise ConfigError(
                f"{type(unwrap(causal)).__name__} changes its logits after the output layer, and a "
                "shared value head reads the layer's input; use a separate value model"
            )
        self.score = nn.Linear(hidden_size(backbone_of(causal)), 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.score.to(next(causal.parameters()))
        self._seen: Tensor | None = None

    def outputs(self, batch: TokenBatch, **options: Any) -> dict[str, Tensor | None]:
        """Evaluate a batch; see `PolicyHead.outputs`."""
        found = super().outputs(batch, **options)
        assert self._seen is not None
        values = read_out(self.score, self._seen)
        self._seen = None
        return {**found, "values": logprobs.scatter(values, batch.learn)}

    def _selected(self, batch: TokenBatch, layout: Layout) -> Tensor:
        self._seen = super()._selected(batch, layout)
        return self._seen


class ValueHead(Head):
    """Expected return before each learned token is chosen.

    value[t] = w . hidden[t - 1] + b

    Source: `from_reward` is N+ implementation details of RLHF, detail 22; the zero head of
    `from_policy` is Ziegler et al. 2019.
    """

    def __init__(self, backbone: PreTrainedModel) -> None:
        """Put a zero head on a backbone, which it then trains."""
        super().__init__()
        self.backbone = backbone
        self.score = nn.Linear(hidden_size(backbone), 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.score.to(next(backbone.parameters()))

    @classmethod
    def from_policy(cls, causal: nn.Module) -> ValueHead:
        """Copy a policy's backbone (adapters merged), with a zero head."""
        copied: Any = copy.deepcopy(causal)
        if hasattr(copied, "peft_config"):
            copied = copied.merge_and_unload()
        return cls(backbone_of(copied).requires_grad_(True))

    @classmethod
    def from_reward(cls, reward: RewardHead) -> ValueHead:
        """Copy a reward model; gain and bias enter the head, so values start on its scale."""
        value = cls(copy.deepcopy(reward.backbone).requires_grad_(True))
        with torch.no_grad():
            weight, offset = reward.summed()
            value.score.weight.copy_(weight * reward.gain)
            value.score.bias.copy_((reward.gain * offset + reward.bias).reshape(1))
        return value

    def outputs(
        self, batch: TokenBatch, *, entropy: bool = False, layout: Layout = "auto"
    ) -> dict[str, Tensor | None]:
        """Evaluate a batch; see `Head.outputs`."""
        states, laid = hidden_states(self.backbone, batch, layout)
        values = read_out(self.score, states.index_select(0, laid.sources))
        return {
            "logprobs": None,
            "entropy": None,
            "values": logprobs.scatter(values, batch.learn),
            "scores": None,
        }
