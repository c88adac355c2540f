"""Shares of agreement by rule, and agreement of rankings, against definitions and scipy."""

from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from heed.errors import DataError
from heed.stats import rankings, raw_agreement
from heed.stats.intervals import Undefined, wilson


def rng():
    return np.random.default_rng(0)


def credit(a, b, rule):
    if 0 in (a, b):
        if rule == "neutral_excluded":
            return None
        return 1.0 if a == b else 0.5 if rule == "neutral_half" else 0.0
    return float(a == b)


def slow_share(items, signed, rule):
    by_item = defaultdict(list)
    for item, answer in zip(items, signed, strict=True):
        by_item[item].append(np.sign(answer))
    found = [credit(a, b, rule) for said in by_item.values() for a, b in combinations(said, 2)]
    found = [value for value in found if value is not None]
    return sum(found) / len(found) if found else None


ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from([-1.0, -0.3, 0.0, 0.5])),
    min_size=1, max_size=20, unique_by=lambda row: row[:2],
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(ROWS, st.sampled_from(raw_agreement.RULES))
def test_every_rule_is_its_definition(rows, rule):
    items, raters, signed = zip(*rows, strict=True)
    expected = slow_share(items, signed, rule)
    found = raw_agreement.raw_agreement(items, raters, signed, rule, rng=rng(), num_resamples=50)
    turned = raw_agreement.raw_agreement(
        items, raters, [-s for s in signed], rule, rng=rng(), num_resamples=50
    )
    if expected is None:
        assert isinstance(found, Undefined)
        assert found.n == 0
        return
    for one in (found, turned):
        if isinstance(one, Undefined):
            stated = float(one.reason.removeprefix("the estimate ").split()[0])
            assert stated == pytest.approx(expected, abs=6e-4)
        else:
            assert one.estimate == pytest.approx(expected, abs=1e-12)


def test_the_rules_differ_by_what_a_neutral_answer_counts():
    """Twice four items, two people: same side, other side, neutral against a side, both neutral."""
    items, raters = list("aabbccddeeffgghh"), list("xyxyxyxy") * 2
    signed = [1, 2, 1, -1, 0, 1, 0, 0] * 2
    found = {
        rule: raw_agreement.raw_agreement(items, raters, signed, rule, rng=rng())
        for rule in raw_agreement.RULES
    }
    assert found["strict"].estimate == 2 / 4
    assert found["neutral_half"].estimate == 2.5 / 4
    assert [found[rule].n for rule in raw_agreement.RULES] == [8, 8, 4]
    assert "the estimate 0.500 has no interval: it stands on 4 items" in str(
        found["neutral_excluded"]
    )


def test_a_share_of_one_keeps_an_interval():
    items, raters = [i for i in range(12) for _ in "xy"], list("xy") * 12
    found = raw_agreement.raw_agreement(items, raters, [1] * 24, rng=rng())
    assert found == wilson(12, 12)
    assert raw_agreement.agreement_with(items, [1] * 24, [-1] * 24, rng=rng()) == wilson(0, 12)


def test_agreement_with_a_reference_and_with_the_others():
    items, raters = list("aaabbbc"), list("xyzxyzx")
    signed = [1, 1, -1, 0, 1, 1, 1]
    gold = [1, 1, 1, 1, 1, 1, -1]
    twice = [*items, *(item.upper() for item in items)]
    for rule, expected in (
        ("strict", 4 / 7), ("neutral_half", 4.5 / 7), ("neutral_excluded", 4 / 6)
    ):  # fmt: skip
        found = raw_agreement.agreement_with(twice, signed * 2, gold * 2, rule, rng=rng())
        assert found.estimate == pytest.approx(expected)
        assert found.n == 6
    others, known = raw_agreement.majority_of_others(items, raters, signed)
    assert others.tolist() == [0, 0, 1, 1, 1, 1, 0]
    assert known.tolist() == [True] * 6 + [False]


def test_intervals_of_raw_agreement_cover_the_truth():
    """Two people right in 80 % each agree in 0.64 + 0.04 = 68 %: 300 studies of 80 items."""
    draw, covered = np.random.default_rng(5), 0
    items, raters = np.tile(np.arange(80), 2).tolist(), np.repeat([0, 1], 80).tolist()
    for _ in range(300):
        signed = np.where(draw.random(160) < 0.8, 1, -1)
        found = raw_agreement.raw_agreement(items, raters, signed, rng=draw, num_resamples=500)
        covered += found.low <= 0.68 <= found.high
    assert covered >= 0.93 * 300


RANKS = st.integers(2, 4).flatmap(
    lambda people: st.integers(2, 5).flatmap(
        lambda size: st.lists(
            st.lists(st.integers(1, 4), min_size=size, max_size=size),
            min_size=people, max_size=people,
        )
    )
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(RANKS)
def test_tau_and_w_are_scipys(table):
    pairs = [stats.kendalltau(a, b).statistic for a, b in combinations(table, 2)]
    pairs = [tau for tau in pairs if not np.isnan(tau)]
    found = rankings.tau_b(table)
    assert found is None if not pairs else found == pytest.approx(np.mean(pairs), abs=1e-9)
    # Friedman's statistic is J (K - 1) W, ties corrected alike; scipy's needs three candidates.
    if len(table[0]) > 2:
        people, size = np.shape(table)
        with np.errstate(invalid="ignore"):
            friedman = stats.friedmanchisquare(*np.array(table).T).statistic
        w = rankings.kendall_w(table)
        if w is None:
            assert np.isnan(friedman)
        else:
            assert w == pytest.approx(friedman / (people * (size - 1)), abs=1e-9)
            assert -1e-12 <= w <= 1 + 1e-12


def test_rankings_by_hand():
    same = [[1, 2, 3], [1, 2, 3], [1, 2, 3]]
    assert rankings.tau_b(same) == pytest.approx(1)
    assert rankings.kendall_w(same) == pytest.approx(1)
    assert rankings.top_one(same) == pytest.approx(1)
    against = [[1, 2, 3], [3, 2, 1]]
    assert rankings.tau_b(against) == pytest.approx(-1)
    assert rankings.kendall_w(against) == pytest.approx(0)
    assert rankings.top_one(against) == 0
    assert rankings.top_one([[1, 1, 3], [1, 2, 3]]) == 0.5
    assert rankings.tau_b([[1, 1, 1], [1, 2, 3]]) is None
    assert rankings.kendall_w([[1, 1], [2, 2]]) is None
    assert rankings.top_one([[1, 2]]) is None


def test_rankings_over_prompts():
    tables = [[[1, 2, 3], [1, 2, 3]], [[1, 2, 3], [3, 2, 1]], [[1, 1], [1, 1]]]
    found = rankings.over_prompts(tables, rng=rng())
    assert found.estimate == pytest.approx(0)
    assert found.n == 2
    none = rankings.over_prompts([[[1, 1], [1, 1]]], rng=rng())
    assert isinstance(none, Undefined)
    assert "ranked its candidates apart" in none.reason
    assert rankings.over_prompts(tables, rankings.top_one, rng=rng()).estimate == pytest.approx(0.5)


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="finite"):
        raw_agreement.raw_agreement(["a"], ["x"], [float("nan")], rng=rng())
    with pytest.raises(DataError, match="more than once"):
        raw_agreement.raw_agreement(["a", "a"], ["x", "x"], [1, 1], rng=rng())
    with pytest.raises(DataError, match="references"):
        raw_agreement.agreement_with(["a"], [1], [1, 1], rng=rng())
    with pytest.raises(DataError, match="people, candidates"):
        rankings.tau_b([1, 2, 3])
