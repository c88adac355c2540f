"""Batches into micro-batches, and per-row results back into the batch's order and layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from heed.data.batch import Batch, GroupBatch, PairBatch, TokenBatch, micro_batches
from heed.errors import LearnerError
from heed.learners.base import Outputs
from heed.models.packing import rows_by_prompt


def split(
    batch: Batch,
    max_tokens: int,
    *,
    skip_unlearned: bool = False,
    joined: bool = False,
) -> list[list[int]]:
    """Group the rows (or pairs) into micro-batches of at most `max_tokens`.

    Padding counts, unless rows are joined; then rows of one prompt stay together where they fit,
    and the prompt counts for each. The two sides of a pair count together, because they run in one
    forward pass; so do all rows of a group, which is never parted.

    Args:
        skip_unlearned: leave out rows without a learned token, where some row has one.
        joined: whether rows will be joined end to end.
    """
    if isinstance(batch, PairBatch):
        one, other = batch.chosen.lengths, batch.rejected.lengths
        if joined:
            return _fill([[i] for i in range(len(batch))], (one + other).tolist(), max_tokens)
        longest = torch.maximum(one, other)
        return list(micro_batches([2 * n for n in longest.tolist()], max_tokens))
    if isinstance(batch, GroupBatch):
        return _whole_elements(batch.sizes.tolist(), batch.longest.tolist(), max_tokens)
    keep = batch.learn.any(1)
    if not skip_unlearned or not bool(keep.any()):
        keep = torch.ones_like(keep)
    rows = keep.nonzero().flatten().tolist()
    lengths = batch.lengths.tolist()
    if joined:
        together = [[r for r in rows if keep[r]] for rows in rows_by_prompt(batch)]
        return _fill([rows for rows in together if rows], lengths, max_tokens)
    groups = micro_batches([lengths[row] for row in rows], max_tokens)
    return [[rows[i] for i in group] for group in groups]


def _fill(
    together: Sequence[Sequence[int]], lengths: Sequence[int], max_tokens: int
) -> list[list[int]]:
    """Fill micro-batches one after another; groups with the longest rows come first.

    A group is split only where it does not fit as a whole.
    """
    order = sorted(together, key=lambda rows: (-max(lengths[row] for row in rows), rows[0]))
    filled: list[list[int]] = []
    room = 0
    for rows in order:
        whole = sum(lengths[row] for row in rows)
        if filled and whole > room and whole <= max_tokens:
            room = 0
        for row in rows:
            if not filled or lengths[row] > room:
                filled.append([])
                room = max_tokens
            filled[-1].append(row)
            room -= lengths[row]
    return filled


def _whole_elements(sizes: list[int], longest: list[int], max_tokens: int) -> list[list[int]]:
    """Group elements of several rows, longest first; one beyond the budget stands alone."""
    groups: list[list[int]] = []
    num_rows = width = 0
    for i in sorted(range(len(sizes)), key=lambda i: (-longest[i], i)):
        if not groups or (num_rows + sizes[i]) * width > max_tokens:
            groups.append([])
            num_rows, width = 0, longest[i]
        groups[-1].append(i)
        num_rows += sizes[i]
    return groups


def pairs_to(pairs: PairBatch, device: torch.device) -> PairBatch:
    """Return a pair batch on a device."""
    return PairBatch(
        pairs.chosen.to(device),
        pairs.rejected.to(device),
        pairs.p.to(device),
        None if pairs.margin is None else pairs.margin.to(device),
        None if pairs.weights is None else pairs.weights.to(device),
        None if pairs.tie is None else pairs.tie.to(device),
    )


def stack_sides(pairs: PairBatch) -> TokenBatch:
    """Put the chosen rows above the rejected ones; streams stay with the pair.

    Raises:
        LearnerError: the sides were sampled at different temperatures.
    """
    one, other = pairs.chosen, pairs.rejected
    if one.temperature != other.temperature:
        raise LearnerError(
            f"chosen rows have temperature {one.temperature} and rejected rows "
            f"{other.temperature}; log-probabilities of a pair need the same one"
        )
    kept = None
    if one.kept is not None or other.kept is not None:
        kept = _stack(_kept(one, other), _kept(other, one), fill=-1)
    return TokenBatch(
        _stack(one.tokens, other.tokens),
        _stack(one.attend, other.attend),
        _stack(one.learn, other.learn),
        _stack(one.positions, other.positions),
        one.rows + other.rows,
        kept=kept,
        temperature=one.temperature,
    )


def split_sides(outputs: Outputs, pairs: PairBatch) -> tuple[Outputs, Outputs]:
    """Give each side of a pair batch its outputs, in its own width."""
    num, at = len(pairs), {}
    learned = pairs.chosen.num_learned
    for side, rows in (("chosen", slice(num)), ("rejected", slice(num, None))):
        width = getattr(pairs, side).tokens.shape[1]
        found = present(outputs)
        whole = found.pop("log_distribution", None)
        cut = {
            name: values[rows] if values.ndim == 1 or name in PER_ROW else values[rows, :width]
            for name, values in found.items()
        }
        if whole is not None:
            cut["log_distribution"] = whole[:learned] if side == "chosen" else whole[learned:]
        at[side] = Outputs(**cut)
    return at["chosen"], at["rejected"]


PER_ROW = ("attributes",)
"""Outputs whose second axis is not tokens."""


class Gathered:
    """Results of micro-batches, put together as [B] or [B, T]; 0 for rows that were skipped.

    Args:
        num_rows: B.
        width: T, the batch's own.
        device: where the results are wanted.
    """

    def __init__(self, num_rows: int, width: int, device: torch.device) -> None:
        self._num_rows, self._width, self._device = num_rows, width, device
        self.tensors: dict[str, Tensor] = {}

    def add(self, rows: Sequence[int], results: Mapping[str, Tensor]) -> None:
        """Put results of some rows in their places.

        Raises:
            LearnerError: a result is not [b] or [b, t] for the micro-batch's b rows.
        """
        index = torch.as_tensor(rows, device=self._device)
        for name, values in results.items():
            fits = values.ndim in (1, 2) and len(values) == len(rows)
            width = values.shape[1] if name in PER_ROW and values.ndim == 2 else self._width
            if not fits or (values.ndim == 2 and values.shape[1] > width):
                raise LearnerError(
                    f"the metric {name!r} has shape {tuple(values.shape)} for {len(rows)} rows; "
                    f"give one number a row, or one a token (at most {self._width})"
                )
            values = values.detach().to(self._device)
            if name not in self.tensors:
                shape = (self._num_rows, width)[: values.ndim]
                self.tensors[name] = values.new_zeros(shape)
            if values.ndim == 1:
                self.tensors[name][index] = values
            else:
                self.tensors[name][index, : values.shape[1]] = values


def to_outputs(found: Mapping[str, Tensor | None]) -> Outputs:
    """Wrap what a head returns; half precision becomes fp32."""
    return Outputs(**{name: _wide(found.get(name)) for name in (f.name for f in fields(Outputs))})


def present(outputs: Outputs) -> dict[str, Tensor]:
    """The outputs that a model has, by name."""
    named = {f.name: getattr(outputs, f.name) for f in fields(Outputs)}
    return {name: values for name, values in named.items() if values is not None}


def _wide(values: Tensor | None) -> Tensor | None:
    if values is None:
        return None
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _kept(batch: TokenBatch, other: TokenBatch) -> Tensor:
    if batch.kept is not None:
        return batch.kept
    assert other.kept is not None
    return other.kept.new_full((*batch.tokens.shape, other.kept.shape[2]), -1)


def _stack(top: Tensor, bottom: Tensor, fill: int = 0) -> Tensor:
    """Put [b, t, ...] tensors above each other, filled to the larger sizes at their ends."""
    sizes = [max(a, b) for a, b in zip(top.shape[1:], bottom.shape[1:], strict=True)]
    out = top.new_full((len(top) + len(bottom), *sizes), fill)
    for rows, part in ((slice(len(top)), top), (slice(len(top), None), bottom)):
        out[(rows, *(slice(size) for size in part.shape[1:]))] = part
    return out
