"""Open a policy for sampling: model, tokenizer, renderer and the in-process engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from heed.data.render import Renderer
from heed.engines.local import LocalEngine
from heed.models.device import Precision, choose_device, choose_precision
from heed.models.load import load_causal, load_tokenizer
from heed.records import PolicyRef
from heed.settings import ModelSettings


@dataclass(frozen=True)
class OpenPolicy:
    """A policy that is ready to sample."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    renderer: Renderer
    engine: LocalEngine


def open_policy(
    settings: ModelSettings,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    max_rows: int = 128,
) -> OpenPolicy:
    """Load a policy and put an engine around it.

    Raises:
        StoreError, ConfigError: the model is not there or cannot be loaded.
    """
    where = choose_device(device)
    model = load_causal(settings)
    num_parameters = sum(p.numel() for p in model.parameters())
    cast(Any, model).to(device=where, dtype=choose_precision(precision, where, num_parameters))
    tokenizer = load_tokenizer(settings)
    renderer = Renderer(tokenizer)
    # The name alone: where a folder stands changes nothing that is sampled from it.
    name = Path(settings.path).name if Path(settings.path).exists() else settings.path
    reference = PolicyRef(run=name, step=0)
    engine = LocalEngine(model, renderer, policy=reference, max_rows=max_rows)
    return OpenPolicy(model, tokenizer, renderer, engine)
