"""Sampling from a policy mixed with another one, token by token: Nash-MD's opponent.

    logits of token t = (1 - coef) log policy(. | before t) + coef log reference(. | before t)

Normalised, that is the geometric mixture of the two at each token. At coef 1 it is the reference,
and with it a policy with adapters can be sampled without them.

Source: Munos et al. 2023 (arXiv 2312.00886), section 7; TRL's `GeometricMixtureWrapper`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from heed.data.render import Renderer
from heed.engines.cache import PromptCache, SlotCache
from heed.engines.forward import Forward
from heed.engines.local import LocalEngine
from heed.errors import ConfigError
from heed.records import PolicyRef

Around = Callable[[], AbstractContextManager[None]]


class MixtureEngine(LocalEngine):
    """Draws from the geometric mixture of two causal language models of one vocabulary.

    Args:
        model, renderer, policy, max_rows: as `LocalEngine`; the policy.
        reference: the other model; the policy's own where `around` makes it another.
        coef: 0 samples the policy, 1 the reference.
        around: entered while the reference computes, such as to switch adapters off.

    Raises:
        ConfigError: `coef` is outside of 0..1, or the vocabularies differ in size.
        EngineError: as `LocalEngine`.
    """

    def __init__(
        self,
        model: nn.Module,
        reference: nn.Module,
        renderer: Renderer,
        *,
        coef: float,
        policy: PolicyRef,
        max_rows: int = 128,
        around: Around = nullcontext,
    ) -> None:
        if not 0.0 <= coef <= 1.0:
            raise ConfigError(f"the mixture's coefficient is {coef}, expected 0 to 1")
        super().__init__(model, renderer, policy=policy, max_rows=max_rows, path="torch")
        other = Forward(reference)
        if self._forward.vocab_size != other.vocab_size:
            raise ConfigError(
                f"the policy has {self._forward.vocab_size} tokens and the reference "
                f"{other.vocab_size}; a mixture needs one vocabulary"
            )
        self._forward = cast(Forward, _Mixed(self._forward, other, coef, around))


class _Mixed:
    """Runs both models over slots that hold the layers of the policy, then the reference's."""

    def __init__(self, policy: Forward, reference: Forward, coef: float, around: Around) -> None:
        self._policy, self._reference = policy, reference
        self._coef, self._around = coef, around
        self.num_layers = policy.num_layers + reference.num_layers

    @property
    def device(self) -> torch.device:
        return self._policy.device

    def refresh(self) -> None:
        self._policy.refresh()
        self._reference.refresh()

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, PromptCache]:
        ours, cache = self._policy.prefill(prompts)
        with self._around():
            theirs, other = self._reference.prefill(prompts)
        return self._mixed(ours, theirs), cache.joined(other)

    def step(self, tokens: Tensor, positions: Tensor, used: int, cache: SlotCache) -> Tensor:
        border = self._policy.num_layers
        first, second = cache.layers_of(0, border), cache.layers_of(border, self.num_layers)
        ours = self._policy.step(tokens, positions, used, first)
        with self._around():
            theirs = self._reference.step(tokens, positions, used, second)
        return self._mixed(ours, theirs)

    def _mixed(self, ours: Tensor, theirs: Tensor) -> Tensor:
        if self._coef == 1.0:
            return theirs
        mine, other = ours.log_softmax(-1), theirs.to(ours.device).log_softmax(-1)
        return (1.0 - self._coef) * mine + self._coef * other
