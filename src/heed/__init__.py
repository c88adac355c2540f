"""heed: trains language models on what people prefer, and shows whether it worked.

Each stage is one call that takes its configuration, or its settings by name, and returns the run
that it wrote; it is the same function as the command of that name:

    import heed

    heed.sft(run={"folder": "runs/sft"}, model={"path": "gpt2"}, data={"path": "demos.jsonl"})
    heed.write_report("runs/sft")

Importing heed loads neither torch nor any other large package.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from heed import errors, records
    from heed.config import load_config
    from heed.records import (
        Completion,
        Demonstration,
        Finding,
        Message,
        Pair,
        PolicyRef,
        Preference,
        Prompt,
        Ranking,
        Rollout,
        RolloutGroup,
        Sampling,
        Score,
    )
    from heed.runs.run import Run
    from heed.runs.sinks import Sink

__version__ = "0.1.0"

_LAZY = {
    "Completion": "heed.records",
    "Demonstration": "heed.records",
    "Finding": "heed.records",
    "Message": "heed.records",
    "Pair": "heed.records",
    "PolicyRef": "heed.records",
    "Preference": "heed.records",
    "Prompt": "heed.records",
    "Ranking": "heed.records",
    "Rollout": "heed.records",
    "RolloutGroup": "heed.records",
    "Run": "heed.runs.run",
    "Sampling": "heed.records",
    "Score": "heed.records",
    "load_config": "heed.config",
}

__all__ = [
    "Completion",
    "Demonstration",
    "Finding",
    "Message",
    "Pair",
    "PolicyRef",
    "Preference",
    "Prompt",
    "Ranking",
    "Rollout",
    "RolloutGroup",
    "Run",
    "Sampling",
    "Score",
    "__version__",
    "average",
    "best_of_n",
    "compare",
    "errors",
    "evaluate",
    "frontier",
    "generate",
    "load_config",
    "online",
    "online_preference",
    "ppo",
    "preference",
    "prm",
    "quickstart",
    "records",
    "reward",
    "select",
    "sft",
    "unpaired",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in ("errors", "records"):
        return importlib.import_module(f"heed.{name}")
    raise AttributeError(f"module 'heed' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def _call(verb: str, config: Any, sinks: Sequence[Sink], settings: dict[str, Any]) -> Run:
    from heed.config import make_config
    from heed.errors import ConfigError
    from heed.pipelines.verbs import VERBS

    cls = VERBS[verb].config_class()
    if config is None:
        config = make_config(cls, settings)
    elif settings:
        raise ConfigError(
            f"heed.{verb} got a configuration and {', '.join(settings)}; give one or the other "
            "(config.model_copy(update={...}) changes a configuration)"
        )
    elif not isinstance(config, cls):
        raise ConfigError(
            f"heed.{verb} got a {type(config).__name__}; it takes a {cls.__name__}, "
            "or settings by name"
        )
    return VERBS[verb].function()(config, sinks)


def sft(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Fine-tune a model on demonstrations, or pretrain it on plain text.

    Args:
        config: an `heed.algorithms.sft.SFTConfig`, or leave it out and give its fields by name;
            sections may be dictionaries.
        sinks: who else hears of the run's progress.

    Returns:
        The run; its model is in `RUN/model`.
    """
    return _call("sft", config, sinks, settings)


def reward(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Train a reward model on preferences; arguments as `sft`, fields of `RewardConfig`."""
    return _call("reward", config, sinks, settings)


def prm(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Train a process reward model on labelled steps; arguments as `sft`, fields of `PRMConfig`."""
    return _call("prm", config, sinks, settings)


def select(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Keep the best of several reward models; arguments as `sft`, fields of `SelectConfig`."""
    return _call("select", config, sinks, settings)


def average(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Average the weights of reward models; arguments as `sft`, fields of `AverageConfig`."""
    return _call("average", config, sinks, settings)


def ppo(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Optimise a policy against a score by PPO; arguments as `sft`, fields of `PPOConfig`."""
    return _call("ppo", config, sinks, settings)


def preference(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Train a policy on comparisons; arguments as `sft`, fields of `PreferenceConfig`."""
    return _call("preference", config, sinks, settings)


def unpaired(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Train a policy on good and bad replies; arguments as `sft`, fields of `UnpairedConfig`."""
    return _call("unpaired", config, sinks, settings)


def online(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Optimise a policy without a value model; arguments as `sft`, fields of `OnlineConfig`."""
    return _call("online", config, sinks, settings)


def online_preference(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Sample, compare and learn; arguments as `sft`, fields of `OnlinePreferenceConfig`."""
    return _call("online_preference", config, sinks, settings)


def generate(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Sample completions and pairs; arguments as `sft`, fields of `GenerateConfig`."""
    return _call("generate", config, sinks, settings)


def best_of_n(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Keep the best of each prompt's completions; arguments as `sft`, fields of `BestOfNConfig`."""
    return _call("best_of_n", config, sinks, settings)


def compare(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Label pairs; arguments as `sft`, fields of `CompareConfig`."""
    return _call("compare", config, sinks, settings)


def evaluate(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Measure win rates between policies; arguments as `sft`, fields of `EvaluateConfig`."""
    return _call("evaluate", config, sinks, settings)


def frontier(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Gather quality against KL of measured policies; arguments as `sft`, `FrontierConfig`."""
    return _call("frontier", config, sinks, settings)


def quickstart(config: Any = None, /, *, sinks: Sequence[Sink] = (), **settings: Any) -> Run:
    """Run the whole road in a small world; arguments as `sft`, fields of `QuickstartConfig`."""
    return _call("quickstart", config, sinks, settings)


def write_report(folder: str | Path) -> Path:
    """Write the page of a run, `RUN/report.html`, and return its path."""
    from pathlib import Path

    from heed.report.page import write_report as write

    return write(Path(folder))
