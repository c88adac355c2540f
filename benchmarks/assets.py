"""Make what both sides of a benchmark read: a tokenizer, models with random weights, and data.

    .bench/venv/bin/python -m benchmarks.assets .bench/assets nano,mini fixed,natural

Nothing is downloaded: the text is the running Python's standard library. Lengths are exact in
tokens, and every prompt and completion joined encode to the two encodings joined, so that both
sides train on the same tokens. `benchmarks.jobs.LENGTHS` has the lengths.
"""

from __future__ import annotations

import json
import math
import random
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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

from benchmarks.jobs import LENGTHS, Lengths

NUM_ROWS = 512
MAX_TEXT_CHARS = 6_000_000
NEVER = -12.0
"""The end token's logit where no policy ends by itself."""
STORED_IN_BF16 = 10**8
"""Parameters from which on a model is written in bf16, to be read faster; both sides widen it."""


@dataclass(frozen=True)
class Shape:
    """A Llama by its sizes.

    Args:
        words: of the tokenizer.
        vocabulary: of the model; ids beyond the tokenizer's are sampled and decode to nothing.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    words: int = 4096
    vocabulary: int = 4096

    def config(self, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
        """The shape as transformers takes it."""
        return LlamaConfig(
            num_hidden_layers=self.layers,
            hidden_size=self.width,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            intermediate_size=self.inner,
            vocab_size=self.vocabulary,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )


SHAPES = {
    "nano": Shape(4, 128, 4, 2, 512),
    "mini": Shape(6, 384, 6, 3, 1024),
    "mini-32k": Shape(6, 384, 6, 3, 1024, 32_000, 32_000),
    "small": Shape(10, 640, 10, 5, 2048),
    # Shapes of well-known models, output layer not tied.
    "0.5B": Shape(24, 896, 14, 2, 4864, 32_000, 151_936),
    "1.5B": Shape(28, 1536, 12, 2, 8960, 32_000, 151_936),
    "8B": Shape(32, 4096, 32, 8, 14_336, 32_000, 128_256),
}


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


def make_tokenizer(texts: Iterable[str], words: int) -> PreTrainedTokenizerFast:
    """Train byte-level BPE with a padding and an end token."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=words,
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

    def length(self, least: int, most: int, mean: int | None) -> int:
        """Draw a length: exponential above `least`, thrown again above `most`."""
        while True:
            n = least + int(self.random.expovariate(1 / (mean or 1)))
            if mean is None or n <= most:
                return most if mean is None else n


def make_rows(cutter: Cutter, lengths: Lengths) -> list[dict[str, str]]:
    """Make rows of prompt, completion, chosen and rejected; the end token is added later."""
    rows: list[dict[str, str]] = []
    seen: set[str] = set()
    while len(rows) < NUM_ROWS:
        prompt = cutter.cut(cutter.length(*lengths.prompt, lengths.mean))
        if prompt in seen:
            continue
        seen.add(prompt)
        chosen, rejected = (
            cutter.cut(cutter.length(*lengths.completion, lengths.mean) - 1, before=prompt)
            for _ in range(2)
        )
        rows.append(
            {"prompt": prompt, "completion": chosen, "chosen": chosen, "rejected": rejected}
        )
    return rows


def end_logit(shape: Shape, lengths: Lengths) -> float:
    """The end token's logit that ends a completion once in `mean` tokens.

    The other logits of a fresh model are about normal with variance 0.02^2 x width.
    """
    if lengths.mean is None:
        return NEVER
    return math.log(shape.vocabulary / (lengths.mean - 1)) + 0.0002 * shape.width


def make_policy(
    folder: Path, shape: Shape, lengths: Lengths, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write a policy of random weights that ends after so many tokens."""
    model = fresh(LlamaForCausalLM, shape.config(tokenizer), seed=0)
    set_end_logit(model, tokenizer.eos_token_id, end_logit(shape, lengths))
    save(folder, model, tokenizer)


def make_reward(folder: Path, shape: Shape, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write a reward model of random weights."""
    config = shape.config(tokenizer)
    config.num_labels = 1
    save(folder, fresh(LlamaForSequenceClassification, config, seed=1), tokenizer)


def fresh(kind: Any, config: LlamaConfig, seed: int) -> Any:
    """Make a model of random weights, on a GPU where there is one, because that is faster."""
    torch.manual_seed(seed)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return kind(config)


def save(folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write model and tokenizer, large models in bf16."""
    if sum(p.numel() for p in model.parameters()) > STORED_IN_BF16:
        model = model.to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


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
    generator = torch.Generator().manual_seed(0)
    probe = torch.randint(2, len(embedding), (8, 32), generator=generator).to(embedding.device)
    constant = model.model(probe).last_hidden_state[..., 0].mean()
    output[end_id] = 0.0
    output[end_id, 0] = logit / constant


COLUMNS = {
    "sft": ("prompt", "completion"),
    "reward": ("prompt", "chosen", "rejected"),
    "prompts": ("prompt",),
}


def make_data(folder: Path, names: Sequence[str], kinds: Sequence[str]) -> None:
    """Make tokenizers and rows that are not there yet; models of one tokenizer share them."""
    for words in sorted({SHAPES[name].words for name in names}):
        wanted = [kind for kind in kinds if not (folder / f"rows-{words}-{kind}.json").exists()]
        where = folder / f"tokenizer-{words}"
        if not wanted and where.exists():
            continue
        texts = standard_library()
        if not where.exists():
            make_tokenizer(texts, words).save_pretrained(where)
        cutter = Cutter(PreTrainedTokenizerFast.from_pretrained(where), texts, seed=0)
        for kind in wanted:
            rows = make_rows(cutter, LENGTHS[kind])
            (folder / f"rows-{words}-{kind}.json").write_text(json.dumps(rows))


def make(folder: Path, names: Sequence[str], kinds: Sequence[str], rewards: bool = True) -> None:
    """Make everything that is not there yet, for models and lengths of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    make_data(folder, names, kinds)
    for name in names:
        shape = SHAPES[name]
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / f"tokenizer-{shape.words}")
        for kind in kinds:
            done = folder / f"{name}-{kind}.complete"
            if done.exists():
                continue
            rows = json.loads((folder / f"rows-{shape.words}-{kind}.json").read_text())
            for what, kept in COLUMNS.items():
                lines = [json.dumps({column: row[column] for column in kept}) for row in rows]
                (folder / f"{what}-{name}-{kind}.jsonl").write_text("\n".join(lines) + "\n")
            make_policy(folder / f"{name}-{kind}", shape, LENGTHS[kind], tokenizer)
            done.touch()
        done = folder / f"{name}-reward.complete"
        if rewards and not done.exists():
            make_reward(folder / f"{name}-reward", shape, tokenizer)
            done.touch()


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3].split(","))
