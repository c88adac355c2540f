"""The arithmetic that a job needs, whoever does it: the numerator of every share of a machine.

A real token passes the layers once forward and twice as much backward; a prompt that rows share is
counted once; the output layer is counted at completion tokens. Padding, recomputation and logits
that nobody reads are not needed, so a program that does them has a lower share.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks.jobs import LENGTHS, SAMPLES, Case, Lengths

BACKWARD = 2.0
"""Arithmetic of a backward pass, in forward passes."""
PPO_EPOCHS = 4
BF16_BYTES = 2


@dataclass(frozen=True)
class Work:
    """What one step of a case needs.

    Args:
        flops: multiplications and additions of matrix products and attention.
        tokens: real tokens of its rows, prompts included.
        num_new: tokens that are sampled.
        decode_bytes: read from memory at least while they are sampled, with weights, keys and
            values in bf16; 0 where lengths vary or nothing is sampled.
    """

    flops: float
    tokens: float
    num_new: float = 0.0
    decode_bytes: float = 0.0


@dataclass(frozen=True)
class Model:
    """Sizes of a Llama, from its configuration."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int

    @classmethod
    def read(cls, folder: Path) -> Model:
        """Read a model folder's sizes."""
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        return cls(
            config["num_hidden_layers"],
            config["hidden_size"],
            config["num_attention_heads"],
            config["num_key_value_heads"],
            config["intermediate_size"],
            config["vocab_size"],
        )

    @property
    def keys(self) -> int:
        """Width of a token's keys, and of its values."""
        return self.width // self.heads * self.kv_heads

    @property
    def layer_weights(self) -> int:
        """Weights of all layers."""
        attention = 2 * self.width * self.width + 2 * self.width * self.keys
        return self.layers * (attention + 3 * self.width * self.inner)

    @property
    def output_weights(self) -> int:
        """Weights of the output layer."""
        return self.vocabulary * self.width

    def forward(self, new: float, before: float = 0.0, scored: float = 0.0) -> float:
        """Operations of one pass over `new` tokens behind `before` others, `scored` with logits."""
        seen = new * before + new * (new + 1) / 2
        products = 2 * (self.layer_weights * new + self.output_weights * scored)
        return products + 4 * self.layers * self.width * seen


def work_of(case: Case) -> Work:
    """Return what one step of a case needs on average over its data."""
    model = Model.read(case.policy)
    if case.job in SAMPLES:
        return _sampled(case, model)
    name = "sft" if case.job == "sft" else "reward"
    rows = row_lengths(case.data(name), case.policy / "tokenizer.json", name)
    scored = 0.0 if case.job == "reward" else 1.0
    passes = 1 + BACKWARD + (case.job == "dpo")  # the reference is asked in the step
    flops = tokens = 0.0
    for prompt, *completions in rows:
        flops += passes * _shared(model, prompt, completions, scored)
        tokens += sum(prompt + length for length in completions)
    share = case.batch_size / len(rows)
    return Work(flops * share, tokens * share)


def _shared(model: Model, prompt: float, completions: list[float], scored: float = 1.0) -> float:
    """One forward pass over completions of one prompt."""
    tails = sum(model.forward(length, prompt, scored * length) for length in completions)
    return model.forward(prompt) + tails


def _sampled(case: Case, model: Model) -> Work:
    prompts = row_lengths(case.data("prompts"), case.policy / "tokenizer.json", "prompts")
    prompt = statistics.fmean(row[0] for row in prompts)
    length = mean_length(LENGTHS[case.lengths])
    size = 1 if case.job == "ppo" else case.group_size
    once = case.batch_size / size * _shared(model, prompt, [length] * size)
    unscored = case.batch_size / size * _shared(model, prompt, [length] * size, 0.0)
    passes = {"generate": 1.0, "grpo": 2 + BACKWARD, "rloo": 3 + BACKWARD}
    flops = passes.get(case.job, 0.0) * once
    if case.job == "ppo":
        # Sampling and reference; score and values; then epochs of policy and value model.
        learning = PPO_EPOCHS * (1 + BACKWARD)
        flops = (2 + learning) * once + (2 + learning) * unscored
    num_new = case.batch_size * length
    return Work(flops, case.batch_size * prompt + num_new, num_new, _read(case, model, prompt))


def _read(case: Case, model: Model, prompt: float) -> float:
    lengths = LENGTHS[case.lengths]
    if lengths.mean is not None:
        return 0.0
    steps = lengths.completion[1]
    weights = steps * (model.layer_weights + model.output_weights)
    seen = steps * prompt + steps * (steps + 1) / 2
    keys = case.batch_size * seen * 2 * model.keys * model.layers
    return BF16_BYTES * (weights + keys)


def mean_length(lengths: Lengths) -> float:
    """Expected tokens of a completion that ends at every token with the same chance."""
    most = lengths.completion[1]
    if lengths.mean is None:
        return most
    goes_on = 1 - 1 / lengths.mean
    return (1 - goes_on**most) * lengths.mean


@cache
def row_lengths(data: Path, tokenizer: Path, name: str) -> list[tuple[int, ...]]:
    """Tokens of each row's prompt, and of its completions with their end token."""
    encode = Tokenizer.from_file(str(tokenizer)).encode
    columns = {"sft": ("completion",), "reward": ("chosen", "rejected")}.get(name, ())
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    return [
        (
            len(encode(row["prompt"], add_special_tokens=False)),
            *(len(encode(row[c], add_special_tokens=False)) + 1 for c in columns),
        )
        for row in rows
    ]
