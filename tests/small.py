"""Small models and a tokenizer that tests share: seconds to make, sharp enough to differ."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from heed.data.render import Renderer
from heed.engines.native.build import BuildError
from heed.engines.native.library import load_library
from heed.models.load import make_model, train_tokenizer
from heed.records import PolicyRef, Prompt

TEXTS = [
    "Where does the miller live? The miller lives behind the old bridge.",
    "Who sells bread in the market? The baker sells bread every morning.",
    "The blacksmith has a red door, and the tailor has a blue one.",
    "I do not know who owns the boat on the river.",
] * 8
POLICY = PolicyRef(run="test", step=3)
PATHS = ("torch", "native")
"""Ways in which the local engine decodes; both keep everything that is asked of it."""


def possible(path: str) -> str:
    """Skip the test where the native loop cannot be built; else return the path."""
    if path == "native":
        try:
            load_library()
        except BuildError as error:
            pytest.skip(f"the native loop cannot be built here: {error}")
    return path


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 320)


@functools.cache
def renderer() -> Renderer:
    return Renderer(train_tokenizer(TEXTS, 320))


def sharpened(model: PreTrainedModel, by: float = 4.0) -> PreTrainedModel:
    """Scale the matrices of a fresh model, whose distributions are otherwise nearly uniform."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(by)
    return model


def small(architecture: str = "llama", sharpen: float = 4.0, **changes: Any) -> PreTrainedModel:
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer()),
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": None if architecture in ("gpt2", "gpt_neox") else 2,
        "max_positions": 96,
        "tokenizer": tokenizer(),
    }
    return sharpened(make_model(architecture, **{**sizes, **changes}), sharpen)


def shaken(architecture: str = "llama", **changes: Any) -> PreTrainedModel:
    """A small model whose norms and biases are not the ones and zeros that they begin with."""
    model = small(architecture, 3.0, **changes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def raw_prompts(lengths: list[int], seed: int = 0) -> list[Prompt]:
    """Prompts of raw text of about these many letters."""
    source = " ".join(TEXTS)
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, len(source) - max(lengths), (len(lengths),), generator=generator)
    return [
        Prompt.make(f"{i}{source[s : s + n]}", raw=True)
        for i, (s, n) in enumerate(zip(starts.tolist(), lengths, strict=True))
    ]
