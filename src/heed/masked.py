"""Sums, means and whitening over the entries that a mask selects, and the one place that reduces.

Entries outside the mask may hold anything, NaN included: they never reach a result or a gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from heed.errors import ConfigError, DataError

By = Literal["token", "sequence", "constant"]


def sum(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Add up the selected entries; an empty selection adds up to 0.

    Args:
        values: any shape.
        mask: bool, the same shape; true where an entry counts.
        dim: the dimension to add over; None for all.

    Returns:
        A scalar, or `values` without `dim`.

    Raises:
        DataError: the mask is not bool or has another shape.
    """
    _check(values, mask)
    chosen = torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))
    return chosen.sum() if dim is None else chosen.sum(dim)


def mean(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Average the selected entries.

    Args and shapes as in `sum`.

    Raises:
        DataError: a mean over nothing is asked for.
    """
    total = sum(values, mask, dim)
    count = mask.sum() if dim is None else mask.sum(dim)
    if bool((count == 0).any()):
        raise DataError(
            "a masked mean found no selected entry, expected at least one per result; "
            "leave out rows with nothing selected, or use masked.sum"
        )
    return total / count


def std(values: Tensor, mask: Tensor, unbiased: bool = False) -> Tensor:
    """Measure the standard deviation of the selected entries, a scalar.

    sqrt( sum (v - mean)^2 / N ), or / (N - 1) with `unbiased`.

    Raises:
        DataError: fewer than one selected entry, or two with `unbiased`.
    """
    return _variance(values, mask, mean(values, mask), unbiased).sqrt()


def whiten(
    values: Tensor,
    mask: Tensor,
    shift_mean: bool = True,
    eps: float = 1e-8,
    unbiased: bool = False,
) -> Tensor:
    """Bring the selected entries to variance 1, and to mean 0 when `shift_mean`.

    (v - mean) / sqrt(variance + eps), with the mean added back unless `shift_mean`.

    Args:
        values: any shape.
        mask: bool, the same shape.
        shift_mean: true for advantages; false for rewards, whose mean carries meaning.
        eps: added to the variance.
        unbiased: divide by N - 1 rather than N. The original code divides by N.

    Returns:
        The shape of `values`; 0 outside the mask.

    Source: lm-human-preferences `utils.whiten`.
    """
    centre = mean(values, mask)
    scaled = (values - centre) * torch.rsqrt(_variance(values, mask, centre, unbiased) + eps)
    if not shift_mean:
        scaled = scaled + centre
    return torch.where(mask, scaled, torch.zeros_like(scaled))


def reduce(values: Tensor, mask: Tensor, by: By, denominator: float | None = None) -> Tensor:
    """Reduce unreduced losses to a scalar. Every other function leaves them unreduced.

    token:    sum of the selected values / denominator (default: number of selected values)
    sequence: sum over rows of the row's mean / denominator (default: rows with any selected)
    constant: sum of the selected values / denominator (required)

    Pass the denominator of the whole update to every micro-batch, and the micro-batches' results
    add up to the update's: their size and padding then change no gradient.

    Args:
        values: [B, T] (or [B], for a loss with one value per row).
        mask: bool, the same shape.
        by: what counts as one: a token, a sequence, or neither.
        denominator: above 0.

    Returns:
        A scalar.

    Raises:
        ConfigError: an unknown `by`, a denominator that is missing or not above 0.
        DataError: nothing is selected and no denominator is given.
    """
    if denominator is not None and not denominator > 0:
        raise ConfigError(f"the denominator is {denominator}, expected a number above 0")
    rows = mask.reshape(mask.shape[0], -1) if mask.dim() else mask.reshape(1, 1)
    if by == "sequence":
        per_row = sum(values.reshape(rows.shape), rows, dim=1) / rows.sum(1).clamp(min=1)
        total, count = per_row.sum(), rows.any(1).sum()
    elif by in ("token", "constant"):
        total, count = sum(values, mask), mask.sum()
    else:
        raise ConfigError(f"by is {by!r}, expected 'token', 'sequence' or 'constant'")
    if denominator is not None:
        return total / denominator
    if by == "constant":
        raise ConfigError("by='constant' needs a denominator, for example rows x largest length")
    if int(count) == 0:
        raise DataError(
            "no token is learned in this batch, so a mean does not exist; "
            "pass the denominator of the whole update, or drop the batch"
        )
    return total / count


def last_index(attend: Tensor) -> Tensor:
    """Find the last true entry of each row, whichever side is padded.

    Args:
        attend: [B, T] bool.

    Returns:
        [B] int64.

    Raises:
        DataError: a row has no true entry.
    """
    if attend.dtype != torch.bool or attend.dim() != 2:
        raise DataError(
            f"attend is {attend.dtype} of shape {tuple(attend.shape)}, expected bool [B, T]"
        )
    if not bool(attend.any(1).all()):
        rows = torch.nonzero(~attend.any(1)).flatten().tolist()
        raise DataError(f"rows {rows[:8]} have no true entry, so they have no last token")
    places = torch.arange(attend.shape[1], device=attend.device)
    return torch.where(attend, places, -1).amax(1)


def _variance(values: Tensor, mask: Tensor, centre: Tensor, unbiased: bool) -> Tensor:
    count = int(mask.sum()) - int(unbiased)
    if count < 1:
        raise DataError("an unbiased variance needs at least two selected entries, found one")
    return sum((values - centre).square(), mask) / count


def _check(values: Tensor, mask: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise DataError(f"the mask is {mask.dtype}, expected torch.bool")
    if mask.shape != values.shape:
        raise DataError(
            f"the mask has shape {tuple(mask.shape)} and the values {tuple(values.shape)}; "
            "expected the same shape"
        )
