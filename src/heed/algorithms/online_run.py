"""An online stage from its configuration to its run: load, optimise, save."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from heed.algorithms import online
from heed.algorithms.online_settings import OnlineSettings
from heed.algorithms.parts import Parts, make_parts
from heed.data.render import Renderer
from heed.feedback.ensemble import sources_of
from heed.models.adapters import add_lora, merge_and_save
from heed.models.load import load_causal, load_tokenizer
from heed.runs.run import Run
from heed.runs.sinks import Sink

Make = Callable[[OnlineSettings, Run, nn.Module, Renderer], Parts]


def run_online(
    kind: str,
    config: OnlineSettings,
    sinks: Sequence[Sink] = (),
    *,
    make: Make = make_parts,
    step: online.Step = online.update_once,
) -> Run:
    """Optimise, and leave the policy in `RUN/model`.

    Args:
        kind: of the run, the name of its verb.
        make: from settings to what the loop is composed of.
        step: one update.

    Raises:
        DataError: the prompts are not usable.
        FeedbackError: too many completions have no score.
        LearnerError: a loss is not finite.
    """
    inputs = {"model": config.model.path, "data": config.data.path}
    inputs |= {f"reward {i}": sources_of(word) for i, word in enumerate(config.reward_funcs)}
    if config.cost is not None:
        inputs |= {f"cost {i}": sources_of(word) for i, word in enumerate(config.cost.funcs)}
    with Run.start(config.run, kind, config, inputs, sinks) as run:
        tokenizer = load_tokenizer(config.model)
        renderer = Renderer(tokenizer)
        loaded = load_causal(config.model)
        causal: nn.Module = loaded
        if config.model.lora:
            causal = add_lora(loaded, config.model.lora, seed=config.run.seed)
        parts = make(config, run, causal, renderer)
        try:
            online.optimise(config, run, parts, step)
        finally:
            if parts.live is not None:
                parts.live.close()
        parts.policy.widen()
        merge_and_save(run.path("model"), causal, tokenizer)
        run.finish({"model": run.path("model")}, facts={"title": config.stage_title})
    return run
