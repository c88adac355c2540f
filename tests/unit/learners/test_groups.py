"""Elements of several rows: never parted, and nothing beside them changes their gradient."""

from __future__ import annotations

import pytest
import torch
from tests.small import renderer, small, tokenizer
from torch import Tensor

from heed.data.batch import GroupBatch, Row, collate
from heed.errors import DataError, LearnerError
from heed.learners.base import LossTerms, Outputs
from heed.learners.local import LocalLearner
from heed.learners.micro import split
from heed.losses.ranking import plackett_luce
from heed.models.backbone import backbone_of
from heed.models.heads import RewardHead
from heed.settings import LearnerSettings, OptimSettings

SIZES = (4, 2, 5, 3)


def make(sizes: tuple[int, ...] = SIZES, side: str = "right", pad_id: int = 0) -> GroupBatch:
    generator = torch.Generator().manual_seed(0)
    rows, ranks, edges = [], [], []
    for g, size in enumerate(sizes):
        first = len(rows)
        for k in range(size):
            n = int(torch.randint(4, 20, (1,), generator=generator))
            tokens = torch.randint(4, len(tokenizer()), (n,), generator=generator).tolist()
            rows.append(Row(f"{g}/{k}", tokens, [False] * 2 + [True] * (n - 2)))
        ranks += torch.randint(1, 4, (size,), generator=generator).tolist()
        edges += [(first + i, first + j) for i in range(size) for j in range(i)]
    group = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = {"p": torch.arange(len(edges)).float() / len(edges)}
    return GroupBatch(
        collate(rows, side=side, pad_id=pad_id),
        group,
        torch.tensor(ranks).float()[:, None],
        torch.tensor(edges),
        labels,
    )


def loss(outputs: Outputs, batch: GroupBatch) -> LossTerms:
    assert outputs.scores is not None
    assert batch.targets is not None
    assert batch.edges is not None
    values = plackett_luce(outputs.scores, batch.targets[:, 0], batch.group, "drop")
    gap = outputs.scores[batch.edges[:, 0]] - outputs.scores[batch.edges[:, 1]]
    whose = batch.group[batch.edges[:, 0]]
    values = values.index_add(0, whose, batch.labels["p"].to(gap.dtype) * gap.square())
    return LossTerms(values, {"seen": batch.sizes.float()})


def gradient(batch: GroupBatch, **settings: object) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    head = RewardHead(backbone_of(small()), seed=1).double()
    learner = LocalLearner(
        head,
        OptimSettings(),
        1,
        LearnerSettings.model_validate({"precision": "fp32", "device": "cpu", **settings}),
    )
    terms = learner.backward(batch, loss, len(batch))
    found = {n: p.grad.clone() for n, p in head.named_parameters() if p.grad is not None}
    return found, terms["loss"], terms["seen"]


def test_an_element_is_never_parted() -> None:
    batch = make()
    for budget in (1, 40, 200, 10**6):
        groups = split(batch, budget)
        assert sorted(i for group in groups for i in group) == list(range(len(SIZES)))
        for group in groups:
            assert batch.select(group).sizes.tolist() == [SIZES[i] for i in group]
            padded = batch.select(group).rows.tokens.numel()
            assert len(group) == 1 or padded <= budget


def test_elements_that_are_picked_keep_their_comparisons() -> None:
    batch = make()
    part = batch.select([2, 0])
    assert part.rows.rows == (*(f"2/{k}" for k in range(5)), *(f"0/{k}" for k in range(4)))
    assert part.group.tolist() == [0] * 5 + [1] * 4
    assert part.edges is not None
    assert batch.edges is not None
    named = {tuple(part.rows.rows[i] for i in edge) for edge in part.edges.tolist()}
    whole = {tuple(batch.rows.rows[i] for i in edge) for edge in batch.edges.tolist()}
    assert named == {edge for edge in whole if edge[0][0] in "20"}
    assert len(part.labels["p"]) == len(part.edges)


@pytest.mark.parametrize(
    ("settings", "side", "pad_id"),
    [
        ({"micro_batch_tokens": 1}, "right", 0),
        ({"micro_batch_tokens": 90}, "right", 0),
        ({"layout": "packed"}, "right", 0),
        ({"layout": "packed", "micro_batch_tokens": 60}, "left", 7),
        ({}, "left", 5),
    ],
)
def test_split_padding_and_layout_change_nothing(
    settings: dict[str, object], side: str, pad_id: int
) -> None:
    expected, losses, seen = gradient(make())
    found, again, others = gradient(make(side=side, pad_id=pad_id), **settings)
    torch.testing.assert_close(again, losses, atol=1e-9, rtol=1e-9)
    assert seen.tolist() == others.tolist() == list(SIZES)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-8, rtol=1e-6, msg=name)


def test_elements_beside_an_element_change_nothing() -> None:
    batch = make()
    _, together, _ = gradient(batch)
    alone = [gradient(batch.select([i]))[1] for i in range(len(batch))]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-9, rtol=1e-9)
    _, turned, _ = gradient(batch.select([3, 1, 0, 2]))
    torch.testing.assert_close(turned, together[[3, 1, 0, 2]], atol=1e-9, rtol=1e-9)


def test_a_bad_loss_names_the_element(tmp_path) -> None:
    learner = LocalLearner(
        RewardHead(backbone_of(small())),
        OptimSettings(),
        1,
        LearnerSettings(precision="fp32", device="cpu"),
        bad_batch=tmp_path,
    )

    def bad(outputs: Outputs, batch: GroupBatch) -> LossTerms:
        terms = loss(outputs, batch)
        firsts = [batch.rows.rows[i] for i in (batch.sizes.cumsum(0) - batch.sizes).tolist()]
        bad = torch.tensor([float("nan") if name == "1/0" else 1.0 for name in firsts])
        return LossTerms(terms.values * bad)

    with pytest.raises(LearnerError, match=r"1 of 4 rows.*'1/0'"):
        learner.backward(make(), bad, 4)
    (file,) = tmp_path.iterdir()
    (saved,) = torch.load(file)["batches"]
    assert saved["kind"] == "groups"
    assert saved["rows"]["kind"] == "tokens"


def test_groups_with_a_gap_are_refused() -> None:
    rows = collate([Row("a", [1, 2], [False, True])] * 2)
    for group in ([0, 2], [1, 1], [1, 0], [0]):
        with pytest.raises(DataError, match="ascending from 0"):
            GroupBatch(rows, torch.tensor(group))


def test_the_renderer_cuts_completions_of_one_prompt_alike() -> None:
    base = list(range(10, 30))
    rows = [Row("p", [*base, *[7] * n], [False] * len(base) + [True] * n) for n in (3, 8, 5)]
    cut = renderer().fitted_together(rows, 22)
    starts = {
        tuple(row.tokens[: len(row.tokens) - n]) for row, n in zip(cut, (3, 8, 5), strict=True)
    }
    assert len(starts) == 1
    assert max(len(row.tokens) for row in cut) == 22
    assert [sum(row.learn) for row in cut] == [3, 8, 5]
