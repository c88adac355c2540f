"""A new model from a configuration: random weights, and a tokenizer trained on given text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator
from transformers import PreTrainedTokenizerBase

from heed.data.datasets import load_texts
from heed.data.report import settle
from heed.ids import stream_seed
from heed.models.load import load_tokenizer, make_model, save_model, train_tokenizer
from heed.runs.run import Run
from heed.runs.sinks import Sink
from heed.settings import DataSettings, NoEffect, RunSettings, Settings


class InitConfig(Settings):
    """Make a causal language model with random weights, and its tokenizer."""

    run: RunSettings
    data: DataSettings | None = None
    """Text to train the tokenizer on."""
    tokenizer: str | None = None
    """Folder or hub id of a tokenizer to use instead of training one."""
    architecture: Literal["llama", "qwen3", "mistral", "gpt2"] = "llama"
    """Family of the model."""
    vocab_size: int = Field(default=4096, ge=300)
    """Most tokens of a trained tokenizer, special tokens included."""
    hidden_size: int = Field(default=128, ge=8)
    """Width."""
    num_layers: int = Field(default=4, ge=1)
    """Transformer blocks."""
    num_heads: int = Field(default=4, ge=1)
    """Attention heads."""
    num_kv_heads: int | None = Field(default=None, ge=1)
    """Key-value heads, where the family shares them; as many as heads by default."""
    intermediate_size: int | None = Field(default=None, ge=8)
    """Width inside a block's feed-forward part; 4 x width (gpt2) or 8/3 x width by default."""
    max_positions: int = Field(default=512, ge=16)
    """Longest sequence in tokens."""
    tie_embeddings: bool = True
    """Share the input embedding with the output layer."""

    @model_validator(mode="after")
    def _check(self) -> InitConfig:
        if self.data is None and self.tokenizer is None:
            raise ValueError(
                "neither data nor tokenizer is given; give data.path, texts to train a tokenizer "
                "on, or the folder of a tokenizer"
            )
        return self

    def without_effect(self) -> tuple[NoEffect, ...]:
        """See `Settings.without_effect`."""
        taken = self.tokenizer is not None
        return (
            NoEffect(taken, ("data", "vocab_size"), "tokenizer is taken as it is"),
            NoEffect(
                True,
                ("data.max_length", "data.on_overlong"),
                "the tokenizer learns from whole texts",
            ),
        )


def run(config: InitConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Make the model and leave it in `RUN/model`."""
    inputs = {} if config.data is None else {"data": config.data.path}
    with Run.start(config.run, "init", config, inputs, sinks) as run:
        run.stage("new model", 1)
        tokenizer: PreTrainedTokenizerBase
        if config.tokenizer is not None:
            tokenizer = load_tokenizer(config.tokenizer)
        else:
            assert config.data is not None
            texts, report = load_texts(config.data)
            settle(run, [(report, config.data.max_loss_frac)])
            tokenizer = train_tokenizer((t.text for t in texts), config.vocab_size)
        model = make_model(
            config.architecture,
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            intermediate_size=config.intermediate_size,
            max_positions=config.max_positions,
            tie_embeddings=config.tie_embeddings,
            tokenizer=tokenizer,
            seed=stream_seed(config.run.seed, "init"),
        )
        save_model(run.path("model"), model, tokenizer)
        parameters = sum(p.numel() for p in model.parameters())
        run.finish({"model": run.path("model")}, facts={"num_parameters": parameters})
    return run
