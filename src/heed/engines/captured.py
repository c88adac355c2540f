"""Decoding steps of a CUDA device, captured once and replayed.

One step of a small batch is thousands of kernels of microseconds each, and Python needs longer to
launch them than the device to run them. A captured graph launches them all at once. It has fixed
shapes and addresses, so rows and keys are rounded up to a few sizes, and keys and values stay where
they are from one call of the engine to the next. Rows that are padding write into slots that are
free, at position 0, which every prompt overwrites; keys that are padding are masked.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from heed.engines.cache import SlotCache
from heed.engines.forward import Forward

EAGER_STEPS = 2
"""Steps of a size that are run as they come before it is captured, which costs about three."""

LEAST_ROWS, LEAST_KEYS = 4, 128

Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Takes a step that reads and writes fixed addresses; returns what repeats it.

Raises RuntimeError where the step cannot be repeated.
"""


def round_rows(num: int) -> int:
    """Round rows up to a power of two, at least `LEAST_ROWS`."""
    return max(LEAST_ROWS, 1 << (num - 1).bit_length())


def round_keys(num: int) -> int:
    """Round keys up by at most a quarter beyond `LEAST_KEYS`."""
    if num <= LEAST_KEYS:
        return LEAST_KEYS
    unit = max(LEAST_KEYS // 2, 1 << ((num - 1).bit_length() - 3))
    return -(-num // unit) * unit


@dataclass(frozen=True)
class _Step:
    """A captured step: fill `tokens` and `positions`, repeat, read what comes back."""

    tokens: Tensor
    positions: Tensor
    repeat: Callable[[], Tensor]


class EagerSteps:
    """Steps as they come, over slots that are made for each call."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def open(self, rows: int, length: int) -> SlotCache:
        """Make slots for a call."""
        return SlotCache(self._forward.num_layers, rows, length, self._forward.device)

    def step(self, tokens: Tensor, positions: Tensor, used: int, cache: SlotCache) -> Tensor:
        """Run one token of each active row; see `Forward.step`."""
        return self._forward.step(tokens, positions, used, cache)


class CapturedSteps:
    """Steps that are captured when they come again, over slots that stay.

    A step that cannot be captured is run as it comes, like all that follow, with a warning.

    Args:
        forward: the model, on its device.
        make_capture: makes what captures the steps over one set of slots.
    """

    def __init__(self, forward: Forward, make_capture: Callable[[], Capture] | None = None) -> None:
        self._forward = forward
        self._make_capture = make_capture or Graphs
        self._capture: Capture | None = None
        self._cache: SlotCache | None = None
        self._place: list[Any] = []
        self._steps: dict[tuple[int, int], _Step] = {}
        self._seen: Counter[tuple[int, int]] = Counter()
        self.why_eager = ""
        """Why steps are not captured; empty where they are."""

    @property
    def num_captured(self) -> int:
        """Steps of different size that are captured."""
        return len(self._steps)

    def open(self, rows: int, length: int) -> SlotCache:
        """Return the slots that stay, or larger ones; a step that reads others is forgotten."""
        place = _addresses(self._forward)
        have = self._cache.place if self._cache else None
        if have is None or have.num_rows < rows or have.length < length or place != self._place:
            if have is not None and place == self._place:
                rows, length = max(rows, have.num_rows), max(length, have.length)
            self._steps.clear()
            self._seen.clear()
            self._cache = self._capture = None
            forward = self._forward
            self._cache = SlotCache(forward.num_layers, rows, round_keys(length), forward.device)
            self._place = place
        assert self._cache is not None
        return self._cache

    def step(self, tokens: Tensor, positions: Tensor, used: int, cache: SlotCache) -> Tensor:
        """Run one token of each active row; see `Forward.step`."""
        num = len(tokens)
        size = (
            min(round_rows(num), cache.place.num_rows),
            min(round_keys(used), cache.place.length),
        )
        if size not in self._steps:
            self._seen[size] += 1
            if self.why_eager or self._seen[size] <= EAGER_STEPS or _has_hooks(self._forward):
                return self._forward.step(tokens, positions, used, cache)
            self._try(size, tokens, positions, cache)
            if self.why_eager:
                return self._forward.step(tokens, positions, used, cache)
        step = self._steps[size]
        _fill(step, tokens, positions)
        return step.repeat()[:num]

    def _try(
        self, size: tuple[int, int], tokens: Tensor, positions: Tensor, cache: SlotCache
    ) -> None:
        rows, keys = size
        self._capture = self._capture or self._make_capture()
        at = torch.zeros(rows, dtype=torch.long, device=tokens.device)
        step = _Step(at, torch.zeros_like(at), _never)
        # What is run on the way writes the keys and values that it shall write.
        _fill(step, tokens, positions)
        try:
            repeat = self._capture(
                lambda: self._forward.step(step.tokens, step.positions, keys, cache)
            )
        except RuntimeError as error:
            self.why_eager = str(error).splitlines()[0]
            warnings.warn(
                f"decoding steps are not captured, so they take longer: {self.why_eager}",
                stacklevel=2,
            )
            return
        self._steps[size] = _Step(step.tokens, step.positions, repeat)


class Graphs:
    """Captures steps as CUDA graphs that share their memory, because one runs at a time.

    That memory is gone with the last graph, so whoever forgets all of them makes this anew.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Run the step once, capture it, and return what replays it.

        Raises:
            RuntimeError: the step waits for the device or moves memory, which no graph can hold.
        """
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            found = step()

        def replay() -> Tensor:
            graph.replay()
            return found

        return replay


def _fill(step: _Step, tokens: Tensor, positions: Tensor) -> None:
    num = len(tokens)
    step.tokens[:num] = tokens
    step.positions[:num] = positions
    step.positions[num:] = 0


def _never() -> Tensor:
    raise AssertionError("this step was not captured")


def _addresses(forward: Forward) -> list[Any]:
    """Where the weights are and of what type; a graph goes on reading from there."""
    return [(p.data_ptr(), p.dtype) for p in forward.causal.parameters()]


def _has_hooks(forward: Forward) -> bool:
    """Whether Python of someone else's runs in the step, which no replay would call."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in forward.causal.modules())
