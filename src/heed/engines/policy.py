"""Open a policy for sampling: model, tokenizer, renderer and the in-process engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from heed.data.datasets import load_prompts
from heed.data.render import Renderer
from heed.data.report import DataReport
from heed.engines.local import LocalEngine
from heed.errors import ConfigError
from heed.models.device import Precision, choose_device, choose_precision
from heed.models.load import load_causal, load_tokenizer
from heed.models.norms import adopt_kernels
from heed.records import PolicyRef, Prompt
from heed.runs.run import Run
from heed.settings import DataSettings, EngineSettings, ModelSettings


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
    engine: EngineSettings | None = None,
) -> OpenPolicy:
    """Load a policy and put an engine around it.

    Raises:
        StoreError, ConfigError: the model is not there or cannot be loaded.
    """
    where = choose_device(device)
    model = load_causal(settings)
    num_parameters = sum(p.numel() for p in model.parameters())
    cast(Any, model).to(device=where)
    dtype = choose_precision(precision, where, num_parameters)
    for parameter in model.parameters():
        # Buffers, such as the angles of rotary positions, keep their precision, as in training.
        parameter.data = parameter.data.to(dtype)
    adopt_kernels(model)
    tokenizer = load_tokenizer(settings)
    renderer = Renderer(tokenizer)
    # The name alone: where a folder stands changes nothing that is sampled from it.
    name = Path(settings.path).name if Path(settings.path).exists() else settings.path
    reference = PolicyRef(run=name, step=0)
    how = engine or EngineSettings()
    local = LocalEngine(
        model,
        renderer,
        policy=reference,
        max_rows=how.max_rows,
        path=how.path,
        cuda_graphs=how.cuda_graphs,
    )
    return OpenPolicy(model, tokenizer, renderer, local)


def note_path(run: Run, engine: LocalEngine, of: str = "engine") -> None:
    """Write into the manifest how the run decodes; a resumed run says where that has changed.

    The two paths agree to rounding, so that a run which goes on with the other one does not end
    with the same bits.
    """
    run.note_environment(**{f"{of}_path": engine.path, f"{of}_why_torch": engine.why_torch or None})
    if engine.build_failed:
        run.note(f"completions are decoded through torch, more slowly: {engine.why_torch}")


def load_fitting_prompts(
    data: DataSettings, engine: LocalEngine, max_tokens: int
) -> tuple[list[Prompt], DataReport]:
    """Load the prompts that leave room for `max_tokens` more in the model's positions.

    Longer ones, and those longer than `data.max_length`, are dropped and counted.

    Raises:
        ConfigError: there is no room for any prompt.
        DataError: as `load_prompts`; or `data.on_overlong` is error, and a prompt is too long.
    """
    positions = engine.max_length
    if positions is None or positions - max_tokens >= data.max_length:
        return load_prompts(data, engine.renderer)
    room = positions - max_tokens
    if room < 1:
        raise ConfigError(
            f"sampling.max_tokens is {max_tokens} and the model has {positions} positions, which "
            f"leaves no room for a prompt; set it below {positions}"
        )
    prompts, report = load_prompts(data.model_copy(update={"max_length": room}), engine.renderer)
    report.note(
        f"a prompt may have {room} tokens: the model has {positions} positions, and "
        f"sampling.max_tokens takes {max_tokens}"
    )
    return prompts, report
