"""The heads say what a plain forward pass says, whatever stands around a row."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.small import small, tokenizer
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from heed.data.batch import Row, TokenBatch, collate
from heed.errors import ConfigError
from heed.models.backbone import backbone_of, plain_head
from heed.models.heads import Head, PolicyHead, RewardHead, ValueHead
from heed.models.load import save_model

ARCHITECTURES = ["llama", "qwen3", "gpt2", "gemma2"]
LENGTHS = [5, 2, 11, 1, 8]


def rows(kept: bool = False) -> list[Row]:
    generator = torch.Generator().manual_seed(3)
    made = []
    for i, n in enumerate(LENGTHS):
        tokens = torch.randint(3, 300, (n,), generator=generator).tolist()
        learn = (torch.rand(n, generator=generator) < 0.6).tolist()
        ids = [(t, 7, 9, 11) if (t + i) % 2 else () for t in tokens] if kept else None
        made.append(Row(f"r{i}", tokens, [False, *learn[1:]], ids))
    return made


def windowed(window: int = 4) -> torch.nn.Module:
    """A model whose layers alternate between a short window and full attention."""
    sizes = {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "sliding_window": window, "layer_types": ["sliding_attention", "full_attention"],
    }  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma3_text", **sizes)).eval()


def naive_logprobs(model: torch.nn.Module, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """Row by row, whole logits, plain autograd."""
    logprobs, entropies = [], []
    for i, n in enumerate(batch.lengths.tolist()):
        tokens = batch.tokens[i][batch.attend[i]]
        logits = model(input_ids=tokens[None], use_cache=False).logits[0].float()
        logits = logits / batch.temperature
        if batch.kept is not None:
            ids = batch.kept[i][batch.attend[i]]
            for t in range(1, n):
                if (allowed := ids[t][ids[t] >= 0]).numel():
                    cut = torch.full_like(logits[t - 1], -math.inf)
                    cut[allowed] = 0
                    logits = torch.cat([logits[: t - 1], (logits[t - 1] + cut)[None], logits[t:]])
        table = logits.log_softmax(-1)
        at = batch.learn[i][batch.attend[i]].nonzero().flatten()
        logprobs.append(table[at - 1, tokens[at]])
        p = table[at - 1].exp()
        entropies.append(-(p * table[at - 1].masked_fill(p == 0, 0)).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("temperature", "kept"), [(1.0, False), (0.7, True)])
def test_policy_and_its_gradient_are_those_of_whole_logits(
    architecture: str, temperature: float, kept: bool
) -> None:
    batch = collate(rows(kept), temperature=temperature)
    weights = torch.linspace(-1, 1, batch.num_learned)
    head = PolicyHead(small(architecture, 2.0))
    found = head.outputs(batch, entropy=True)
    naive = small(architecture, 2.0)
    logprobs, entropies = naive_logprobs(naive, batch)
    assert torch.allclose(found["logprobs"][batch.learn], logprobs, atol=1e-5)
    assert torch.allclose(found["entropy"][batch.learn], entropies, atol=1e-4)
    assert not found["logprobs"][~batch.learn].any()
    assert not found["entropy"].requires_grad
    (found["logprobs"][batch.learn] * weights).sum().backward()
    (logprobs * weights).sum().backward()
    for (name, mine), theirs in zip(
        head.causal.named_parameters(), naive.parameters(), strict=True
    ):
        assert torch.allclose(mine.grad, theirs.grad, atol=2e-5, rtol=1e-3), name


HEADS: dict[str, Callable[[torch.nn.Module], Head]] = {
    "policy": PolicyHead,
    "value": lambda m: ValueHead.from_reward(RewardHead(m.base_model, seed=1)),
    "reward": lambda m: RewardHead(m.base_model, seed=1),
}


def numbers(head: Head, batch: TokenBatch, layout: str = "padded") -> list[Tensor]:
    """All outputs row by row, without padding."""
    with torch.no_grad():
        found = head.outputs(batch, entropy=True, layout=layout)
    out = []
    for name in ("logprobs", "entropy", "values", "scores"):
        if (values := found[name]) is not None:
            assert values.shape == (batch.tokens.shape if values.dim() == 2 else (len(batch),))
            assert values.dtype == torch.float32
            out.append(torch.cat([values[i, m].flatten() if values.dim() == 2 else values[i, None]
                                  for i, m in enumerate(batch.attend)]))  # fmt: skip
    return out


@pytest.mark.parametrize("name", list(HEADS))
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "windowed"])
def test_padding_packing_and_batch_mates_change_nothing(name: str, architecture: str) -> None:
    model = windowed() if architecture == "windowed" else small(architecture, 2.0)
    head = HEADS[name](model)
    expected = numbers(head, collate(rows()))
    alone = [numbers(head, collate([row])) for row in rows()]
    together = [torch.cat(parts) for parts in zip(*alone, strict=True)]
    others = {
        "left": numbers(head, collate(rows(), side="left")),
        "pad id": numbers(head, collate(rows(), pad_id=299)),
        "pad id outside the vocabulary": numbers(head, collate(rows(), pad_id=10**6)),
        "packed": numbers(head, collate(rows()), "packed"),
        "packed from left": numbers(head, collate(rows(), side="left"), "packed"),
        "alone": together,
    }
    for way, found in others.items():
        for one, two in zip(found, expected, strict=True):
            assert torch.allclose(one, two, atol=1e-5), way


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_packing_change_no_gradient(layout: str, side: str) -> None:
    def gradient(batch: TokenBatch, layout: str) -> list[Tensor]:
        head = PolicyHead(small("llama", 2.0))
        found = head.outputs(batch, layout=layout)["logprobs"]
        (found[batch.learn] * torch.linspace(-1, 1, batch.num_learned)).sum().backward()
        return [p.grad for p in head.parameters()]

    pairs = zip(
        gradient(collate(rows()), "padded"),
        gradient(collate(rows(), side=side), layout),
        strict=True,
    )
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-4) for a, b in pairs)


@pytest.mark.parametrize("name", list(HEADS))
def test_two_forward_passes_agree_in_training_mode(name: str) -> None:
    head = HEADS[name](small("gpt2")).train()
    one, two = numbers(head, collate(rows())), numbers(head, collate(rows()))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("name", list(HEADS))
def test_gradient_checkpointing_changes_no_gradient(name: str) -> None:
    def gradient(checkpointing: bool) -> list[Tensor]:
        head = HEADS[name](small("llama")).train()
        if checkpointing:
            head.gradient_checkpointing_enable()
            assert any(getattr(m, "gradient_checkpointing", False) for m in head.modules())
        found = head.outputs(collate(rows()))
        sum(v.square().sum() for v in found.values() if v is not None).backward()
        return [p.grad for p in head.parameters() if p.grad is not None]

    plain, checkpointed = gradient(False), gradient(True)
    assert len(plain) > 10
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, checkpointed, strict=True))


def test_a_small_cap_or_scale_on_logits_is_seen() -> None:
    """Also in a fresh model, whose own logits are too small to show it."""
    assert plain_head(small("llama", 1.0)) is not None
    assert plain_head(small("gemma2", 1.0)) is None
    assert plain_head(small("cohere", 1.0)) is None
    model = small("llama", 1.0)
    adapted = torch.nn.Linear(32, 320)
    adapted.__class__ = type("Adapted", (torch.nn.Linear,), {})
    model.lm_head = adapted
    assert plain_head(model) is None


def test_the_check_leaves_the_model_as_it_was() -> None:
    model = small().train()
    before = {n: p.clone() for n, p in model.named_parameters()}
    plain_head(model)
    assert model.training
    assert not model.base_model._forward_hooks
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_bf16_weights_give_fp32_numbers_near_those_of_fp32() -> None:
    for make in HEADS.values():
        wide = numbers(make(small("llama", 2.0)), collate(rows()))
        narrow = numbers(make(small("llama", 2.0)).to(torch.bfloat16), collate(rows()))
        for one, two in zip(narrow, wide, strict=True):
            assert (one - two).abs().max() < 0.1
            assert (one - two).abs().max() > 0


def test_the_reward_head_starts_with_deviation_one_over_root_d_plus_one() -> None:
    width = 4096
    model = small(
        hidden_size=width, num_heads=4, num_layers=1, intermediate_size=8, sharpen=1.0,
        vocab_size=8, tokenizer=None,
    )  # fmt: skip
    head = RewardHead(model.base_model, seed=11)
    expected = 1 / math.sqrt(width + 1)
    drawn = head.score.weight.detach().flatten()
    assert abs(drawn.std().item() - expected) < 3 * expected / math.sqrt(2 * width)
    assert abs(drawn.mean().item()) < 3 * expected / math.sqrt(width)
    assert head.score.bias is None
    assert (float(head.gain), float(head.bias)) == (1.0, 0.0)
    again = RewardHead(model.base_model, seed=11).score.weight
    assert torch.equal(again, head.score.weight)
    assert not torch.equal(RewardHead(model.base_model, seed=12).score.weight, again)
    assert not any(p.detach().any() for p in ValueHead(model.base_model).score.parameters())


def test_a_score_is_read_at_the_last_real_token_with_gain_and_bias() -> None:
    head = RewardHead(small().base_model, seed=1)
    head.set_scale(2.5, -1.25)
    found = head.outputs(collate(rows(), pad_id=7))["scores"].detach()
    for row, score in zip(rows(), found, strict=True):
        hidden = head.backbone(input_ids=torch.tensor([row.tokens])).last_hidden_state[0, -1]
        expected = 2.5 * float((hidden @ head.score.weight[0]).detach()) - 1.25
        assert float(score) == pytest.approx(expected, abs=1e-5)


def test_a_value_starts_as_the_score_of_what_stands_before_the_token() -> None:
    reward = RewardHead(small().base_model, seed=1)
    reward.set_scale(2.5, -1.25)
    value = ValueHead.from_reward(reward)
    batch = collate(rows())
    found = value.outputs(batch)["values"].detach()
    for i, t in batch.learn.nonzero().tolist():
        prefix = collate([Row("prefix", rows()[i].tokens[:t], [False] * t)])
        expected = float(reward.outputs(prefix)["scores"].detach())
        assert float(found[i, t]) == pytest.approx(expected, abs=1e-5)
    assert not found[~batch.learn].any()
    with torch.no_grad():
        value.backbone.get_input_embeddings().weight.zero_()
    assert reward.backbone.get_input_embeddings().weight.abs().sum() > 0


def test_a_value_head_from_a_policy_starts_at_zero_and_learns() -> None:
    policy = small()
    value = ValueHead.from_policy(policy)
    batch = collate(rows())
    found = value.outputs(batch)["values"]
    assert not found.detach().any()
    (found[batch.learn] - 1).square().sum().backward()
    assert value.score.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in policy.parameters())


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_a_reward_model_is_saved_for_transformers_and_for_heed(
    architecture: str, tmp_path: Path
) -> None:
    head = RewardHead(small(architecture).base_model, seed=1)
    head.set_scale(2.0, 0.5)
    head.save(tmp_path, tokenizer(), {"data": "x"})
    batch = collate(rows())
    expected = head.outputs(batch)["scores"]
    assert torch.equal(RewardHead.load(tmp_path).outputs(batch)["scores"], expected)
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert opened.config.num_labels == 1
    tokens = batch.tokens.masked_fill(~batch.attend, opened.config.pad_token_id)
    logits = opened(input_ids=tokens, attention_mask=batch.attend.long()).logits
    assert torch.allclose(2.0 * logits.squeeze(1) + 0.5, expected, atol=1e-4)
    # Saving shares the weights with the classifier; the head must still be whole.
    assert torch.equal(head.outputs(batch)["scores"], expected)


def test_a_reward_model_starts_from_a_policy_folder(tmp_path: Path) -> None:
    save_model(tmp_path, small(), tokenizer())
    head = RewardHead.load(tmp_path, seed=4)
    expected = RewardHead(small().base_model, seed=4)
    batch = collate(rows())
    assert torch.equal(head.outputs(batch)["scores"], expected.outputs(batch)["scores"])


def test_a_classifier_with_more_labels_is_no_reward_model(tmp_path: Path) -> None:
    config = small().config
    config.num_labels = 2
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"\[2\] outputs"):
        RewardHead.load(tmp_path)


def test_packing_needs_positions() -> None:
    sizes = {"vocab_size": 320, "hidden_size": 32, "n_layer": 1, "n_head": 2}
    bloom = AutoModelForCausalLM.from_config(AutoConfig.for_model("bloom", **sizes)).eval()
    head = PolicyHead(bloom)
    left, right = (numbers(head, collate(rows(), side=side)) for side in ("left", "right"))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(left, right, strict=True))
    with pytest.raises(ConfigError, match="takes no positions"):
        head.outputs(collate(rows()), layout="packed")
    with pytest.raises(ConfigError, match="expected 'auto', 'padded' or 'packed'"):
        head.outputs(collate(rows()), layout="ragged")
    with pytest.raises(ConfigError, match="expected a transformers model"):
        backbone_of(torch.nn.Linear(2, 2))
