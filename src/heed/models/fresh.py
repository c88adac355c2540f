"""Make models and tokenizers from nothing: random weights, and byte-level BPE from texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from heed.errors import ConfigError, DataError
from heed.ids import stream_seed

PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|endoftext|>"
ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""One token opens a turn; the end token closes what the assistant says."""


def make_model(
    architecture: str,
    *,
    vocab_size: int,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int | None = None,
    intermediate_size: int | None = None,
    max_positions: int = 1024,
    seed: int = 0,
    tie_embeddings: bool = True,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> PreTrainedModel:
    """Make a causal language model with random weights, normal with deviation 0.02.

    Args:
        architecture: transformers' name of the family: llama, qwen3, gpt2, mistral, ...
        vocab_size, hidden_size, num_layers, num_heads: sizes; hidden_size is a multiple of
            num_heads.
        num_kv_heads: key and value heads, which divide num_heads; default num_heads.
        intermediate_size: width of the feed-forward layers; default 4 x hidden_size.
        max_positions: longest row in tokens.
        tie_embeddings: the output layer shares the embedding matrix.
        tokenizer: gives the model its start, end and padding ids.

    Raises:
        ConfigError: sizes that do not fit, or a family that transformers does not know.
    """
    if hidden_size % num_heads or num_heads % (num_kv_heads or num_heads):
        raise ConfigError(
            f"hidden_size {hidden_size}, num_heads {num_heads} and num_kv_heads {num_kv_heads} do "
            "not fit: each size must be a multiple of the next"
        )
    sizes: dict[str, Any] = {
        "hidden_size": hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads or num_heads,
        "head_dim": hidden_size // num_heads,
        "intermediate_size": intermediate_size or 4 * hidden_size,
        "max_position_embeddings": max_positions,
        "vocab_size": vocab_size,
    }
    # Some families have one of these under another name; the rest of them ignore it.
    other_names = {"n_inner": sizes["intermediate_size"], "ffn_dim": sizes["intermediate_size"]}
    ids = {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id", None)
        for name in ("bos", "eos", "pad")
    }
    tied = {"tie_word_embeddings": tie_embeddings}
    config = _config(architecture, sizes, {**other_names, **ids, **tied})
    return _initialised(architecture, config, seed)


def _config(architecture: str, sizes: dict[str, Any], rest: dict[str, Any]) -> PreTrainedConfig:
    try:
        config = AutoConfig.for_model(
            architecture, **sizes, **rest, **_window(architecture), use_cache=True
        )
    except Exception as error:  # configurations refuse sizes with errors of many kinds
        raise ConfigError(
            f"transformers knows no architecture {architecture!r} with these sizes ({error}); "
            "try llama, qwen3, gpt2 or mistral"
        ) from error
    _check_sizes(architecture, config, sizes)
    without_dropout(config)
    return config


def _initialised(architecture: str, config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "initial weights"))
        try:
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
            is_causal = _is_causal(model)
        except (ValueError, RuntimeError, TypeError) as error:
            raise ConfigError(
                f"{architecture!r} has no causal language model in transformers, or not of these "
                f"sizes ({error}); try llama, qwen3, gpt2 or mistral"
            ) from error
    if not is_causal:
        raise ConfigError(
            f"in {architecture!r} a token sees those after it, so it cannot write from left to "
            "right; try llama, qwen3, gpt2 or mistral"
        )
    return model


def _is_causal(model: PreTrainedModel) -> bool:
    """Whether the last token leaves the logits before it alone."""
    tokens = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]]) % model.config.vocab_size
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    return torch.allclose(logits[0], logits[1], atol=1e-6)


def _window(architecture: str) -> dict[str, None]:
    """Switch a window over all layers off; where layers alternate, windows are the architecture."""
    default = AutoConfig.for_model(architecture)
    alternates = "sliding_attention" in (getattr(default, "layer_types", None) or ())
    has_one = getattr(default, "sliding_window", None) is not None
    return {"sliding_window": None} if has_one and not alternates else {}


def without_dropout(config: PreTrainedConfig) -> None:
    """Set every dropout and noise rate of a configuration to 0, nested ones included."""
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            without_dropout(value)
        elif isinstance(value, float) and any(
            part in name for part in ("drop", "jitter_noise", "_pdrop")
        ):
            setattr(config, name, 0.0)


def _check_sizes(architecture: str, config: Any, sizes: dict[str, Any]) -> None:
    if architecture == "gpt2" and sizes["num_key_value_heads"] != sizes["num_attention_heads"]:
        raise ConfigError(
            "gpt2 has as many key and value heads as heads; leave num_kv_heads out, or take llama"
        )
    ignored = [k for k, v in sizes.items() if getattr(config, k, v) != v]
    if ignored:
        raise ConfigError(
            f"architecture {architecture!r} does not take {ignored} as given; "
            "try llama, qwen3, gpt2 or mistral"
        )


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer; any text can be encoded, and the same texts give equal ids.

    The special tokens come first: padding 0, start 1, end 2, then one for each role. A text begins
    with the start token. The chat template is `CHAT_TEMPLATE`.

    Args:
        texts: what to learn the merges from.
        vocab_size: ids in all, special tokens and the 256 bytes included; fewer where the texts
            are too small for so many merges.

    Raises:
        ConfigError: the vocabulary has no room for the bytes.
        DataError: there is no text.
    """
    special = [PAD, BEGIN, END, *ROLE_TOKENS]
    least = len(special) + 256
    if vocab_size < least:
        raise ConfigError(
            f"vocab_size is {vocab_size}; byte-level BPE needs at least {least} "
            f"(256 bytes and {len(special)} special tokens)"
        )
    held = [text for text in texts if text]
    if not held:
        raise DataError("there is no text to train a tokenizer on; give at least one")
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(held, trainer)
    raw.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN} $B",
        special_tokens=[(BEGIN, raw.token_to_id(BEGIN))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLE_TOKENS),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
