"""Make what both sides of a benchmark read: a tokenizer, models with random weights, and data.

    .bench/venv/bin/python -m benchmarks.assets .bench/assets

Nothing is downloaded: the text is the running Python's standard library. Lengths are exact in
tokens, and every prompt and completion joined encode to the two encodings joined, so that both
sides train on the same tokens. Lengths "fixed": prompts of 64 tokens, completions of 64 with the
end token. Lengths "natural": prompts 16 to 112, completions 8 to 128, geometric in between.
"""

from __future__ import annotations

import json
import random
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

VOCAB_SIZE = 4096
NUM_ROWS = 512
MAX_TEXT_CHARS = 6_000_000
SIZES = {
    "nano": {
        "num_hidden_layers": 4,
        "hidden_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 512,
    },
    "mini": {
        "num_hidden_layers": 6,
        "hidden_size": 384,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "intermediate_size": 1024,
    },
}
LENGTHS = ("fixed", "natural")
MEAN_NATURAL_TOKENS = 40
# The end token's logit, through one constant channel: never, or once in about 40 tokens.
END_LOGIT = {"fixed": -12.0, "natural": 4.65}

Draw = Callable[[], int]


def standard_library() -> list[str]:
    """Read source files of the standard library, in a fixed order."""
    texts, size = [], 0
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = file.read_text(encoding="utf-8", errors="ignore")
        texts.append(text)
        size += len(text)
        if size > MAX_TEXT_CHARS:
            break
    return texts


def make_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train byte-level BPE with a padding and an end token."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<|pad|>", "<|end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        clean_up_tokenization_spaces=False,
    )


class Cutter:
    """Cuts texts of an exact number of tokens out of a long one."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, texts: list[str], seed: int) -> None:
        self._tokenizer = tokenizer
        self._tokens = self.encode(" ".join(texts))
        self.random = random.Random(seed)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, nothing added."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def cut(self, num_tokens: int, before: str = "") -> str:
        """Cut a text that has so many tokens, alone and behind `before`."""
        head = self.encode(before) if before else []
        while True:
            at = self.random.randrange(len(self._tokens) - num_tokens)
            text = self._tokenizer.decode(self._tokens[at : at + num_tokens])
            tokens = self.encode(text)
            if len(tokens) != num_tokens or "\ufffd" in text or not text.strip():
                continue
            if not before or self.encode(before + text) == head + tokens:
                return text

    def geometric(self, low: int, high: int) -> int:
        """Draw a length: exponential above `low`, thrown again above `high`."""
        while True:
            n = low + int(self.random.expovariate(1 / MEAN_NATURAL_TOKENS))
            if n <= high:
                return n


def make_rows(cutter: Cutter, lengths: str) -> list[dict[str, str]]:
    """Make rows of prompt, completion, chosen and rejected; the end token is added later."""
    draws: dict[str, tuple[Draw, Draw]] = {
        "fixed": (lambda: 64, lambda: 63),
        "natural": (lambda: cutter.geometric(16, 112), lambda: cutter.geometric(8, 128) - 1),
    }
    of_prompt, of_completion = draws[lengths]
    rows = []
    for _ in range(NUM_ROWS):
        prompt = cutter.cut(of_prompt())
        chosen, rejected = (cutter.cut(of_completion(), before=prompt) for _ in range(2))
        rows.append(
            {"prompt": prompt, "completion": chosen, "chosen": chosen, "rejected": rejected}
        )
    return rows


def make_models(folder: Path, size: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write a policy for each kind of lengths, and a reward model."""
    config: dict[str, Any] = {
        **SIZES[size],
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    for lengths in LENGTHS:
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**config))
        set_end_logit(model, tokenizer.eos_token_id, END_LOGIT[lengths])
        where = folder / f"{size}-{lengths}"
        model.save_pretrained(where)
        tokenizer.save_pretrained(where)
    torch.manual_seed(1)
    reward = LlamaForSequenceClassification(LlamaConfig(**config, num_labels=1))
    reward.save_pretrained(folder / f"{size}-reward")
    tokenizer.save_pretrained(folder / f"{size}-reward")


@torch.no_grad()
def set_end_logit(model: LlamaForCausalLM, end_id: int, logit: float) -> None:
    """Give the end token a constant logit, so that lengths are geometric by the policy itself.

    Channel 0 of every embedding holds one constant, which no layer writes to; the output layer
    reads that channel for the end token alone.
    """
    embedding, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    embedding[:, 0] = 5.0 * embedding.std()
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight[0] = 0.0
        layer.mlp.down_proj.weight[0] = 0.0
    output[:, 0] = 0.0
    probe = torch.randint(2, VOCAB_SIZE, (8, 32), generator=torch.Generator().manual_seed(0))
    constant = model.model(probe).last_hidden_state[..., 0].mean()
    output[end_id] = 0.0
    output[end_id, 0] = logit / constant


def make(folder: Path) -> None:
    """Make everything that is not there yet."""
    if (folder / "complete").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    texts = standard_library()
    tokenizer = make_tokenizer(texts)
    cutter = Cutter(tokenizer, texts, seed=0)
    for lengths in LENGTHS:
        rows = make_rows(cutter, lengths)
        columns = {
            "sft": ("prompt", "completion"),
            "reward": ("prompt", "chosen", "rejected"),
            "prompts": ("prompt",),
        }
        for name, kept in columns.items():
            lines = [json.dumps({column: row[column] for column in kept}) for row in rows]
            (folder / f"{name}-{lengths}.jsonl").write_text("\n".join(lines) + "\n")
    for size in SIZES:
        make_models(folder, size, tokenizer)
    (folder / "complete").touch()


if __name__ == "__main__":
    make(Path(sys.argv[1]))
