"""Fused norms compute what the models' own do, and leave no trace on disk or on copies."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tests.small import shaken
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from heed.models.load import load_causal, save_model
from heed.models.norms import fuse_norms

TOKENS = torch.randint(3, 100, (3, 24), generator=torch.Generator().manual_seed(0))
PER_LAYER = {"llama": 2, "qwen2": 2, "qwen3": 4, "mistral": 2}


def outcome(model: nn.Module) -> list[torch.Tensor]:
    model.zero_grad()
    logits = model(input_ids=TOKENS, use_cache=False).logits
    logits.log_softmax(-1)[..., 7].mean().backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize("architecture", list(PER_LAYER))
def test_values_and_gradients_are_those_of_the_models_own(architecture: str) -> None:
    model = shaken(architecture)
    expected = outcome(model)
    assert fuse_norms(model) == 2 * PER_LAYER[architecture] + 1
    for found, other in zip(outcome(model), expected, strict=True):
        torch.testing.assert_close(found, other, rtol=1e-4, atol=1e-6)
    assert fuse_norms(model) == 0


def test_bf16_is_no_further_from_fp32_than_before() -> None:
    exact = outcome(shaken())
    model = shaken().to(torch.bfloat16)

    def error() -> float:
        pairs = zip(outcome(model), exact, strict=True)
        return max(float((found.float() - other).norm() / other.norm()) for found, other in pairs)

    before = error()
    fuse_norms(model)
    assert error() < 1.2 * before


def test_models_without_such_norms_stay_as_they_are() -> None:
    assert fuse_norms(shaken("gpt2")) == 0


def test_a_norm_that_computes_something_else_stays() -> None:
    class Shifted(LlamaRMSNorm):
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden_states) + 1.0

    class Sized(LlamaRMSNorm):
        def __init__(self, width: int, depth: int, eps: float) -> None:
            super().__init__(width, eps)

    assert fuse_norms(nn.ModuleList([Shifted(8), Sized(8, 1, 1e-5)])) == 0


def test_copies_and_saved_models_are_whole(tmp_path: Path) -> None:
    model = shaken("qwen3")
    fuse_norms(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)
    one, two = outcome(model), outcome(other)
    assert not torch.equal(one[0], two[0])
    save_model(tmp_path / "model", other, None)
    torch.testing.assert_close(outcome(load_causal(tmp_path / "model"))[0], two[0])
    assert isinstance(model.model.norm, type(shaken("qwen3").model.norm))
