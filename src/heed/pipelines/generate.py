"""Sample completions from a policy and keep them as records."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic import Field

from heed.data.exchange import write_rows
from heed.data.report import settle
from heed.engines.policy import load_fitting_prompts, note_path, open_policy
from heed.records import Sampling
from heed.runs.run import Run
from heed.runs.sinks import Sink
from heed.settings import (
    EngineSettings,
    LearnerSettings,
    ModelSettings,
    NoEffect,
    PromptSettings,
    RunSettings,
    Settings,
)


class GenerateConfig(Settings):
    """Sample completions of prompts."""

    run: RunSettings
    model: ModelSettings
    data: PromptSettings
    """Prompts."""
    sampling: Sampling = Sampling()
    """Its `seed` is added to that of the run, so that one run may be sampled anew."""
    batch_size: int = Field(default=256, ge=1)
    """Prompts between two reports of progress."""
    engine: EngineSettings = EngineSettings()
    learner: LearnerSettings = LearnerSettings()
    """Its `device` and `precision` say where and in what the model runs."""

    def without_effect(self) -> tuple[NoEffect, ...]:
        """See `Settings.without_effect`."""
        of_training = ("micro_batch_tokens", "layout", "gradient_checkpointing")
        names = ("model.lora", *(f"learner.{name}" for name in of_training))
        return (
            NoEffect(True, names, "nothing is trained here"),
            NoEffect(
                self.data.on_overlong == "truncate",
                ("data.on_overlong",),
                "a prompt is never cut; one that is too long is dropped and counted",
            ),
        )


def run(config: GenerateConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Sample, and leave `RUN/completions.jsonl`: one line a completion, with its prompt."""
    inputs = {"model": config.model.path, "data": config.data.path}
    with Run.start(config.run, "generate", config, inputs, sinks) as run:
        policy = open_policy(
            config.model,
            device=config.learner.device,
            precision=config.learner.precision,
            engine=config.engine,
        )
        note_path(run, policy.engine)
        prompts, report = load_fitting_prompts(
            config.data, policy.engine, config.sampling.max_tokens
        )
        settle(run, [(report, config.data.max_loss_frac)])
        run.stage("sampling", len(prompts))
        seed = config.run.seed + config.sampling.seed
        sampling = config.sampling.model_copy(update={"seed": seed})
        rows, failed, num_tokens = [], 0, 0
        for first in range(0, len(prompts), config.batch_size):
            began = time.monotonic()
            some = prompts[first : first + config.batch_size]
            groups = policy.engine.generate(some, sampling)
            for prompt, group in zip(some, groups, strict=True):
                for completion in group:
                    failed += completion.finish == "error"
                    num_tokens += completion.num_tokens
                    rows.append(
                        {
                            "prompt": prompt.model_dump(mode="json"),
                            "completion": completion.model_dump(mode="json"),
                        }
                    )
            done = min(first + config.batch_size, len(prompts))
            rate = len(some) * config.sampling.n / (time.monotonic() - began)
            run.progress(done, len(prompts), samples_per_second=rate)
        write_rows(run.path("completions.jsonl"), rows)
        facts = {"num_completions": len(rows), "num_failed": failed, "num_tokens": num_tokens}
        run.finish({"completions": run.path("completions.jsonl")}, facts=facts)
    return run
