"""Proximal policy optimisation on the user's models, prompts and scorers.

The loop itself, with its formulas, is `heed.algorithms.online`; PPO's choice in each column is
`PPOConfig.method`.
"""

from __future__ import annotations

from collections.abc import Sequence

from heed.algorithms.online_run import run_online
from heed.algorithms.ppo_config import PPOConfig
from heed.runs.run import Run
from heed.runs.sinks import Sink

__all__ = ["PPOConfig", "run"]


def run(config: PPOConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Optimise, and leave the policy in `RUN/model`; raises as `run_online`."""
    return run_online("ppo", config, sinks)
