"""Policy optimisation without a value model, on the user's models, prompts and scorers.

The loop itself, with its formulas, is `heed.algorithms.online`; the methods are the rows of
`heed.algorithms.presets`.
"""

from __future__ import annotations

from collections.abc import Sequence

from heed.algorithms.online_config import OnlineConfig
from heed.algorithms.online_run import run_online
from heed.runs.run import Run
from heed.runs.sinks import Sink

__all__ = ["OnlineConfig", "run"]


def run(config: OnlineConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Optimise, and leave the policy in `RUN/model`; raises as `run_online`."""
    return run_online("online", config, sinks)
