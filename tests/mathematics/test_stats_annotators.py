"""What is measured about a person: exact values, alerts at known rates, and what sets them off."""

from itertools import permutations

import numpy as np
import pytest
from scipy import integrate, stats

from heed.errors import ConfigError, DataError
from heed.stats import annotators, monitoring
from heed.stats.intervals import Interval, Undefined, wilson


def test_side_rate_by_hand():
    found = annotators.side_rate([1] * 8 + [0] * 2 + [0.5] * 3)
    assert found.rate == wilson(8, 10)
    assert found.num_neutral == 3
    # 2 (C(10, 8) + C(10, 9) + C(10, 10)) / 2^10
    assert found.p_value == pytest.approx(2 * (45 + 10 + 1) / 1024)
    nothing = annotators.side_rate([0.5, 0.5])
    assert isinstance(nothing.rate, Undefined)
    assert nothing.p_value is None


def test_self_consistency_tells_position_from_change_of_mind():
    found = annotators.self_consistency([1, 1, 0, 0.5, 1], [1, 0, 1, 0.5, 0.5])
    assert found.same == wilson(2, 5)
    assert found.num_same_side == 2
    assert isinstance(annotators.self_consistency([], []).same, Undefined)


@pytest.mark.parametrize(("right", "num"), [(3, 10), (7, 10), (12, 12), (0, 8)])
def test_gold_is_a_beta_posterior(right, num):
    """Integrated by itself: uniform prior times p^k (1 - p)^(n - k)."""

    def density(p):
        return p**right * (1 - p) ** (num - right)

    total = integrate.quad(density, 0, 1)[0]
    found = annotators.gold_record(right, num)
    assert found.p_low == pytest.approx(integrate.quad(density, 0, 0.75)[0] / total, abs=1e-9)
    assert found.accuracy.estimate == pytest.approx((right + 1) / (num + 2))
    below = integrate.quad(density, 0, found.accuracy.low)[0] / total
    assert below == pytest.approx(0.025, abs=1e-8)
    assert found.alert == (found.p_low > 0.9)


def test_the_gold_rule_waits_for_eight_answers():
    assert not annotators.gold_record(0, 7).alert
    assert annotators.gold_record(0, 8).alert
    assert annotators.gold_record(4, 8).alert
    assert not annotators.gold_record(6, 8).alert


@pytest.mark.parametrize(("left", "right"), [(2, 2), (3, 4), (2, 5)])
def test_runs_are_counted_over_all_orders(left, right):
    """Every order of so many lefts and rights is as likely; count them all."""
    orders = sorted(set(permutations([1] * left + [0] * right)))
    runs = np.array([1 + np.count_nonzero(np.diff(order)) for order in orders])
    for order, own in zip(orders, runs, strict=True):
        few, many = np.mean(runs <= own), np.mean(runs >= own)
        found = annotators.runs_test(order)
        assert found.num_runs == own
        assert found.few == pytest.approx(few, abs=1e-9)
        assert found.many == pytest.approx(many, abs=1e-9)
        assert found.p_value == pytest.approx(min(1, 2 * min(few, many)), abs=1e-9)
    assert isinstance(annotators.runs_test([1, 1, 0]), Undefined)


def test_patterns_set_off_the_runs_test_and_chance_seldom_does():
    assert annotators.runs_test([1, 0] * 20).p_value < 1e-6
    assert annotators.runs_test([1] * 20 + [0] * 20).p_value < 1e-6
    rng = np.random.default_rng(0)
    low = [annotators.runs_test(rng.integers(0, 2, 60)).p_value < 0.05 for _ in range(500)]
    assert np.mean(low) < 0.08
    assert annotators.longest_run([1, 1, 0, 0, 0, 1]) == 3
    assert annotators.longest_run([]) == 0


def test_entropy_is_scipys_as_a_share():
    answers = list("aaabbc")
    expected = stats.entropy([3, 2, 1]) / np.log(4)
    assert annotators.answer_entropy(answers, 4) == pytest.approx(expected)
    assert annotators.answer_entropy(["a"] * 9, 3) == 0
    assert annotators.answer_entropy(list("abc"), 3) == pytest.approx(1)
    with pytest.raises(DataError, match="num_values"):
        annotators.answer_entropy(list("abc"), 2)


def test_gold_weights_are_those_of_the_best_majority():
    """Nine answers by every vote of three people: no other of a grid of weights is right more."""
    accuracy = np.array([0.9, 0.7, 0.6])
    votes = np.array(list(np.ndindex(2, 2, 2)))
    chance = np.prod(np.where(votes == 1, accuracy, 1 - accuracy), axis=1)

    def right(weights):
        lead = (2 * votes - 1) @ weights
        return float(chance @ ((np.sign(lead) + 1) / 2))

    def weight(p):
        record = annotators.gold_record(0, 0)
        own = Interval(p, 0, 1, 0)
        return annotators.gold_weight(
            annotators.GoldRecord(own, record.num_right, record.p_low, False)
        )

    best = max(right(np.array(w) / 4) for w in np.ndindex(9, 9, 9))
    assert right(np.array([weight(p) for p in accuracy])) == pytest.approx(best)
    assert weight(0.5) == weight(0.2) == 0


