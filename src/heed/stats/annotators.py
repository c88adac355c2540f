"""How each person answers: side, consistency, gold, patterns, time, drift; alerts and weights.

Nothing here deletes an answer. An alert names what was seen, how sure it is and what to do; a
weight says how much an answer counts in a view that says so. Sides are those of the screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import betaln

from heed.errors import ConfigError, DataError
from heed.stats.intervals import Interval, Measured, Undefined, tail_share, wilson

Kind = Literal["gold", "side", "consistency", "pattern", "time", "drift"]


@dataclass(frozen=True)
class Alert:
    """Something that a person in charge should look at, in words. `n` answers stand behind it."""

    kind: Kind
    message: str
    n: int


@dataclass(frozen=True)
class SideRate:
    """How often the left of the screen was chosen among answers that chose a side.

    `p_value` is that of a fair coin, two-sided and exact; None where no side was chosen.
    """

    rate: Measured
    p_value: float | None
    num_neutral: int


@dataclass(frozen=True)
class Consistency:
    """Answers to one's own pairs shown again with the sides swapped.

    `same` is the share of repeats with the same answer. Of the others, `num_same_side` stayed on
    one side of the screen (they follow the position) and the rest changed from or to neutral.
    """

    same: Measured
    num_same_side: int


@dataclass(frozen=True)
class GoldRecord:
    """Answers to pairs whose right answer is known.

    `accuracy` is the mean of the Beta posterior with its central interval; `p_low` the posterior
    probability that the accuracy is below the threshold; `alert` the rule of `gold_record`.
    """

    accuracy: Interval
    num_right: int
    p_low: float
    alert: bool


@dataclass(frozen=True)
class Runs:
    """A test of the order of sides: the chance of as few runs or fewer, of as many or more."""

    num_runs: int
    few: float
    many: float
    n: int

    @property
    def p_value(self) -> float:
        """Two-sided: twice the smaller tail, at most 1."""
        return min(1.0, 2 * min(self.few, self.many))


def side_rate(chose_left: ArrayLike, level: float = 0.95) -> SideRate:
    """Measure the share of left choices with Wilson's interval and test it against one half.

    Args:
        chose_left: [N] 1 left of the screen, 0 right, 0.5 neutral (left out, counted).
        level: in (0, 1).
    """
    said = _outcomes(chose_left)
    decided = said[said != 0.5]
    num_neutral = len(said) - len(decided)
    if not len(decided):
        reason = "no answer chose a side"
        return SideRate(Undefined(reason, 0), None, num_neutral)
    num_left = int(decided.sum())
    test = stats.binomtest(num_left, len(decided), 0.5)
    return SideRate(wilson(num_left, len(decided), level), float(test.pvalue), num_neutral)


def self_consistency(first: ArrayLike, again: ArrayLike, level: float = 0.95) -> Consistency:
    """Compare a person's answers with their answers to the same pairs with the sides swapped.

    Args:
        first, again: [N] in the order of the pair, not of the screen: 1 where the pair's left is
            better, 0 its right, 0.5 neutral.
        level: in (0, 1).

    Returns:
        An answer that stays on one side of the screen names the other candidate, so it counts as
        inconsistent. What a person does not repeat, no model can predict.
    """
    one, two = _outcomes(first), _outcomes(again)
    if one.shape != two.shape:
        raise DataError(f"found {len(one)} first answers and {len(two)} repeats; expected as many")
    if not len(one):
        return Consistency(Undefined("no pair was shown again", 0), 0)
    same = wilson(int((one == two).sum()), len(one), level)
    return Consistency(same, int((np.abs(one - two) == 1).sum()))


def gold_record(
    num_right: float,
    num_answers: int,
    *,
    threshold: float = 0.75,
    certainty: float = 0.9,
    min_answers: int = 8,
    prior: tuple[float, float] = (1.0, 1.0),
    level: float = 0.95,
) -> GoldRecord:
    """Judge answers to gold pairs by a Beta posterior of the accuracy.

    accuracy ~ Beta(prior_right + right, prior_wrong + wrong); alert when
    P(accuracy < threshold) > certainty after at least `min_answers` answers.

    Args:
        num_right: right answers, a neutral one may count half.
        num_answers: all answers to gold pairs.
        threshold, certainty, min_answers: the rule.
        prior: imagined right and wrong answers; above 0.
        level: in (0, 1).

    Raises:
        DataError: num_right outside [0, num_answers].
        ConfigError: threshold, certainty or prior out of range.
    """
    if not 0 <= num_right <= num_answers:
        raise DataError(f"found {num_right} right answers of {num_answers}")
    if not (0 < threshold < 1 and 0 < certainty < 1 and min(prior) > 0):
        raise ConfigError(
            f"found threshold {threshold}, certainty {certainty} and prior {prior}; expected the "
            "first two in (0, 1) and the prior above 0"
        )
    tail = tail_share(level)
    posterior = stats.beta(prior[0] + num_right, prior[1] + num_answers - num_right)
    low, high = posterior.ppf([tail, 1 - tail])
    p_low = float(posterior.cdf(threshold))
    accuracy = Interval(float(posterior.mean()), float(low), float(high), num_answers)
    alert = num_answers >= min_answers and p_low > certainty
    return GoldRecord(accuracy, int(num_right), p_low, alert)


def longest_run(answers: Sequence[object]) -> int:
    """Count the longest run of equal answers in a row."""
    best = run = 0
    for place, answer in enumerate(answers):
        run = run + 1 if place and answer == answers[place - 1] else 1
        best = max(best, run)
    return best


def runs_test(chose_left: ArrayLike) -> Runs | Undefined:
    """Test whether sides follow each other as in a shuffled order: long runs, or alternation.

    Given L left and R right answers every order is as likely, and the number of runs of equal
    answers has a known distribution. Neutral answers are left out.

    Args:
        chose_left: [N] in the order of answering: 1, 0 or 0.5.

    Returns:
        Exact tails; `Undefined` without two answers of each side.

    Source: Wald and Wolfowitz 1940.
    """
    said = _outcomes(chose_left)
    said = said[said != 0.5]
    left, right = int(said.sum()), int((1 - said).sum())
    if min(left, right) < 2:
        return Undefined("there are fewer than two answers of each side", left + right)
    runs = 1 + int((np.diff(said) != 0).sum())
    pmf = _runs_distribution(left, right)
    few, many = float(pmf[: runs + 1].sum()), float(pmf[runs:].sum())
    return Runs(runs, few, many, left + right)


def _runs_distribution(left: int, right: int) -> NDArray:
    """P(number of runs = r) for r = 0 .. left + right, all orders equally likely."""
    r = np.arange(left + right + 1)
    half = r // 2
    even = np.log(2) + _choose(left - 1, half - 1) + _choose(right - 1, half - 1)
    odd = np.logaddexp(
        _choose(left - 1, half) + _choose(right - 1, half - 1),
        _choose(left - 1, half - 1) + _choose(right - 1, half),
    )
    log_p = np.where(r % 2 == 0, even, odd) - _choose(left + right, np.array([left]))
    return np.where(r >= 2, np.exp(log_p), 0.0)


def _choose(n: int, k: NDArray) -> NDArray:
    """log C(n, k); -inf outside 0 <= k <= n."""
    inside = np.clip(k, 0, n)
    log_c = -np.log(n + 1) - betaln(n - inside + 1, inside + 1)
    return np.where((k >= 0) & (k <= n), log_c, -np.inf)


def answer_entropy(answers: Sequence[object], num_values: int) -> float:
    """Compute the entropy of a person's answers as a share of the most it could be.

    -sum p log p / log num_values, in [0, 1]: 0 where they always gave one answer.

    Args:
        answers: at least one.
        num_values: how many different answers could be given, at least 2.
    """
    values, counts = np.unique([repr(a) for a in answers], return_counts=True)
    if not len(answers) or num_values < max(2, len(values)):
        raise DataError(
            f"found {len(answers)} answers of {len(values)} kinds and num_values {num_values}; "
            "expected answers, and as many values as there are kinds, at least 2"
        )
    share = counts / counts.sum()
    return float(max(0.0, -(share * np.log(share)).sum() / np.log(num_values)))


def gold_weight(record: GoldRecord) -> float:
    """Weigh a person's votes by the log-odds of their accuracy on gold; 0 at one half or below.

    log(p / (1 - p)) is the weight under which a weighted majority is most often right when people
    err independently. Their answers stay where they are.

    Source: Nitzan and Paroush 1982.
    """
    p = record.accuracy.estimate
    return float(max(0.0, np.log(p / (1 - p))))


def quality_alerts(
    *,
    gold: GoldRecord | None = None,
    sides: SideRate | None = None,
    consistency: Consistency | None = None,
    order: Runs | Undefined | None = None,
    p_value: float = 0.001,
    min_consistency: float = 0.6,
) -> tuple[Alert, ...]:
    """Say what about one person should be looked at.

    Args:
        gold, sides, consistency, order: what `gold_record`, `side_rate`, `self_consistency` and
            `runs_test` gave; None for what was not measured.
        p_value: below this, sides or their order are not what chance gives.
        min_consistency: an alert when the whole interval of the share lies below.

    Returns:
        Alerts of different kinds, each once. Add those of `answer_times` and `drift`.
    """
    alerts = []
    if gold is not None and gold.alert:
        text = f"accuracy on gold pairs is {gold.accuracy}"
        alerts.append(Alert("gold", text, gold.accuracy.n))
    if sides is not None and sides.p_value is not None and sides.p_value < p_value:
        text = f"the left of the screen is chosen in {sides.rate}, p = {sides.p_value:.2g}"
        alerts.append(Alert("side", text, sides.rate.n))
    same = None if consistency is None else consistency.same
    if isinstance(same, Interval) and same.high < min_consistency:
        alerts.append(Alert("consistency", f"own pairs shown again agree in {same}", same.n))
    if isinstance(order, Runs) and order.p_value < p_value:
        seen = "long runs of one side" if order.few < order.many else "sides in alternation"
        alerts.append(Alert("pattern", f"{seen}, p = {order.p_value:.2g}", order.n))
    return tuple(alerts)


def suggest_pause(alerts: Sequence[Alert]) -> bool:
    """Say whether to ask a person in charge about a pause: two alerts of different kinds.

    It pauses nobody.
    """
    return len({alert.kind for alert in alerts}) >= 2


def _outcomes(values: ArrayLike) -> NDArray:
    said = np.asarray(values, dtype=float)
    if said.ndim != 1 or not np.isin(said, (0.0, 0.5, 1.0)).all():
        raise DataError("an answer is neither 0, 0.5 nor 1; leave out what nobody could judge")
    return said
