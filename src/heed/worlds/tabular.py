"""The exact world: a prompt with K completions, whose regularised optima are closed forms.

    reward - beta KL(policy || ref)   is maximal at   ref * exp(reward / beta) / Z
    reward - beta KL(ref || policy)   is maximal at   beta * ref / (lam - reward), lam for sum 1

Every algorithm is measured by its total variation distance to the optimum that it claims.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heed.errors import ConfigError
from heed.ids import stream_seed

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Tabular:
    """K completions of one prompt.

    Args:
        reference: [K] probabilities of the reference policy, each positive, sum 1.
        rewards: [K] the score of each completion.

    Raises:
        ConfigError: shapes differ, or `reference` is no such distribution.
    """

    reference: Vector
    rewards: Vector

    def __post_init__(self) -> None:
        reference = np.asarray(self.reference, dtype=np.float64)
        rewards = np.asarray(self.rewards, dtype=np.float64)
        if reference.ndim != 1 or reference.shape != rewards.shape or len(reference) < 2:
            raise ConfigError(
                f"reference has shape {reference.shape} and rewards {rewards.shape}; "
                "give two vectors of one length, at least 2"
            )
        if not (reference > 0).all() or abs(reference.sum() - 1.0) > 1e-9:
            raise ConfigError(
                f"reference sums to {reference.sum()} with smallest entry {reference.min()}; "
                "give positive probabilities that sum to 1"
            )
        if not np.isfinite(rewards).all():
            raise ConfigError(f"rewards are {rewards}; give finite numbers")
        object.__setattr__(self, "reference", reference)
        object.__setattr__(self, "rewards", rewards)

    @classmethod
    def random(cls, num_completions: int, seed: int, *, reward_scale: float = 1.0) -> Tabular:
        """Draw normal rewards and a reference that is the softmax of unit normals."""
        rng = np.random.default_rng(stream_seed(seed, "tabular world", num_completions))
        logits = rng.standard_normal(num_completions)
        rewards = reward_scale * rng.standard_normal(num_completions)
        return cls(_softmax(logits), rewards)

    def optimum(self, beta: float) -> Vector:
        """Return [K] the policy with the highest reward - beta KL(policy || reference).

        Formula: reference * exp(rewards / beta) / Z.

        Raises:
            ConfigError: `beta` is not positive.

        Source: Rafailov et al. 2023, equation 4.
        """
        _check_beta(beta)
        return _softmax(np.log(self.reference) + self.rewards / beta)

    def forward_optimum(self, beta: float) -> Vector:
        """Return [K] the policy with the highest reward - beta KL(reference || policy).

        Formula: beta * reference / (lam - rewards); lam lies above the largest reward and is
        found by bisection so that the probabilities sum to 1. A k3 penalty that is differentiated
        as a loss leads here.

        Raises:
            ConfigError: `beta` is not positive.
        """
        _check_beta(beta)
        gaps = self.rewards.max() - self.rewards
        # With lam = max reward + slack, the sum falls from above 1 at the low end to at most 1.
        low, high = beta * float(self.reference[gaps.argmin()]), beta
        for _ in range(200):
            slack = 0.5 * (low + high)
            total = float((beta * self.reference / (slack + gaps)).sum())
            low, high = (slack, high) if total > 1.0 else (low, slack)
        policy = beta * self.reference / (high + gaps)
        return policy / policy.sum()

    def expected_reward(self, policy: Vector) -> float:
        """Return the mean reward under a policy [K]."""
        return float(np.dot(policy, self.rewards))

    def preference(self, left: int, right: int, temperature: float = 1.0) -> float:
        """Return the Bradley-Terry probability that completion `left` is preferred to `right`."""
        gap = (self.rewards[left] - self.rewards[right]) / temperature
        return float(0.5 * (1.0 + np.tanh(0.5 * gap)))


def total_variation(p: Vector, q: Vector) -> float:
    """Return half the sum of absolute differences of two distributions [K]; 0 same, 1 disjoint."""
    return float(0.5 * np.abs(np.asarray(p) - np.asarray(q)).sum())


def kl_divergence(p: Vector, q: Vector) -> float:
    """Return KL(p || q) in nats; entries of `p` that are 0 contribute nothing."""
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    used = p > 0
    return float((p[used] * (np.log(p[used]) - np.log(q[used]))).sum())


def _softmax(logits: Vector) -> Vector:
    weights: Vector = np.exp(logits - logits.max())
    return weights / weights.sum()


def _check_beta(beta: float) -> None:
    if not beta > 0:
        raise ConfigError(f"beta is {beta}; the optimum exists for beta above 0 only")
