"""The small configurations that several stages share.

A stage's own configuration stands beside its `run(config)`; it is made of these. The docstring of
a field is the help of its flag. Functions below the procedures take arguments, not these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator


class NoEffect(NamedTuple):
    """Settings that do nothing where `holds` is true."""

    holds: bool
    names: tuple[str, ...]
    """Dotted, as on the command line."""
    why: str


class Settings(BaseModel):
    """Base of all configurations: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def without_effect(self) -> tuple[NoEffect, ...]:
        """Say which settings do nothing beside the others; a stage overrides this."""
        return ()

    def ignored(self) -> list[str]:
        """Name each setting that was changed from its default and does nothing, and say why."""
        found = [
            f"{name} is set and ignored: {why}"
            for holds, names, why in self.without_effect()
            for name in names
            if holds and _is_changed(self, name)
        ]
        for section in type(self).model_fields:
            value = getattr(self, section)
            if isinstance(value, Settings):
                found += [f"{section}.{text}" for text in value.ignored()]
        return found


def _is_changed(settings: BaseModel, name: str) -> bool:
    """Whether a dotted setting has another value than its field's default."""
    owner, _, rest = name.partition(".")
    value = getattr(settings, owner)
    if rest:
        return isinstance(value, BaseModel) and _is_changed(value, rest)
    field = type(settings).model_fields[owner]
    return bool(value != field.get_default(call_default_factory=True))


class LoraSettings(Settings):
    """Low-rank adapters (needs the `peft` extra)."""

    r: int = Field(default=16, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(default=32.0, gt=0.0)
    """Adapters are scaled by alpha / r."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout inside the adapters; any but 0 makes log-probabilities noisy."""
    target_modules: tuple[str, ...] | None = None
    """Names of the linear layers to adapt; by default peft's choice for the architecture."""


class ModelSettings(Settings):
    """Which model, and how it is loaded."""

    path: str
    """Local folder in `save_pretrained` layout, a run folder that made a model, or a hub id."""
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer, where it is not beside the weights."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    trust_remote_code: bool = False
    """Run code that comes with a hub model."""
    lora: LoraSettings | None = None
    """Train low-rank adapters instead of all weights."""


class DataSettings(Settings):
    """Which rows, and what may happen to those that do not fit."""

    path: str | tuple[str, ...]
    """File or files (.jsonl, .jsonl.gz, .jsonl.xz, .parquet), a run folder, or a hub id."""
    split: str = "train"
    """Split of a hub data set."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first rows."""
    max_length: int = Field(default=1024, ge=2)
    """Longest row in tokens, prompt and completion together."""
    on_overlong: Literal["error", "truncate", "drop"] = "drop"
    """What happens to a row longer than `max_length`; always counted and shown."""
    max_loss_frac: float = Field(default=0.01, ge=0.0, le=1.0)
    """Stop before the first step where more than this share of rows is cut, dropped or empty."""

    def without_effect(self) -> tuple[NoEffect, ...]:
        """A local file has no splits."""
        paths = (self.path,) if isinstance(self.path, str) else self.path
        local = all(Path(path).expanduser().exists() for path in paths)
        return (NoEffect(local, ("split",), "a local file or folder has no splits"),)


class PromptSettings(DataSettings):
    """Which prompts, and whether they are cut out of longer texts."""

    start_text: str | None = None
    """A prompt begins after the first such text (a period in Ziegler's code); one without it is
    dropped and counted."""
    end_text: str | None = None
    """A prompt ends with the last such text that leaves it within max_length; one without it is
    dropped and counted."""

    @model_validator(mode="before")
    @classmethod
    def _from_data(cls, given: Any) -> Any:
        """Settings that say nothing of cutting will do."""
        return given.model_dump(exclude_unset=True) if type(given) is DataSettings else given


class OptimSettings(Settings):
    """The optimiser (Adam with decoupled weight decay) and its schedule."""

    lr: float = Field(default=1e-4, gt=0.0)
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the rate falls after warm-up: not at all, to 0, or to 10 % along a cosine."""
    warmup_frac: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the steps in which the rate rises linearly from 0."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """Decoupled weight decay, on matrices only."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the two moments."""
    eps: float = Field(default=1e-8, gt=0.0)
    """Added to the denominator."""
    eps_placement: Literal["torch", "tensorflow"] = "torch"
    """Where eps enters: after bias correction (torch), or before it as TensorFlow 1 does."""
    max_grad_norm: float = Field(default=1.0, ge=0.0)
    """Gradients are scaled down to this norm; 0 switches it off."""
    ema_decay: float | None = Field(default=None, gt=0.0, lt=1.0)
    """The model that is saved is a moving average of the weights with this decay per step (0.992
    in InstructGPT). What is sampled and measured along the way are the weights themselves."""


class LearnerSettings(Settings):
    """How training steps are executed; changes speed and memory, not what is learned."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Compute type; master weights stay fp32. auto: bf16 where the device is faster at it."""
    micro_batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens, padding included, in one forward and backward pass; by default 8192, and on a CUDA
    device as many as half of its memory holds."""
    layout: Literal["auto", "padded", "packed"] = "auto"
    """padded: rows of like length side by side. packed: joined end to end, shared prompts once.
    auto: packed where the model attends by rows (full attention through torch's kernels)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto."""


class EngineSettings(Settings):
    """How completions are generated; changes speed and memory, not what is sampled."""

    max_rows: int = Field(default=128, ge=1)
    """Most completions decoded side by side."""
    path: Literal["auto", "native", "torch"] = "auto"
    """native: a compiled loop, plain models on a CPU; torch: any model; auto: native if it can."""
    cuda_graphs: bool = True
    """On a CUDA device, replay captured decoding steps; keeps room for keys and values."""


class RunSettings(Settings):
    """Where a run is written, and how often."""

    folder: str
    """Folder of the run; made if absent."""
    name: str = ""
    """Shown in reports; the folder's name by default."""
    seed: int = 0
    """Every random stream of the run derives from it."""
    resume: bool = False
    """Go on from the newest whole checkpoint in the folder."""
    overwrite: bool = False
    """Replace what is in the folder."""
    checkpoint_seconds: float = Field(default=60.0, ge=0.0)
    """Least time between two checkpoints; 0 writes one after every update."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints that stay on disk."""
    report_to: tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...] = ()
    """Trackers that get a copy of the metrics; stages report to those of their pipeline."""
