"""Labels of pairs from several answers: each rule by hand, and what they share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heed.errors import ConfigError, DataError
from heed.stats import one_coin, views
from heed.stats.intervals import win_rate

PAIRS = list("aaabbcd")
RATERS = list("xyzxyxz")
SAID = [1, 1, 0, 1, 0, 0.5, 1]


def test_every_rule_by_hand():
    majority = views.majority(PAIRS, SAID)
    assert (majority.name, majority.version) == ("majority", 1)
    assert majority.pairs == tuple("abcd")
    assert majority.p_left.tolist() == [1, 0.5, 0.5, 1]
    assert majority.num.tolist() == [3, 2, 1, 1]
    assert views.soft(PAIRS, SAID).p_left == pytest.approx([2 / 3, 1 / 2, 1 / 2, 1])
    smooth = views.soft(PAIRS, SAID, smoothing=1)
    assert smooth.p_left == pytest.approx([3 / 5, 2 / 4, 1.5 / 3, 2 / 3])
    assert smooth.parameters == (("smoothing", 1),)
    weighted = views.weighted(PAIRS, RATERS, SAID, {"x": 3.0, "y": 1.0, "z": 0.0})
    assert weighted.pairs == tuple("abc")
    assert weighted.p_left == pytest.approx([1, 3 / 4, 1 / 2])
    assert weighted.left_out == ("d",)
    assert weighted.num.tolist() == [3, 2, 1]
    coin = views.one_coin(PAIRS, RATERS, SAID)
    np.testing.assert_array_equal(coin.p_left, one_coin.one_coin(PAIRS, RATERS, SAID).p_left)
    assert dict(coin.parameters)["positions"] is False


VOTES = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz"), st.sampled_from([0.0, 0.5, 1.0])),
    min_size=1, max_size=15,
)  # fmt: skip


def every(pairs, raters, said):
    return [
        views.majority(pairs, said),
        views.soft(pairs, said, 0.5),
        views.weighted(pairs, raters, said, {"x": 1.0, "y": 0.5, "z": 2.0}),
        views.one_coin(pairs, raters, said),
    ]


@settings(max_examples=40, deadline=None)
@given(VOTES, st.randoms())
def test_order_does_not_matter_and_mirrored_answers_mirror_labels(votes, random):
    pairs, raters, said = zip(*votes, strict=True)
    mixed = list(votes)
    random.shuffle(mixed)
    moved = every(*zip(*mixed, strict=True))
    mirrored = every(pairs, raters, [1 - y for y in said])
    for one, other, turned in zip(every(pairs, raters, said), moved, mirrored, strict=True):
        label = dict(zip(other.pairs, other.p_left, strict=True))
        np.testing.assert_allclose(one.p_left, [label[p] for p in one.pairs], atol=1e-7)
        np.testing.assert_allclose(turned.p_left, 1 - one.p_left, atol=1e-7)
        assert one.num.sum() == len(votes)


@settings(max_examples=20, deadline=None)
@given(VOTES)
def test_equal_weights_are_the_share_of_votes(votes):
    pairs, raters, said = zip(*votes, strict=True)
    weighted = views.weighted(pairs, raters, said, dict.fromkeys("xyz", 0.7))
    np.testing.assert_allclose(weighted.p_left, views.soft(pairs, said).p_left, atol=1e-12)


def test_the_worst_cohort_stands_beside_the_mean():
    correct = [1, 1, 1, 1, 0, 0, 1, 0.5]
    cohorts = list("ppppqqqq")
    prompts = [1, 1, 2, 3, 1, 2, 3, 3]
    found = views.by_cohort(correct, cohorts, prompts)
    assert found.worst == "q"
    assert found.overall == win_rate(correct, prompts)
    assert found.by["q"] == win_rate(correct[4:], prompts[4:])
    assert found.by["q"].estimate == 1.5 / 4


def test_contested_pairs_come_first():
    pairs = ["split"] * 4 + ["three"] * 3 + ["one"] * 5 + ["few"] * 2
    said = [1, 1, 0, 0] + [1, 0.5, 0] + [1] * 5 + [1, 0]
    found = views.contested(pairs, said)
    assert [c.pair for c in found] == ["three", "split"]
    assert found[0].entropy == pytest.approx(1)
    assert found[1].entropy == pytest.approx(np.log(2) / np.log(3))
    assert (found[1].num_left, found[1].num_neutral, found[1].num_right) == (2, 0, 2)
    assert [c.pair for c in views.contested(pairs, said, min_answers=2)][-1] in ("few", "split")


def test_a_hundred_thousand_answers_take_seconds():
    rng = np.random.default_rng(0)
    pairs, raters = rng.integers(30_000, size=100_000).tolist(), rng.integers(40, size=100_000)
    said = rng.choice([0, 0.5, 1], 100_000)
    weights = dict.fromkeys(range(40), 1.0)
    for view in (
        views.majority(pairs, said),
        views.weighted(pairs, raters.tolist(), said, weights),
    ):
        assert view.num.sum() == 100_000


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="neither"):
        views.majority(["a"], [0.3])
    with pytest.raises(ConfigError, match="smoothing"):
        views.soft(["a"], [1], smoothing=-1)
    with pytest.raises(DataError, match="no weight of"):
        views.weighted(["a"], ["x"], [1], {})
    with pytest.raises(DataError, match="0 or above"):
        views.weighted(["a"], ["x"], [1], {"x": -1.0})
    with pytest.raises(DataError, match="cluster labels"):
        views.by_cohort([1], ["a", "b"])
