"""What the engine says of the tokens it drew, the policy head says again."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from tests.small import PATHS, POLICY, possible, raw_prompts, renderer, shaken, small

from heed.data.batch import collate, stream_of
from heed.engines.local import LocalEngine
from heed.models.heads import PolicyHead
from heed.records import Completion, Prompt, Sampling

PROMPTS = raw_prompts([12, 3, 30, 12])


def recomputed(
    head: PolicyHead, groups: list[list[Completion]], prompts: list[Prompt], temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Engine's and head's logprobs of all sampled tokens."""
    pairs = [(p, c) for p, group in zip(prompts, groups, strict=True) for c in group]
    rows = [renderer().completion_row(p, c) for p, c in pairs]
    batch = collate(rows, temperature=temperature)
    with torch.no_grad():
        found = head.outputs(batch)["logprobs"]
    said = stream_of([c.logprobs for _, c in pairs], batch)
    return said[batch.learn], found[batch.learn]


@pytest.mark.parametrize(
    ("path", "architecture"),
    [
        *(("torch", name) for name in ("llama", "gpt2", "gemma2")),
        *(("native", name) for name in ("llama", "qwen2", "qwen3", "mistral", "gpt2")),
    ],
)
@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.6])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.8), (12, 0.6), (1, 1.0)])
def test_engine_and_head_agree(
    path: Any, architecture: str, temperature: float, top_k: int, top_p: float
) -> None:
    model = shaken(architecture)
    engine = LocalEngine(model, renderer(), policy=POLICY, max_rows=5, path=possible(path))
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, max_tokens=12, n=3)
    groups = engine.generate(PROMPTS, sampling)
    for group in groups:
        for completion in group:
            assert (completion.kept is not None) == sampling.truncates
            for token, kept in zip(completion.tokens, completion.kept or (), strict=False):
                assert token in kept
                assert len(kept) <= (top_k or 320)
    said, found = recomputed(PolicyHead(model), groups, PROMPTS, temperature)
    assert len(said) > 40
    assert (said - found).abs().max() < 1e-5
    if top_k != 1:
        assert said.std() > 0.05


@pytest.mark.parametrize("path", PATHS)
def test_greedy_logprobs_are_those_of_the_plain_softmax(path: Any) -> None:
    model = small("llama", 3.0)
    engine = LocalEngine(model, renderer(), policy=POLICY, path=possible(path))
    groups = engine.generate(PROMPTS, Sampling(temperature=0, top_k=3, top_p=0.5, max_tokens=12))
    assert all(c.kept is None for group in groups for c in group)
    said, found = recomputed(PolicyHead(model), groups, PROMPTS, 1.0)
    assert (said - found).abs().max() < 1e-5


@pytest.mark.parametrize("path", PATHS)
def test_bf16_weights_agree_to_rounding(path: Any) -> None:
    model = small("llama", 3.0).to(torch.bfloat16)
    engine = LocalEngine(model, renderer(), policy=POLICY, max_rows=5, path=possible(path))
    groups = engine.generate(PROMPTS, Sampling(max_tokens=12, n=3))
    said, found = recomputed(PolicyHead(model), groups, PROMPTS, 1.0)
    assert (said - found).abs().mean() < 0.03
    assert (said - found).abs().max() < 0.3


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral", "gpt2"])
def test_the_native_loop_rounds_nothing_but_the_weights_to_bf16(architecture: str) -> None:
    """Its sums are fp32: the same weights in an fp32 model give the same log-probabilities."""
    model = shaken(architecture).to(torch.bfloat16)
    engine = LocalEngine(
        model, renderer(), policy=POLICY, max_rows=5, path=cast(Any, possible("native"))
    )
    groups = engine.generate(PROMPTS, Sampling(max_tokens=12, n=3))
    said, found = recomputed(PolicyHead(model.float()), groups, PROMPTS, 1.0)
    assert (said - found).abs().max() < 1e-5
