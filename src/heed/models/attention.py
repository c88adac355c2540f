"""Attention of transformers' models, as heed's batches need it.

Rows in a line: where a batch is joined end to end (`heed.models.packing`), attention alone sees
rows. The other layers of the model do not know.

bf16 on a CPU: torch's fused attention is faster in fp32 than in bf16 there, and its backward pass
by far (width 128, 32 x 128 tokens, one Zen 4 core: 10 against 52 ms a layer backward, 7 against 11
forward). Widening queries, keys and values makes a reward-model step 1.2 to 1.7 times faster. One
query at a time, as in decoding, stays bf16: there the cast of the whole cache would cost more.

Half precision on a CUDA device: one kernel attends over rows of any length, prompts that they share
included, where torch has it. Blocks of like lengths take kernels each instead, and the device
waits for their launches.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from heed.models.packing import Blocks, Pieces, Spans

NAME = "heed"
PIECES = "heed_pieces"
"""The argument of a model's forward pass that says where attention finds rows."""


def adopt_attention(module: nn.Module) -> None:
    """Let the models inside a module attend by this file.

    Models that attend by another way than torch's fused attention stay as they are.
    """
    for model in module.modules():
        if isinstance(model, PreTrainedModel) and model.config._attn_implementation == "sdpa":
            model.set_attn_implementation(NAME)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **more: Any
) -> tuple[Tensor, None]:
    """Attend as transformers asks: [b, heads, t, d] in, [b, t, heads, d] out."""
    pieces: Pieces | None = more.pop(PIECES, None)
    dtype = query.dtype
    if pieces is not None and _spans_fit(query, value, more):
        return _attend_spans(query, key, value, pieces.spans, more.get("scaling")), None
    if dtype == torch.bfloat16 and query.device.type == "cpu" and query.shape[2] > 1:
        query, key, value = query.float(), key.float(), value.float()
        mask = mask.float() if mask is not None and mask.dtype != torch.bool else mask
    if pieces is None:
        found = _attend_once(module, query, key, value, mask, **more)
    else:
        found = _attend_rows(module, query, key, value, pieces.blocks, **more)
    return found.to(dtype), None


def _attend_once(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **more: Any
) -> Tensor:
    """Attend as torch does; heads that share keys read them once where there is one query a row.

    Grouped heads otherwise get copies of all keys and values, as many as there are heads, at every
    token. One query knows no order, so the heads of a group stand as its queries.
    """
    num, rows = key.shape[1], query.shape[0]
    shared = query.shape[2] == 1 and num < query.shape[1]
    if not shared or mask is None or mask.shape[1] != 1 or more.get("position_bias") is not None:
        found: Tensor = sdpa_attention_forward(module, query, key, value, mask, **more)[0]
        return found
    groups = query.reshape(rows, num, -1, query.shape[3])
    together = nn.functional.scaled_dot_product_attention(
        groups, key, value, mask, more.get("dropout", 0.0), scale=more.get("scaling")
    )
    return together.reshape(rows, 1, query.shape[1], -1)


@cache
def rows_kernel() -> Callable[..., Tensor] | None:
    """Torch's attention over rows of any length, causal; None in versions that lack it.

    It takes queries [N, heads, d], keys and values [K, fewer heads, d], starts of both [S + 1], and
    the most of both.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    if "window_size" not in known:
        return None
    more: dict[str, Any] = {"window_size": (-1, 0)}
    if "enable_gqa" in known:
        more["enable_gqa"] = True

    def attend(*args: Any, scale: float | None) -> Tensor:
        return cast(Tensor, varlen_attn(*args, scale=scale, **more))

    return attend


def _spans_fit(query: Tensor, value: Tensor, more: dict[str, Any]) -> bool:
    """Whether that kernel takes these: half precision, heads that it knows, no dropout."""
    if query.device.type != "cuda" or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    size = query.shape[3]
    known = size % 8 == 0 and size <= 256 and value.shape[3] == size
    plain = not more.get("dropout") and more.get("position_bias") is None
    modern = torch.cuda.get_device_capability(query.device) >= (8, 0)
    return known and plain and modern and rows_kernel() is not None


def _attend_spans(
    query: Tensor, key: Tensor, value: Tensor, spans: Spans, scale: float | None
) -> Tensor:
    lines = [states.transpose(1, 2)[0] for states in (query, key, value)]
    if spans.keys is not None:
        lines[1:] = [line.index_select(0, spans.keys) for line in lines[1:]]
    attend = rows_kernel()
    assert attend is not None
    most = (spans.longest, spans.longest_keys)
    return attend(*lines, spans.starts, spans.key_starts, *most, scale=scale)[None]


def _attend_rows(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, **more: Any
) -> Tensor:
    lines = [states.transpose(1, 2)[0] for states in (query, key, value)]
    if blocks.in_order:
        rows = [line.unflatten(0, blocks.whole[0].shape) for line in lines]
        return _fused(module, rows, None, **more).flatten(0, 1)[None]
    parts = []
    for places in blocks.whole:
        rows = [_take(line, places) for line in lines]
        parts.append(_fused(module, rows, None, **more).flatten(0, 1))
    for tails in blocks.tails:
        at = (tails.queries, tails.keys, tails.keys)
        rows = [_take(line, places) for line, places in zip(lines, at, strict=True)]
        parts.append(_fused(module, rows, tails.seen, **more).flatten(0, 1))
    return torch.cat(parts).index_select(0, blocks.back)[None]


def _take(line: Tensor, places: Tensor) -> Tensor:
    """Rows [R, t, heads, d] of a line [N, heads, d]."""
    return line.index_select(0, places.flatten()).unflatten(0, places.shape)


def _fused(module: nn.Module, rows: list[Tensor], seen: Tensor | None, **more: Any) -> Tensor:
    query, key, value = (states.transpose(1, 2) for states in rows)
    found: Tensor = sdpa_attention_forward(module, query, key, value, seen, **more)[0]
    return found


ALL_ATTENTION_FUNCTIONS.register(NAME, _attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
