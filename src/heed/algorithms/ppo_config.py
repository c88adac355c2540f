"""The configuration of PPO: names that users of TRL's PPO know, defaults of the N+ paper."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from heed.algorithms.method import Method
from heed.algorithms.online_settings import OnlineSettings
from heed.settings import NoEffect, OptimSettings


class PPOConfig(OnlineSettings):
    """Proximal policy optimisation of a policy against a score, with a KL penalty."""

    num_generations: int = Field(default=1, ge=1)
    """Completions for each prompt of an update."""
    num_ppo_epochs: int = Field(default=4, ge=1)
    """Passes over an update's completions."""

    kl_coef: float = Field(ge=0.0)
    """Reward taken away per nat of KL to the reference; no default, because 0 against a learned
    reward is the recipe of over-optimisation."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    """Per-token estimator that enters the reward; only k1 has the KL-regularised optimum."""

    whiten_rewards: bool = False
    """Divide per-token rewards by their standard deviation, keeping the mean."""
    whiten_advantages: Literal["batch", "minibatch", "none"] = "batch"
    """Where advantages are whitened; minibatch in Ziegler's code, batch in TRL's."""
    lam: float = Field(default=0.95, ge=0.0, le=1.0)
    """Lambda of generalised advantage estimation."""
    cliprange: float = Field(default=0.2, gt=0.0)
    """The ratio is clipped to 1 - this and 1 + this."""
    cliprange_high: float | None = Field(default=None, gt=0.0)
    """Another bound above 1."""
    delta: float | None = Field(default=None, gt=1.0)
    """Dual clip: largest ratio that counts where the advantage is negative (3 in its source)."""
    cliprange_value: float = Field(default=0.2, gt=0.0)
    """The value may move this far from its rollout value before its loss is clipped."""
    vf_coef: float = Field(default=0.1, ge=0.0)
    """Weight of the value loss."""
    value_init: Literal["auto", "reward", "policy", "shared"] = "auto"
    """The value model starts as a copy of the reward model (Stiennon), as a copy of the policy
    with a zero head, or is a zero head on the policy's own trunk (Ziegler). auto: the reward
    model if there is one that reads the policy's tokens, else the policy."""
    value_optim: OptimSettings | None = None
    """Optimiser of a separate value model; `optim` by default."""
    title: str = "PPO"
    """Name of the stage in the terminal and the report."""

    def without_effect(self) -> tuple[NoEffect, ...]:
        """See `Settings.without_effect`."""
        no_penalty = self.kl_coef == 0 and self.kl_target is None
        return (
            *super().without_effect(),
            NoEffect(no_penalty, ("kl_estimator",), "kl_coef is 0"),
            NoEffect(
                self.value_init == "shared",
                ("value_optim",),
                "the value head is trained with the policy, by optim",
            ),
        )

    @property
    def method(self) -> Method:
        """PPO's choice in each column."""
        high = self.cliprange if self.cliprange_high is None else self.cliprange_high
        return Method(
            beta=self.kl_coef,
            baseline="value",
            credit="token",
            whiten_advantages=self.whiten_advantages,
            epsilon=self.cliprange,
            epsilon_high=high,
            delta=self.delta,
            kl_estimator=self.kl_estimator,
            gamma=self.gamma,
            lam=self.lam,
            whiten_rewards=self.whiten_rewards,
            value_clip=self.cliprange_value,
            vf_coef=self.vf_coef,
        )

    @property
    def group_size(self) -> int:
        """Completions for each prompt of an update."""
        return self.num_generations

    @property
    def num_epochs(self) -> int:
        """Passes over an update's completions."""
        return self.num_ppo_epochs

    @property
    def stage_title(self) -> str:
        """Name of the stage in the terminal and the report."""
        return self.title
