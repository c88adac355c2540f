"""Which pairs to ask about next, with the probability of each choice, so that nothing is biased.

A score says how much a pair would teach; a target [N] says with which probability each candidate
should be asked (they add up to the number asked); `select` mixes the target with a uniform share
and draws. Estimates from what was asked are made whole again by `reweighted_mean`.

`gaps` [K, N] are score differences left minus right, in nats, by K members of an ensemble.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import entr, expit

from heed.errors import ConfigError, DataError
from heed.stats.intervals import Interval, tail_share

Of = Literal["logit", "probability", "label"]


@dataclass(frozen=True)
class Selection:
    """What was chosen: `index` [n] of the candidates, each one's probability of being chosen, and
    whether it belongs to the uniform share, which is a fair sample of all candidates by itself."""

    index: NDArray
    probability: NDArray
    uniform: NDArray


def ensemble_variance(gaps: ArrayLike, of: Of = "logit") -> NDArray:
    """Score pairs by the variance over the ensemble of the gap, of sigmoid(gap) or of gap > 0. [N].

    Source: Christiano et al. 2017, section 2.2.4 (of the label).
    """
    table = _gaps(gaps)
    if of == "logit":
        return table.var(0)
    # Equal scores prefer neither side.
    return (expit(table) if of == "probability" else (np.sign(table) + 1) / 2).var(0)


def entropy(gaps: ArrayLike) -> NDArray:
    """Score pairs by the entropy of the answer that the ensemble expects, nats. [N]."""
    return _entropy(expit(_gaps(gaps)).mean(0))


def bald(gaps: ArrayLike) -> NDArray:
    """Score pairs by what the answer would tell about which member is right, nats. [N].

    H(mean_k p_k) - mean_k H(p_k) with p_k = sigmoid(gap_k): 0 where the members agree, however
    unsure they are, at most log 2.

    Source: Houlsby et al. 2011.
    """
    p = expit(_gaps(gaps))
    return np.maximum(_entropy(p.mean(0)) - _entropy(p).mean(0), 0.0)


def top_vs_rest(left: ArrayLike, right: ArrayLike, strengths: ArrayLike) -> NDArray:
    """Score pairs that contain the best item by how unsure it is that it beats the other. [N].

    min(q, 1 - q) with q the share of draws in which the other is ahead; 0 for other pairs.

    Args:
        left, right: [N] item numbers.
        strengths: [R, M] draws of the strengths of M items, for example of `choice.resample`.
    """
    drawn = np.asarray(strengths, dtype=float)
    a, b = np.asarray(left), np.asarray(right)
    if drawn.ndim != 2 or a.shape != b.shape or a.ndim != 1:
        raise DataError(f"found strengths {drawn.shape}, left {a.shape} and right {b.shape}")
    best = int(drawn.mean(0).argmax())
    other = np.where(a == best, b, a)
    ahead = drawn[:, other] - drawn[:, [best]]
    q = (ahead > 0).mean(0) + (ahead == 0).mean(0) / 2
    return np.where((a == best) != (b == best), np.minimum(q, 1 - q), 0.0)


def near_policy(ratio_left: ArrayLike, ratio_right: ArrayLike) -> NDArray:
    """Score pairs by how near both completions are to what the policy writes now. [N].

    -(|r_left| + |r_right|) / 2 with r = (log pi_now - log pi_sampled) / tokens, nats per token: 0
    for a policy that has not moved since.
    """
    one, other = np.asarray(ratio_left, dtype=float), np.asarray(ratio_right, dtype=float)
    if one.shape != other.shape or one.ndim != 1:
        raise DataError(f"found ratios {one.shape} and {other.shape}; expected [N] each")
    return -(np.abs(one) + np.abs(other)) / 2


def k_center(features: ArrayLike, num: int, taken: Sequence[int] = ()) -> NDArray:
    """Choose candidates that cover the features: each time the one farthest from all chosen. [num].

    Args:
        features: [N, D], compared by Euclidean distance.
        num: how many, at most N less those taken.
        taken: candidates that have labels already; none begins with the one nearest to the mean.

    Source: Gonzalez 1985; Sener and Savarese 2018.
    """
    x = np.asarray(features, dtype=float)
    if x.ndim != 2 or not 0 <= num <= len(x) - len(taken):
        raise DataError(
            f"asked for {num} of features {x.shape} with {len(taken)} taken; expected [N, D]"
        )
    distance = np.full(len(x), np.inf)
    for place in taken:
        distance = np.minimum(distance, ((x - x[place]) ** 2).sum(1))
        distance[place] = -np.inf
    chosen: list[int] = []
    while len(chosen) < num:
        fresh = not (len(taken) or chosen)
        place = int(((x - x.mean(0)) ** 2).sum(1).argmin() if fresh else distance.argmax())
        chosen.append(place)
        distance = np.minimum(distance, ((x - x[place]) ** 2).sum(1))
        distance[place] = -np.inf
    return np.array(chosen, dtype=int)


def k_center_disagree(features: ArrayLike, scores: ArrayLike, num: int, pool: int = 10) -> NDArray:
    """Choose by `k_center` among the `pool` times `num` candidates of highest score. [num].

    Source: B-Pref (Lee et al. 2021), hybrid sampling.
    """
    x, s = np.asarray(features, dtype=float), np.asarray(scores, dtype=float)
    if len(x) != len(s) or pool < 1:
        raise DataError(f"found {len(x)} features, {len(s)} scores and pool {pool}")
    among = np.argsort(-s, kind="stable")[: pool * num]
    return among[k_center(x[among], num)]


def top(scores: ArrayLike, num: int) -> NDArray:
    """Target the `num` highest scores; equal scores at the border share what is left. [N]."""
    s = _scores(scores, num)
    target = np.zeros(len(s))
    if num:
        border = np.partition(s, len(s) - num)[len(s) - num]
        above, at = s > border, s == border
        target[above] = 1.0
        target[at] = (num - above.sum()) / at.sum()
    return target


def proportional(scores: ArrayLike, num: int) -> NDArray:
    """Target candidates in proportion to their scores, none above 1. [N].

    Args:
        scores: [N], 0 or above, at least `num` of them above 0.
    """
    s = _scores(scores, num)
    if (s < 0).any() or (s > 0).sum() < num:
        raise DataError(f"expected scores of 0 or above, {num} of them above 0; mix with uniform")
    target, sure = np.zeros(len(s)), np.zeros(len(s), bool)
    for _ in range(len(s)):
        rest = np.where(sure, 0.0, s)
        share = (num - sure.sum()) * rest / max(rest.sum(), np.finfo(float).tiny)
        target = np.where(sure, 1.0, share)
        over = target > 1
        if not over.any():
            break
        sure |= over
    return target


def listed(index: ArrayLike, num_candidates: int) -> NDArray:
    """Target exactly the candidates that are listed, for example by `k_center`. [N]."""
    target = np.zeros(num_candidates)
    target[np.asarray(index, dtype=int)] = 1.0
    return target


def select(target: ArrayLike, *, rng: np.random.Generator, uniform_share: float = 0.3) -> Selection:
    """Draw as many candidates as the target adds up to.

    probability_i = u n / N + (1 - u) target_i, met exactly by systematic sampling of a shuffled
    list, without repeats. A chosen candidate belongs to the uniform share with probability
    (u n / N) / probability_i, which makes that share a fair sample: every candidate has the
    chance u n / N. With u above 0 every candidate can be chosen, so estimates can be reweighted.

    Args:
        target: [N] in [0, 1], adding up to a whole number n; np.full(N, n / N) for uniform.
        rng: the source of randomness.
        uniform_share: u in [0, 1].

    Raises:
        DataError: a target outside [0, 1], or that does not add up to a whole number.
    """
    aim = np.asarray(target, dtype=float)
    num = round(float(aim.sum())) if aim.ndim == 1 else -1
    if num < 0 or (aim < 0).any() or (aim > 1).any() or abs(aim.sum() - num) > 1e-6:
        raise DataError(
            "the target is not [N] probabilities that add up to a whole number; make it with top, "
            "proportional or listed"
        )
    if not 0 <= uniform_share <= 1:
        raise ConfigError(f"uniform_share is {uniform_share}, expected in [0, 1]")
    fair = uniform_share * num / max(len(aim), 1)
    probability = np.minimum(fair + (1 - uniform_share) * aim, 1.0)
    order = rng.permutation(len(aim))
    ends = np.cumsum(probability[order])
    if num:
        ends *= num / ends[-1]
    marks = rng.random() + np.arange(num)
    index = order[np.minimum(np.searchsorted(ends, marks, side="right"), len(aim) - 1)]
    uniform = rng.random(num) < fair / probability[index]
    return Selection(index, probability[index], uniform)


def reweighted_mean(
    values: ArrayLike, probability: ArrayLike, num_candidates: int, level: float = 0.95
) -> Interval:
    """Estimate the mean over all candidates from those that were chosen, without bias.

    sum_i y_i / probability_i / N, over the chosen. The interval takes the draws as independent,
    which is a little wide for draws without repeats.

    Args:
        values: [n] of the chosen, for example whether a model was right.
        probability: [n] of `Selection`; several rounds can be joined.
        num_candidates: N, of all rounds together.
        level: in (0, 1).

    Raises:
        DataError: no values, lists of different lengths, or a probability outside (0, 1].

    Source: Horvitz and Thompson 1952; the variance Hansen and Hurwitz 1943.
    """
    y, p = np.asarray(values, dtype=float), np.asarray(probability, dtype=float)
    if y.shape != p.shape or y.ndim != 1 or not len(y) or (p <= 0).any() or (p > 1).any():
        raise DataError(
            f"found values {y.shape} and probabilities {p.shape}; expected [n] each, at least one, "
            "and probabilities in (0, 1]"
        )
    z = len(y) * y / p / num_candidates
    error = z.std(ddof=1) / np.sqrt(len(z)) if len(z) > 1 else np.inf
    half = float(stats.norm.ppf(1 - tail_share(level)) * error)
    estimate = float(z.mean())
    return Interval(estimate, estimate - half, estimate + half, len(y))


def _entropy(p: NDArray) -> NDArray:
    return np.asarray(entr(p) + entr(1 - p))


def _gaps(gaps: ArrayLike) -> NDArray:
    table = np.asarray(gaps, dtype=float)
    if table.ndim != 2 or not len(table) or not np.isfinite(table).all():
        raise DataError(f"found gaps {table.shape}; expected [members, pairs], all finite")
    return table


def _scores(scores: ArrayLike, num: int) -> NDArray:
    s = np.asarray(scores, dtype=float)
    if s.ndim != 1 or not np.isfinite(s).all() or not 0 <= num <= len(s):
        raise DataError(f"asked for {num} of scores {s.shape}; expected [N], finite, num up to N")
    return s
