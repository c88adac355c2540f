"""The engine protocol: prompts in, completions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from heed.records import Completion, PolicyRef, Prompt, Sampling


class Engine(Protocol):
    """Whatever samples completions from a policy.

    Every implementation passes `tests/contracts/test_engine.py`.
    """

    @property
    def policy(self) -> PolicyRef:
        """The weights that sample now; stamped on every completion."""
        ...

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """Draw `sampling.n` completions for each prompt, in the order of the prompts.

        Each sample's randomness depends on (`sampling.seed`, prompt id, sample index) only, never
        on its batch mates. A sample that fails is a completion with finish `error`.

        Raises:
            EngineError: generation failed as a whole.
        """
        ...

    def load(self, weights: Mapping[str, Any] | None, policy: PolicyRef) -> None:
        """Sample from these weights from now on; None where the engine shares them already."""
        ...
