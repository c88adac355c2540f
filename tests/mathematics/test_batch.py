"""Laying rows out changes no number of them: padding, side, order and split are invisible."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heed.data.batch import (
    PairBatch,
    Row,
    TokenBatch,
    collate,
    micro_batches,
    stream_of,
)
from heed.errors import DataError, LearnerError


@st.composite
def rows(draw: st.DrawFn, min_rows: int = 1, with_kept: bool = False) -> list[Row]:
    out = []
    for i in range(draw(st.integers(min_rows, 6))):
        length = draw(st.integers(1, 9))
        tokens = draw(st.lists(st.integers(0, 99), min_size=length, max_size=length))
        learn = [False, *draw(st.lists(st.booleans(), min_size=length - 1, max_size=length - 1))]
        kept = None
        if with_kept and draw(st.booleans()):
            ids = st.lists(st.integers(0, 99), max_size=4, unique=True)
            kept = [draw(ids) for _ in range(length)]
        out.append(Row(f"r{i}", tokens, learn, kept))
    return out


def unpadded(batch: TokenBatch, i: int) -> tuple[list[int], list[bool], list[int], list[list[int]]]:
    real = batch.attend[i]
    kept = (
        []
        if batch.kept is None
        else [[k for k in t if k >= 0] for t in batch.kept[i][real].tolist()]
    )
    return (
        batch.tokens[i][real].tolist(),
        batch.learn[i][real].tolist(),
        batch.positions[i][real].tolist(),
        kept,
    )


@given(rows(with_kept=True), st.sampled_from(["left", "right"]), st.integers(0, 99))
def test_a_batch_holds_each_row_as_it_was(some: list[Row], side: str, pad_id: int) -> None:
    batch = collate(some, pad_id=pad_id, side=side)
    assert batch.rows == tuple(row.id for row in some)
    assert batch.tokens.shape[1] == max(len(row.tokens) for row in some)
    assert batch.lengths.tolist() == [len(row.tokens) for row in some]
    assert batch.num_learned == sum(sum(row.learn) for row in some)
    assert not (batch.learn & ~batch.attend).any()
    assert (batch.tokens[~batch.attend] == pad_id).all()
    for i, row in enumerate(some):
        tokens, learn, positions, kept = unpadded(batch, i)
        assert tokens == list(row.tokens)
        assert learn == list(row.learn)
        assert positions == list(range(len(tokens)))
        if batch.kept is not None:
            assert kept == [list(k) for k in row.kept or [[]] * len(tokens)]


@given(rows(with_kept=True))
def test_the_side_of_the_padding_changes_no_row(some: list[Row]) -> None:
    left, right = collate(some, side="left"), collate(some, side="right")
    for i in range(len(some)):
        assert unpadded(left, i) == unpadded(right, i)


@given(rows(), st.data())
def test_batch_mates_change_no_row(some: list[Row], data: st.DataObject) -> None:
    whole = collate(some)
    i = data.draw(st.integers(0, len(some) - 1))
    assert unpadded(whole, i) == unpadded(collate([some[i]]), 0)


@given(rows(with_kept=True), st.data())
def test_selecting_rows_is_collating_them_alone(some: list[Row], data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, len(some) - 1), min_size=1, max_size=6))
    whole = collate(some)
    values = torch.rand(whole.tokens.shape)
    picked = whole.with_streams(advantages=values).select(index)
    alone = collate([some[i] for i in index])
    for name in ("tokens", "attend", "learn", "positions"):
        assert torch.equal(getattr(picked, name), getattr(alone, name)), name
    assert picked.rows == alone.rows
    expected = values[torch.tensor(index)][:, : alone.tokens.shape[1]]
    assert torch.equal(picked.stream("advantages"), expected)
    if whole.kept is None:
        assert picked.kept is None
    else:
        for new, old in enumerate(index):
            assert unpadded(picked, new)[3] == unpadded(whole, old)[3]


@given(rows(), st.data())
def test_streams_land_on_learned_tokens_and_on_nothing_else(
    some: list[Row], data: st.DataObject
) -> None:
    batch = collate(some, side=data.draw(st.sampled_from(["left", "right"])))
    values = [[float(i + 1)] * sum(row.learn) for i, row in enumerate(some)]
    stream = stream_of(values, batch)
    assert torch.equal(stream != 0, batch.learn)
    for i, row in enumerate(some):
        assert stream[i].sum() == (i + 1) * sum(row.learn)


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_micro_batches_visit_every_row_once_within_the_budget(
    lengths: list[int], budget: int
) -> None:
    groups = list(micro_batches(lengths, budget))
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    sizes = [len(group) * max(lengths[i] for i in group) for group in groups]
    assert all(s <= budget or len(g) == 1 for s, g in zip(sizes, groups, strict=True))
    longest = [max(lengths[i] for i in group) for group in groups]
    assert longest == sorted(longest, reverse=True)
    # A group is closed only when the next row would not have fitted it.
    for group in groups[:-1]:
        assert (len(group) + 1) * lengths[group[0]] > budget


@given(rows(min_rows=2), st.integers(1, 60))
def test_sums_over_micro_batches_are_the_sum_over_the_batch(some: list[Row], budget: int) -> None:
    batch = collate(some)
    weights = torch.rand(batch.tokens.shape, dtype=torch.float64).float()
    batch = batch.with_streams(weights=weights)
    whole = (weights.double() * batch.learn).sum()
    parts = [batch.select(group) for group in micro_batches(batch.lengths.tolist(), budget)]
    total = sum((p.stream("weights").double() * p.learn).sum() for p in parts)
    assert torch.isclose(torch.as_tensor(total), whole, rtol=1e-12)
    assert sum(p.num_learned for p in parts) == batch.num_learned


@given(rows(min_rows=2), st.data())
def test_selecting_pairs_keeps_sides_and_labels_together(
    some: list[Row], data: st.DataObject
) -> None:
    n = len(some)
    batch = PairBatch(
        collate(some),
        collate(some[::-1]),
        torch.arange(n) / n,
        margin=torch.arange(n).float(),
        weights=torch.arange(n).float() + 1,
    )
    index = data.draw(st.lists(st.integers(0, n - 1), min_size=1))
    picked = batch.select(index)
    assert picked.chosen.rows == tuple(some[i].id for i in index)
    assert picked.rejected.rows == tuple(some[n - 1 - i].id for i in index)
    assert picked.p.tolist() == [batch.p[i].item() for i in index]
    assert picked.margin is not None
    assert picked.weights is not None
    assert picked.margin.tolist() == index
    assert picked.weights.tolist() == [i + 1 for i in index]


def test_what_cannot_be_laid_out_is_an_error_that_says_why() -> None:
    with pytest.raises(DataError, match="no rows"):
        collate([])
    with pytest.raises(DataError, match=r"rows without tokens: \['b'\]"):
        collate([Row("a", [1], [False]), Row("b", [], [])])
    with pytest.raises(DataError, match="3 tokens and 2 learn marks"):
        Row("a", [1, 2, 3], [False, True])
    with pytest.raises(DataError, match="learns its first token"):
        Row("a", [1, 2], [True, True])
    batch = collate([Row("a", [1, 2], [False, True])])
    with pytest.raises(LearnerError, match=r"filled by heed\.credit"):
        batch.stream("advantages")
    with pytest.raises(LearnerError, match="shape"):
        batch.with_streams(weights=torch.zeros(3, 3))
    with pytest.raises(DataError, match="learns 1 tokens and was given 2 values"):
        stream_of([[0.1, 0.2]], batch)
    with pytest.raises(DataError, match="the three must be equal"):
        PairBatch(batch, batch, torch.ones(2))
