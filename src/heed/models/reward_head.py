"""The head of a reward model: one score for a whole row, or a weighted sum of named attributes."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
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

from heed.data.batch import TokenBatch
from heed.errors import ConfigError
from heed.ids import stream_seed
from heed.models.backbone import Layout, backbone_of, hidden_size, hidden_states
from heed.models.head import Head, read_out
from heed.models.load import load_causal, load_extra, load_with, resolve_path, save_model

ATTRIBUTE_FIELDS = ("centre", "spread", "weights")
"""Entries of heed.json that put attributes on the scale of their labels, and weigh them."""


class RewardHead(Head):
    """One score for a whole row, read at its last real token.

    score = gain (w . hidden[last]) + bias,   w ~ N(0, 1 / (d + 1)),   gain 1 and bias 0 at first

    With named attributes it has one output for each, in the unit of its labels, and the score is
    their weighted sum:

    number_k = centre_k + spread_k (w_k . hidden[last])
    score = gain sum_k weight_k number_k + bias

    Only w is trained: gain and bias bring scores to a chosen mean and spread afterwards, centre and
    spread are those of the labels.

    Source: Stiennon et al. 2020 and its code for the deviation 1 / sqrt(d + 1); Ziegler et al.
    2019 for gain and bias.
    """

    gain: Tensor
    bias: Tensor
    centre: Tensor
    spread: Tensor
    weights: Tensor

    def __init__(
        self, backbone: PreTrainedModel, *, seed: int = 0, attributes: Sequence[str] = ()
    ) -> None:
        """Put a fresh head, drawn from `seed`, on a backbone, which it then trains."""
        super().__init__()
        self.backbone = backbone
        self.attributes = tuple(attributes)
        width, num = hidden_size(backbone), max(1, len(self.attributes))
        self.score = nn.Linear(width, num, bias=False)
        generator = torch.Generator().manual_seed(stream_seed(seed, "reward head"))
        drawn = torch.randn(num, width, generator=generator) / math.sqrt(width + 1)
        with torch.no_grad():
            self.score.weight.copy_(drawn)
        self.score.to(next(backbone.parameters()))
        self.register_buffer("gain", torch.ones(()))
        self.register_buffer("bias", torch.zeros(()))
        if self.attributes:
            self.register_buffer("centre", torch.zeros(num))
            self.register_buffer("spread", torch.ones(num))
            self.register_buffer("weights", torch.full((num,), 1 / num))

    def set_attributes(
        self,
        *,
        centre: Sequence[float] | None = None,
        spread: Sequence[float] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Set the scale of each attribute, and its weight in the score.

        Raises:
            ConfigError: a number is not finite, or there is not one for each attribute.
        """
        given = {"centre": centre, "spread": spread, "weights": weights}
        for name, values in given.items():
            if values is None:
                continue
            if len(values) != len(self.attributes) or not all(map(math.isfinite, values)):
                raise ConfigError(
                    f"{name} is {list(values)}; give one finite number for each of the attributes "
                    f"{', '.join(self.attributes) or '(none)'}"
                )
            getattr(self, name).copy_(torch.tensor(list(values)))

    def summed(self) -> tuple[Tensor, Tensor]:
        """The one linear map that gives the score before gain and bias: weight [1, D], offset."""
        if not self.attributes:
            return self.score.weight, self.gain.new_zeros(())
        weight = (self.weights * self.spread) @ self.score.weight
        return weight[None], self.weights @ self.centre

    def set_scale(self, gain: float, bias: float) -> None:
        """Set what turns the head's output into the score: gain x output + bias."""
        self.gain.fill_(gain)
        self.bias.fill_(bias)

    def outputs(
        self, batch: TokenBatch, *, entropy: bool = False, layout: Layout = "auto"
    ) -> dict[str, Tensor | None]:
        """Evaluate a batch; see `Head.outputs`."""
        states, laid = hidden_states(self.backbone, batch, layout)
        found, numbers = read_out(self.score, states.index_select(0, laid.last)), None
        if self.attributes:
            raw = found.reshape(len(batch), len(self.attributes))
            numbers = self.centre.float() + self.spread.float() * raw
            found = numbers @ self.weights.to(numbers.dtype)
        scores = self.gain.float() * found + self.bias.float()
        return {
            "logprobs": None,
            "entropy": None,
            "values": None,
            "scores": scores,
            "attributes": numbers,
        }

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        seed: int = 0,
        revision: str | None = None,
        trust_remote_code: bool = False,
        dtype: torch.dtype = torch.float32,
        attributes: Sequence[str] = (),
    ) -> RewardHead:
        """Load a reward model, or put a fresh head (drawn from `seed`) on a causal model.

        Args:
            path: folder, run folder or hub id of a causal language model, or of a sequence
                classifier with one label (or one a named attribute), whose head is then taken.
            attributes: of a fresh head; a reward model keeps its own.

        Raises:
            ConfigError: the classifier has more labels than one, and does not name them; or it has
                other attributes than those asked for.
            StoreError: as `load_causal`.
        """
        where = resolve_path(path)
        how: dict[str, Any] = {
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "dtype": dtype,
        }
        if not _is_classifier(where, revision, trust_remote_code):
            causal = load_causal(where, **how)
            return cls(backbone_of(causal), seed=seed, attributes=attributes)
        model = load_with(AutoModelForSequenceClassification.from_pretrained, where, **how)
        extra = load_extra(where)
        named = tuple(extra.get("attributes", ()))
        if attributes and tuple(attributes) != named:
            raise ConfigError(
                f"{path} is a reward model of {', '.join(named) or 'one score'}, and asked for are "
                f"{', '.join(attributes)}; start from a language model, or name its attributes"
            )
        output = _output_of(model, max(1, len(named)))
        head = cls(backbone_of(model), seed=seed, attributes=named)
        if named:
            head.set_attributes(**{key: extra.get(key) for key in ATTRIBUTE_FIELDS})
        bias = 0.0 if output.bias is None or named else float(output.bias)
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
        """Write a sequence classifier with one label (or one an attribute) and heed.json.

        transformers opens it with `AutoModelForSequenceClassification`, whose logit is the score
        before gain and bias (an attribute before its centre and spread); heed.json has these, the
        names and the weights.

        Raises:
            ConfigError: transformers has no sequence classifier for the architecture.
            StoreError: the folder cannot be written.
        """
        config = copy.deepcopy(self.backbone.config)
        config.num_labels = self.score.out_features
        if self.attributes:
            config.id2label = dict(enumerate(self.attributes))
            config.label2id = {name: i for i, name in enumerate(self.attributes)}
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
        output = _output_of(model, self.score.out_features)
        output.weight = self.score.weight
        output.register_parameter("bias", None)
        # The classifier wraps this backbone itself, not a copy: nothing is duplicated in memory.
        setattr(model, model.base_model_prefix, self.backbone)
        scale: dict[str, Any] = {"gain": float(self.gain), "bias": float(self.bias)}
        if self.attributes:
            scale["attributes"] = list(self.attributes)
            scale |= {name: getattr(self, name).tolist() for name in ATTRIBUTE_FIELDS}
        return save_model(folder, model, tokenizer, {"kind": "reward", **scale, **(extra or {})})


def _is_classifier(path: str, revision: str | None, trust_remote_code: bool) -> bool:
    try:
        config = AutoConfig.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code
        )
    except Exception:
        return False  # the loader that follows finds the same fault and explains it
    named = getattr(config, "architectures", None) or []
    return any("SequenceClassification" in name for name in named)


def _output_of(model: PreTrainedModel, num: int) -> nn.Linear:
    inside = {id(module) for module in model.base_model.modules()}
    found = [m for m in model.modules() if isinstance(m, nn.Linear) and id(m) not in inside]
    if len(found) != 1 or found[0].out_features != num:
        sizes = [m.out_features for m in found]
        raise ConfigError(
            f"{type(model).__name__} ends in linear layers of {sizes} outputs, expected one with "
            f"{num} output{'s' if num > 1 else ''}; a reward model gives one score (num_labels=1), "
            "or one number for each attribute that its heed.json names"
        )
    return found[0]