def test_alerts_name_what_was_seen_and_pause_needs_two_kinds():
    honest = annotators.quality_alerts(
        gold=annotators.gold_record(19, 20),
        sides=annotators.side_rate([1, 0] * 30),
        consistency=annotators.self_consistency([1] * 10, [1] * 9 + [0]),
        order=annotators.runs_test(np.random.default_rng(1).integers(0, 2, 60)),
    )
    assert honest == ()
    left = annotators.quality_alerts(
        gold=annotators.gold_record(9, 20),
        sides=annotators.side_rate([1] * 55 + [0] * 5),
        consistency=annotators.self_consistency([1] * 20, [0] * 15 + [1] * 5),
        order=annotators.runs_test([1, 0] * 30),
    )
    assert [alert.kind for alert in left] == ["gold", "side", "consistency", "pattern"]
    assert "left of the screen is chosen in 0.917" in left[1].message
    assert "alternation" in left[3].message
    assert annotators.suggest_pause(left)
    assert not annotators.suggest_pause([left[0], left[0]])


def test_alerts_of_honest_people_are_rare():
    """400 people of 0.9 accuracy on gold, without bias: below 2 % have any alert."""
    rng, flagged = np.random.default_rng(2), 0
    for _ in range(400):
        first = rng.integers(0, 2, 15)
        again = np.where(rng.random(15) < 0.85, first, 1 - first)
        chose = rng.integers(0, 2, 200)
        flagged += bool(
            annotators.quality_alerts(
                gold=annotators.gold_record(int((rng.random(20) < 0.9).sum()), 20),
                sides=annotators.side_rate(chose),
                consistency=annotators.self_consistency(first, again),
                order=annotators.runs_test(chose),
            )
        )
    assert flagged <= 8


def test_times_are_compared_with_items_of_their_length():
    """Short items take 2 s and long ones 20 s in the median; 4 s is fast for a long item only."""
    seconds = [2.0] * 20 + [20.0] * 19 + [4.0]
    lengths = [10] * 20 + [100] * 20
    found = monitoring.answer_times(seconds, ["x"] * 40, lengths, num_bins=2)
    assert np.flatnonzero(found.fast_for_project).tolist() == [39]
    assert found.floor_project[0] == 0.5
    assert found.floor_project[39] == 5.0
    few = monitoring.answer_times([1.0, 2.0], ["x", "y"], [1, 1])
    assert found.own_known.all()
    assert not few.own_known.any()
    assert not few.fast_for_self.any()


def test_one_who_rushes_is_flagged_and_others_are_not():
    rng = np.random.default_rng(3)
    lengths = rng.integers(20, 400, 2000)
    people = rng.integers(0, 5, 2000)
    seconds = (3 + 0.05 * lengths) * np.exp(rng.normal(0, 0.4, 2000))
    seconds[people == 4] *= 0.15
    found = monitoring.answer_times(seconds, people.tolist(), lengths)
    alerts = [monitoring.time_alert(found.fast_for_project[people == a]) for a in range(5)]
    assert alerts[:4] == [None] * 4
    assert alerts[4].kind == "time"
    assert monitoring.time_alert([]) is None
    share = found.fast_for_self.mean()
    assert share == pytest.approx(0.1, abs=0.02)


def slow_cusum(x, expected, fallen):
    s, out = 0.0, []
    for value in x:
        hit, miss = np.log(fallen / expected), np.log((1 - fallen) / (1 - expected))
        s = max(0.0, s + value * hit + (1 - value) * miss)
        out.append(s)
    return out


def test_drift_is_pages_sum():
    x = np.random.default_rng(4).choice([0, 0.5, 1], 80)
    found = monitoring.drift(x, 0.8)
    np.testing.assert_allclose(found.evidence, slow_cusum(x, 0.8, 0.5), atol=1e-9)
    assert found.limit == pytest.approx(np.log(200 / 0.05))


def test_drift_is_seen_and_steadiness_is_not():
    """A fall from 0.8 to 0.5 after 60 anchors is seen within 60 more by nine of ten; fewer than
    5 % of people who stay have an alarm within 200."""
    rng, seen, false = np.random.default_rng(5), 0, 0
    for _ in range(500):
        before, after = rng.random(60) < 0.8, rng.random(60) < 0.5
        chart = monitoring.drift(np.concatenate([before, after]).astype(float), 0.8)
        seen += chart.alarm is not None and chart.alarm >= 60
        steady = monitoring.drift((rng.random(200) < 0.8).astype(float), 0.8)
        false += steady.alarm is not None
    assert seen >= 0.9 * 500
    assert false <= 0.05 * 500
    assert monitoring.drift_alert(steady) is None or steady.alarm is not None
    alert = monitoring.drift_alert(monitoring.drift([0] * 20, 0.8))
    assert alert.kind == "drift"
    assert "fallen from 0.80 by anchor 10 of 20" in alert.message


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="neither"):
        annotators.side_rate([0.2])
    with pytest.raises(DataError, match="as many"):
        annotators.self_consistency([1], [1, 0])
    with pytest.raises(DataError, match="9 right answers of 8"):
        annotators.gold_record(9, 8)
    with pytest.raises(ConfigError, match="threshold"):
        annotators.gold_record(1, 8, threshold=1.5)
    with pytest.raises(DataError, match="above 0"):
        monitoring.answer_times([0.0], ["x"], [1])
    with pytest.raises(ConfigError, match="fallen"):
        monitoring.drift([1], 0.8, fallen=0.9)
    with pytest.raises(DataError, match="neither"):
        monitoring.drift([0.3], 0.8)
