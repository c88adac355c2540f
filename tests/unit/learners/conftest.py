"""Tiny models and ragged batches that all learner tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from heed.data.batch import PairBatch, Row, TokenBatch, collate
from heed.learners.base import LossTerms, Outputs
from heed.models.fresh import make_model
from heed.models.heads import PolicyHead, RewardHead

VOCABULARY = 61


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors here are so small that a second thread only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def causal(seed: int = 0, **sizes: int) -> torch.nn.Module:
    given = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_layers": 2, "num_heads": 2}
    return make_model("llama", **{**given, "max_positions": 64, **sizes}, seed=seed)


@pytest.fixture
def policy_head() -> Callable[..., PolicyHead]:
    return lambda seed=0, **sizes: PolicyHead(causal(seed, **sizes))


@pytest.fixture
def reward_head() -> Callable[..., RewardHead]:
    return lambda seed=0: RewardHead(causal(seed).base_model, seed=seed)


def make_rows(num: int, seed: int = 0, name: str = "r") -> list[Row]:
    """Rows of 3 to 14 tokens; about half of each, never the first, is learned."""
    drawn = np.random.default_rng(seed)
    rows = []
    for i in range(num):
        length = int(drawn.integers(3, 15))
        learn = drawn.random(length) < 0.5
        learn[0], learn[-1] = False, True
        tokens = drawn.integers(1, VOCABULARY, length).tolist()
        rows.append(Row(f"{name}{i}", tokens, learn.tolist()))
    return rows


def make_batch(num: int = 7, seed: int = 0, **how: object) -> TokenBatch:
    batch = collate(make_rows(num, seed), **how)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    row_weights = torch.rand(num, generator=generator)[:, None].expand(batch.tokens.shape)
    return batch.with_streams(advantages=row_weights * batch.learn)


def make_pairs(num: int = 5, seed: int = 0, side: str = "right") -> PairBatch:
    generator = torch.Generator().manual_seed(seed)
    return PairBatch(
        collate(make_rows(num, seed, "c"), side=side),
        collate(make_rows(num, seed + 1, "x"), side=side),
        torch.rand(num, generator=generator),
    )


def token_loss(outputs: Outputs, batch: TokenBatch) -> LossTerms:
    """A loss that is curved in the log-probabilities and reads a stream."""
    assert outputs.logprobs is not None
    values = (outputs.logprobs.exp() - batch.stream("advantages")) ** 2 * batch.learn
    return LossTerms(values, {"seen": outputs.logprobs.detach(), "first": values.detach()[:, 1]})


def pair_loss(chosen: Outputs, rejected: Outputs, pairs: PairBatch) -> LossTerms:
    """Bradley-Terry with a soft label."""
    assert chosen.scores is not None
    assert rejected.scores is not None
    gap = chosen.scores - rejected.scores
    log = torch.nn.functional.logsigmoid
    p = pairs.p.to(gap)
    return LossTerms(-p * log(gap) - (1 - p) * log(-gap), {"gap": gap.detach()})


def gradient(head: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in head.named_parameters() if p.grad is not None}


def largest_difference(one: dict, other: dict) -> float:
    """Norm of the difference of two gradients, relative to the norm of the first."""
    assert one.keys() == other.keys()
    difference = sum(float((one[n] - other[n]).double().square().sum()) for n in one)
    return (difference / sum(float(g.double().square().sum()) for g in one.values())) ** 0.5
