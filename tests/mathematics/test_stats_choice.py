"""Bradley-Terry and Davidson fits: closed forms, and intervals that cover the truth."""

import math

import numpy as np
import pytest
from scipy import optimize

from heed.errors import ConfigError, DataError
from heed.stats import choice, paired

TRUTH = np.array([0.8, 0.3, 0.0, -0.3, -0.8])
LOG_NU = math.log(0.5)


def simulate(rng: np.random.Generator, model: str, num: int = 300):
    """Comparisons of random pairs whose expected fit is TRUTH.

    davidson: its own probabilities. bradley_terry with ties as half a win is consistent when the
    expected outcome is sigmoid(gap): P(tie) = 0.6 min(p, 1 - p) and P(win) = p - P(tie) / 2.
    """
    left = rng.integers(5, size=num)
    right = (left + rng.integers(1, 5, size=num)) % 5
    gap = TRUTH[left] - TRUTH[right]
    if model == "davidson":
        z = np.exp(gap / 2) + np.exp(-gap / 2) + math.exp(LOG_NU)
        win, tie = np.exp(gap / 2) / z, math.exp(LOG_NU) / z
    else:
        p = 1 / (1 + np.exp(-gap))
        tie = 0.6 * np.minimum(p, 1 - p)
        win = p - tie / 2
    u = rng.random(num)
    return left, right, np.where(u < win, 1.0, np.where(u < win + tie, 0.5, 0.0))


def test_count_by_hand():
    wins, ties = choice.count([0, 1, 0, 2, 2], [1, 0, 1, 1, 0], [1, 1, 0, 0.5, 0.5], 3)
    assert wins.tolist() == [[0, 1, 0], [2, 0, 0], [0, 0, 0]]
    assert ties.tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]


def test_two_items_have_a_closed_form():
    """9 wins, 3 losses, 4 ties: 11 half-counted wins of 16, so the lead is log(11 / 5).

    Davidson's first item wins e^(d/2)/Z = 9/16 and loses e^(-d/2)/Z = 3/16, so d = log 3 and
    nu = (4/16) Z with Z = 16/9 e^(d/2): nu = 4/9 sqrt 3 = 4 / sqrt(27).
    """
    wins, ties = np.array([[0, 9], [3, 0]]), np.array([[0, 4], [4, 0]])
    fit = choice.bradley_terry(wins, ties)
    assert fit.tie is None
    np.testing.assert_allclose(fit.values, np.array([1, -1]) * math.log(11 / 5) / 2)
    fit = choice.davidson(wins, ties)
    np.testing.assert_allclose(fit.values, np.array([1, -1]) * math.log(3) / 2)
    assert fit.tie == pytest.approx(math.log(4 / math.sqrt(27)))
    shares = np.array([9, 3, 4]) / 16
    assert fit.log_likelihood == pytest.approx(float((16 * shares * np.log(shares)).sum()))


@pytest.mark.parametrize("model", ["bradley_terry", "davidson"])
def test_exact_probabilities_give_back_the_strengths(model):
    """Counts equal to their expectation are fitted by the strengths that made them."""
    gap = TRUTH[:, None] - TRUTH[None]
    off = 1 - np.eye(5)
    if model == "bradley_terry":
        fit = choice.bradley_terry(100 * off / (1 + np.exp(-gap)))
    else:
        z = np.exp(gap / 2) + np.exp(-gap / 2) + 0.5
        fit = choice.davidson(100 * off * np.exp(gap / 2) / z, 100 * off * 0.5 / z)
        assert fit.tie == pytest.approx(LOG_NU)
    np.testing.assert_allclose(fit.values, TRUTH, atol=1e-8)


@pytest.mark.parametrize("model", ["bradley_terry", "davidson"])
def test_derivatives_are_those_of_the_likelihood(model):
    rng = np.random.default_rng(3)
    won = rng.integers(1, 9, (1, 4, 4)) * (1.0 - np.eye(4))
    tied = rng.integers(1, 5, (1, 4, 4)) * (1.0 - np.eye(4))
    tied = tied + tied.swapaxes(1, 2)
    size = 4 if model == "bradley_terry" else 5

    def derivatives(x):
        if model == "bradley_terry":
            return paired._binary(x[None], won + tied / 2)
        return paired._ternary(x[None], won, tied)

    x = rng.normal(size=size)
    slope = optimize.approx_fprime(x, lambda v: derivatives(v)[0][0], 1e-6)
    np.testing.assert_allclose(derivatives(x)[1][0], slope, atol=1e-4)
    curve = optimize.approx_fprime(x, lambda v: derivatives(v)[1][0], 1e-6)
    constant = np.zeros((size, size))
    constant[:4, :4] = 1 / 4  # added to fix the mean
    np.testing.assert_allclose(derivatives(x)[2][0] - constant, -curve, atol=1e-4)


