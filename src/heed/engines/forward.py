"""Forward passes for decoding: prompts at once, then one token of every active row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.cache_utils import get_layer_types_and_kwargs

from heed.engines.cache import PromptCache, SlotCache
from heed.errors import EngineError
from heed.models.backbone import (
    additive,
    backbone_of,
    cache_argument,
    plain_head,
    takes_positions,
    unwrap,
)

FULL, SLIDING = "full_attention", "sliding_attention"


class Forward:
    """A causal language model run over slots.

    Args:
        model: as `load_causal` gives it, with or without adapters.

    Raises:
        EngineError: the model's layers keep something else than keys and values per token.
    """

    def __init__(self, model: nn.Module) -> None:
        self.causal = model
        self.model = unwrap(model)
        self.backbone = backbone_of(model)
        self.head = plain_head(model)
        config = self.model.config.get_text_config(decoder=True)
        types, options = get_layer_types_and_kwargs(config)
        self.num_layers = len(types)
        self.types = set(types)
        name = type(self.model).__name__
        if not self.types <= {FULL, SLIDING}:
            raise EngineError(
                f"{name} has layers of kind {sorted(self.types - {FULL, SLIDING})}, and the local "
                "engine decodes full and sliding attention; use another model or engine"
            )
        if not takes_positions(self.backbone):
            raise EngineError(
                f"{type(self.backbone).__name__} takes no position_ids, which rows of different "
                "length need; use another model or engine"
            )
        windows = {o["sliding_window"] for o in options if o.get("sliding_window")}
        if len(windows) > 1:
            raise EngineError(f"{name} has windows of {sorted(windows)} tokens; expected one size")
        self.window: int | None = windows.pop() if windows else None
        self._wide: Tensor | None = None
        self._module = self.model if self.head is None else self.backbone
        self._cache_name = cache_argument(self._module)
        self._check()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def vocab_size(self) -> int:
        """Tokens that the model embeds."""
        return cast(nn.Embedding, self.model.get_input_embeddings()).num_embeddings

    def refresh(self) -> None:
        """Read the output layer anew, after its weights changed."""
        self._wide = None
        if self.head is not None and not self._product_is_wide():
            self._wide = self.head.weight.float()

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, PromptCache]:
        """Run prompts side by side; returns the logits after each [P, V] and their keys, values."""
        lengths = torch.tensor([len(p) for p in prompts])
        tokens = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
        for i, prompt in enumerate(prompts):
            tokens[i, : len(prompt)] = torch.as_tensor(prompt, dtype=torch.long)
        # Right-padded, so the causal mask alone keeps padding out of sight of real tokens.
        tokens = tokens.to(self.device)
        places = torch.arange(tokens.shape[1], device=self.device).expand(len(prompts), -1)
        cache = PromptCache(self.num_layers)
        last = (torch.arange(len(prompts)), lengths - 1)
        logits = self._run(tokens, places, None, cache, last)
        return logits, cache

    def step(self, tokens: Tensor, positions: Tensor, used: int, cache: SlotCache) -> Tensor:
        """Run one token [n] of each active row at its position [n]; returns logits [n, V].

        Args:
            used: largest position + 1.
        """
        cache.place.at(positions, used)
        mask = self._mask(positions, used)
        return self._run(tokens[:, None], positions[:, None], mask, cache, None)

    def _run(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Tensor | dict[str, Tensor] | None,
        cache: Any,
        last: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        output = self._module(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=mask,
            use_cache=True,
            **{self._cache_name: cache},
        )
        at = last if last is not None else (slice(None), -1)
        if self.head is None:
            whole: Tensor = output.logits
            return whole[at].float()
        hidden: Tensor = output.last_hidden_state[at]
        return self._logits(hidden)

    def _product_is_wide(self) -> bool:
        assert self.head is not None
        weight = self.head.weight
        return weight.dtype == torch.float32 or weight.is_cuda

    def _logits(self, hidden: Tensor) -> Tensor:
        # fp32 results as in training, where a product rounded to bf16 would shift every ratio.
        assert self.head is not None
        weight, bias = self.head.weight, self.head.bias
        if weight.dtype != torch.float32 and weight.is_cuda:
            logits = torch.mm(hidden, weight.t(), out_dtype=torch.float32)
        else:
            wide = weight.float() if self._wide is None else self._wide
            logits = hidden.float() @ wide.t()
        return logits if bias is None else logits + bias.float()

    def _mask(self, positions: Tensor, used: int) -> Tensor | dict[str, Tensor]:
        keys = torch.arange(used, device=positions.device)
        at = positions[:, None]
        full = keys <= at
        if self.window is None or used <= self.window:
            return additive(full[:, None, None], self.model)
        near = additive((full & (keys > at - self.window))[:, None, None], self.model)
        if self.types == {SLIDING}:
            return near
        return {FULL: additive(full[:, None, None], self.model), SLIDING: near}

    def _check(self) -> None:
        """Compare a tiny ragged decode with plain forward passes."""
        vocab = self.vocab_size
        rows = [[(7 * i + 3 * j + 1) % vocab for j in range(6)] for i in range(3)]
        starts = [1, 3, 4]
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                worst = self._decode_error(rows, starts)
        except (TypeError, AttributeError, IndexError, RuntimeError, ValueError) as error:
            raise EngineError(
                f"{type(self.model).__name__} does not decode through transformers' cache "
                f"interface ({type(error).__name__}: {error}); use another model or engine"
            ) from error
        finally:
            self.model.train(training)
        if not worst < (1e-3 if self.model.dtype == torch.float32 else 5e-2):
            raise EngineError(
                f"decoding {type(self.model).__name__} step by step differs from its forward pass "
                f"by {worst:.2g} of the logits' spread; use another model or engine"
            )

    def _decode_error(self, rows: list[list[int]], starts: list[int]) -> float:
        device = self.device
        whole = torch.tensor(rows, device=device)
        expected = self.model(input_ids=whole, use_cache=False).logits.float()
        cache = SlotCache(self.num_layers, len(rows), len(rows[0]), device)
        logits, prompts = self.prefill([r[:s] for r, s in zip(rows, starts, strict=True)])
        index = torch.arange(len(rows), device=device)
        cache.fill(index, prompts, index)
        position = torch.tensor(starts, device=device)
        worst = 0.0
        for _ in range(3):
            there = expected[index, position - 1]
            # The model rounds its own logits to its type, which one large logit makes visible.
            rounding = torch.finfo(self.model.dtype).eps * there.abs()
            gap = ((logits - there).abs() - rounding).clamp(min=0).max()
            worst = max(worst, float(gap / expected.std().clamp(min=1e-6)))
            if int(position.max()) == len(rows[0]):
                return worst
            logits = self.step(whole[index, position], position, int(position.max()) + 1, cache)
            position = position + 1
        return worst
