"""The head of a process reward model: whether each step of a completion is right."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from heed import logprobs
from heed.data.batch import TokenBatch
from heed.errors import ConfigError
from heed.ids import stream_seed
from heed.models.backbone import Layout, backbone_of, hidden_size, hidden_states
from heed.models.head import Head, read_out
from heed.models.load import load_causal, load_with, resolve_path, save_model


class StepHead(Head):
    """The log-odds that a step is right, read at its last token.

    value[t] = w . hidden[t] + b at learned tokens t,   w ~ N(0, 1 / (d + 1)),   b = 0 at first

    Unlike a policy's or a value model's output, that of token t reads token t: the step stands
    before it is judged. It is saved as a token classifier of two labels with the rows -w / 2 and
    w / 2, whose softmax is the sigmoid of this value; any such classifier can be loaded.

    Source: Lightman et al. 2023; TRL's `PRMTrainer` for the classifier of two labels.
    """

    def __init__(self, backbone: PreTrainedModel, *, seed: int = 0) -> None:
        """Put a fresh head, drawn from `seed`, on a backbone, which it then trains."""
        super().__init__()
        self.backbone = backbone
        width = hidden_size(backbone)
        self.score = nn.Linear(width, 1)
        generator = torch.Generator().manual_seed(stream_seed(seed, "step head"))
        drawn = torch.randn(1, width, generator=generator) / math.sqrt(width + 1)
        with torch.no_grad():
            self.score.weight.copy_(drawn)
            self.score.bias.zero_()
        self.score.to(next(backbone.parameters()))

    def outputs(
        self, batch: TokenBatch, *, entropy: bool = False, layout: Layout = "auto"
    ) -> dict[str, Tensor | None]:
        """Evaluate a batch; see `Head.outputs`. `values` are log-odds at learned tokens."""
        states, laid = hidden_states(self.backbone, batch, layout)
        found = read_out(self.score, states.index_select(0, laid.learned))
        return {
            "logprobs": None,
            "entropy": None,
            "values": logprobs.scatter(found, batch.learn),
            "scores": None,
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
    ) -> StepHead:
        """Load a process reward model, or put a fresh head on a causal model.

        Args:
            path: folder, run folder or hub id of a causal language model, or of a token
                classifier with two labels (wrong, right), whose head is then taken.

        Raises:
            ConfigError: the classifier has another number of labels.
            StoreError: as `load_causal`.
        """
        where = resolve_path(path)
        how: dict[str, Any] = {
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "dtype": dtype,
        }
        if not is_step_model(where, revision, trust_remote_code):
            return cls(backbone_of(load_causal(where, **how)), seed=seed)
        model = load_with(AutoModelForTokenClassification.from_pretrained, where, **how)
        output = _output_of(model)
        head = cls(backbone_of(model), seed=seed)
        with torch.no_grad():
            head.score.weight.copy_((output.weight[1] - output.weight[0])[None])
            if output.bias is not None:
                head.score.bias.copy_((output.bias[1] - output.bias[0])[None])
        return head.eval()

    def save(
        self,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Path:
        """Write a token classifier with two labels; `extra` goes to heed.json.

        Raises:
            ConfigError: transformers has no token classifier for the architecture.
            StoreError: the folder cannot be written.
        """
        config = copy.deepcopy(self.backbone.config)
        config.num_labels = 2
        config.id2label, config.label2id = {0: "wrong", 1: "right"}, {"wrong": 0, "right": 1}
        try:
            with torch.device("meta"):
                model = AutoModelForTokenClassification.from_config(config)
        except ValueError as error:
            raise ConfigError(
                f"transformers has no token classifier for {type(config).__name__}, so a process "
                "reward model of it cannot be saved; start from another architecture"
            ) from error
        output = _output_of(model)
        weight, bias = self.score.weight.detach() / 2, self.score.bias.detach() / 2
        output.weight = nn.Parameter(torch.cat([-weight, weight]))
        output.register_parameter("bias", nn.Parameter(torch.cat([-bias, bias])))
        setattr(model, model.base_model_prefix, self.backbone)
        return save_model(folder, model, tokenizer, {"kind": "prm", **(extra or {})})


def is_step_model(path: str, revision: str | None = None, trust_remote_code: bool = False) -> bool:
    """Whether a folder or hub id holds a token classifier."""
    try:
        config = AutoConfig.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code
        )
    except Exception:
        return False  # the loader that follows finds the same fault and explains it
    named = getattr(config, "architectures", None) or []
    return any("TokenClassification" in name for name in named)


def _output_of(model: PreTrainedModel) -> nn.Linear:
    inside = {id(module) for module in model.base_model.modules()}
    found = [m for m in model.modules() if isinstance(m, nn.Linear) and id(m) not in inside]
    if len(found) != 1 or found[0].out_features != 2:
        raise ConfigError(
            f"{type(model).__name__} ends in linear layers of {[m.out_features for m in found]} "
            "outputs, expected one with 2; a process reward model tells wrong steps from right ones"
        )
    return found[0]
