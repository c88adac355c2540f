"""Kullback-Leibler divergence: per-token estimators, its penalty, and what sets its coefficient.

On samples of the policy, with d = logprob - reference:  k1 = d,  k2 = d^2 / 2,
k3 = exp(-d) - 1 + d.  k1 and k3 are unbiased for KL(policy || reference); k3 is never negative.
Inside the reward k1 is right. As a loss to differentiate, only k2 has the gradient of that KL:
k1's expected gradient is zero, and k3's is that of the opposite direction, KL(reference || policy).
"""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor

from heed.errors import ConfigError, DataError

ERROR_LIMIT = 0.2
"""The relative error of the KL is clipped to this, both ways (Ziegler et al. 2019, section 2.2)."""


def k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimate KL(policy || reference) per token as logprob - reference, in nats; may be negative.

    Args:
        logprobs: [...] of the policy, on tokens it sampled.
        reference: [...] of the reference, on the same tokens.
    """
    return logprobs - reference


def k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimate KL per token as (logprob - reference)^2 / 2: biased, but with the right gradient."""
    return 0.5 * (logprobs - reference).square()


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimate KL per token as exp(-d) - 1 + d with d = logprob - reference; never negative."""
    log_ratio = reference - logprobs
    return torch.expm1(log_ratio) - log_ratio


def loss(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return a term whose value is k1 and whose gradient is k2's: unbiased in both.

    E[ d * grad logprob ] = grad KL(policy || reference), when the policy sampled the tokens.

    Returns:
        Unreduced, the shape of `logprobs`, nats.
    """
    gradient = k2(logprobs, reference)
    return k1(logprobs, reference).detach() + gradient - gradient.detach()


