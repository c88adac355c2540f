"""What is trained: a causal model read as a policy, as a value function, or as a reward model.

Each head is a module with one method, `outputs(batch)`, which returns per-token or per-row tensors
in the batch's own layout. Left or right padding, the padding id and the rows beside a row change
no number.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from heed import logprobs
from heed.data.batch import TokenBatch
from heed.errors import ConfigError
from heed.ids import stream_seed
from heed.models.backbone import (
    Laid,
    Layout,
    backbone_of,
    hidden_size,
    hidden_states,
    lay_out,
    model_arguments,
    plain_head,
    unwrap,
)
from heed.models.load import load_causal, load_extra, load_with, resolve_path, save_model

SCALE_FIELDS = ("gain", "bias")
"""Entries of heed.json that put a reward model's output on the score's scale."""


class Head(nn.Module):
    """Base of the heads: outputs that a head does not have are None."""

    def outputs(
        self, batch: TokenBatch, *, entropy: bool = False, layout: Layout = "padded"
    ) -> dict[str, Tensor | None]:
        """Evaluate a batch.

        Args:
            batch: rows on this module's device.
            entropy: whether the entropy is computed where there is one.
            layout: padded runs the rows side by side, packed joins them end to end.

        Returns:
            logprobs [B, T], entropy [B, T] (detached), values [B, T], scores [B], each fp32 or
            None; per-token outputs are 0 where nothing is learned.
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
        layout: Layout = "padded",
        also: Collection[str] = (),
    ) -> dict[str, Tensor | None]:
        """Evaluate a batch; see `Head.outputs`, and `learners.base.Further` for `also`."""
        laid = lay_out(batch, layout)
        targets = batch.tokens[batch.learn]
        kept = None if batch.kept is None else batch.kept[batch.learn]
        selected, spread = self._selected(laid), None
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

    def log_distribution(self, batch: TokenBatch, *, layout: Layout = "padded") -> Tensor:
        """Evaluate the whole distribution that predicts each learned token: [N, V] nats, fp32.

        Ids that the sampler could not choose from (`batch.kept`) have -inf.
        """
        logits = self._logits(self._selected(lay_out(batch, layout)))
        kept = None if batch.kept is None else batch.kept[batch.learn]
        return logprobs.distribution(logits, batch.temperature, kept)

    def _logits(self, selected: Tensor) -> Tensor:
        if not self.is_plain:
            return selected
        return unwrap(self.causal).get_output_embeddings()(selected)

    def _selected(self, laid: Laid) -> Tensor:
        """What predicts each learned token: hidden states [N, D], or logits [N, V]."""
        if self.is_plain:
            hidden = hidden_states(backbone_of(self.causal), laid)
        else:
            model = unwrap(self.causal)
            hidden = model(**model_arguments(model, laid)).logits
        return logprobs.shift_hidden(hidden, laid.learn)[0]


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
        values = _read(self.score, self._seen)
        self._seen = None
        return {**found, "values": logprobs.scatter(values, batch.learn)}

    def _selected(self, laid: Laid) -> Tensor:
        self._seen = super()._selected(laid)
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
            value.score.weight.copy_(reward.score.weight * reward.gain)
            value.score.bias.copy_(reward.bias.reshape(1))
        return value

    def outputs(
        self, batch: TokenBatch, *, entropy: bool = False, layout: Layout = "padded"
    ) -> dict[str, Tensor | None]:
        """Evaluate a batch; see `Head.outputs`."""
        laid = lay_out(batch, layout)
        selected, _ = logprobs.shift_hidden(hidden_states(self.backbone, laid), laid.learn)
        values = _read(self.score, selected)
        return {
            "logprobs": None,
            "entropy": None,
            "values": logprobs.scatter(values, batch.learn),
            "scores": None,
        }


