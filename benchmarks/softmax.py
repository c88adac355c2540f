"""What the output layer costs where the distribution is sharp: its probabilities can be subnormal.

    OMP_NUM_THREADS=1 python -m benchmarks.softmax --width 384 --vocab 4096

Prints lines of JSON, processor time in milliseconds, the median of several turns, for logits of
small deviation (flat) and large (sharp):

    logprobs        log-probabilities of all tokens with the gradients of states and weights
    products        the three products of that alone
    plain_softmax   exp(logits - logsumexp) of one part of 512 tokens, which has subnormal numbers
    plain_product   those probabilities times the weights

`--flush` lets the processor take subnormal numbers for 0.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import torch

from heed import logprobs
from heed.models.device import keep_memory

PART = 512
SCALES = {"flat": 0.02, "sharp": 1.0}
"""Deviation of the weights; hidden states have 1."""


def milliseconds(run: Callable[[], object], turns: int) -> float:
    run()
    found = []
    for _ in range(turns):
        began = time.process_time()
        run()
        found.append(1000 * (time.process_time() - began))
    return round(median(found), 2)


def measure(width: int, vocab: int, tokens: int, scale: float, turns: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator).requires_grad_()
    weight = torch.randn(vocab, width, generator=generator).mul_(scale).requires_grad_()
    targets = torch.randint(0, vocab, (tokens,), generator=generator)
    pull = torch.randn(tokens, generator=generator)
    states, matrix, part = hidden.detach(), weight.detach(), hidden.detach()[:PART]

    def learn() -> None:
        found, _ = logprobs.token_logprobs(hidden, weight, None, targets)
        torch.autograd.grad(found, (hidden, weight), pull)

    def products() -> None:
        for rows in states.split(logprobs.CHUNK_TOKENS):
            logits = rows @ matrix.t()
            _ = logits @ matrix, logits.t() @ rows

    def softmax() -> torch.Tensor:
        logits = part @ matrix.t()
        return (logits - logits.logsumexp(-1, keepdim=True)).exp()

    probabilities = softmax()
    return {
        "logprobs": milliseconds(learn, turns),
        "products": milliseconds(products, turns),
        "plain_softmax": milliseconds(softmax, turns),
        "plain_product": milliseconds(lambda: probabilities @ matrix, turns),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--flush", action="store_true")
    given = parser.parse_args()
    keep_memory()
    torch.set_flush_denormal(given.flush)
    for name, scale in SCALES.items():
        found = measure(given.width, given.vocab, given.tokens, scale, given.turns)
        print(json.dumps({"logits": name, **found}))


if __name__ == "__main__":
    main()
