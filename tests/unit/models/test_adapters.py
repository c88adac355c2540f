"""Adapters: a policy that starts as its reference and keeps it inside."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.small import POLICY, raw_prompts, renderer, small, tokenizer

from heed.data.batch import Row, collate
from heed.engines.local import LocalEngine
from heed.errors import ConfigError
from heed.models.adapters import add_lora, merge_and_save, reference_disabled
from heed.models.heads import PolicyHead, ValueHead
from heed.models.load import load_causal
from heed.records import Sampling
from heed.settings import LoraSettings

pytest.importorskip("peft", reason="adapters need the peft extra")

BATCH = collate([Row("a", list(range(3, 12)), [False, *[True] * 8])])


def logprobs(head: PolicyHead) -> torch.Tensor:
    found = head.outputs(BATCH)["logprobs"]
    assert found is not None
    return found


def trained(seed: int = 0) -> torch.nn.Module:
    """A model whose adapters took some steps of their own."""
    adapted = add_lora(small(), LoraSettings(r=4, alpha=8), seed=seed)
    head = PolicyHead(adapted)
    optimiser = torch.optim.SGD([p for p in head.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        (-logprobs(head).mean()).backward()
        optimiser.step()
        optimiser.zero_grad()
    return adapted


def test_it_starts_as_the_model_it_was_made_from() -> None:
    adapted = add_lora(small(), LoraSettings(r=4))
    assert torch.equal(logprobs(PolicyHead(adapted)), logprobs(PolicyHead(small())))
    names = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert names
    assert all("lora_" in n for n in names)


def test_the_seed_decides_the_adapters() -> None:
    one, two, other = (
        add_lora(small(), LoraSettings(r=4), seed=seed).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not all(torch.equal(one[k], other[k]) for k in one)


def test_switched_off_it_is_the_reference() -> None:
    adapted = trained()
    head = PolicyHead(adapted)
    base = logprobs(PolicyHead(small()))
    assert (logprobs(head) - base).abs().max() > 0.05
    with reference_disabled(adapted):
        assert torch.equal(logprobs(head), base)
    assert (logprobs(head) - base).abs().max() > 0.05
    with pytest.raises(ConfigError, match="not its own reference"), reference_disabled(small()):
        pass


def test_it_is_saved_merged_and_stays_as_it_is(tmp_path: Path) -> None:
    adapted = trained()
    before = logprobs(PolicyHead(adapted))
    merge_and_save(tmp_path, adapted, tokenizer())
    merged = load_causal(tmp_path)
    assert torch.allclose(logprobs(PolicyHead(merged)), before, atol=1e-5)
    assert torch.equal(logprobs(PolicyHead(adapted)), before)


def test_a_value_head_copies_the_merged_policy() -> None:
    adapted = trained()
    value = ValueHead.from_policy(adapted)
    assert all(p.requires_grad for p in value.parameters())
    assert not any("lora" in n for n, _ in value.named_parameters())
    hidden = value.backbone(input_ids=BATCH.tokens).last_hidden_state
    expected = adapted.get_base_model().model(input_ids=BATCH.tokens).last_hidden_state
    assert torch.allclose(hidden, expected, atol=1e-5)


def test_the_engine_samples_through_the_adapters(tmp_path: Path) -> None:
    adapted = trained()
    merge_and_save(tmp_path, adapted, tokenizer())
    prompts = raw_prompts([9, 14])
    sampling = Sampling(temperature=0, max_tokens=8)
    one, two = (
        LocalEngine(model, renderer(), policy=POLICY).generate(prompts, sampling)
        for model in (adapted, load_causal(tmp_path))
    )
    assert [g[0].tokens for g in one] == [g[0].tokens for g in two]


def test_unknown_layers_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="q_proj"):
        add_lora(small(), LoraSettings(target_modules=("nothing",)))
