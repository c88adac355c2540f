"""Losses of pairs under a policy with a reference: one value per pair, unreduced.

`chosen` and `rejected` are log-ratios a = log pi(reply) - log ref(reply) in nats [B], summed over
the reply's tokens (or their means, where a row of the method's table says so); Delta is their
difference. With plain log-probabilities in their place a loss is reference-free.

`p` [B] is the probability that chosen is better, None for 1. A loss of a label that is p is what
the labels of many labellers give on average, p loss(chosen, rejected) + (1 - p) loss(rejected,
chosen), up to a constant; so turning a pair round with 1 - p changes nothing, and in a tie neither
side is favoured. The losses at the end sort the whole batch and know no soft labels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from heed.errors import ConfigError, DataError
from heed.losses.reward import bradley_terry


def dpo(
    chosen: Tensor,
    rejected: Tensor,
    beta: float,
    p: Tensor | None = None,
    label_smoothing: float = 0.0,
    margin: Tensor | None = None,
) -> Tensor:
    """Fit the difference of implicit rewards beta a by Bradley-Terry (DPO, conservative DPO).

    z = beta Delta - margin;  q = p (1 - e) + (1 - p) e
    loss = -q log sigmoid(z) - (1 - q) log sigmoid(-z), smallest at z = log(q / (1 - q))

    Args:
        label_smoothing: e in [0, 0.5); above 0 the loss is conservative DPO.
        margin: [B] or None; minus alpha (tokens of chosen - tokens of rejected) gives R-DPO.

    Source: Rafailov et al. 2023, equation 7; Mitchell 2023, note on noisy preferences; R-DPO Park
    et al. 2024.
    """
    _check(chosen, rejected, p, beta)
    return bradley_terry(beta * chosen, beta * rejected, p, margin, label_smoothing)


def robust(
    chosen: Tensor,
    rejected: Tensor,
    beta: float,
    label_smoothing: float,
    p: Tensor | None = None,
) -> Tensor:
    """DPO that is unbiased where a share e of the labels is flipped.

    loss = [ -(1 - e) log sigmoid(beta Delta) + e log sigmoid(-beta Delta) ] / (1 - 2 e)

    Not bounded below: for large Delta it falls by e / (1 - 2 e) a nat.

    Args:
        label_smoothing: e in [0, 0.5), the rate of flips.

    Source: Ray Chowdhury et al. 2024 (robust DPO).
    """
    _check(chosen, rejected, p, beta)
    e = _smoothing(label_smoothing)

    def loss(z: Tensor) -> Tensor:
        return (-(1 - e) * F.logsigmoid(z) + e * F.logsigmoid(-z)) / (1 - 2 * e)

    return _of_difference(loss, beta * (chosen - rejected), p)


def hinge(
    chosen: Tensor, rejected: Tensor, beta: float, p: Tensor | None = None, delta: float = 1.0
) -> Tensor:
    """Ask that the implicit rewards differ by `delta`: max(0, delta - beta Delta).

    With log-probabilities and beta 1 it is the calibration term of SLiC.

    Source: Liu et al. 2023 (RSO); Zhao et al. 2023 (SLiC).
    """
    _check(chosen, rejected, p, beta)
    return _of_difference(lambda z: torch.relu(delta - z), beta * (chosen - rejected), p)


def ipo(chosen: Tensor, rejected: Tensor, beta: float, p: Tensor | None = None) -> Tensor:
    """Bring the difference of log-ratios to a finite target: (Delta - 1 / (2 beta))^2.

    Smallest at Delta = (p - 1/2) / beta. Give sums of log-ratios for the formula as printed, means
    over tokens for what its authors ran.

    Args:
        beta: the paper's tau, above 0.

    Source: Azar et al. 2023, equation 17.
    """
    _check(chosen, rejected, p, beta)
    target = 1.0 / (2.0 * beta)
    return _of_difference(lambda gap: (gap - target).square(), chosen - rejected, p)


def exo(
    chosen: Tensor,
    rejected: Tensor,
    beta: float,
    label_smoothing: float,
    p: Tensor | None = None,
) -> Tensor:
    """Reverse KL between the policy's and the labels' distribution over the two sides.

    q = sigmoid(beta Delta);  t = p (1 - e) + (1 - p) e
    loss = q (log q - log t) + (1 - q) (log(1 - q) - log(1 - t)), smallest at q = t

    Args:
        label_smoothing: e in (0, 0.5); the paper takes 0.001.

    Source: Ji et al. 2024, equation 16.
    """
    _check(chosen, rejected, p, beta)
    e = _smoothing(label_smoothing)
    if e == 0 and (p is None or bool(((p == 0) | (p == 1)).any())):
        raise ConfigError(
            "label_smoothing is 0, and EXO takes the logarithm of the label's probability; give "
            "a small one such as 0.001"
        )
    z = beta * (chosen - rejected)
    win = torch.ones_like(z) if p is None else p.to(z.dtype)
    # Both targets from the small number: 1 - (1 - e) would lose its digits in fp32.
    target, other = win * (1 - 2 * e) + e, (1.0 - win) * (1 - 2 * e) + e
    return z.sigmoid() * (F.logsigmoid(z) - target.log()) + (-z).sigmoid() * (
        F.logsigmoid(-z) - other.log()
    )


def nca(chosen: Tensor, rejected: Tensor, beta: float, p: Tensor | None = None) -> Tensor:
    """Noise contrastive alignment: raises chosen to a finite height and lowers rejected.

    r = beta a;  loss = -log sigmoid(r_w) - 0.5 log sigmoid(-r_w) - 0.5 log sigmoid(-r_l)

    Source: Chen et al. 2024 (NCA), with two replies.
    """
    _check(chosen, rejected, p, beta)

    def loss(good: Tensor, bad: Tensor) -> Tensor:
        return -F.logsigmoid(good) - 0.5 * F.logsigmoid(-good) - 0.5 * F.logsigmoid(-bad)

    return _of_sides(loss, beta * chosen, beta * rejected, p)


def bco_pair(chosen: Tensor, rejected: Tensor, beta: float, p: Tensor | None = None) -> Tensor:
    """Classify each side for itself: -log sigmoid(beta a_w) - log sigmoid(-beta a_l).

    Source: Jung et al. 2024, on pairs and without the reward shift, as in TRL.
    """
    _check(chosen, rejected, p, beta)

    def loss(good: Tensor, bad: Tensor) -> Tensor:
        return -F.logsigmoid(good) - F.logsigmoid(-bad)

    return _of_sides(loss, beta * chosen, beta * rejected, p)


def sppo(chosen: Tensor, rejected: Tensor, beta: float, p: Tensor | None = None) -> Tensor:
    """Bring each log-ratio to what self-play asks: its win probability over one half, by beta.

    loss = (a_w - (p - 1/2) / beta)^2 + (a_l - (1/2 - p) / beta)^2

    Without p the win probability is 1 (`sppo_hard`).

    Source: Wu et al. 2024, equation 4.7; its code halves the sum.
    """
    _check(chosen, rejected, p, beta)
    win = torch.ones_like(chosen) if p is None else p.to(chosen.dtype)
    target = (win - 0.5) / beta
    return (chosen - target).square() + (rejected + target).square()


def apo_zero(chosen: Tensor, rejected: Tensor, beta: float, p: Tensor | None = None) -> Tensor:
    """Raise chosen and lower rejected: 1 - sigmoid(beta a_w) + sigmoid(beta a_l).

    For chosen replies that are better than the model's own.

    Source: D'Oosterlinck et al. 2024, equation 7.
    """
    _check(chosen, rejected, p, beta)

    def loss(good: Tensor, bad: Tensor) -> Tensor:
        return 1.0 - good.sigmoid() + bad.sigmoid()

    return _of_sides(loss, beta * chosen, beta * rejected, p)


def apo_down(chosen: Tensor, rejected: Tensor, beta: float, p: Tensor | None = None) -> Tensor:
    """Lower both, rejected more: sigmoid(beta a_w) + 1 - sigmoid(beta Delta).

    For a model whose own replies are better than the chosen ones.

    Source: D'Oosterlinck et al. 2024, equation 8.
    """
    _check(chosen, rejected, p, beta)

    def loss(good: Tensor, bad: Tensor) -> Tensor:
        return good.sigmoid() + 1.0 - (good - bad).sigmoid()

    return _of_sides(loss, beta * chosen, beta * rejected, p)


def discopop(
    chosen: Tensor, rejected: Tensor, beta: float, tau: float = 0.05, p: Tensor | None = None
) -> Tensor:
    """Blend the logistic with the exponential loss where the pair is right already.

    z = beta Delta;  m = sigmoid(z / tau);  loss = (1 - m) (-log sigmoid(z)) + m exp(-z)

    Not convex. Source: Lu et al. 2024, equation 5.
    """
    _check(chosen, rejected, p, beta)
    if not tau > 0:
        raise ConfigError(f"discopop_tau is {tau}, expected above 0")

    def loss(z: Tensor) -> Tensor:
        mix = (z / tau).sigmoid()
        return -(1.0 - mix) * F.logsigmoid(z) + mix * torch.exp(-z)

    return _of_difference(loss, beta * (chosen - rejected), p)


def tdpo(
    chosen: Tensor,
    rejected: Tensor,
    chosen_kl: Tensor,
    rejected_kl: Tensor,
    beta: float,
    alpha: float | None = None,
    p: Tensor | None = None,
) -> Tensor:
    """DPO with the replies' sequence KL, so that rejected is not left further behind by drift.

    K = sum over the reply's tokens of KL(ref || pi)
    TDPO1: -log sigmoid( beta [Delta - (K_l - K_w)] )
    TDPO2: -log sigmoid( beta [Delta - alpha (K_l - stop_gradient(K_w))] )

    Args:
        chosen_kl, rejected_kl: [B] nats, with gradient.
        alpha: None for TDPO1, a number for TDPO2.

    Source: Zeng et al. 2024 (TDPO).
    """
    _check(chosen, rejected, p, beta)

    def loss(good: tuple[Tensor, Tensor], bad: tuple[Tensor, Tensor]) -> Tensor:
        drift = bad[1] - good[1] if alpha is None else alpha * (bad[1] - good[1].detach())
        return -F.logsigmoid(beta * (good[0] - bad[0] - drift))

    values = loss((chosen, chosen_kl), (rejected, rejected_kl))
    if p is None:
        return values
    other = loss((rejected, rejected_kl), (chosen, chosen_kl))
    return p.to(values.dtype) * values + (1.0 - p.to(values.dtype)) * other


# -- losses that sort the whole batch -------------------------------------------------------------


def same_rank(own: Tensor, other: Tensor) -> Tensor:
    """For each entry of `own` [B], the entry of `other` [B] that has the same rank there.

    Both of the whole batch; a micro-batch's share of it is what makes a sorted loss exact.
    """
    rank = own.argsort(stable=True).argsort(stable=True)
    return other.sort().values[rank]


def aot(
    spread: Tensor, reference_spread: Tensor, beta: float, label_smoothing: float = 0.0
) -> Tensor:
    """Ask that the policy's spreads dominate the reference's, rank by rank.

    u = log pi(chosen) - log pi(rejected), v likewise of the reference, both sorted over the batch
    loss = -(1 - e) log sigmoid(beta (u - v)) - e log sigmoid(-beta (u - v))

    Args:
        spread: [B] u, in any order.
        reference_spread: [B] the v of the same rank (`same_rank` over the whole batch).

    Source: Melnyk et al. 2024 (AOT, paired).
    """
    e = _smoothing(label_smoothing)
    z = beta * (spread - reference_spread)
    return -(1.0 - e) * F.logsigmoid(z) - e * F.logsigmoid(-z)


def aot_unpaired(
    chosen: Tensor,
    rejected: Tensor,
    rejected_at_rank: Tensor,
    chosen_at_rank: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Ask that the log-ratios of chosen replies dominate those of rejected ones, rank by rank.

    The loss of rank i joins the i-th chosen with the i-th rejected, which are of two pairs. Row j
    holds the value at its chosen's rank; its gradient has that row's own share of both sides, so
    that the sum over the batch has the value and the gradient of the sorted loss.

    Args:
        chosen, rejected: [B] log-ratios, with gradient.
        rejected_at_rank: [B] the rejected log-ratio of the rank that chosen has, fixed.
        chosen_at_rank: [B] the chosen log-ratio of the rank that rejected has, fixed.

    Source: Melnyk et al. 2024 (AOT, unpaired).
    """
    values = aot(chosen, rejected_at_rank.detach(), beta, label_smoothing)
    other = aot(chosen_at_rank.detach(), rejected, beta, label_smoothing)
    return values + other - other.detach()


