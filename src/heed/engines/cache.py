"""Keys and values of the rows being decoded, in place, one slot a row.

transformers' own caches keep all rows at one length and grow by copying. Here every row stands at
its own position in a slot that is allocated once; the model writes through the ordinary `Cache`
interface and reads views of the used length.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class PromptLayer(CacheLayerMixin):
    """One layer that takes down what a prompt's forward pass computes."""

    is_sliding = False
    key: Tensor
    value: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to prepare."""
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep and return them."""
        self.key, self.value = key_states, value_states
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The prompt sees itself only."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Nothing is seen before the prompt."""
        return 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class PromptCache(Cache):
    """Keys and values of prompts laid side by side: per layer [P, heads, T, head size]."""

    def __init__(self, num_layers: int) -> None:
        self.prompts = [PromptLayer() for _ in range(num_layers)]
        super().__init__(layers=[*self.prompts])

    def row(self, row: int, length: int) -> PromptCache:
        """Copy one prompt out, so that the others can be freed."""
        copied = PromptCache(len(self.prompts))
        for new, old in zip(copied.prompts, self.prompts, strict=True):
            new.key = old.key[row : row + 1, :, :length].clone()
            new.value = old.value[row : row + 1, :, :length].clone()
        return copied

    def joined(self, other: PromptCache) -> PromptCache:
        """Return the layers of this model followed by those of another one, not copied."""
        both = PromptCache(1)
        both.prompts = [*self.prompts, *other.prompts]
        both.layers = [*both.prompts]
        return both


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values: [rows, heads, length, head size], allocated once."""

    is_sliding = False
    key: Tensor
    value: Tensor

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate for all rows and the whole length.

        Zeros, because what is masked is still multiplied: probability 0 times NaN is NaN.
        """
        shape = (self.place.num_rows, key_states.shape[1], self.place.length)
        self.key = key_states.new_zeros(*shape, key_states.shape[-1])
        self.value = value_states.new_zeros(*shape, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write each active row at its own position; return views of the used length."""
        place = self.place
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.key[place.rows, :, place.positions] = key_states.squeeze(2)
        self.value[place.rows, :, place.positions] = value_states.squeeze(2)
        num = key_states.shape[0]
        return self.key[:num, :, : place.used], self.value[:num, :, : place.used]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that are read."""
        return self.place.used, 0

    def get_seq_length(self) -> int:
        """Keys before the one being written, in the longest row."""
        return self.place.used - 1

    def get_max_length(self) -> int:
        """Length of a slot."""
        return self.place.length


class Place:
    """Where the next step writes, shared by all layers.

    Args:
        num_rows, length: size of the slots.
    """

    def __init__(self, num_rows: int, length: int, device: torch.device) -> None:
        self.num_rows, self.length = num_rows, length
        self.used = 0
        self.positions = torch.zeros(0, dtype=torch.long, device=device)
        self.rows = torch.zeros(0, dtype=torch.long, device=device)
        self._all_rows = torch.arange(num_rows, device=device)

    def at(self, positions: Tensor, used: int) -> None:
        """Let the first rows write at these positions [n] and read `used` keys."""
        self.positions, self.used = positions, used
        self.rows = self._all_rows[: len(positions)]


class SlotCache(Cache):
    """All layers' slots; active rows are kept at the front."""

    def __init__(self, num_layers: int, num_rows: int, length: int, device: torch.device) -> None:
        self.place = Place(num_rows, length, device)
        self.slots = [SlotLayer(self.place) for _ in range(num_layers)]
        super().__init__(layers=[*self.slots])

    def layers_of(self, first: int, last: int) -> SlotCache:
        """Return a view of layers `first` up to `last`: those of one of several models."""
        view = copy.copy(self)
        view.slots = self.slots[first:last]
        view.layers = [*view.slots]
        return view

    def fill(self, slots: Tensor, prompts: PromptCache, rows: Tensor) -> None:
        """Copy prompts `rows` [m] into `slots` [m]; a group's slots name the same prompt."""
        for mine, theirs in zip(self.slots, prompts.prompts, strict=True):
            if not mine.is_initialized:
                mine.lazy_initialization(theirs.key, theirs.value)
            width = theirs.key.shape[2]
            mine.key[slots, :, :width] = theirs.key[rows]
            mine.value[slots, :, :width] = theirs.value[rows]

    def move(self, source: Tensor, target: Tensor, used: int) -> None:
        """Copy rows [m] over others; the sources are then free."""
        for layer in self.slots:
            layer.key[target, :, :used] = layer.key[source, :, :used]
            layer.value[target, :, :used] = layer.value[source, :, :used]

    def clear(self, rows: Tensor) -> None:
        """Zero rows whose numbers are not finite, for those that use the slots after them."""
        for layer in self.slots:
            layer.key[rows] = 0
            layer.value[rows] = 0
