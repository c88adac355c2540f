"""The real parts of a PPO run on the tiny world, opened but not yet run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from heed.algorithms import rollouts
from heed.algorithms.online_settings import OnlineSettings
from heed.algorithms.parts import Parts, make_parts
from heed.data.render import Renderer
from heed.models.adapters import add_lora
from heed.models.load import load_causal, load_tokenizer
from heed.runs.run import Run


@contextmanager
def opened(config: OnlineSettings) -> Iterator[tuple[Parts, Run]]:
    """Make the parts of a PPO run as `ppo.run` makes them."""
    with Run.start(config.run, "ppo", {}) as run:
        causal: nn.Module = load_causal(config.model)
        if config.model.lora:
            causal = add_lora(causal, config.model.lora, seed=config.run.seed)
        yield make_parts(config, run, causal, Renderer(load_tokenizer(config.model))), run


def sampled(
    config: OnlineSettings, parts: Parts, run: Run, *, update: int = 1, num: int = 16
) -> rollouts.Experience:
    """Completions of the first prompts, scored and laid out."""
    sampling = config.sampling.model_copy(update={"n": config.group_size, "seed": update})
    prompts = [parts.prompts[i % len(parts.prompts)] for i in range(num)]
    groups = rollouts.collect(
        run, update, parts.engine, parts.scorer, prompts, sampling, parts.renderer, parts.ending
    )
    return rollouts.experience(
        groups, parts.renderer, sampling.temperature, config.max_failed_frac, parts.ending
    )


def shaken(module: nn.Module, by: float, seed: int = 0) -> None:
    """Add noise to the weights, so that a policy is no longer its reference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(by * torch.randn(weight.shape, generator=generator))


def gradients(module: nn.Module) -> dict[str, Any]:
    """Copies of the gradients by name."""
    named = module.named_parameters()
    return {name: w.grad.clone() for name, w in named if w.grad is not None}
