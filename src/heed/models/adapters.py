"""Low-rank adapters through peft: add, switch off for the reference, merge and save."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from heed.errors import ConfigError, MissingExtra
from heed.ids import stream_seed
from heed.models.backbone import unwrap
from heed.models.load import save_model
from heed.settings import LoraSettings


def add_lora(
    causal: PreTrainedModel,
    settings: LoraSettings,
    *,
    seed: int = 0,
    task: Literal["CAUSAL_LM", "FEATURE_EXTRACTION"] = "CAUSAL_LM",
) -> nn.Module:
    """Freeze a model and put trainable low-rank adapters into its linear layers, in place.

    The adapters start as zero maps, so the policy starts as the model it was made from.

    Raises:
        MissingExtra: peft is not installed.
        ConfigError: the layers to adapt are not found.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingExtra("peft", "peft") from error
    options: dict[str, Any] = {
        "r": settings.r,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": list(settings.target_modules) if settings.target_modules else None,
        "task_type": task,
    }
    config = peft.LoraConfig(**options)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(seed, "adapters"))
            adapted: nn.Module = peft.get_peft_model(causal, config)
    except ValueError as error:
        names = sorted(
            {n.rsplit(".", 1)[-1] for n, m in causal.named_modules() if isinstance(m, nn.Linear)}
        )
        raise ConfigError(
            f"peft cannot place the adapters ({str(error).splitlines()[0]}); "
            f"set lora.target_modules to some of {names}"
        ) from error
    return adapted.eval()


@contextmanager
def reference_disabled(causal: nn.Module) -> Iterator[None]:
    """Switch the adapters off: inside, the model is the frozen one it was made from.

    Raises:
        ConfigError: the model has no adapters, so it is not its own reference.
    """
    if not hasattr(causal, "disable_adapter"):
        raise ConfigError(
            f"a {type(causal).__name__} without adapters is not its own reference; "
            "load the reference as a model of its own, or train with lora"
        )
    with cast(Any, causal).disable_adapter():
        yield


def merge_and_save(
    folder: str | Path,
    causal: nn.Module,
    tokenizer: PreTrainedTokenizerBase | None,
    extra: dict[str, Any] | None = None,
) -> Path:
    """Write a model with its adapters merged into the weights; the model itself stays as it is.

    A model without adapters is written as it stands.

    Raises:
        StoreError: the folder cannot be written.
    """
    if hasattr(causal, "peft_config"):
        causal = cast(Any, copy.deepcopy(causal)).merge_and_unload()
    return save_model(folder, unwrap(causal), tokenizer, extra)
