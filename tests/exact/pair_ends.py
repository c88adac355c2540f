"""Where each loss of pairs ends, worked out apart from heed's code.

A pair with label p is p f(w, l) + (1 - p) f(l, w). Where f reads the difference D of two
log-ratios, pairs that form a star leave each difference free, and each comes to the D at which the
derivative vanishes. Where f reads each side for itself, pairs that share no completion leave each
side free, as long as one completion is in no pair and takes what probability is left. Losses that
add a likelihood tie all completions together; their least is searched for in the plain formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import brentq, least_squares, minimize
from tests.exact.offline import (
    BETA,
    apart,
    every_pair,
    good,
    good_and_bad,
    matching,
    spare,
    star,
    sure_apart,
    sure_star,
)

from heed.algorithms.reward import PairRows
from heed.worlds.tabular import Tabular

Vector = np.ndarray
E = 0.1
"""Label smoothing."""


@dataclass(frozen=True)
class End:
    """One loss, its pairs, and the policy at which it is least.

    Args:
        loss: name in the table of losses.
        words: where it ends.
        pairs: of a world.
        at: of a world, [9].
        how: the choice of settings in words, where there is one.
        settings: beside `loss_type`.
        steps: of the run.
        near: where several policies are as good, the one of them that is like a given policy.
    """

    loss: str
    words: str
    pairs: Callable[[Tabular], list[PairRows]]
    at: Callable[[Tabular], Vector]
    how: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 150
    near: Callable[[Tabular, Vector], Vector] | None = None

    def for_one(self, world: Tabular, policy: Vector) -> Vector:
        """The end that a policy is measured from."""
        return self.at(world) if self.near is None else self.near(world, policy)


def logit(p: Vector) -> Vector:
    return np.log(p / (1 - p))


def log_sigmoid(z: Vector) -> Vector:
    return -np.logaddexp(0.0, -z)


def normalised(weights: Vector) -> Vector:
    return weights / weights.sum()


def of_star(world: Tabular) -> Vector:
    """[8] probabilities that completion 0 is better."""
    return np.array([world.preference(0, j) for j in range(1, 9)])


def differs(gap: Callable[[Vector], Vector], *, free: bool = False) -> Callable[[Tabular], Vector]:
    """The policy whose log-ratios differ from completion 0's by `gap(p)`.

    Args:
        free: of log-probabilities in the place of log-ratios.
    """

    def at(world: Tabular) -> Vector:
        start = np.ones(9) if free else world.reference
        return normalised(start * np.exp(-np.append(0.0, gap(of_star(world)))))

    return at


def heights(of: Callable[[float], float]) -> Callable[[Tabular], Vector]:
    """The policy whose log-ratio is `of(p)` for a completion that is better with probability p."""

    def at(world: Tabular) -> Vector:
        policy = world.reference.copy()
        for better, worse, p in matching(world):
            policy[better] *= np.exp(of(p))
            policy[worse] *= np.exp(of(1 - p))
        policy[spare(world)] = 0.0
        policy[spare(world)] = 1.0 - policy.sum()
        assert policy[spare(world)] > 0, "the sides are not free: what they ask for is above 1"
        return policy

    return at


def given_good(world: Tabular) -> Vector:
    """The reference, where a completion is good."""
    return normalised(np.where(good(world), world.reference, 0.0))


def least(loss: Callable[[Vector, Vector, Vector], Vector]) -> Callable[[Tabular], Vector]:
    """The policy with the least mean over the star of `loss(l, a, p)`, by search.

    `l` [9] are log-probabilities, `a` [9] log-ratios, `p` [8] labels; the loss has a value a pair.
    """

    def at(world: Tabular) -> Vector:
        p, reference = of_star(world), np.log(world.reference)

        def of(logits: Vector) -> float:
            logp = logits - np.logaddexp.reduce(logits)
            return float(loss(logp, logp - reference, p).mean() + 1e-9 * logits.mean() ** 2)

        found = minimize(of, reference, method="BFGS", options={"gtol": 1e-8})
        return normalised(np.exp(found.x - found.x.max()))

    return at


def likelihood(logp: Vector, p: Vector) -> Vector:
    """Of the better side of each pair of a star, expected under the label."""
    return p * logp[0] + (1 - p) * logp[1:]


def soft_dpo(z: Vector, p: Vector) -> Vector:
    return -p * log_sigmoid(z) - (1 - p) * log_sigmoid(-z)


def _rpo(logp: Vector, ratio: Vector, p: Vector) -> Vector:
    return soft_dpo(BETA * (ratio[0] - ratio[1:]), p) - likelihood(logp, p) / 2


def _cpo(logp: Vector, ratio: Vector, p: Vector) -> Vector:
    return soft_dpo(BETA * (logp[0] - logp[1:]), p) - likelihood(logp, p) / 2


def _orpo(logp: Vector, ratio: Vector, p: Vector) -> Vector:
    odds = logp / 2 - np.log(-np.expm1(logp / 2))
    return soft_dpo(odds[0] - odds[1:], p) * BETA - likelihood(logp, p) / 2


def _discopop(p: Vector, tau: float = 1.0) -> Vector:
    """The z of least loss for each label, on a fine grid."""
    z = np.linspace(-12.0, 12.0, 240_001)

    def side(z: Vector) -> Vector:
        mix = np.exp(log_sigmoid(z / tau))
        return -(1 - mix) * log_sigmoid(z) + mix * np.exp(-z)

    one, other = side(z), side(-z)
    return np.array([z[(q * one + (1 - q) * other).argmin()] for q in p])


def _simpo_root(p: Vector, gamma: float) -> Vector:
    """z with p sig(gamma - z) = (1 - p) sig(gamma + z): a square equation of exp z."""
    half = np.exp(gamma) * (2 * p - 1)
    return np.log((half + np.sqrt(half**2 + 4 * p * (1 - p))) / (2 * (1 - p)))


def _alphapo(alpha: float, beta: float, gamma: float) -> Callable[[Tabular], Vector]:
    def at(world: Tabular) -> Vector:
        gaps = np.append(0.0, _simpo_root(of_star(world), gamma)) / beta

        def policy(first: float) -> Vector:
            return np.asarray(np.exp(-2 * np.log1p(-alpha * (first - gaps)) / alpha))

        most = float((1 / alpha + gaps).min()) - 1e-9
        root = brentq(lambda first: policy(first).sum() - 1.0, -50.0, most)
        return policy(root)

    return at


def _of_second(world: Tabular, logits: Vector) -> tuple[Vector, Vector, Vector, Vector]:
    """Log-ratios, the KL of the second token after the first, and the slopes of the whole KLs."""
    policy, joint = normalised(np.exp(logits)), world.reference.reshape(3, 3)
    at, later = policy.reshape(3, 3), joint / joint.sum(1, keepdims=True)
    second = at / at.sum(1, keepdims=True)
    drift = np.repeat((later * np.log(later / second)).sum(1), 3)
    of_first = policy - (joint.sum(1, keepdims=True) * second).ravel()
    slopes = np.zeros((9, 9))
    for i in range(9):
        rows = slice(3 * (i // 3), 3 * (i // 3) + 3)
        slopes[i, rows] = (second - later)[i // 3]
    return np.log(policy / world.reference), drift, np.eye(9) - policy, slopes + of_first


def _tdpo(alpha: float | None) -> Callable[[Tabular], Vector]:
    """Where the gradient vanishes; that of TDPO2 (`alpha`) leaves the better side's KL out.

    All pairs share the first token's KL, which takes no part in a difference.
    """

    def at(world: Tabular) -> Vector:
        p = of_star(world)

        def gap(logits: Vector) -> Vector:
            ratio, drift, of_ratio, of_kl = _of_second(world, logits)
            share = 1.0 if alpha is None else alpha
            z = BETA * (ratio[0] - ratio[1:] + share * (drift[0] - drift[1:]))
            if alpha is None:
                return np.append(z - logit(p), logits.sum())
            win = np.exp(log_sigmoid(z))
            pull = -p * (1 - win), (1 - p) * win
            apart = of_ratio[0] - of_ratio[1:]
            sides = apart - alpha * of_kl[1:], apart + alpha * of_kl[0]
            return np.append(pull[0] @ sides[0] + pull[1] @ sides[1], logits.sum())

        start = np.log(world.optimum(BETA))
        found = least_squares(gap, start - start.mean(), xtol=1e-15, ftol=1e-15, gtol=1e-15)
        assert np.abs(gap(found.x)).max() < 1e-8
        return normalised(np.exp(found.x))

    return at


def _same_order(world: Tabular, policy: Vector) -> Vector:
    """Margins of the star that are the reference's and as much more, in the policy's order."""
    wanted = np.sort(np.log(world.reference[0] / world.reference[1:])) + _SURE / 2
    rank = np.log(policy[0] / policy[1:]).argsort().argsort()
    return normalised(np.append(1.0, np.exp(-wanted[rank])))


def _shares(world: Tabular) -> Vector:
    """How often each completion of the star is the better one."""
    p = of_star(world)
    return np.append(p.sum(), 1 - p) / 8


def _nothing_but_the_spare(world: Tabular) -> Vector:
    return np.eye(9)[spare(world)]


_SMOOTHED = {"label_smoothing": E}
_SIMPO = {"beta": 2.0, "simpo_gamma": 1.0}
_SURE = float(logit(np.array(1 - E)))

ENDS: tuple[End, ...] = (
    End("sigmoid", "`ref exp(r / beta) / Z`", every_pair, lambda w: w.optimum(BETA)),
    End("cdpo", "`beta D = logit(p (1 - 2 e) + e)`", star,
        differs(lambda p: logit(p * (1 - 2 * E) + E) / BETA), "e 0.1", _SMOOTHED),
    End("robust", "`ref exp(r / beta) / Z`", lambda w: every_pair(w, flip=0.2),
        lambda w: w.optimum(BETA), "20 % of labels flipped", {"label_smoothing": 0.2}),
    End("hinge", "`beta D = 1` for the likelier side", star,
        differs(lambda p: np.sign(p - 0.5) / BETA), steps=300),
    End("ipo", "`D = (p - 1/2) / beta` a token", star,
        differs(lambda p: 2 * (p - 0.5) / BETA)),
    End("ipo_sum", "`D = (p - 1/2) / beta`", star, differs(lambda p: (p - 0.5) / BETA)),
    End("exo_pair", "`beta D = logit(p (1 - 2 e) + e)`", star,
        differs(lambda p: logit(p * (1 - 2 * E) + E) / BETA), "e 0.1", _SMOOTHED),
    End("nca_pair", "`beta a = log(2 p)`, pairs apart", apart,
        heights(lambda p: float(np.log(2 * p))), "beta 1", {"beta": 1.0}),
    End("bco_pair", "`beta a = logit(p)`, pairs apart", apart,
        heights(lambda p: float(logit(np.array(p))) / 4), "beta 4", {"beta": 4.0}),
    End("sppo_hard", "`a = 1 / (2 beta)`, rejected less by as much, pairs apart", sure_apart,
        heights(lambda p: (0.5 if p > 0.5 else -0.5) / 2), "beta 2", {"beta": 2.0}),
    End("sppo", "`a = (p - 1/2) / beta`, pairs apart", apart,
        heights(lambda p: (p - 0.5) / 2), "beta 2", {"beta": 2.0}),
    End("aot", "margins `logit(1 - e) / beta` beyond the reference's, rank by rank", sure_star,
        differs(lambda p: np.full(8, _SURE / 2)), "e 0.1, beta 2", {**_SMOOTHED, "beta": 2.0},
        near=_same_order),
    End("aot_unpaired", "chosen log-ratios `logit(1 - e) / beta` beyond rejected ones", sure_star,
        differs(lambda p: np.full(8, _SURE / 2)), "e 0.1, beta 2", {**_SMOOTHED, "beta": 2.0}),
    End("apo_zero", "the reference given good", good_and_bad, given_good, steps=300),
    End("apo_down", "what no pair speaks of", sure_apart, _nothing_but_the_spare, steps=300),
    End("discopop", "`beta D` at the least of its curve, by search", star,
        differs(lambda p: _discopop(p) / BETA), "tau 1; at 0.05 the curve has several minima",
        {"discopop_tau": 1.0}),
    End("sigmoid_norm", "`beta D = logit(p)` a token", star,
        differs(lambda p: 2 * logit(p) / BETA)),
    End("rpo", "the least of DPO and likelihood, by search", star, least(_rpo)),
    End("rdpo", "`beta D = logit(p) - alpha (n_w - n_l)`", lambda w: star(w, longer=3),
        differs(lambda p: (logit(p) - 3 * 0.2) / BETA), "one side 3 tokens longer, alpha 0.2",
        {"rdpo_alpha": 0.2}),
    End("tdpo1", "`beta (D - K_l + K_w) = logit(p)`, by search", star, _tdpo(None),
        steps=300),
    End("tdpo2", "nearer to the reference: where its gradient vanishes, by search", star,
        _tdpo(0.5), steps=300),
    End("slic", "likelihoods apart by `delta`", star,
        differs(lambda p: np.sign(p - 0.5), free=True), "lambda 0", {"slic_lambda": 0.0},
        steps=300),
    End("cpo", "`exp(r / beta) / Z`, as of a uniform reference", every_pair,
        lambda w: Tabular(np.full(9, 1 / 9), w.rewards).optimum(BETA), "`cpo_alpha` 0",
        {"cpo_alpha": 0.0}),
    End("cpo", "the least of both terms, by search", star, least(_cpo)),
    End("simpo", "`p sig(gamma - z) = (1 - p) sig(gamma + z)`, `z = beta D` a token", star,
        differs(lambda p: 2 * _simpo_root(p, 1.0) / 2.0, free=True), "beta 2, gamma 1", _SIMPO,
        steps=300),
    End("alphapo", "the same `z`, of bent rewards", star, _alphapo(0.5, 2.0, 1.0),
        "beta 2, gamma 1, alpha 0.5", {**_SIMPO, "alphapo_alpha": 0.5}),
    End("orpo", "the least of likelihood and odds, by search", star, least(_orpo)),
    End("sft", "the shares of the better replies", star, _shares),
)  # fmt: skip
"""Every loss; D is the difference of log-ratios `a`, of log-probabilities from slic on."""
