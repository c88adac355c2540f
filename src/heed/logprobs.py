"""Logprobs of tokens: the only shift by one in the package, and the output layer in chunks.

The hidden state at t - 1 predicts token t. `sources` and `shift_hidden` pick exactly the hidden
states that predict learned tokens, `token_logprobs` runs the output layer on those alone, and
`scatter` puts the results back, so that entry t describes token t again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from heed.errors import ConfigError, DataError

SAVE_LIMIT = 2**24
"""Up to this many probabilities (N x V) are kept for the backward pass; above, recomputed."""

CHUNK_TOKENS = 128
"""Tokens of one product of the output layer, at least: few enough that its logits stay in a core's
cache while the softmax goes over them."""

CHUNK_LOGITS = 2**27
"""Logits of one product on a GPU, half a GiB: each product's gradient of the output layer is as
large as the layer, so that few large products move less memory than many small ones."""

LEAST_EXPONENT, LEAST_PROBABILITY = -60.0, 1e-26
"""Probabilities below the second are 0; it is just above exp of the first, and far below what a sum
of fp64 notices. Numbers too small for fp32's own exponents slow a CPU's products down by tens of
times (`benchmarks.softmax`), and a sharp distribution has many."""


def sources(learn: Tensor) -> Tensor:
    """Find the place that predicts each learned token: the one before it.

    Args:
        learn: [B, T] bool.

    Returns:
        [N] int64, places in the flattened batch, row by row.

    Raises:
        DataError: a first token is learned.
    """
    if learn.shape[1] and bool(learn[:, 0].any()):
        rows = torch.nonzero(learn[:, 0]).flatten().tolist()
        raise DataError(
            f"rows {rows[:8]} learn their first token, which nothing predicts; "
            "begin each row with a prompt or start token that is not learned"
        )
    return torch.nonzero(learn.flatten()).flatten() - 1


def shift_hidden(hidden: Tensor, learn: Tensor) -> tuple[Tensor, Tensor]:
    """Pick the hidden state that predicts each learned token: the one before it.

    Args:
        hidden: [B, T, D], entry t made from tokens up to and including t.
        learn: [B, T] bool.

    Returns:
        selected [N, D], and index [N] int64: the place of each learned token in the flattened
        batch, row by row. `tokens.flatten()[index]` are the targets.

    Raises:
        DataError: a first token is learned, or the shapes do not fit.
    """
    if learn.dtype != torch.bool or learn.shape != hidden.shape[:2] or hidden.dim() != 3:
        raise DataError(
            f"learn is {learn.dtype} {tuple(learn.shape)} and hidden {tuple(hidden.shape)}; "
            "expected bool [B, T] and [B, T, D]"
        )
    before = sources(learn)
    return hidden.flatten(0, 1).index_select(0, before), before + 1


def scatter(values: Tensor, learn: Tensor) -> Tensor:
    """Put one value per learned token back into its place.

    Args:
        values: [N], in the order of `shift_hidden`.
        learn: [B, T] bool with N true entries.

    Returns:
        [B, T]; 0 where not learned.

    Raises:
        DataError: the number of values is not the number of learned tokens.
    """
    if values.dim() != 1 or values.shape[0] != int(learn.sum()):
        raise DataError(
            f"found values of shape {tuple(values.shape)} for {int(learn.sum())} learned tokens; "
            "expected one value per learned token"
        )
    return values.new_zeros(learn.shape).masked_scatter(learn, values)


def token_logprobs(
    selected: Tensor,
    head_weight: Tensor,
    head_bias: Tensor | None,
    targets: Tensor,
    temperature: float = 1.0,
    kept: Tensor | None = None,
    chunk: int | None = None,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Compute the logprob of each target token, and the entropy of its distribution if asked.

    z = (h W^T + b) / temperature;  logprob = z[target] - logsumexp(z);  entropy = -sum p log p

    The output layer runs `chunk` tokens at a time, so [N, V] never exists whole beyond SAVE_LIMIT
    entries. Products accumulate in fp32 and stay fp32 through the softmax, whatever the weights
    are. Gradients reach hidden states, weight and bias, through the entropy too.

    Args:
        selected: [N, D] hidden states that predict the targets.
        head_weight: [V, D].
        head_bias: [V] or None.
        targets: [N] int64, below V.
        temperature: above 0, the one used for sampling.
        kept: [N, K] int64 ids that the sampler could choose from, padded with -1; the
            distribution is renormalised over them. A row of -1 alone keeps the whole vocabulary.
        chunk: tokens per product; by default `CHUNK_TOKENS`, and more on a GPU.
        with_entropy: whether the entropy is computed.

    Returns:
        logprobs [N] and entropy [N] or None, both nats, fp32 (fp64 for fp64 inputs).

    Raises:
        ConfigError: temperature or chunk is not above 0.
        DataError: a target is not among its kept ids.
    """
    if chunk is None:
        chunk = _usual_chunk(head_weight)
    _check_options(temperature, chunk)
    _check_kept(targets, kept)
    logprobs, entropy = _TokenLogprobs.apply(
        selected, head_weight, head_bias, targets, float(temperature), kept, chunk, with_entropy
    )
    return logprobs, entropy


