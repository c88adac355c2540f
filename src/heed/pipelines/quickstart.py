"""The whole classic pipeline in a small world, from nothing, in minutes.

pretrain -> supervised warm-up -> sample pairs -> noisy simulated labellers compare them -> reward
model -> PPO with a KL penalty -> judgement by the world's true quality -> report. A second PPO
without a penalty, and longer, shows what the penalty is for. The stages stand in `quickstart.toml`
beside this file, and each is the same function as its command.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from heed.pipelines.chain import run_pipeline
from heed.pipelines.recipe import read_pipeline
from heed.runs.run import Run
from heed.runs.sinks import Sink
from heed.settings import RunSettings, Settings


class QuickstartConfig(Settings):
    """The classic pipeline in a small world, from nothing."""

    run: RunSettings = RunSettings(folder="runs/quickstart", checkpoint_seconds=15.0)
    quick: bool = False
    """A much shorter run of the same stages, to see that everything works."""


def run(config: QuickstartConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Run all stages; leaves `report.html` and `summary.json` in the run."""
    with resources.as_file(resources.files("heed.pipelines") / "quickstart.toml") as path:
        pipeline = read_pipeline(path)
    return run_pipeline(pipeline.given(quick=config.quick), config.run, sinks)