def exact(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Compute KL(p || q) = sum_v p_v (log p_v - log q_v) of whole distributions, in nats.

    Args:
        logits_p, logits_q: [..., V]; -inf means probability 0.

    Returns:
        [...]; inf where p gives mass to what q excludes.
    """
    log_p, log_q = logits_p.log_softmax(-1), logits_q.log_softmax(-1)
    none = log_p.isneginf()
    gap = log_p.masked_fill(none, 0.0) - log_q.masked_fill(none, 0.0)
    return (log_p.exp() * gap).sum(-1)


def reward_penalty(kl_per_token: Tensor, coef: float, learn: Tensor) -> Tensor:
    """Turn per-token KL into per-token reward: -coef * kl on learned tokens, 0 elsewhere.

    Args:
        kl_per_token: [B, T] nats; k1 for the usual objective.
        coef: reward per nat, 0 or above.
        learn: [B, T] bool.

    Returns:
        [B, T], without gradient: a reward is data.

    Raises:
        ConfigError: coef is negative, which would reward leaving the reference.
    """
    _check_coef(coef)
    return torch.where(learn, -coef * kl_per_token.detach(), torch.zeros_like(kl_per_token))


class FixedController:
    """Hold the KL coefficient still."""

    def __init__(self, coef: float) -> None:
        _check_coef(coef)
        self.coef = float(coef)

    def update(self, kl: float, num_samples: int) -> None:
        """Accept a measurement and change nothing; without a target there is no error (None)."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs, JSON-able."""
        return {"coef": self.coef}

    def load_state(self, state: dict[str, Any]) -> Self:
        """Continue from `state()`."""
        self.coef = float(state["coef"])
        return self


class AdaptiveController:
    """Steer the KL towards a target by scaling the coefficient after every batch.

    error = clip(kl / target - 1, -0.2, 0.2)
    horizon: coef <- coef * (1 + error * num_samples / horizon)    the released code
    gain:    coef <- coef * (1 + gain * error)                     the paper, gain 0.1 per batch

    Args:
        coef: the first coefficient, reward per nat, above 0 (0 could never grow).
        target: nats per completion, above 0.
        horizon: completions; 10,000 in the code. Give exactly one of horizon and gain.
        gain: per batch; 0.1 in the paper.

    Source: Ziegler et al. 2019, section 2.2; lm-human-preferences `AdaptiveKLController`.
    """

    def __init__(
        self, coef: float, target: float, horizon: float | None = None, gain: float | None = None
    ) -> None:
        if (horizon is None) == (gain is None):
            raise ConfigError(
                f"horizon is {horizon} and gain is {gain}; expected exactly one of them "
                "(horizon=10000 as in the code, gain=0.1 as in the paper)"
            )
        rates = [("coef", coef), ("target", target), ("horizon", horizon), ("gain", gain)]
        for name, value in rates:
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}, expected above 0")
        self.coef = float(coef)
        self.target = float(target)
        self.horizon = horizon
        self.gain = gain

    def update(self, kl: float, num_samples: int) -> float:
        """Move the coefficient after a batch.

        Args:
            kl: mean nats per completion in the batch.
            num_samples: completions in the batch.

        Returns:
            The clipped relative error, in [-0.2, 0.2].

        Raises:
            DataError: the KL is not finite, which would spoil the coefficient for good.
        """
        if not math.isfinite(kl):
            raise DataError(
                f"the measured KL is {kl}, expected a finite number; a completion has a logprob "
                "that is missing or infinite"
            )
        error = min(max(kl / self.target - 1.0, -ERROR_LIMIT), ERROR_LIMIT)
        rate = self.gain if self.gain is not None else num_samples / (self.horizon or 1.0)
        self.coef *= 1.0 + rate * error
        return error

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs, JSON-able."""
        return {"coef": self.coef}

    def load_state(self, state: dict[str, Any]) -> Self:
        """Continue from `state()`."""
        self.coef = float(state["coef"])
        return self


def diagnose(
    k1_mean: float,
    k3_mean: float,
    standard_error: float,
    *,
    num_sigmas: float = 3.0,
    behaviour_gap: float | None = None,
    truncated_sampling: bool | None = None,
) -> str | None:
    """Say what is likely wrong when a sequence KL is significantly negative.

    KL(policy || reference) >= 0, and on samples of the policy mean k1 estimates it. A mean below
    -num_sigmas standard errors therefore means that the tokens were not drawn from the
    distribution whose logprobs are used. When the two are swapped, mean k1 is -KL of the other
    direction, and k3 equals -k1 to second order; wrong tokens in the mean make k3 much larger.

    Args:
        k1_mean: nats per completion.
        k3_mean: nats per completion, summed over tokens.
        standard_error: of `k1_mean`, nats.
        num_sigmas: how many standard errors count as significant.
        behaviour_gap: mean |behaviour logprob - recomputed logprob| in nats per token, before the
            first update of the batch; None when not measured.
        truncated_sampling: whether the sampler cut the distribution (top-k, top-p); None unknown.

    Returns:
        None when nothing is wrong, else one sentence.
    """
    if k1_mean >= -num_sigmas * standard_error:
        return None
    causes = []
    if behaviour_gap is not None and behaviour_gap > 0.01:
        causes.append(
            f"the sampler's logprobs differ from the recomputed ones by {behaviour_gap:.3g} nats a "
            "token (another temperature, other weights, dropout, or padding that shifts positions)"
        )
    if truncated_sampling:
        causes.append("top-k or top-p cut the sampler's distribution but not the scored one")
    if 0.5 <= k3_mean / abs(k1_mean) <= 2.0:
        causes.append("policy and reference, or the sign of the KL or the reward, are swapped")
    elif k3_mean > 2.0 * abs(k1_mean):
        causes.append(
            "tokens the policy did not choose are counted (padding, prompt, forced tokens, or "
            "tokens of another policy)"
        )
    if not causes:
        causes.append("the temperature used for scoring is not the one used for sampling")
    return (
        f"The KL per completion is {k1_mean:.3g} +- {standard_error:.2g} nats, and a KL cannot be "
        f"negative, so the tokens do not come from the policy that is scored: "
        f"{'; or '.join(causes)}."
    )


def _check_coef(coef: float) -> None:
    if not coef >= 0:
        raise ConfigError(f"the KL coefficient is {coef}, expected 0 or above")