def from_logits(
    logits: Tensor, targets: Tensor, temperature: float = 1.0, kept: Tensor | None = None
) -> Tensor:
    """Compute logprobs from whole logits, for output layers that are not one linear map.

    Args:
        logits: [..., V]; entry t is the distribution of token t (already shifted).
        targets: [...] int64.
        temperature: above 0.
        kept: [..., K] int64 ids padded with -1, or None; as in `token_logprobs`.

    Returns:
        [...], nats, fp32 (fp64 for fp64 logits).

    Raises:
        ConfigError: temperature is not above 0.
        DataError: a target is not among its kept ids.
    """
    _check_options(temperature, 1)
    _check_kept(targets, kept)
    scaled = _temper(_wide(logits), temperature, kept)
    return scaled.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - scaled.logsumexp(-1)


def distribution(logits: Tensor, temperature: float = 1.0, kept: Tensor | None = None) -> Tensor:
    """Return the whole log-distribution that is sampled from, [..., V] nats, at least fp32.

    Arguments as in `from_logits`; ids that are not kept have -inf.
    """
    return _temper(_wide(logits), temperature, kept).log_softmax(-1)


def entropy(logits: Tensor, temperature: float = 1.0, kept: Tensor | None = None) -> Tensor:
    """Compute the entropy -sum p log p of each distribution, in nats; arguments as `from_logits`.

    Returns:
        [...], fp32 (fp64 for fp64 logits).
    """
    _check_options(temperature, 1)
    logprobs = _temper(_wide(logits), temperature, kept).log_softmax(-1)
    # Ids that are not kept have probability 0 and contribute 0, where 0 * -inf would be NaN.
    return -(logprobs.exp() * logprobs.masked_fill(logprobs.isneginf(), 0.0)).sum(-1)


@torch.no_grad()
def log_collision(
    logits: Callable[[Tensor], Tensor],
    selected: Tensor,
    temperature: float = 1.0,
    kept: Tensor | None = None,
    chunk: int = 512,
) -> Tensor:
    """Compute log sum_v p_v^2 of each distribution: of two draws, the chance to be the same token.

    Args:
        logits: the output layer, [n, D] to [n, V]; it runs `chunk` tokens at a time.
        selected: [N, D] what it reads.
        Others as in `token_logprobs`.

    Returns:
        [N] nats, 0 or below, without gradient.
    """
    _check_options(temperature, chunk)
    found = [selected.new_zeros(0, dtype=_wide_dtype(selected))]
    for part in _parts(selected.shape[0], chunk):
        some = None if kept is None else kept[part]
        found.append((2.0 * distribution(logits(selected[part]), temperature, some)).logsumexp(-1))
    return torch.cat(found)


class _TokenLogprobs(torch.autograd.Function):
    """Linear layer, softmax, pick: d logits = g (onehot - p) + g_entropy (-p log p - p H)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        kept: Tensor | None,
        chunk: int,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor | None]:
        num_tokens, num_ids = hidden.shape[0], weight.shape[0]
        differentiated = any(ctx.needs_input_grad[:3])
        keep = differentiated and num_tokens * num_ids <= SAVE_LIMIT
        dtype = _wide_dtype(hidden, weight)
        logprobs = torch.empty(num_tokens, dtype=dtype, device=hidden.device)
        entropies = torch.empty_like(logprobs) if with_entropy else None
        probabilities: list[Tensor] = []
        matrix = _operand(weight, dtype)
        for part in _parts(num_tokens, chunk):
            scaled = _logits(hidden[part], matrix, bias, temperature, kept, part, dtype)
            picked = scaled.gather(-1, targets[part].unsqueeze(-1))
            p, peak, total = _exponentials(scaled)
            logprobs[part] = (picked - peak - total.log()).squeeze(-1)
            if keep or entropies is not None:
                p /= total
                if entropies is not None:
                    entropies[part] = torch.special.entr(p).sum(-1)
                if keep:
                    probabilities.append(p)
        ctx.save_for_backward(hidden, weight, bias, targets, kept, entropies, *probabilities)
        ctx.temperature, ctx.chunk, ctx.dtype = temperature, chunk, dtype
        ctx.set_materialize_grads(False)
        return logprobs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad, grad_entropy = grads
        hidden, weight, bias, targets, kept, entropies, *saved = ctx.saved_tensors
        dtype, temperature = ctx.dtype, ctx.temperature
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        if grad is None and grad_entropy is None:
            return (None,) * 8
        d_hidden = torch.empty(hidden.shape, dtype=dtype, device=hidden.device)
        d_weight = weight.new_zeros(weight.shape, dtype=dtype) if for_weight else None
        d_bias = bias.new_zeros(bias.shape, dtype=dtype) if for_bias else None
        matrix = _operand(weight, dtype)
        for i, part in enumerate(_parts(hidden.shape[0], ctx.chunk)):
            if saved:
                p = saved[i]
            else:
                scaled = _logits(hidden[part], matrix, bias, temperature, kept, part, dtype)
                p, _, total = _exponentials(scaled)
                p /= total
            g = p.new_zeros(p.shape[0], 1) if grad is None else grad[part].unsqueeze(-1)
            in_place = not saved and grad_entropy is None
            d_logits = p.mul_(-g) if in_place else p * -g
            d_logits.scatter_add_(-1, targets[part].unsqueeze(-1), g)
            if grad_entropy is not None:
                slope = torch.special.entr(p) - p * entropies[part].unsqueeze(-1)
                d_logits += slope * grad_entropy[part].unsqueeze(-1)
            if temperature != 1.0:
                d_logits /= temperature
            if d_bias is not None:
                d_bias += d_logits.sum(0)
            if _native(matrix):
                d_logits = d_logits.to(matrix.dtype)  # once for both products
            if for_hidden:
                d_hidden[part] = _product(d_logits, matrix, dtype)
            if d_weight is not None:
                _add_product(d_weight, d_logits.t(), hidden[part])
        return (
            d_hidden.to(hidden.dtype) if for_hidden else None,
            d_weight.to(weight.dtype) if d_weight is not None else None,
            d_bias.to(bias.dtype) if d_bias is not None else None,
            *(None,) * 5,
        )


def _exponentials(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Replace logits [n, V] by exp(logits - peak); also their peak and the sum, both [n, 1]."""
    peak = logits.amax(-1, keepdim=True)
    found = logits.sub_(peak).clamp_(min=LEAST_EXPONENT).exp_()
    torch.nn.functional.threshold(found, LEAST_PROBABILITY, 0.0, inplace=True)
    return found, peak, found.sum(-1, keepdim=True)