def coverage(model: str, num: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    covered = 0
    for _ in range(num):
        intervals = choice.bootstrap(*simulate(rng, model), 5, rng=rng, model=model)
        covered += sum(i.low <= s <= i.high for i, s in zip(intervals, TRUTH, strict=True))
    return covered / (num * len(TRUTH))


@pytest.mark.parametrize("model", ["bradley_terry", "davidson"])
def test_bootstrap_intervals_cover_the_truth(model):
    """300 simulations of 300 comparisons: at least 93 % of the 95 % intervals hold the truth."""
    assert coverage(model, 300, seed=1) >= 0.93


def test_clusters_widen_the_intervals():
    """Every comparison copied ten times within its cluster carries the information of one."""
    rng = np.random.default_rng(5)
    once = simulate(rng, "bradley_terry")
    copies = [np.repeat(column, 10) for column in once]
    options = {"rng": np.random.default_rng(1), "num_resamples": 2000}
    clusters = np.repeat(np.arange(300), 10)

    def width(intervals):
        return np.mean([i.high - i.low for i in intervals])

    plain = choice.bootstrap(*once, 5, **options)
    grouped = choice.bootstrap(*copies, 5, clusters=clusters, **options)
    naive = choice.bootstrap(*copies, 5, **options)
    assert [i.n for i in grouped] == [300] * 5
    assert width(grouped) == pytest.approx(width(plain), rel=0.05)
    assert width(naive) == pytest.approx(width(plain) / 10**0.5, rel=0.05)


def test_ties_as_half_lose_nothing_to_order():
    wins, ties = choice.count(*simulate(np.random.default_rng(2), "davidson"), 5)
    order = np.array([3, 1, 4, 0, 2])
    fit = choice.bradley_terry(wins, ties).values
    moved = choice.bradley_terry(wins[np.ix_(order, order)], ties[np.ix_(order, order)]).values
    np.testing.assert_allclose(moved, fit[order], atol=1e-9)
    np.testing.assert_allclose(choice.bradley_terry(wins.T, ties).values, -fit, atol=1e-9)


def test_elo_of_known_odds():
    assert choice.elo(math.log(10)) == pytest.approx(1400)
    assert choice.strength(choice.elo(TRUTH)) == pytest.approx(TRUTH)
    assert choice.elo(1.0, anchor=0) == pytest.approx(173.7178, abs=1e-4)


def test_a_prior_makes_an_unbeaten_item_finite():
    wins = np.array([[0, 5, 5], [0, 0, 3], [0, 2, 0]])
    with pytest.raises(DataError, match="prior"):
        choice.bradley_terry(wins)
    with pytest.raises(DataError, match="prior"):
        choice.davidson(wins, np.ones((3, 3)) - np.eye(3))
    fit = choice.bradley_terry(wins, prior=1.0)
    assert 0 < fit.values[0] - fit.values[1] < 10
    fit = choice.davidson(wins, np.zeros((3, 3)), prior=0.5)
    assert np.isfinite(fit.values).all()


def test_items_never_compared_are_named():
    wins = np.zeros((4, 4))
    wins[0, 1] = wins[1, 0] = wins[2, 3] = wins[3, 2] = 1
    with pytest.raises(DataError, match=r"items \[2, 3\]"):
        choice.bradley_terry(wins)


def test_too_few_comparisons_for_a_bootstrap_are_refused():
    with pytest.raises(DataError, match="no finite fit"):
        choice.bootstrap([0, 0, 0], [1, 1, 1], [1, 1, 0], 2, rng=np.random.default_rng(0))


def test_inputs_that_do_not_fit_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="two different items"):
        choice.count([0], [0], [1], 2)
    with pytest.raises(DataError, match="two different items"):
        choice.count([0], [2], [1], 2)
    with pytest.raises(DataError, match="neither"):
        choice.bootstrap([0, 1], [1, 0], [1, 0.2], 2, rng=rng)
    with pytest.raises(DataError, match="symmetric"):
        choice.bradley_terry(np.ones((2, 2)), np.array([[0, 1], [0, 0]]))
    with pytest.raises(DataError, match="no ties"):
        choice.davidson([[0, 1], [1, 0]], np.zeros((2, 2)))
    with pytest.raises(ConfigError, match="prior"):
        choice.bradley_terry([[0, 1], [1, 0]], prior=-1)