class RewardHead(Head):
    """One score for a whole row, read at its last real token.

    score = gain (w . hidden[last]) + bias,   w ~ N(0, 1 / (d + 1)),   gain 1 and bias 0 at first

    Gain and bias are not trained: they bring scores to a chosen mean and spread afterwards.

    Source: Stiennon et al. 2020 and its code for the deviation 1 / sqrt(d + 1); Ziegler et al.
    2019 for gain and bias.
    """

    gain: Tensor
    bias: Tensor

    def __init__(self, backbone: PreTrainedModel, *, seed: int = 0) -> None:
        """Put a fresh head, drawn from `seed`, on a backbone, which it then trains."""
        super().__init__()
        self.backbone = backbone
        width = hidden_size(backbone)
        self.score = nn.Linear(width, 1, bias=False)
        generator = torch.Generator().manual_seed(stream_seed(seed, "reward head"))
        drawn = torch.randn(1, width, generator=generator) / math.sqrt(width + 1)
        with torch.no_grad():
            self.score.weight.copy_(drawn)
        self.score.to(next(backbone.parameters()))
        self.register_buffer("gain", torch.ones(()))
        self.register_buffer("bias", torch.zeros(()))

    def set_scale(self, gain: float, bias: float) -> None:
        """Set what turns the head's output into the score: gain x output + bias."""
        self.gain.fill_(gain)
        self.bias.fill_(bias)

    def outputs(
        self, batch: TokenBatch, *, entropy: bool = False, layout: Layout = "padded"
    ) -> dict[str, Tensor | None]:
        """Evaluate a batch; see `Head.outputs`."""
        laid = lay_out(batch, layout)
        hidden = hidden_states(self.backbone, laid).flatten(0, 1).index_select(0, laid.last)
        scores = self.gain.float() * _read(self.score, hidden) + self.bias.float()
        return {"logprobs": None, "entropy": None, "values": None, "scores": scores}

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        seed: int = 0,
        revision: str | None = None,
        trust_remote_code: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> RewardHead:
        """Load a reward model, or put a fresh head (drawn from `seed`) on a causal model.

        Args:
            path: folder, run folder or hub id of a causal language model, or of a sequence
                classifier with one label, whose head is then taken.

        Raises:
            ConfigError: the classifier has more labels than one.
            StoreError: as `load_causal`.
        """
        where = resolve_path(path)
        how: dict[str, Any] = {
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "dtype": dtype,
        }
        if not _is_classifier(where, revision, trust_remote_code):
            return cls(backbone_of(load_causal(where, **how)), seed=seed)
        model = load_with(AutoModelForSequenceClassification.from_pretrained, where, **how)
        output = _output_of(model)
        head = cls(backbone_of(model), seed=seed)
        extra = load_extra(where)
        bias = 0.0 if output.bias is None else float(output.bias)
        with torch.no_grad():
            head.score.weight.copy_(output.weight)
        gain = float(extra.get("gain", 1.0))
        head.set_scale(gain, gain * bias + float(extra.get("bias", 0.0)))
        return head.eval()

    def save(
        self,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Path:
        """Write a sequence classifier with one label; gain and bias go to heed.json.

        transformers opens it with `AutoModelForSequenceClassification`, whose logit is the score
        before gain and bias.

        Raises:
            ConfigError: transformers has no sequence classifier for the architecture.
            StoreError: the folder cannot be written.
        """
        config = copy.deepcopy(self.backbone.config)
        config.num_labels = 1
        if config.pad_token_id is None and tokenizer is not None:
            config.pad_token_id = tokenizer.pad_token_id
        try:
            with torch.device("meta"):
                model = AutoModelForSequenceClassification.from_config(config)
        except ValueError as error:
            raise ConfigError(
                f"transformers has no sequence classifier for {type(config).__name__}, so a reward "
                "model of it cannot be saved; start from another architecture"
            ) from error
        output = _output_of(model)
        output.weight = self.score.weight
        output.register_parameter("bias", None)
        # The classifier wraps this backbone itself, not a copy: nothing is duplicated in memory.
        setattr(model, model.base_model_prefix, self.backbone)
        scale = {"gain": float(self.gain), "bias": float(self.bias)}
        return save_model(folder, model, tokenizer, {"kind": "reward", **scale, **(extra or {})})


def _read(head: nn.Linear, hidden: Tensor) -> Tensor:
    # One dot product a token: fp32 costs nothing, and a score in bf16 would have 3 digits.
    bias = None if head.bias is None else head.bias.float()
    with torch.autocast(hidden.device.type, enabled=False):
        wide = torch.promote_types(hidden.dtype, torch.float32)
        weight = head.weight.to(wide)
        return nn.functional.linear(
            hidden.to(wide), weight, None if bias is None else bias.to(wide)
        ).squeeze(-1)


def _is_classifier(path: str, revision: str | None, trust_remote_code: bool) -> bool:
    try:
        config = AutoConfig.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code
        )
    except Exception:
        return False  # the loader that follows finds the same fault and explains it
    named = getattr(config, "architectures", None) or []
    return any("SequenceClassification" in name for name in named)


def _output_of(model: PreTrainedModel) -> nn.Linear:
    inside = {id(module) for module in model.base_model.modules()}
    found = [m for m in model.modules() if isinstance(m, nn.Linear) and id(m) not in inside]
    if len(found) != 1 or found[0].out_features != 1:
        sizes = [m.out_features for m in found]
        raise ConfigError(
            f"{type(model).__name__} ends in linear layers of {sizes} outputs, expected one with 1 "
            "output; a reward model gives one score (num_labels=1)"
        )
    return found[0]
