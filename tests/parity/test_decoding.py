"""Greedy decoding gives transformers' tokens, one by one, in fp32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.small import POLICY, possible, raw_prompts, renderer, shaken, sharpened, small
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from heed.engines.local import LocalEngine
from heed.records import Prompt, Sampling

MAX_TOKENS = 20
# Prompts of one token, of equal and of different length; more of them than slots.
LENGTHS = [30, 2, 17, 17, 17, 41, 8, 2, 25, 33, 5]


class EarlyEnd:
    """The shared renderer, with so many end tokens that rows end at different times."""

    end_ids = tuple(range(0, 100))

    def prompt_tokens(self, prompt: Prompt) -> list[int]:
        tokens = renderer().prompt_tokens(prompt)
        return tokens[:1] if prompt.meta.get("one") else tokens

    def decode(self, tokens: list[int]) -> str:
        return renderer().decode(tokens)


def prompts() -> list[Prompt]:
    return [*raw_prompts(LENGTHS), Prompt.make("x", raw=True, meta={"one": True})]


def generated(model: PreTrainedModel, tokens: list[int], end_ids: tuple[int, ...]) -> list[int]:
    """transformers' own greedy decoding of one prompt."""
    ids = torch.tensor([tokens])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=MAX_TOKENS,
        eos_token_id=list(end_ids),
        pad_token_id=0,
    )
    return out[0, len(tokens) :].tolist()


def windowed(architecture: str) -> PreTrainedModel:
    sizes = {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 5,
        "max_position_embeddings": 96, "use_sliding_window": True, "max_window_layers": 2,
    }  # fmt: skip
    config = AutoConfig.for_model(architecture, **sizes)
    torch.manual_seed(0)
    return sharpened(AutoModelForCausalLM.from_config(config).eval(), 3.0)


def check(model: PreTrainedModel, max_rows: int, path: Any = "torch") -> None:
    engine = LocalEngine(model, EarlyEnd(), policy=POLICY, max_rows=max_rows, path=possible(path))
    found = engine.generate(prompts(), Sampling(temperature=0, max_tokens=MAX_TOKENS))
    finishes = set()
    for prompt, group in zip(prompts(), found, strict=True):
        tokens = EarlyEnd().prompt_tokens(prompt)
        assert list(group[0].tokens) == generated(model, tokens, EarlyEnd.end_ids)
        finishes.add(group[0].finish)
        ended = group[0].tokens[-1] in EarlyEnd.end_ids
        assert group[0].finish == ("stop" if ended else "length")
    assert len({g[0].num_tokens for g in found}) > 1
    assert "stop" in finishes


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2", "gpt_neox", "cohere"])
@pytest.mark.parametrize("max_rows", [3, 64])
def test_greedy_tokens_are_those_of_generate(architecture: str, max_rows: int) -> None:
    check(small(architecture), max_rows)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral", "gpt2"])
@pytest.mark.parametrize("max_rows", [3, 64])
def test_greedy_tokens_of_the_native_loop_are_those_of_generate(
    architecture: str, max_rows: int
) -> None:
    check(shaken(architecture), max_rows, "native")


@pytest.mark.parametrize("architecture", ["mistral", "gemma2", "qwen3"])
def test_windows_shorter_than_the_row(architecture: str) -> None:
    """All layers with a window; alternating layers; a cap on logits beside them."""
    check(windowed(architecture), 4)
