"""Rows joined end to end, with a prompt that several rows share computed once.

    rows      a a a 1 1        line    a a a | b b 5 5 | 1 1 | 2 2 2
              a a a 2 2 2              prompt  own row   tails
              b b 5 5

Every layer but attention runs over the line: no padding is multiplied, and a shared prompt is there
once, forward and backward. Attention alone sees rows: prompts and rows of their own side by side
under a causal mask, and each tail (what a row has beyond a shared prompt) beside the keys of its
prompt. Nothing is approximated: a row gets what it would get alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from heed.data.batch import TokenBatch

LEAST_SHARED = 4
"""Tokens of the shortest prompt that is worth sharing."""

LIKE = 0.75
"""Attention runs over rows of like length: none is shorter than this share of the longest."""

FULL_TOKENS = 512
"""Tokens, padding included, from which on rows that are much shorter get a block of their own."""


@dataclass(frozen=True)
class Tails:
    """What rows have beyond a shared prompt, side by side; padding points to place 0.

    Args:
        queries: [S, u] int64, places in the line.
        keys: [S, p + u] int64, those of the prompt, then the tail's own.
        seen: [S, 1, u, p + u] bool, the keys that each query attends to.
    """

    queries: Tensor
    keys: Tensor
    seen: Tensor


@dataclass(frozen=True)
class Blocks:
    """Where attention finds rows in a line of N tokens; padding points to place 0.

    Args:
        whole: blocks [R, t] int64 of shared prompts, and of rows that share none.
        tails: blocks of what rows have beyond a shared prompt.
        back: [N] int64, place of each token of the line in all blocks flattened and joined.
        in_order: the line is one block of whole rows, row by row, without padding.
    """

    whole: tuple[Tensor, ...]
    tails: tuple[Tails, ...]
    back: Tensor
    in_order: bool


@dataclass(frozen=True)
class Spans:
    """The line piece by piece, as attention over rows of any length reads it: S pieces, no padding.

    A piece's queries attend to its keys under a causal mask that ends at the last of both.

    Args:
        starts: [S + 1] int32, where the queries of each piece begin and the last ends.
        key_starts: [S + 1] int32, the same of the keys.
        keys: [K] int64, places of the keys in the line; None where they are the line.
        longest, longest_keys: queries and keys of the piece that has most.
    """

    starts: Tensor
    key_starts: Tensor
    keys: Tensor | None
    longest: int
    longest_keys: int


@dataclass(frozen=True)
class Segment:
    """A piece of the line."""

    start: int
    length: int


@dataclass(frozen=True)
class Pieces:
    """What a line of N tokens is made of, in its order; read as blocks or as spans.

    Args:
        whole: shared prompts, and rows that share none.
        tails: what rows have beyond a shared prompt.
        prompts: the prompt of each tail, one of `whole`.
        length: N.
        device: of the line.
    """

    whole: tuple[Segment, ...]
    tails: tuple[Segment, ...]
    prompts: tuple[Segment, ...]
    length: int
    device: torch.device

    @cached_property
    def blocks(self) -> Blocks:
        """Rows of like length side by side."""
        return _blocks(self)

    @cached_property
    def spans(self) -> Spans:
        """Rows of any length, one after the other."""
        return _spans(self)


@dataclass(frozen=True)
class Line:
    """A batch joined end to end.

    Args:
        index: [N] int64, where each token of the line stands in the flattened batch [B T].
        place: [B T] int64, where each real token of the batch stands in the line; 0 elsewhere.
        pieces: where attention finds the rows.
    """

    index: Tensor
    place: Tensor
    pieces: Pieces


class _Builder:
    """Appends pieces of rows to a line; rows are the flat places of their real tokens."""

    def __init__(self, rows: Sequence[np.ndarray], size: int) -> None:
        self.rows = rows
        self.place = np.zeros(size, dtype=np.int64)
        self.pieces: list[np.ndarray] = []
        self.length = 0

    def put(self, row: int, first: int = 0, last: int | None = None) -> Segment:
        """Append tokens first to last of a row."""
        piece = self.rows[row][first:last]
        segment = Segment(self.length, len(piece))
        self.pieces.append(piece)
        self.refer(row, first, segment)
        self.length += len(piece)
        return segment

    def refer(self, row: int, first: int, segment: Segment) -> None:
        """Let tokens of a row, from `first` on, be those of a segment."""
        at = self.rows[row][first : first + segment.length]
        self.place[at] = np.arange(segment.start, segment.start + segment.length)


def join(batch: TokenBatch) -> Line:
    """Join the rows of a batch; what stands before the first learned token can be shared."""
    rows, groups = _read(batch)
    line = _Builder(rows, batch.tokens.numel())
    whole, tails, prompts = [], [], []
    for members, length in groups:
        if length:
            prompt = line.put(members[0], 0, length)
            whole.append(prompt)
            for row in members[1:]:
                line.refer(row, 0, prompt)
        else:
            whole += [line.put(row) for row in members]
    for (members, length), prompt in zip(groups, whole, strict=False):
        if length:
            tails += [line.put(row, length) for row in members]
            prompts += [prompt] * len(members)
    device = batch.tokens.device
    index = torch.from_numpy(np.concatenate(line.pieces)).to(device)
    place = torch.from_numpy(line.place).to(device)
    pieces = Pieces(tuple(whole), tuple(tails), tuple(prompts), line.length, device)
    return Line(index, place, pieces)


def rows_by_prompt(batch: TokenBatch) -> list[list[int]]:
    """Row numbers, those of one shared prompt together; a row that shares none stands alone."""
    together: list[list[int]] = []
    for members, length in _read(batch)[1]:
        together += [members] if length else [[row] for row in members]
    return together


def _read(batch: TokenBatch) -> tuple[list[np.ndarray], list[tuple[list[int], int]]]:
    """Flat places of each row's real tokens; and rows with the prompt tokens that they share.

    Groups that share a prompt come first; the last entry, if any, holds the rows that share none,
    with 0 tokens.
    """
    attend, learn = batch.attend.cpu().numpy(), batch.learn.cpu().numpy()
    tokens = batch.tokens.cpu().numpy().reshape(-1)
    width = attend.shape[1]
    rows = [np.flatnonzero(real) + number * width for number, real in enumerate(attend)]
    by_prompt: defaultdict[bytes, list[int]] = defaultdict(list)
    lengths = []
    for number, places in enumerate(rows):
        learned = learn.reshape(-1)[places]
        lengths.append(int(learned.argmax()) if learned.any() else 0)
        by_prompt[tokens[places[: lengths[-1]]].tobytes()].append(number)
    groups, alone = [], []
    for members in by_prompt.values():
        length = lengths[members[0]]
        if len(members) > 1 and length >= LEAST_SHARED:
            groups.append((members, length))
        else:
            alone += members
    return rows, groups + ([(sorted(alone), 0)] if alone else [])


def _spans(pieces: Pieces) -> Spans:
    own = [s.length for s in (*pieces.whole, *pieces.tails)]
    keys = [*(s.length for s in pieces.whole)]
    keys += [a.length + b.length for a, b in zip(pieces.tails, pieces.prompts, strict=True)]
    places: Tensor | None = None
    if pieces.tails:
        given = [np.arange(pieces.tails[0].start)]
        for tail, prompt in zip(pieces.tails, pieces.prompts, strict=True):
            given += [prompt.start + np.arange(prompt.length), tail.start + np.arange(tail.length)]
        places = torch.from_numpy(np.concatenate(given)).to(pieces.device)

    def starts(lengths: Sequence[int]) -> Tensor:
        ends = np.cumsum([0, *lengths], dtype=np.int32)
        return torch.from_numpy(ends).to(pieces.device)

    return Spans(starts(own), starts(keys), places, max(own), max(keys))


def _blocks(pieces: Pieces) -> Blocks:
    whole, tails, prompts = pieces.whole, pieces.tails, pieces.prompts

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(pieces.device)

    grids, rows, sides = [], [], []
    for members in _alike([s.length for s in whole]):
        grids.append(_grid([whole[i] for i in members]))
        rows.append(tensor(grids[-1][0]))
    for members in _alike([a.length + b.length for a, b in zip(tails, prompts, strict=True)]):
        own, own_real = _grid([tails[i] for i in members])
        given, given_real = _grid([prompts[i] for i in members])
        causal = np.tri(own.shape[1], dtype=bool)[None] & own_real[:, None, :]
        # A query that is padding sees its prompt, so that no row of the mask is empty.
        before = np.broadcast_to(given_real[:, None, :], (*own.shape, given.shape[1]))
        seen = np.concatenate([before, causal], axis=2)[:, None]
        keys = np.concatenate([given, own], axis=1)
        grids.append((own, own_real))
        sides.append(Tails(tensor(own), tensor(keys), tensor(seen)))
    flat = np.concatenate([places.reshape(-1) for places, _ in grids])
    filled = np.concatenate([real.reshape(-1) for _, real in grids])
    back = np.zeros(pieces.length, dtype=np.int64)
    back[flat[filled]] = np.flatnonzero(filled)
    in_order = len(grids) == 1 and not sides and bool((flat == np.arange(len(flat))).all())
    return Blocks(tuple(rows), tuple(sides), tensor(back), in_order and bool(filled.all()))


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Group segments of like length, in their own order within a group."""
    groups: list[list[int]] = []
    longest = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        full = bool(groups) and len(groups[-1]) * longest >= FULL_TOKENS
        if not groups or (full and lengths[i] < LIKE * longest):
            groups.append([])
            longest = lengths[i]
        groups[-1].append(i)
    return groups


def _grid(segments: Sequence[Segment]) -> tuple[np.ndarray, np.ndarray]:
    """Places [R, t] of segments side by side, and which of them are real."""
    starts = np.array([s.start for s in segments], dtype=np.int64).reshape(-1, 1)
    lengths = np.array([s.length for s in segments], dtype=np.int64).reshape(-1, 1)
    steps = np.arange(lengths.max(initial=0))[None]
    real = steps < lengths
    return np.where(real, starts + steps, 0), real
