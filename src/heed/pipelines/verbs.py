"""The stages by name: where each one's configuration and function live. Imports nothing early.

The command line, the Python calls and the pipelines all go through this table, so that a stage is
the same function everywhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

    from heed.runs.run import Run

    RunFunction = Callable[[Any, Sequence[Any]], Run]


@dataclass(frozen=True)
class Verb:
    """One stage: `run(config, sinks)` returns the run that it wrote."""

    name: str
    config: str
    """`module:Class` of the configuration."""
    run: str
    """`module:function`."""
    help: str
    """One line that starts with a verb."""

    def config_class(self) -> type[BaseModel]:
        """Import the configuration class."""
        found: type[BaseModel] = _load(self.config)
        return found

    def function(self) -> RunFunction:
        """Import the function."""
        found: RunFunction = _load(self.run)
        return found


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _table(*verbs: Verb) -> Mapping[str, Verb]:
    return MappingProxyType({verb.name: verb for verb in verbs})


VERBS: Mapping[str, Verb] = _table(
    Verb(
        "quickstart",
        "heed.pipelines.quickstart:QuickstartConfig",
        "heed.pipelines.quickstart:run",
        "Run the whole road in a small world in minutes, and open the evidence",
    ),
    Verb(
        "world",
        "heed.pipelines.world:WorldConfig",
        "heed.pipelines.world:run",
        "Write the texts, demonstrations and prompts of a world whose truth is known",
    ),
    Verb(
        "prepare",
        "heed.pipelines.prepare:PrepareConfig",
        "heed.pipelines.prepare:run",
        "Run a Python function of your own that writes data, and keep the result",
    ),
    Verb(
        "init",
        "heed.pipelines.init:InitConfig",
        "heed.pipelines.init:run",
        "Make a fresh small model and its tokenizer from texts",
    ),
    Verb(
        "sft",
        "heed.algorithms.sft:SFTConfig",
        "heed.algorithms.sft:run",
        "Fine-tune a model on demonstrations, or pretrain it on plain text",
    ),
    Verb(
        "reward",
        "heed.algorithms.reward:RewardConfig",
        "heed.algorithms.reward:run",
        "Train a reward model on preferences",
    ),
    Verb(
        "prm",
        "heed.algorithms.prm:PRMConfig",
        "heed.algorithms.prm:run",
        "Train a process reward model on labelled steps",
    ),
    Verb(
        "select",
        "heed.pipelines.members:SelectConfig",
        "heed.pipelines.members:select",
        "Keep the best of several reward models, and say how far they differ",
    ),
    Verb(
        "average",
        "heed.pipelines.members:AverageConfig",
        "heed.pipelines.members:average",
        "Average the weights of reward models that were trained from one start",
    ),
    Verb(
        "preference",
        "heed.algorithms.preference_config:PreferenceConfig",
        "heed.algorithms.preference:run",
        "Train a policy on comparisons without sampling: DPO and its family",
    ),
    Verb(
        "unpaired",
        "heed.algorithms.unpaired_config:UnpairedConfig",
        "heed.algorithms.unpaired:run",
        "Train a policy on replies called good or bad: KTO and BCO",
    ),
    Verb(
        "ppo",
        "heed.algorithms.ppo_config:PPOConfig",
        "heed.algorithms.ppo:run",
        "Optimise a policy against a score, with a KL penalty",
    ),
    Verb(
        "online",
        "heed.algorithms.online_config:OnlineConfig",
        "heed.algorithms.critic_free:run",
        "Optimise a policy without a value model: GRPO, RLOO, REINFORCE++ and their like",
    ),
    Verb(
        "online_preference",
        "heed.algorithms.online_preference_config:OnlinePreferenceConfig",
        "heed.algorithms.online_preference:run",
        "Sample, compare and learn: online and iterative DPO, XPO, SPIN, Nash-MD",
    ),
    Verb(
        "generate",
        "heed.pipelines.generate:GenerateConfig",
        "heed.pipelines.generate:run",
        "Sample completions, and pairs to compare, from a policy",
    ),
    Verb(
        "best_of_n",
        "heed.algorithms.best_of_n:BestOfNConfig",
        "heed.algorithms.best_of_n:run",
        "Keep the best of each prompt's completions, and measure what n buys",
    ),
    Verb(
        "compare",
        "heed.pipelines.compare:CompareConfig",
        "heed.pipelines.compare:run",
        "Label pairs by a simulated labeller, a reward model or a Python callable",
    ),
    Verb(
        "evaluate",
        "heed.audits.evaluate:EvaluateConfig",
        "heed.audits.evaluate:run",
        "Measure the win rate between policies, with intervals",
    ),
    Verb(
        "frontier",
        "heed.audits.frontier:FrontierConfig",
        "heed.audits.frontier:run",
        "Gather quality against KL of many measured policies, method by method",
    ),
)
"""Name -> verb, in the order of the help."""
