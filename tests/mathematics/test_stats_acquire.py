"""Which pairs to ask about: scores by definition, exact probabilities, no bias."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit

from heed.errors import ConfigError, DataError
from heed.stats import acquire


def test_scores_of_an_ensemble_by_hand():
    gaps = np.array([[0.0, 2.0, 1.0], [0.0, -2.0, 1.0]])
    assert acquire.ensemble_variance(gaps).tolist() == [0, 4, 0]
    assert acquire.ensemble_variance(gaps, "label").tolist() == [0, 0.25, 0]
    p = expit(2.0)
    np.testing.assert_allclose(
        acquire.ensemble_variance(gaps, "probability"), [0, (p - 0.5) ** 2, 0], atol=1e-12
    )
    half, one = np.log(2), stats.entropy([expit(1), 1 - expit(1)])
    np.testing.assert_allclose(acquire.entropy(gaps), [half, half, one])
    np.testing.assert_allclose(
        acquire.bald(gaps), [0, half - stats.entropy([p, 1 - p]), 0], atol=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_bald_is_the_mutual_information_and_mirrors(seed):
    rng = np.random.default_rng(seed)
    gaps = rng.normal(0, 3, (4, 6))
    p = expit(gaps)
    joint = np.stack([p, 1 - p]) / 4  # answer, member, pair
    alone = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    expected = (joint * np.log(joint / alone)).sum((0, 1))
    np.testing.assert_allclose(acquire.bald(gaps), expected, atol=1e-9)
    for score in (acquire.bald, acquire.entropy, acquire.ensemble_variance):
        np.testing.assert_allclose(score(-gaps), score(gaps), atol=1e-9)


def test_top_against_the_rest_asks_where_the_lead_is_unsure():
    drawn = np.array([[3.0, 2.9, 0.0], [3.0, 3.1, 0.0], [3.0, 2.0, 0.0], [3.0, 1.0, 0.0]])
    scores = acquire.top_vs_rest([0, 2, 1], [1, 0, 2], drawn)
    assert scores.tolist() == [0.25, 0.0, 0.0]


def test_near_policy_prefers_what_the_policy_writes_now():
    scores = acquire.near_policy([0.0, 0.2, -0.5], [0.0, -0.1, 0.1])
    np.testing.assert_allclose(scores, [0, -0.15, -0.3])


def test_k_center_covers():
    x = np.array([[0.0, 0], [0.05, 0], [10, 0], [10.1, 0], [5, 8]])
    chosen = acquire.k_center(x, 3, taken=[0]).tolist()
    assert chosen == [3, 4, 2]
    first = acquire.k_center(x, 1).tolist()
    assert first == [int(((x - x.mean(0)) ** 2).sum(1).argmin())]
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(60, 3))
    ours = acquire.k_center(spread, 8)
    assert len(set(ours.tolist())) == 8

    def radius(index):
        return np.sqrt(((spread[:, None] - spread[index]) ** 2).sum(2)).min(1).max()

    random = [radius(rng.choice(60, 8, replace=False)) for _ in range(200)]
    assert radius(ours) <= 2 * min(random)  # Gonzalez: at most twice the best
    assert radius(ours) < np.median(random)


def test_k_center_among_those_with_most_disagreement():
    rng = np.random.default_rng(1)
    x, scores = rng.normal(size=(50, 2)), rng.random(50)
    chosen = acquire.k_center_disagree(x, scores, 3, pool=4)
    best = set(np.argsort(-scores)[:12].tolist())
    assert set(chosen.tolist()) <= best
    assert len(set(chosen.tolist())) == 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 40.0]), min_size=1, max_size=12), st.data())
def test_targets_add_up(scores, data):
    num = data.draw(st.integers(0, len(scores)))
    target = acquire.top(scores, num)
    assert target.sum() == pytest.approx(num)
    assert target.min() >= 0
    assert target.max() <= 1
    lowest = min((s for s, t in zip(scores, target, strict=True) if t > 0), default=np.inf)
    assert all(t == 1 for s, t in zip(scores, target, strict=True) if s > lowest)
    if sum(s > 0 for s in scores) >= num:
        share = acquire.proportional(scores, num)
        assert share.sum() == pytest.approx(num)
        assert share.max() <= 1
        free = [(s, t) for s, t in zip(scores, share, strict=True) if 0 < t < 1]
        if len(free) > 1:
            assert np.ptp([t / s for s, t in free]) < 1e-9


def draws(target, share, num=4000):
    rng = np.random.default_rng(2)
    return [acquire.select(target, rng=rng, uniform_share=share) for _ in range(num)]


@pytest.mark.parametrize("kind", ["top", "proportional", "listed", "uniform"])
def test_what_is_drawn_has_the_stated_probabilities(kind):
    scores = np.array([0.1, 0.2, 0.3, 0.4, 1.0, 2.0, 5.0, 0.6, 0.7, 0.05])
    target = {
        "top": acquire.top(scores, 4),
        "proportional": acquire.proportional(scores, 4),
        "listed": acquire.listed([2, 3, 5, 9], 10),
        "uniform": np.full(10, 0.4),
    }[kind]
    expected = 0.3 * 4 / 10 + 0.7 * target
    chosen, fair = np.zeros(10), np.zeros(10)
    for selection in draws(target, 0.3):
        assert len(set(selection.index.tolist())) == 4
        np.testing.assert_allclose(selection.probability, expected[selection.index])
        chosen[selection.index] += 1
        fair[selection.index[selection.uniform]] += 1
    error = 4.5 * np.sqrt(expected * (1 - expected) / 4000) + 1e-9
    assert (np.abs(chosen / 4000 - expected) <= error).all()
    # The uniform share is a fair sample of all candidates.
    assert (np.abs(fair / 4000 - 0.12) <= 4.5 * np.sqrt(0.12 * 0.88 / 4000)).all()


def test_any_two_candidates_can_be_chosen_together():
    """Neighbours in the list too: 4 of 10 at random hold a given two in 4 * 3 / (10 * 9)."""
    together = [{0, 1} <= set(s.index.tolist()) for s in draws(np.full(10, 0.4), 0.3)]
    assert np.mean(together) == pytest.approx(12 / 90, abs=4.5 * np.sqrt(0.13 * 0.87 / 4000))


def test_reweighting_takes_the_bias_out():
    """A model that errs where it is unsure: on what was asked it looks worse than it is."""
    rng = np.random.default_rng(3)
    scores = rng.random(200)
    correct = (rng.random(200) > 0.7 * scores).astype(float)
    target = acquire.top(scores, 40)
    found, naive, fair = [], [], []
    for selection in draws(target, 0.3, 3000):
        y = correct[selection.index]
        found.append(acquire.reweighted_mean(y, selection.probability, 200).estimate)
        naive.append(y.mean())
        fair.extend(correct[selection.index[selection.uniform]])
    error = np.std(found) / np.sqrt(3000)
    assert abs(np.mean(found) - correct.mean()) < 4 * error
    assert np.mean(naive) < correct.mean() - 0.15
    assert np.mean(fair) == pytest.approx(correct.mean(), abs=0.01)


def test_reweighted_intervals_cover_the_truth():
    """300 rounds of 200 from 2,000: at least 93 % of the 95 % intervals hold the mean."""
    rng, held = np.random.default_rng(4), 0
    scores = rng.random(2000)
    correct = (rng.random(2000) > 0.5 * scores).astype(float)
    target = acquire.proportional(scores, 200)
    for _ in range(300):
        selection = acquire.select(target, rng=rng)
        found = acquire.reweighted_mean(correct[selection.index], selection.probability, 2000)
        held += found.low <= correct.mean() <= found.high
    assert held >= 0.93 * 300


def test_a_large_round_is_fast_and_exact():
    rng = np.random.default_rng(5)
    target = acquire.proportional(rng.random(100_000), 1000)
    selection = acquire.select(target, rng=rng)
    assert len(set(selection.index.tolist())) == 1000


def test_inputs_that_do_not_fit_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="whole number"):
        acquire.select([0.5, 0.2], rng=rng)
    with pytest.raises(ConfigError, match="uniform_share"):
        acquire.select([1.0, 0.0], rng=rng, uniform_share=2)
    with pytest.raises(DataError, match="asked for 3"):
        acquire.top([1, 2], 3)
    with pytest.raises(DataError, match="above 0"):
        acquire.proportional([0, 1], 2)
    with pytest.raises(DataError, match="members, pairs"):
        acquire.bald([1.0, 2.0])
    with pytest.raises(DataError, match="asked for 3 of features"):
        acquire.k_center([[0.0], [1.0]], 3)
    with pytest.raises(DataError, match="probabilities"):
        acquire.reweighted_mean([1], [0.0], 3)
