"""Models and tokenizers made from nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.small import TEXTS, tokenizer

from heed.errors import ConfigError, DataError
from heed.models.fresh import BEGIN, END, PAD, ROLE_TOKENS, make_model, train_tokenizer
from heed.models.load import load_causal, load_tokenizer, save_model

SIZES = {"vocab_size": 300, "hidden_size": 32, "num_layers": 2, "num_heads": 4}


@pytest.mark.parametrize(
    "architecture", ["llama", "qwen3", "gpt2", "mistral", "gpt_neox", "gemma2"]
)
def test_sizes_are_taken_and_weights_are_small_normal(architecture: str, tmp_path: Path) -> None:
    model = make_model(architecture, **SIZES, max_positions=48)
    config = model.config
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (300, 32, 2)
    assert config.max_position_embeddings == 48
    embedding = model.get_input_embeddings().weight
    assert embedding.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.get_output_embeddings().weight is embedding
    save_model(tmp_path, model, None)
    tokens = torch.arange(8)[None]
    again = load_causal(tmp_path)
    assert torch.equal(model(input_ids=tokens).logits, again(input_ids=tokens).logits)


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = make_model("llama", **SIZES, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    two = make_model("llama", **SIZES, seed=5).state_dict()
    other = make_model("llama", **SIZES, seed=6).state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)
    name = "model.embed_tokens.weight"
    assert not torch.equal(one[name], other[name])


def test_grouped_heads_untied_embeddings_and_widths() -> None:
    model = make_model("llama", **SIZES, num_kv_heads=2, intermediate_size=80, tie_embeddings=False)
    layer = model.model.layers[0]
    assert layer.self_attn.k_proj.weight.shape == (16, 32)
    assert layer.mlp.up_proj.weight.shape == (80, 32)
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    narrow = make_model("gpt2", **SIZES, intermediate_size=80)
    assert narrow.transformer.h[0].mlp.c_fc.weight.shape == (32, 80)


def test_the_tokenizer_gives_the_model_its_ids() -> None:
    model = make_model("llama", **{**SIZES, "vocab_size": 320}, tokenizer=tokenizer())
    ids = (model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id)
    assert ids == (0, 1, 2)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("nosuchnet", {}),
        ("bert", {"num_kv_heads": 2}),
        ("llama", {"hidden_size": 30}),
        ("llama", {"num_kv_heads": 3}),
        ("gpt2", {"num_kv_heads": 2}),
    ],
)
def test_sizes_that_do_not_fit_are_refused(architecture: str, changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        make_model(architecture, **{**SIZES, **changes})


@given(st.text(max_size=60))
def test_any_text_comes_back(text: str) -> None:
    ids = tokenizer()(text, add_special_tokens=False)["input_ids"]
    assert tokenizer().decode(ids) == text


def test_ids_are_stable(tmp_path: Path) -> None:
    again = train_tokenizer(iter(TEXTS), 320)
    assert again.get_vocab() == tokenizer().get_vocab()
    again.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    text = "Where does the baker live? Größe 🙂"
    assert loaded(text)["input_ids"] == tokenizer()(text)["input_ids"]
    assert (loaded.pad_token, loaded.bos_token, loaded.eos_token) == (PAD, BEGIN, END)
    assert loaded.chat_template == tokenizer().chat_template
    assert len(loaded) == 320


def test_special_tokens_come_first_and_a_text_begins_with_the_start() -> None:
    words = tokenizer()
    assert words.convert_tokens_to_ids([PAD, BEGIN, END, *ROLE_TOKENS]) == list(range(7))
    assert words("The miller")["input_ids"][0] == 1
    assert len(words("Who sells bread", add_special_tokens=False)["input_ids"]) == 3


def test_turns_cost_one_token_each() -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "The baker."},
        {"role": "user", "content": "Why?"},
    ]
    text = tokenizer().apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|begin|><|system|>Be brief.<|user|>Who?<|assistant|>The baker.<|endoftext|>"
        "<|user|>Why?<|assistant|>"
    )


def test_a_tokenizer_needs_room_and_text() -> None:
    with pytest.raises(ConfigError, match="at least 263"):
        train_tokenizer(TEXTS, 262)
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(["", ""], 300)
