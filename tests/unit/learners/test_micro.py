import pytest
import torch

from heed.data.batch import Row, collate
from heed.errors import LearnerError
from heed.learners.base import Outputs
from heed.learners.micro import Gathered, split, split_sides, stack_sides

from .conftest import make_batch, make_pairs


def test_every_row_comes_once_and_budgets_hold() -> None:
    batch, pairs = make_batch(30), make_pairs(30)
    for budget in (1, 28, 100, 10**6):
        groups = split(batch, budget)
        assert sorted(row for group in groups for row in group) == list(range(30))
        for group in groups:
            assert len(group) == 1 or batch.select(group).tokens.numel() <= budget
        for group in split(pairs, budget):
            both = stack_sides(pairs.select(group))
            assert len(group) == 1 or both.tokens.numel() <= budget


def test_a_batch_that_learns_nothing_is_not_emptied() -> None:
    batch = collate([Row("a", [1, 2], [False, False]), Row("b", [1], [False])])
    assert split(batch, 100, skip_unlearned=True) == [[0, 1]]


@pytest.mark.parametrize("side", ["right", "left"])
def test_stacked_sides_are_the_same_rows(side: str) -> None:
    pairs = make_pairs(6, 2, side)
    both = stack_sides(pairs)
    for half, rows in ((pairs.chosen, range(6)), (pairs.rejected, range(6, 12))):
        for i, row in enumerate(rows):
            assert both.rows[row] == half.rows[i]
            for name in ("tokens", "positions", "learn"):
                ours = getattr(both, name)[row][both.attend[row]]
                assert torch.equal(ours, getattr(half, name)[i][half.attend[i]])
    scores = torch.arange(12.0)
    values = torch.arange(12.0)[:, None].expand(both.tokens.shape)
    chosen, rejected = split_sides(Outputs(scores=scores, values=values), pairs)
    assert chosen.scores is not None
    assert rejected.scores is not None
    assert rejected.values is not None
    assert chosen.scores.tolist() == [0, 1, 2, 3, 4, 5]
    assert rejected.scores.tolist() == [6, 7, 8, 9, 10, 11]
    assert rejected.values.shape == pairs.rejected.tokens.shape
    assert chosen.logprobs is None


def test_sides_with_and_without_kept_ids_stack() -> None:
    from heed.data.batch import PairBatch

    cut = collate([Row("a", [1, 2, 3], [False, True, True], kept=[[], [2, 5], [3]])])
    full = collate([Row("b", [1, 2], [False, True])])
    for one, other in ((cut, full), (full, cut)):
        both = stack_sides(PairBatch(one, other, torch.ones(1)))
        assert both.kept is not None
        at = both.rows.index("a")
        assert both.kept[at].tolist() == [[-1, -1], [2, 5], [3, -1]]
        assert bool((both.kept[1 - at] == -1).all())


def test_sides_of_different_temperature_are_refused() -> None:
    from heed.data.batch import PairBatch

    rows = [Row("a", [1, 2], [False, True])]
    pairs = PairBatch(collate(rows), collate(rows, temperature=0.7), torch.ones(1))
    with pytest.raises(LearnerError, match=r"temperature 1\.0 and rejected rows 0\.7"):
        stack_sides(pairs)


def test_gathered_results_go_to_their_rows() -> None:
    gathered = Gathered(4, 5, torch.device("cpu"))
    gathered.add([2, 0], {"a": torch.tensor([1.0, 2.0]), "b": torch.ones(2, 3)})
    gathered.add([3], {"a": torch.tensor([3.0]), "b": torch.ones(1, 5)})
    assert gathered.tensors["a"].tolist() == [2, 0, 1, 3]
    assert gathered.tensors["b"].sum(1).tolist() == [3, 0, 3, 5]
    with pytest.raises(LearnerError, match="'a' has shape"):
        gathered.add([1], {"a": torch.ones(2)})