def _usual_chunk(head_weight: Tensor) -> int:
    most = CHUNK_LOGITS // head_weight.shape[0] if head_weight.is_cuda else 0
    return max(CHUNK_TOKENS, most)


def _parts(num_tokens: int, chunk: int) -> list[slice]:
    return [slice(start, start + chunk) for start in range(0, num_tokens, chunk)]


def _wide_dtype(*tensors: Tensor) -> torch.dtype:
    wide = all(tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if wide else torch.float32


def _wide(logits: Tensor) -> Tensor:
    return logits.to(_wide_dtype(logits))


def _native(tensor: Tensor) -> bool:
    # CUDA multiplies bf16 with fp32 accumulation and an fp32 result; elsewhere the result would
    # be rounded to bf16, so both operands are widened first.
    return tensor.is_cuda and tensor.dtype == torch.bfloat16


def _operand(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if _native(tensor) else tensor.to(dtype)


def _product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    with torch.autocast(left.device.type, enabled=False):
        if _native(right):
            return torch.mm(left.to(right.dtype), right, out_dtype=torch.float32)
        return left.to(dtype) @ right.to(dtype)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    with torch.autocast(left.device.type, enabled=False):
        if _native(right):
            narrow = left.to(right.dtype)
            torch.addmm(total, narrow, right, out_dtype=total.dtype, out=total)
        else:
            total.addmm_(left, right.to(total.dtype))


def _logits(
    hidden: Tensor,
    matrix: Tensor,
    bias: Tensor | None,
    temperature: float,
    kept: Tensor | None,
    part: slice,
    dtype: torch.dtype,
) -> Tensor:
    logits = _product(hidden, matrix.t(), dtype)
    if bias is not None:
        logits += bias
    return _temper(logits, temperature, None if kept is None else kept[part])


def _temper(logits: Tensor, temperature: float, kept: Tensor | None) -> Tensor:
    scaled = logits / temperature if temperature != 1.0 else logits
    if kept is None or kept.shape[-1] == 0:
        return scaled
    num_ids = scaled.shape[-1]
    # Padding (-1) lands in one extra column that is cut off again.
    allowed = torch.zeros(*scaled.shape[:-1], num_ids + 1, dtype=torch.bool, device=scaled.device)
    allowed = allowed.scatter(-1, torch.where(kept < 0, num_ids, kept), True)[..., :num_ids]
    allowed = allowed | (kept < 0).all(-1, keepdim=True)
    return scaled.masked_fill(~allowed, float("-inf"))


def _check_options(temperature: float, chunk: int) -> None:
    if not temperature > 0:
        raise ConfigError(
            f"temperature is {temperature}, expected above 0; greedy decoding has no distribution "
            "to learn from, so sample with a temperature"
        )
    if chunk < 1:
        raise ConfigError(f"chunk is {chunk}, expected at least 1 token")


def _check_kept(targets: Tensor, kept: Tensor | None) -> None:
    if kept is None or kept.shape[-1] == 0:
        return
    inside = (kept == targets.unsqueeze(-1)).any(-1) | (kept < 0).all(-1)
    if not bool(inside.all()):
        raise DataError(
            f"{int((~inside).sum())} of {inside.numel()} targets are not among the ids their "
            "sampler kept, so they have probability 0; "
            "pass the kept ids of the run that sampled them, and -1 alone for forced tokens"
        )
