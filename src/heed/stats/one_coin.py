"""One-coin Dawid-Skene for pairs: who is right how often, and which side is better.

The two candidates of a pair are exchangeable, so a full confusion matrix over them would learn
nothing but who likes the left of the screen. Each person has one accuracy and, where the order on
the screen is known, one left bias.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from heed.errors import ConfigError, DataError
from heed.stats.intervals import group_values

MAX_ROUNDS = 2000
CLOSE_ENOUGH = 1e-10


@dataclass(frozen=True)
class OneCoin:
    """A fit.

    `p_left` [pairs] posterior that the pair's left candidate is better; `accuracy` and `left_bias`
    [raters], in nats and above 0 for the left of the screen, None where the order is not known;
    `num_decided` [raters] answers behind them.
    """

    pairs: tuple[Hashable, ...]
    p_left: NDArray
    raters: tuple[Hashable, ...]
    accuracy: NDArray
    left_bias: NDArray | None
    num_decided: NDArray
    log_posterior: float
    num_rounds: int
    converged: bool


def one_coin(
    pairs: Sequence[Hashable],
    raters: Sequence[Hashable],
    outcomes: ArrayLike,
    shown_left: Sequence[bool] | NDArray | None = None,
    prior: tuple[float, float] = (2.0, 1.0),
) -> OneCoin:
    """Fit accuracies and truths together by expectation maximisation, from the vote shares.

    Either side is better with probability 1/2. Person a says "left of the screen" with probability
    h_a where that side is better and g_a where the other is; without `shown_left` h_a = 1 - g_a.
    accuracy = (h + 1 - g) / 2; left bias = (logit h + logit g) / 2. A tie says nothing about
    which side is better and is left out of both.

    Args:
        pairs, raters: [N] labels.
        outcomes: [N] 1 where the pair's left is better, 0 its right, 0.5 a tie.
        shown_left: [N] whether the pair's left stood on the left of the screen; None fits no bias.
        prior: imagined right and wrong answers of every person, for each rate; above 0. More right
            than wrong tells the truth from its mirror image.

    Raises:
        ConfigError: a prior that is not above 0, or not more right than wrong.
        DataError: lists of different lengths, or an outcome that is another number.

    Source: Dawid and Skene 1979; one coin: Zhang et al. 2014, with a position term.
    """
    said, pair = group_values(outcomes, pairs)
    _, rater = group_values(outcomes, raters)
    if not np.isin(said, (0.0, 0.5, 1.0)).all():
        raise DataError("an outcome is neither 0, 0.5 nor 1; leave failed judgements out")
    right, wrong = prior
    if not right > wrong > 0:
        raise ConfigError(f"prior is {prior}; expected more right than wrong, both above 0")
    left = np.ones(len(said), bool) if shown_left is None else np.asarray(shown_left, bool)
    if left.shape != said.shape:
        raise DataError(f"found {len(said)} outcomes and shown_left of shape {left.shape}")
    data = _Decided.of(said, pair, rater, left)
    fit = _fit(data, right, wrong, shown_left is not None)
    names = tuple(dict.fromkeys(pairs)), tuple(dict.fromkeys(raters))
    num = np.bincount(data.rater, minlength=data.num_raters)
    on_left, on_right = fit.rates
    bias = None if shown_left is None else (logit(on_left) + logit(on_right)) / 2
    return OneCoin(
        names[0], fit.posterior, names[1], (on_left + 1 - on_right) / 2,
        bias, num, fit.log_posterior, fit.rounds, fit.converged,
    )  # fmt: skip


@dataclass(frozen=True)
class _Decided:
    """Answers that chose a side: of which pair, by whom, and in screen order."""

    pair: NDArray
    rater: NDArray
    chose_left: NDArray
    kept_order: NDArray
    num_pairs: int
    num_raters: int

    @classmethod
    def of(cls, said: NDArray, pair: NDArray, rater: NDArray, left: NDArray) -> _Decided:
        chose_left = np.where(left, said, 1 - said)
        keep = said != 0.5
        sizes = int(pair.max()) + 1, int(rater.max()) + 1
        return cls(pair[keep], rater[keep], chose_left[keep], left[keep], *sizes)


@dataclass(frozen=True)
class _Fit:
    posterior: NDArray
    rates: tuple[NDArray, NDArray]
    log_posterior: float
    rounds: int
    converged: bool


def _fit(data: _Decided, right: float, wrong: float, biased: bool) -> _Fit:
    agree = np.where(data.kept_order, data.chose_left, 1 - data.chose_left)
    total = np.bincount(data.pair, minlength=data.num_pairs)
    votes = np.bincount(data.pair, agree, minlength=data.num_pairs)
    posterior = np.divide(votes, total, out=np.full(data.num_pairs, 0.5), where=total > 0)
    rounds, change = 0, np.inf
    while rounds < MAX_ROUNDS and change >= CLOSE_ENOUGH:
        rounds += 1
        rates = _rates(data, posterior, right, wrong, biased)
        log_odds, evidence = _posterior(data, rates)
        new = expit(log_odds)
        change = float(np.abs(new - posterior).max())
        posterior = new
    on_left, on_right = rates
    prior = right * np.log(on_left) + wrong * np.log1p(-on_left)
    if biased:
        prior = prior + wrong * np.log(on_right) + right * np.log1p(-on_right)
    total_posterior = evidence + float(prior.sum())
    return _Fit(posterior, rates, total_posterior, rounds, change < CLOSE_ENOUGH)


def _rates(
    data: _Decided, posterior: NDArray, right: float, wrong: float, biased: bool
) -> tuple[NDArray, NDArray]:
    """Most probable rates of "left", where the left of the screen is better and where not."""
    better = posterior[data.pair]
    on_left = np.where(data.kept_order, better, 1 - better)

    def share(weight: NDArray, hits: NDArray, imagined: float) -> NDArray:
        size = np.bincount(data.rater, weight, minlength=data.num_raters)
        hit = np.bincount(data.rater, weight * hits, minlength=data.num_raters)
        return (hit + imagined) / (size + right + wrong)

    if biased:
        chose = data.chose_left
        return share(on_left, chose, right), share(1 - on_left, chose, wrong)
    correct = np.where(data.chose_left == 1, on_left, 1 - on_left)
    accuracy = share(np.ones(len(correct)), correct, right)
    return accuracy, 1 - accuracy


def _posterior(data: _Decided, rates: tuple[NDArray, NDArray]) -> tuple[NDArray, float]:
    """Log-odds that each pair's left is better, and the log-likelihood of all answers."""
    chose = data.chose_left == 1
    by_truth = [
        np.where(chose, np.log(rate[data.rater]), np.log1p(-rate[data.rater])) for rate in rates
    ]
    left = np.where(data.kept_order, by_truth[0], by_truth[1])
    other = np.where(data.kept_order, by_truth[1], by_truth[0])
    sums = [np.bincount(data.pair, part, minlength=data.num_pairs) for part in (left, other)]
    evidence = float((np.logaddexp(*sums) - np.log(2)).sum())
    return sums[0] - sums[1], evidence