def _of_difference(loss: Callable[[Tensor], Tensor], gap: Tensor, p: Tensor | None) -> Tensor:
    return _of_sides(lambda good, bad: loss(good), gap, -gap, p)


def _of_sides(
    loss: Callable[[Tensor, Tensor], Tensor], chosen: Tensor, rejected: Tensor, p: Tensor | None
) -> Tensor:
    values = loss(chosen, rejected)
    if p is None:
        return values
    p = p.to(values.dtype)
    return p * values + (1.0 - p) * loss(rejected, chosen)


def _smoothing(label_smoothing: float) -> float:
    if not 0 <= label_smoothing < 0.5:
        raise ConfigError(f"label_smoothing is {label_smoothing}, expected in [0, 0.5)")
    return label_smoothing


def _check(chosen: Tensor, rejected: Tensor, p: Tensor | None, beta: float) -> None:
    if not beta > 0:
        raise ConfigError(f"beta is {beta}, expected above 0")
    check_pairs(chosen, rejected, p)


def check_pairs(chosen: Tensor, rejected: Tensor, p: Tensor | None) -> None:
    """Refuse sides of other shapes than one [B], and labels that are no probabilities.

    Raises:
        DataError: naming what was found.
    """
    sides = [tuple(t.shape) for t in (chosen, rejected, p) if t is not None]
    if len(set(sides)) > 1 or chosen.dim() != 1:
        raise DataError(f"found shapes {sides} of chosen, rejected (and p); expected one [B]")
    if p is not None and not bool(((p >= 0) & (p <= 1)).all()):
        raise DataError("p holds a number outside [0, 1]; expected a probability per pair")


def exploration_bonus(rival: Tensor, alpha: float) -> Tensor:
    """Push away from what the other sampler says, beside a loss of pairs (XPO).

    loss = alpha log pi(rival's reply), [B]; for alpha above 0 the policy spreads to replies that
    the rival, as a rule the reference, does not give.

    Args:
        rival: log pi of the rival's reply in nats, summed over its tokens.
        alpha: at least 0; 0 is no bonus.

    Source: Xie et al. 2024 (arXiv 2405.21046), algorithm 1.
    """
    if not alpha >= 0:
        raise ConfigError(f"alpha is {alpha}, expected 0 or above")
    return alpha * rival
