import pytest

from heed.errors import HeedError
from heed.runs.metrics import METRICS, describe


def test_every_row_has_a_unit_and_a_sentence() -> None:
    for name, metric in METRICS.items():
        assert metric.unit, name
        assert metric.meaning.endswith("."), name
        assert metric.better in ("up", "down", None), name


def test_a_pattern_stands_for_one_part() -> None:
    assert describe("rewards/length bonus/mean") is METRICS["rewards/<scorer>/mean"]
    for name in ("rewards/a/b/mean", "rewards//mean", "rewards/<scorer>/means"):
        with pytest.raises(HeedError):
            describe(name)


def test_an_unknown_name_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(HeedError, match="policy/clipfrac_avg"):
        describe("policy/clipfrac")
