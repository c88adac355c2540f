"""From logits to a token: temperature, top-k, top-p, one uniform number a token.

Pure functions over rows of logits. A row's result depends on its own logits and number alone, so
the rows beside it never change what is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from heed.ids import stream_seed
from heed.records import Sampling


@dataclass(frozen=True)
class Draw:
    """One token a row.

    Args:
        tokens: [B] int64.
        logprobs: [B] fp32, nats, under the distribution drawn from.
        kept: [B, K] int64, the ids that could have been drawn, likeliest first, padded with -1;
            None where nothing was cut.
    """

    tokens: Tensor
    logprobs: Tensor
    kept: Tensor | None


def uniform_numbers(seed: int, prompt_id: str, sample: int, num: int) -> np.ndarray:
    """Return the first `num` numbers of a sample's own stream, [num] fp32 in 0..1, 1 excluded.

    The stream is Philox, keyed by the seed, the prompt's id and the sample's index: number t is
    spent on token t, whatever else is decoded meanwhile.
    """
    key = stream_seed(seed, prompt_id, sample)
    return np.random.Generator(np.random.Philox(key=key)).random(num, dtype=np.float32)


def draw(logits: Tensor, sampling: Sampling, uniforms: Tensor | None) -> Draw:
    """Draw a token from each row of logits by inverting its cumulative distribution.

    p = softmax(logits / temperature), cut to the k likeliest, then to the smallest set of
    likeliest tokens whose probability among those reaches top_p, and renormalised.

    Args:
        logits: [B, V] of any floating type; computed in fp32.
        sampling: temperature, top_k and top_p are read. At temperature 0 the likeliest token is
            taken (the lowest id of equals), nothing is cut, and its logprob is that of the plain
            softmax, temperature 1.
        uniforms: [B] fp32 in 0..1, 1 excluded; None at temperature 0.
    """
    logits = logits.float()
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
        picked = logits.gather(-1, tokens[:, None]).squeeze(-1)
        return Draw(tokens, picked - logits.logsumexp(-1), None)
    if uniforms is None:
        raise ValueError("a temperature above 0 needs one uniform number a row; found None")
    if sampling.temperature != 1.0:
        logits = logits / sampling.temperature
    scores, ids = candidates(logits, sampling.top_k, sampling.top_p)
    places, logprobs = _invert(scores, uniforms)
    if ids is None:
        return Draw(places, logprobs, None)
    tokens = ids.gather(-1, places[:, None]).squeeze(-1)
    return Draw(tokens, logprobs, ids.masked_fill(scores.isneginf(), -1))


def candidates(logits: Tensor, top_k: int, top_p: float) -> tuple[Tensor, Tensor | None]:
    """Cut rows of tempered logits to what top-k and top-p leave.

    Exactly k are kept by top-k, and top-p counts probability among those, at least one token is
    left.

    Args:
        logits: [B, V] fp32.
        top_k: 0 keeps all.
        top_p: 1 keeps all.

    Returns:
        scores [B, K], likeliest first and -inf where cut, and their ids [B, K]; or the logits
        themselves and None where nothing is cut.
    """
    num_ids = logits.shape[-1]
    if 0 < top_k < num_ids:
        scores, ids = logits.topk(top_k, dim=-1)
    elif top_p < 1.0:
        scores, ids = logits.sort(dim=-1, descending=True, stable=True)
    else:
        return logits, None
    if top_p < 1.0:
        probabilities = scores.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        scores = scores.masked_fill(before >= top_p, float("-inf"))
        longest = int((before < top_p).sum(-1).max())
        scores, ids = scores[:, :longest], ids[:, :longest]
    return scores, ids


def _invert(scores: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    largest = scores.amax(-1, keepdim=True)
    masses = (scores - largest).exp_()
    cumulative = masses.cumsum(-1)
    total = cumulative[:, -1:]
    # Strictly below the total: rounding up to it would pick a last token of probability 0.
    below = torch.nextafter(total, torch.zeros_like(total))
    at = torch.minimum(uniforms[:, None].to(total) * total, below)
    places = torch.searchsorted(cumulative, at, right=True).clamp_(max=scores.shape[-1] - 1)
    logprobs = scores.gather(-1, places) - largest - total.log()
    return places.squeeze(-1), logprobs.squeeze(-1)
