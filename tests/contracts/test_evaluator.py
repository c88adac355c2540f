"""The evaluator protocol, which is what a reference policy has to be; every kind passes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tests.small import small

from heed.data.batch import Row, TokenBatch, collate
from heed.learners.base import Evaluator
from heed.learners.local import LocalLearner
from heed.learners.reference import AdapterReference
from heed.models.adapters import add_lora
from heed.models.heads import PolicyHead
from heed.settings import LearnerSettings, LoraSettings, OptimSettings

SETTINGS = LearnerSettings(precision="fp32", device="cpu")


def _frozen() -> Evaluator:
    return LocalLearner.frozen(PolicyHead(small()), SETTINGS)


def _packed() -> Evaluator:
    packed = LearnerSettings(precision="fp32", device="cpu", layout="packed", micro_batch_tokens=24)
    return LocalLearner.frozen(PolicyHead(small()), packed)


def _adapters_off() -> Evaluator:
    causal = add_lora(small(), LoraSettings(r=2), seed=1)
    with torch.no_grad():
        for name, weight in causal.named_parameters():
            if "lora" in name:
                weight.add_(0.3)  # a policy that was trained, so that off and on differ
    policy = LocalLearner(PolicyHead(causal), OptimSettings(), 10, SETTINGS)
    return AdapterReference(policy, causal)


KINDS: dict[str, Callable[[], Evaluator]] = {
    "frozen": _frozen,
    "frozen, packed": _packed,
    "adapters off": _adapters_off,
}


@pytest.fixture(params=KINDS)
def evaluator(request: pytest.FixtureRequest) -> Evaluator:
    return KINDS[request.param]()


def _batch(num: int = 5, temperature: float = 1.0) -> TokenBatch:
    generator = torch.Generator().manual_seed(1)
    rows = []
    for i in range(num):
        length = 4 + i
        tokens = torch.randint(1, 300, (length,), generator=generator).tolist()
        rows.append(Row(f"r{i}", tokens, [False] * 2 + [True] * (length - 2)))
    return collate(rows, temperature=temperature)


def _logprobs(evaluator: Evaluator, batch: TokenBatch) -> torch.Tensor:
    found = evaluator.forward(batch).logprobs
    assert found is not None
    return found


def test_all_kinds_agree_on_the_same_model() -> None:
    """Among them the adapters of a trained policy: off, they change nothing."""
    expected = _logprobs(_frozen(), _batch())
    for name, make in KINDS.items():
        assert float((_logprobs(make(), _batch()) - expected).abs().max()) < 1e-5, name


def test_outputs_have_no_graph_and_lie_on_learned_tokens(evaluator: Evaluator) -> None:
    batch = _batch()
    found = _logprobs(evaluator, batch)
    assert not found.requires_grad
    assert found.dtype == torch.float32
    assert found.shape == batch.tokens.shape
    assert bool((found[~batch.learn] == 0).all())
    assert bool((found[batch.learn] < 0).all())


def test_a_row_does_not_depend_on_its_batch(evaluator: Evaluator) -> None:
    batch = _batch()
    whole = _logprobs(evaluator, batch)
    for row in range(len(batch)):
        alone = _logprobs(evaluator, batch.select([row]))
        torch.testing.assert_close(alone[0], whole[row, : alone.shape[1]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_distribution_is_whole_and_holds_the_log_probabilities(
    evaluator: Evaluator, temperature: float
) -> None:
    batch = _batch(temperature=temperature)
    every = evaluator.log_distribution(batch)
    assert every.shape[0] == batch.num_learned
    torch.testing.assert_close(every.exp().sum(1), torch.ones(len(every)), rtol=0, atol=1e-5)
    chosen = every.gather(1, batch.tokens[batch.learn][:, None]).squeeze(1)
    expected = _logprobs(evaluator, batch)[batch.learn]
    torch.testing.assert_close(chosen, expected, rtol=0, atol=1e-5)


def test_ids_that_could_not_be_sampled_have_no_probability(evaluator: Evaluator) -> None:
    batch = _batch()
    kept = torch.full((*batch.tokens.shape, 3), -1)
    kept[..., 0] = batch.tokens
    kept[..., 1] = (batch.tokens + 5) % 300
    batch = replace(batch, kept=kept)
    every = evaluator.log_distribution(batch)
    assert bool((every.isfinite().sum(1) == 2).all())
    chosen = every.gather(1, batch.tokens[batch.learn][:, None]).squeeze(1)
    torch.testing.assert_close(chosen, _logprobs(evaluator, batch)[batch.learn], rtol=0, atol=1e-5)
