"""Rows joined end to end, shared prompts once: exactly what each row gives alone."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.small import small
from torch import Tensor

from heed.data.batch import Row, TokenBatch, collate
from heed.models import attention, backbone, packing
from heed.models.attention import adopt_attention
from heed.models.heads import Head, PolicyHead, RewardHead, ValueHead
from heed.models.packing import join, rows_by_prompt

ARCHITECTURES = ["llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox"]


def rows(groups: list[tuple[int, list[int]]], seed: int = 0) -> list[Row]:
    """Rows of groups (tokens of the prompt, tokens of each completion), groups interleaved."""
    generator = torch.Generator().manual_seed(seed)

    def draw(num: int) -> list[int]:
        return torch.randint(3, 300, (num,), generator=generator).tolist()

    by_group = []
    for number, (length, completions) in enumerate(groups):
        prompt = draw(length)
        by_group.append(
            [
                Row(f"{number}-{i}", [*prompt, *draw(n)], [False] * length + [True] * n)
                for i, n in enumerate(completions)
            ]
        )
    mixed = itertools.zip_longest(*by_group)
    return [row for together in mixed for row in together if row is not None]


GROUPS = [(9, [3, 7, 1]), (2, [4, 4]), (6, [5]), (12, [2, 8])]


def adopted(architecture: str = "llama", **changes: Any) -> torch.nn.Module:
    model = small(architecture, 2.0, **changes)
    adopt_attention(model)
    return model


def outputs(head: Head, batch: TokenBatch, layout: str) -> Tensor:
    found = head.outputs(batch, layout=layout)
    parts = [found[name] for name in ("logprobs", "values", "scores") if found[name] is not None]
    assert all(part is not None for part in parts)
    return torch.cat([part.flatten() for part in parts])  # type: ignore[union-attr]


HEADS = {
    "policy": PolicyHead,
    "value": lambda m: ValueHead.from_reward(RewardHead(m.base_model, seed=1)),
    "reward": lambda m: RewardHead(m.base_model, seed=1),
}


def attend_piece_by_piece(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, key_starts: Tensor,
    longest: int, longest_keys: int, *, scale: float | None,
) -> Tensor:  # fmt: skip
    """What a kernel over rows of any length computes, in plain words."""
    assert longest == int(starts.diff().max())
    assert longest_keys == int(key_starts.diff().max())
    shared = query.shape[1] // key.shape[1]
    out = []
    for piece in range(len(starts) - 1):
        q = query[starts[piece] : starts[piece + 1]].transpose(0, 1)
        at = slice(int(key_starts[piece]), int(key_starts[piece + 1]))
        k, v = (x[at].transpose(0, 1).repeat_interleave(shared, 0) for x in (key, value))
        hidden = torch.ones(q.shape[1], k.shape[1]).tril(k.shape[1] - q.shape[1]) == 0
        scores = q @ k.mT * (scale or q.shape[-1] ** -0.5)
        out.append((scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(out)


@pytest.mark.parametrize("by", ["blocks", "spans"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", list(HEADS))
def test_joined_rows_give_what_padded_rows_give(
    architecture: str, side: str, name: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def attend(*args: Any, scale: float | None) -> Tensor:
        calls.append(len(args[0]))
        return attend_piece_by_piece(*args, scale=scale)

    monkeypatch.setattr(attention, "rows_kernel", lambda: attend)
    monkeypatch.setattr(attention, "_spans_fit", lambda *args: by == "spans")
    head = HEADS[name](adopted(architecture)).double()
    assert backbone.joins_rows(head, "auto")
    batch = collate(rows(GROUPS), side=side, pad_id=7)
    results = []
    for layout in ("padded", "packed"):
        head.zero_grad()
        found = outputs(head, batch, layout)
        (found * torch.linspace(-1, 1, len(found))).sum().backward()
        grads = [p.grad.flatten() for p in head.parameters() if p.grad is not None]
        results.append((found.detach(), torch.cat(grads)))
    (expected, expected_gradient), (found, gradient) = results
    assert torch.allclose(found, expected, atol=1e-5)
    assert float((gradient - expected_gradient).norm() / expected_gradient.norm()) < 1e-5
    assert (len(calls) > 0) == (by == "spans")


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(
        st.tuples(st.integers(1, 9), st.lists(st.integers(1, 7), min_size=1, max_size=4)),
        min_size=1,
        max_size=5,
    ),
    seed=st.integers(0, 1000),
)
def test_any_groups_give_what_their_rows_give_alone(
    groups: list[tuple[int, list[int]]], seed: int
) -> None:
    head = PolicyHead(_shared_model())
    made = rows(groups, seed)
    together = head.outputs(collate(made), layout="packed")["logprobs"]
    assert together is not None
    for i, row in enumerate(made):
        alone = head.outputs(collate([row]), layout="padded")["logprobs"]
        assert torch.allclose(together[i, : len(row.tokens)], alone[0], atol=2e-5)


_MODELS: list[torch.nn.Module] = []


def _shared_model() -> torch.nn.Module:
    if not _MODELS:
        _MODELS.append(adopted().requires_grad_(False))
    return _MODELS[0]


def test_a_shared_prompt_stands_in_the_line_once() -> None:
    batch = collate(rows([(9, [3, 7, 1]), (6, [5]), (2, [4, 4])]))
    line = join(batch)
    # 9 + 11 of the first group, 11 of the row alone; a prompt of 2 tokens is not worth sharing.
    assert len(line.index) == (9 + 11) + (6 + 5) + 2 * (2 + 4)
    assert [len(tails.queries) for tails in line.pieces.blocks.tails] == [3]
    assert sorted(map(len, rows_by_prompt(batch))) == [1, 1, 1, 3]
    flat = batch.tokens.flatten()
    places = batch.attend.flatten().nonzero().flatten()
    assert torch.equal(flat[line.index][line.place[places]], flat[places])


def test_rows_without_padding_are_read_in_place() -> None:
    batch = collate(rows([(5, [4]), (6, [3]), (4, [5])]))
    assert join(batch).pieces.blocks.in_order
    assert not join(collate(rows([(5, [4]), (6, [1])]))).pieces.blocks.in_order


def test_attention_runs_over_rows_of_like_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "FULL_TOKENS", 30)
    made = rows([(5, [n]) for n in (1, 9, 2, 8, 1, 9, 7)] + [(7, [2, 20, 3, 19])])
    batch = collate(made)
    blocks = join(batch).pieces.blocks
    assert [tuple(places.shape) for places in blocks.whole] == [(4, 14), (4, 7)]
    assert [tuple(tails.keys.shape) for tails in blocks.tails] == [(2, 27), (2, 10)]
    head = PolicyHead(_shared_model())
    one, two = (outputs(head, batch, layout) for layout in ("padded", "packed"))
    assert torch.allclose(one, two, atol=2e-5)


def test_a_token_of_another_row_changes_nothing() -> None:
    head = PolicyHead(adopted())
    made = rows([(6, [4, 4])])
    other = Row("x", [*made[1].tokens[:-2], 5, 6], made[1].learn)
    one = head.outputs(collate(made), layout="packed")["logprobs"]
    two = head.outputs(collate([made[0], other]), layout="packed")["logprobs"]
    assert one is not None
    assert two is not None
    assert torch.equal(one[0], two[0])
    assert not torch.equal(one[1], two[1])


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_bf16_stays_near_fp32(layout: str) -> None:
    batch = collate(rows(GROUPS))
    exact = outputs(PolicyHead(adopted()), batch, "padded").detach()
    head = PolicyHead(adopted().bfloat16())
    assert float((outputs(head, batch, layout).detach() - exact).abs().max()) < 0.2


def test_checkpointing_changes_no_gradient() -> None:
    batch = collate(rows(GROUPS))
    grads = []
    for checkpointing in (False, True):
        head = PolicyHead(adopted())
        if checkpointing:
            head.gradient_checkpointing_enable()
        head.train()
        outputs(head, batch, "packed").sum().backward()
        grads.append([p.grad.clone() for p in head.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


def test_adapters_read_joined_rows() -> None:
    pytest.importorskip("peft", reason="adapters need the peft extra")
    from heed.models.adapters import add_lora
    from heed.settings import LoraSettings

    adapted = add_lora(small("llama", 2.0), LoraSettings(r=4, alpha=8), seed=0)
    adopt_attention(adapted)
    head = PolicyHead(adapted)
    assert backbone.joins_rows(head, "auto")
    batch = collate(rows(GROUPS))
    one, two = (outputs(head, batch, layout) for layout in ("padded", "packed"))
    assert torch.allclose(one, two, atol=1e-5)


def test_models_that_cannot_attend_by_rows_are_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("llama", 2.0)
    assert not backbone.attends_by_rows(model.base_model)  # it attends by torch's own way
    adopt_attention(model)
    layer = type(model.base_model.layers[0])
    forward = layer.forward

    def deaf(self: Any, *args: Any, heed_pieces: Any = None, **more: Any) -> Any:
        return forward(self, *args, **more)

    monkeypatch.setattr(layer, "forward", deaf)
    assert not backbone.attends_by_rows(model.base_model)
    batch = collate(rows(GROUPS))
    laid = backbone.lay_out(batch, "auto", model.base_model)
    assert laid.tokens.shape == (len(batch), int(batch.lengths.max()))
    assert laid.pieces is None


def test_a_copy_of_a_model_is_asked_anew() -> None:
    model = adopted().base_model
    assert backbone.attends_by_rows(model)
    copied = copy.deepcopy(model)
    copied.set_attn_implementation("eager")
    assert not backbone.attends_by_rows(copied)
