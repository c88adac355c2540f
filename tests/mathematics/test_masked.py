"""Masked sums, whitening and the one reduction, against hand arithmetic and golden values."""

import pytest
import torch

from heed import masked
from heed.errors import ConfigError, DataError

GOLDEN_ADVANTAGES = torch.tensor([[0.445525, 0.6795, 0.61, 0.8]], dtype=torch.float64)
NAN = float("nan")


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def where(*values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [-1.468442, 0.356859, -0.185329, 1.296912]),
        ({"unbiased": True}, [-1.271708, 0.309049, -0.160499, 1.123159]),
        ({"shift_mean": False}, [-0.834686, 0.990615, 0.448427, 1.930668]),
    ],
)
def test_whitening_gives_the_golden_values(options, expected):
    mask = torch.ones_like(GOLDEN_ADVANTAGES, dtype=torch.bool)
    found = masked.whiten(GOLDEN_ADVANTAGES, mask, **options)
    torch.testing.assert_close(found, rows(expected), atol=2e-6, rtol=0)


def test_whitening_ignores_everything_outside_the_mask():
    padded = torch.cat([GOLDEN_ADVANTAGES, rows([NAN, 1e9])], dim=1)
    mask = where([1, 1, 1, 1, 0, 0])
    found = masked.whiten(padded, mask)
    alone = masked.whiten(GOLDEN_ADVANTAGES, mask[:, :4])
    torch.testing.assert_close(found[:, :4], alone)
    assert found[:, 4:].eq(0).all()


def test_sum_mean_and_std_by_hand():
    values, mask = rows([1, 2, NAN], [4, NAN, NAN]), where([1, 1, 0], [1, 0, 0])
    assert masked.sum(values, mask).item() == 7
    assert masked.sum(values, mask, dim=1).tolist() == [3, 4]
    assert masked.mean(values, mask, dim=1).tolist() == [1.5, 4]
    # mean 7/3, squares (16 + 1 + 25) / 9 = 42/9
    assert masked.std(values, mask).item() == pytest.approx((42 / 27) ** 0.5)
    assert masked.std(values, mask, unbiased=True).item() == pytest.approx((42 / 18) ** 0.5)


def test_a_nan_outside_the_mask_reaches_no_gradient():
    values = rows([1, NAN]).requires_grad_()
    masked.reduce(values, where([1, 0]), "token").backward()
    assert values.grad.tolist() == [[1, 0]]


def test_reduce_by_hand():
    values = rows([1, 2, 3], [5, 0, 0], [9, 9, 9])
    mask = where([1, 1, 1], [1, 0, 0], [0, 0, 0])
    assert masked.reduce(values, mask, "token").item() == pytest.approx(11 / 4)
    # Row means 2 and 5; the third row learns nothing and is not counted.
    assert masked.reduce(values, mask, "sequence").item() == pytest.approx(7 / 2)
    assert masked.reduce(values, mask, "constant", 24.0).item() == pytest.approx(11 / 24)
    assert masked.reduce(values, mask, "sequence", 10.0).item() == pytest.approx(0.7)


def test_reduce_takes_one_value_per_row():
    values, mask = rows([1, 3, 8])[0], where([1, 1, 0])[0]
    assert masked.reduce(values, mask, "token").item() == 2
    assert masked.reduce(values, mask, "sequence").item() == 2


def test_reduce_of_nothing_needs_a_denominator():
    values, mask = rows([1, 2]), where([0, 0])
    with pytest.raises(DataError, match="no token is learned"):
        masked.reduce(values, mask, "token")
    assert masked.reduce(values, mask, "token", 8.0).item() == 0
    with pytest.raises(DataError, match="no selected entry"):
        masked.mean(values, mask)


@pytest.mark.parametrize(
    ("by", "denominator"), [("constant", None), ("token", 0.0), ("token", -1.0), ("rows", 1.0)]
)
def test_impossible_reductions_are_refused(by, denominator):
    with pytest.raises(ConfigError):
        masked.reduce(rows([1]), where([1]), by, denominator)


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"expected torch\.bool"):
        masked.sum(rows([1]), rows([1]))
    with pytest.raises(DataError, match="same shape"):
        masked.sum(rows([1, 2]), where([1]))


def test_last_index_whichever_side_is_padded():
    assert masked.last_index(where([1, 1, 0], [0, 1, 1], [1, 0, 1])).tolist() == [1, 2, 2]
    with pytest.raises(DataError, match=r"rows \[1\]"):
        masked.last_index(where([1, 0], [0, 0]))
