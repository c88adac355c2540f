"""bf16 attention on a CPU runs in fp32: as near to fp32 as before, and without trace on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.small import small
from transformers import PreTrainedModel

from heed.models.attention import NAME, adopt_attention
from heed.models.backbone import cache_argument
from heed.models.load import load_causal, save_model

TOKENS = torch.randint(3, 100, (3, 24), generator=torch.Generator().manual_seed(0))


def loss_and_gradient(model: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
    logits = model(input_ids=TOKENS, use_cache=False).logits.float()
    loss = logits.log_softmax(-1)[:, :-1].gather(2, TOKENS[:, 1:, None]).mean()
    loss.backward()
    return loss.detach(), model.get_input_embeddings().weight.grad.float()


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2"])
def test_no_further_from_fp32_than_before(architecture: str) -> None:
    exact, exact_gradient = loss_and_gradient(small(architecture))
    errors = []
    for widened in (False, True):
        model = small(architecture).to(torch.bfloat16)
        if widened:
            adopt_attention(model)
            assert model.config._attn_implementation == NAME
        loss, gradient = loss_and_gradient(model)
        assert abs(float(loss - exact)) < 0.02 * abs(float(exact))
        errors.append(float((gradient - exact_gradient).norm() / exact_gradient.norm()))
    assert errors[1] < 1.2 * errors[0] < 0.2


def test_fp32_and_single_queries_are_untouched() -> None:
    plain, widened = small(), small()
    adopt_attention(widened)
    with torch.no_grad():
        expected = plain(input_ids=TOKENS, use_cache=False).logits
        assert torch.equal(widened(input_ids=TOKENS, use_cache=False).logits, expected)
        plain, widened = plain.bfloat16(), widened.bfloat16()
        one = TOKENS[:, :1]
        expected = plain(input_ids=one, use_cache=False).logits
        assert torch.equal(widened(input_ids=one, use_cache=False).logits, expected)


def test_another_kind_of_attention_stays() -> None:
    model = small()
    model.set_attn_implementation("eager")
    adopt_attention(model)
    assert model.config._attn_implementation == "eager"


def test_saved_models_do_not_know(tmp_path: Path) -> None:
    model = small()
    adopt_attention(model)
    save_model(tmp_path / "model", model, None)
    assert NAME not in json.dumps(json.loads((tmp_path / "model" / "config.json").read_text()))
    assert load_causal(tmp_path / "model").config._attn_implementation == "sdpa"


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_heads_that_share_keys_attend_as_with_copies_of_them(architecture: str) -> None:
    """One new token behind five, with a mask and without."""
    model, plain = small(architecture), small(architecture)
    adopt_attention(model)
    for masked in (False, True):
        found = []
        for each in (model, plain):
            mask = torch.ones(3, 6, dtype=torch.long)
            mask[1, :2] = 0
            how = {"attention_mask": mask} if masked else {}
            before = {name: value[:, :5] for name, value in how.items()}
            with torch.no_grad():
                cache = each(input_ids=TOKENS[:, :5], use_cache=True, **before).past_key_values
                last = each(input_ids=TOKENS[:, 5:6], **{cache_argument(each): cache}, **how)
            found.append(last.logits)
        torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
