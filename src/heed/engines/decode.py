"""The decoding loop: slots that are always full while work is waiting.

while rows are active or samples wait:
    fill free slots: run waiting prompts once each, copy their keys to every sample of theirs
    run one token of every active row
    draw the next token of each; rows that end free their slot
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from heed.data.batch import micro_batches
from heed.engines.cache import PromptCache
from heed.engines.captured import CapturedSteps, EagerSteps
from heed.engines.forward import Forward
from heed.engines.sampling import draw
from heed.records import Finish, Sampling

PREFILL_TOKENS = 8192
"""Tokens, padding included, of one forward pass over prompts."""

REFILL_FRAC = 0.125
"""Share of the slots that is free before waiting samples are admitted, so that prompts are run
several at a time."""


@dataclass
class Drawn:
    """What was drawn for one sample."""

    tokens: list[int]
    logprobs: list[float]
    kept: list[tuple[int, ...]] | None
    finish: Finish
    error: str | None


@dataclass
class _Waiting:
    """A prompt that was run and still has samples without a slot."""

    cache: PromptCache
    logits: Tensor


@dataclass
class _Book:
    """Results of all samples, by sample number."""

    tokens: np.ndarray
    logprobs: np.ndarray
    count: np.ndarray
    finish: dict[int, Finish] = field(default_factory=dict)
    kept: list[list[tuple[int, ...]]] | None = None

    def drawn(self, sample: int) -> Drawn:
        """Return what was drawn for a sample."""
        finish = self.finish[sample]
        failed = finish == "error"
        # The last token of a failed sample was drawn from numbers that are not finite.
        num = int(self.count[sample]) - failed
        # A top_k of the whole vocabulary cuts nothing, and nothing was noted.
        cut = self.kept is not None and len(self.kept[sample]) >= num
        return Drawn(
            self.tokens[sample, :num].tolist(),
            self.logprobs[sample, :num].tolist(),
            self.kept[sample][:num] if self.kept is not None and cut else None,
            finish,
            "the model's logits are not finite; look for diverged weights" if failed else None,
        )


class Decoder:
    """One call's decoding: every sample of every prompt.

    Args:
        forward: the model.
        prompts: token ids of each prompt, none empty.
        samples: per prompt its samples' uniform numbers, each [max_tokens] or None (greedy).
        max_rows: slots.
        end_ids: token ids that end a completion.
        stops: whether a completion's tokens end with a stop text; None where there are none.
        steps: runs one token of every active row; as it comes by default.
    """

    def __init__(
        self,
        forward: Forward,
        prompts: Sequence[Sequence[int]],
        numbers: Callable[[int, int], np.ndarray | None],
        sampling: Sampling,
        max_rows: int,
        end_ids: Sequence[int],
        stops: Callable[[list[int]], bool] | None,
        steps: EagerSteps | CapturedSteps | None = None,
    ) -> None:
        self.steps = steps or EagerSteps(forward)
        self.forward, self.prompts, self.numbers = forward, prompts, numbers
        self.sampling, self.stops = sampling, stops
        self.end_ids = np.asarray(end_ids, dtype=np.int64)
        order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
        self.work = [(p, i) for p in order for i in range(sampling.n)]
        self.next = 0
        num, longest = len(self.work), sampling.max_tokens
        self.rows = min(max_rows, num)
        self.active = 0
        self.device = forward.device
        length = max(len(p) for p in prompts) + longest
        self.cache = self.steps.open(self.rows, length)
        self.waiting: dict[int, _Waiting] = {}
        self.book = _Book(
            np.zeros((num, longest), dtype=np.int64),
            np.zeros((num, longest), dtype=np.float32),
            np.zeros(num, dtype=np.int64),
            kept=[[] for _ in range(num)] if sampling.truncates else None,
        )
        # Per slot: which sample, its newest token, where that stands, and its numbers.
        self.sample = np.zeros(self.rows, dtype=np.int64)
        self.token = np.zeros(self.rows, dtype=np.int64)
        self.position = np.zeros(self.rows, dtype=np.int64)
        self.uniform = np.zeros((self.rows, longest), dtype=np.float32)

    def run(self) -> list[list[Drawn]]:
        """Decode everything; returns what was drawn per prompt and sample."""
        threshold = max(1, int(self.rows * REFILL_FRAC))
        while self.active or self.next < len(self.work):
            free = self.rows - self.active
            if self.next < len(self.work) and (free >= threshold or not self.active):
                self._admit(min(free, len(self.work) - self.next))
            if self.active:
                self._step()
        out: list[list[Drawn]] = [[] for _ in self.prompts]
        for number in sorted(range(len(self.work)), key=lambda s: self.work[s]):
            out[self.work[number][0]].append(self.book.drawn(number))
        return out

    def _admit(self, num: int) -> None:
        first = self.active
        taken = range(self.next, self.next + num)
        slots: dict[int, list[int]] = {}
        for slot, number in enumerate(taken, first):
            prompt, index = self.work[number]
            slots.setdefault(prompt, []).append(slot)
            uniform = self.numbers(prompt, index)
            if uniform is not None:
                self.uniform[slot] = uniform
        self.sample[first : first + num] = taken
        self.next += num
        logits: list[tuple[list[int], Tensor]] = []
        for prompt in [p for p in slots if p in self.waiting]:
            held = self.waiting.pop(prompt)
            self._place([(prompt, 0, slots[prompt])], held.cache, held.logits, logits)
        fresh = [p for p in slots if not any(slots[p] == at for at, _ in logits)]
        lengths = [len(self.prompts[p]) for p in fresh]
        for group in micro_batches(lengths, PREFILL_TOKENS):
            numbers = [fresh[i] for i in group]
            found, cache = self.forward.prefill([self.prompts[p] for p in numbers])
            self._place([(p, r, slots[p]) for r, p in enumerate(numbers)], cache, found, logits)
        at = torch.tensor([slot - first for where, _ in logits for slot in where])
        joined = torch.cat([part for _, part in logits])
        self.active += num
        self._settle(first, joined[torch.argsort(at).to(self.device)])

    def _place(
        self,
        placed: list[tuple[int, int, list[int]]],
        cache: PromptCache,
        found: Tensor,
        logits: list[tuple[list[int], Tensor]],
    ) -> None:
        """Copy prompts into their slots; hold back the one that has more samples waiting."""
        target = [slot for _, _, where in placed for slot in where]
        source = [row for _, row, where in placed for _ in where]
        rows = torch.tensor(source, device=self.device)
        self.cache.fill(torch.tensor(target, device=self.device), cache, rows)
        logits.append((target, found[rows]))
        for prompt, row, where in placed:
            length = len(self.prompts[prompt])
            self.position[where] = length - 1
            if self.next < len(self.work) and self.work[self.next][0] == prompt:
                held = cache.row(row, length), found[row : row + 1].clone()
                self.waiting[prompt] = _Waiting(*held)

    def _step(self) -> None:
        num = self.active
        positions = self.position[:num]
        tokens = torch.from_numpy(self.token[:num]).to(self.device)
        logits = self.steps.step(
            tokens,
            torch.from_numpy(positions).to(self.device),
            int(positions.max()) + 1,
            self.cache,
        )
        self._settle(0, logits)

    def _settle(self, first: int, logits: Tensor) -> None:
        """Draw a token for the rows from `first` on, write it down, free the rows that end."""
        rows = slice(first, self.active)
        book, sample = self.book, self.sample[rows]
        count = book.count[sample]
        uniforms = None
        if self.sampling.temperature > 0:
            numbers = self.uniform[np.arange(first, self.active), count]
            uniforms = torch.from_numpy(numbers).to(self.device)
        drawn = draw(logits, self.sampling, uniforms)
        tokens, logprobs = drawn.tokens.cpu().numpy(), drawn.logprobs.cpu().numpy()
        book.tokens[sample, count] = tokens
        book.logprobs[sample, count] = logprobs
        if book.kept is not None and drawn.kept is not None:
            for number, ids in zip(sample.tolist(), drawn.kept.cpu().numpy(), strict=True):
                book.kept[number].append(tuple(ids[ids >= 0].tolist()))
        book.count[sample] = count + 1
        self.token[rows] = tokens
        self.position[rows] += 1
        failed = ~np.isfinite(logprobs)
        stopped = np.isin(tokens, self.end_ids) | self._stopped(sample)
        ended = failed | stopped | (count + 1 == self.sampling.max_tokens)
        if not ended.any():
            return
        for row in np.flatnonzero(ended):
            finish: Finish = "error" if failed[row] else "stop" if stopped[row] else "length"
            book.finish[int(sample[row])] = finish
        if failed.any():
            self.cache.clear(torch.from_numpy(np.flatnonzero(failed) + first).to(self.device))
        self._release(np.flatnonzero(ended) + first)

    def _stopped(self, sample: np.ndarray) -> np.ndarray:
        if self.stops is None:
            return np.zeros(len(sample), dtype=bool)
        book = self.book
        return np.array([self.stops(book.tokens[s, : book.count[s]].tolist()) for s in sample])

    def _release(self, ended: np.ndarray) -> None:
        """Free rows; the last active rows move into the gaps, so active rows stay in front."""
        left = self.active - len(ended)
        gaps = ended[ended < left]
        if len(gaps):
            tail = np.arange(left, self.active)
            moved = tail[~np.isin(tail, ended)]
            used = int(self.position[moved].max())
            source, target = torch.from_numpy(moved), torch.from_numpy(gaps)
            self.cache.move(source.to(self.device), target.to(self.device), used)
            for state in (self.sample, self.token, self.position, self.uniform):
                state[gaps] = state[moved]
        self.active = left
