"""Sample completions from a policy and keep them as records."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from heed.data.exchange import write_rows
from heed.data.report import settle
from heed.engines.policy import load_fitting_prompts, note_path, open_policy
from heed.ids import content_hash
from heed.records import Prompt, Sampling
from heed.runs.files import append_line, keep_lines, read_lines
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
        groups = _sampled_before(run, config, prompts)
        for first in range(len(groups), len(prompts), config.batch_size):
            began = time.monotonic()
            some = prompts[first : first + config.batch_size]
            found = policy.engine.generate(some, sampling)
            batch = [[c.model_dump(mode="json") for c in group] for group in found]
            append_line(_sampled(run, config), {"groups": batch})
            groups += batch
            rate = len(some) * config.sampling.n / (time.monotonic() - began)
            run.progress(len(groups), len(prompts), samples_per_second=rate)
        rows = [
            {"prompt": prompt.model_dump(mode="json"), "completion": completion}
            for prompt, group in zip(prompts, groups, strict=True)
            for completion in group
        ]
        failed = sum(row["completion"]["finish"] == "error" for row in rows)
        num_tokens = sum(len(row["completion"]["tokens"]) for row in rows)
        write_rows(run.path("completions.jsonl"), rows)
        facts = {"num_completions": len(rows), "num_failed": failed, "num_tokens": num_tokens}
        _sampled(run, config).unlink(missing_ok=True)
        run.finish({"completions": run.path("completions.jsonl")}, facts=facts)
    return run


def _sampled(run: Run, config: GenerateConfig) -> Path:
    """Where batches wait for the others, under a name that says what they depend on."""
    settings = config.model_dump(mode="json", exclude={"run"})
    key = content_hash([settings, config.run.seed, run.manifest["inputs"]])
    return run.path(f"sampled-{key}.jsonl")


def _sampled_before(
    run: Run, config: GenerateConfig, prompts: Sequence[Prompt]
) -> list[list[dict[str, Any]]]:
    """The completions of the first batches, where the run was stopped and goes on.

    A prompt's samples have random streams of their own, so the others come out as they would
    have without the stop.
    """
    path = _sampled(run, config)
    for other in run.folder.glob("sampled-*.jsonl"):
        if other != path or not run.resumed:
            other.unlink()
    keep_lines(path, lambda row: True)
    groups = [group for row in read_lines(path) for group in row["groups"]]
    if groups:
        run.note(f"{len(groups):,} of {len(prompts):,} prompts were answered before the stop")
    return groups
