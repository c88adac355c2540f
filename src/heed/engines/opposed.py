"""Two engines as one: the first half of a prompt's completions by the policy, the rest by a rival.

What is compared online is a completion of the policy and one of somebody else: of the policy
itself, the reference, a mixture of both, or a person who wrote a demonstration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from heed.engines.base import Engine
from heed.errors import EngineError
from heed.ids import stream_seed
from heed.records import Completion, PolicyRef, Prompt, Sampling


class OpposedEngine:
    """Draw `n / 2` completions of each prompt by a policy, then as many by its rival.

    Args:
        engine: samples the policy, whose name this engine bears.
        rival: samples what it is compared with, from random streams of its own.
    """

    def __init__(self, engine: Engine, rival: Engine) -> None:
        self._engine, self._rival = engine, rival

    @property
    def policy(self) -> PolicyRef:
        """The policy's weights."""
        return self._engine.policy

    def load(self, weights: Mapping[str, Any] | None, policy: PolicyRef) -> None:
        """Sample from these weights from now on; the rival shares them or has its own."""
        self._engine.load(weights, policy)
        self._rival.load(None, policy)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """Draw `sampling.n` completions for each prompt, the policy's first.

        Raises:
            EngineError: `sampling.n` is odd, or generation failed as a whole.
        """
        if sampling.n % 2:
            raise EngineError(f"sampling.n is {sampling.n}; a policy and its rival share it evenly")
        half = {"n": sampling.n // 2}
        ours = self._engine.generate(prompts, sampling.model_copy(update=half))
        half["seed"] = stream_seed(sampling.seed, "rival")
        theirs = self._rival.generate(prompts, sampling.model_copy(update=half))
        return [[*mine, *other] for mine, other in zip(ours, theirs, strict=True)]
