"""The configuration of critic-free online methods: a preset, and options that override it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Self

from pydantic import Field, model_validator

from heed.algorithms import presets
from heed.algorithms.method import (
    Average,
    Correction,
    Credit,
    CriticFree,
    Estimator,
    LossType,
    Method,
    Place,
    Ratio,
    Scale,
    Whitening,
)
from heed.algorithms.online_settings import OnlineSettings
from heed.settings import OptimSettings

_OTHERWISE: dict[str, Any] = {
    "num_generations": 1,
    "dynamic_sampling": False,
    "overlong_frac": 0.0,
}
"""What a preset that does not name these options has; `Method` has the rest."""

_TRL_LOSSES = {
    "grpo": "--loss_type clip --average sequence",
    "bnpo": "--loss_type clip --average token",
    "dapo": "--loss_type clip --average token",
    "dr_grpo": "--loss_type clip --average constant",
    "luspo": "--loss_type clip --ratio sequence_mean --average sum",
    "cispo": "--loss_type weight --average token (its epsilon_high is TRL's minus 1)",
}

_READ_WITH: dict[str, tuple[str, tuple[Any, ...]]] = {
    "gamma": ("credit", ("token",)),
    "ratio": ("loss_type", ("clip", "sapo")),
    "epsilon": ("loss_type", ("clip",)),
    "epsilon_high": ("loss_type", ("clip", "weight")),
    "delta": ("loss_type", ("clip",)),
    "use_bias_correction_kl": ("kl_place", ("loss",)),
    "threshold": ("baseline", ("above",)),
    "softmax_temperature": ("baseline", ("softmax",)),
    "refill_cap": ("dynamic_sampling", (True,)),
}
"""Option -> the option that decides whether it is read, and with which values it is."""


class OnlineConfig(OnlineSettings):
    """Optimise a policy against a score without a value model: GRPO, RLOO and their like."""

    preset: str = "grpo"
    """A method by its name; every option below that is not set takes the preset's value."""
    num_generations: int | None = Field(default=None, ge=1)
    """Completions for each prompt of an update."""
    num_iterations: int = Field(default=1, ge=1)
    """Passes over an update's completions."""

    beta: float | None = Field(default=None, ge=0.0)
    """KL coefficient; where the preset's source publishes none there is no default, because 0
    against a learned reward is the recipe of over-optimisation."""
    kl_place: Place | None = None
    """Whether the KL is part of the reward, or a term of the loss."""
    kl_estimator: Estimator | None = None
    """Per-token estimator; in the reward only k1, in the loss only k2 has the regularised
    optimum, and k1 in the loss regularises nothing."""

    use_bias_correction_kl: bool = False
    """Multiply the KL in the loss by the token's ratio, whose gradient makes that of any estimator
    the regularised one's at each token (DeepSeek-V3.2, and the default of TRL)."""

    baseline: CriticFree | None = None
    """What is taken from a completion's reward: nothing, the mean of the batch, of its group, or
    of the others of its group, or the score of the prompt's greedy completion. Or its place in a
    selection: 1 for the best of the group (RAFT), 1 above `threshold`, or a softmax of rewards.
    even: one half, of a win rate (Nash-MD)."""
    threshold: float = 0.5
    """Reward from which on the baseline `above` chooses a completion."""
    softmax_temperature: float = Field(default=1.0, gt=0.0)
    """In reward; the baseline `softmax` weighs completions by exp(reward / this)."""
    scale_rewards: Scale | None = None
    """What advantages are divided by: nothing, the group's or the batch's standard deviation, the
    group's mean (MaxRL), or the share of groups that vary (GPG)."""
    credit: Credit | None = None
    """A token is credited with its completion's whole reward, or with what comes from it on."""
    whiten_advantages: Whitening | None = None
    """Where advantages are brought to mean 0 and variance 1, over tokens."""

    loss_type: LossType | None = None
    """clip: clipped surrogate. weight: bounded weight, a gradient for every token (CISPO).
    plain: policy gradient without a ratio. sapo, vespo: smooth gates instead of bounds."""
    ratio: Ratio | None = None
    """What one ratio belongs to: a token, a completion (product of its tokens'), or a completion
    by the geometric mean (GSPO), whose gradient may be given token by token."""
    epsilon: float | None = Field(default=None, gt=0.0)
    """The ratio's room below 1; 1 or more is no bound."""
    epsilon_high: float | None = Field(default=None, gt=0.0)
    """The ratio's room above 1."""
    delta: float | None = Field(default=None, gt=1.0)
    """Dual clip: largest ratio that counts where the advantage is negative."""
    average: Average | None = None
    """A loss is a mean over tokens; over a completion's tokens and then over completions; a sum
    over tokens for each completion; or that sum over the longest length (Dr. GRPO)."""

    importance_sampling: Correction = "none"
    """Weigh tokens or completions by learner / sampler probability, truncated (TIS) or masked
    (MIS) at the cap, where the two do not compute the same."""
    importance_sampling_cap: float = Field(default=3.0, gt=1.0)
    """Largest weight; masks also leave out weights below its inverse."""

    dynamic_sampling: bool | None = None
    """Leave out groups whose scores are all equal, and sample more prompts in their place."""
    refill_cap: int = Field(default=3, ge=1)
    """How often an update samples more prompts at most."""
    overlong_frac: float | None = Field(default=None, ge=0.0, le=1.0)
    """Last share of the longest length in which the score falls linearly (DAPO)."""
    overlong_penalty: float = Field(default=1.0, ge=0.0)
    """By how much it falls at the very end."""
    mask_truncated_completions: bool = False
    """A completion that does not end teaches nothing (DAPO's overlong filtering)."""

    optim: OptimSettings = OptimSettings(lr=1e-6)
    title: str | None = None
    """Name of the stage in the terminal and the report; by default the preset's."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """Give every option that is not set the preset's value, so that all are on record."""
        if not isinstance(values, dict):
            return values
        chosen = presets.find(str(values.get("preset", cls.model_fields["preset"].default)))
        filled = _row(chosen) | {"title": chosen.title}
        if "epsilon" in values and "epsilon_high" not in chosen.columns:
            filled["epsilon_high"] = values["epsilon"]  # TRL: symmetric unless set
        given = {name: value for name, value in values.items() if value is not None}
        hint = _TRL_LOSSES.get(str(given.get("loss_type")))
        if hint:
            raise ValueError(
                f"loss_type {given['loss_type']!r} of TRL names a surrogate and an average at "
                f"once; here it is {hint}, or a preset of that name"
            )
        return {k: v for k, v in filled.items() if k in cls.model_fields} | given

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.beta is None:
            raise ValueError(
                f"preset {self.preset!r} publishes no KL coefficient, so beta has no default; "
                "choose it: 0.05 is a start against a learned reward, 0 is for rewards that cannot "
                "be gamed, such as a checked answer"
            )
        if self.method.needs_groups and self.group_size < 2:
            raise ValueError(
                f"num_generations is {self.group_size}, and {self.baseline!r} with scale_rewards "
                f"{self.scale_rewards!r} compares completions of one prompt; set it to 2 or more"
            )
        if self.dynamic_sampling and self.group_size < 2:
            raise ValueError(
                "dynamic_sampling looks at how a group's scores differ; num_generations is "
                f"{self.group_size}, expected 2 or more"
            )
        if self.method.selects and self.whiten_advantages != "none":
            raise ValueError(
                f"the baseline {self.baseline!r} chooses what is learned, and whitening would mix "
                "the others in; set whiten_advantages to none"
            )
        self._refuse_ignored()
        if self.loss_type == "vespo" and self.importance_sampling != "none":
            raise ValueError(
                "loss_type 'vespo' has a weight of its own for what was sampled elsewhere; set "
                "importance_sampling to none"
            )
        return self

    def _refuse_ignored(self) -> None:
        """Raise where an option differs from the preset's and nothing reads it."""
        row = _row(presets.find(self.preset))
        for name, (by, readers) in _READ_WITH.items():
            usual = row.get(name, type(self).model_fields[name].default)
            if getattr(self, by) not in readers and getattr(self, name) != usual:
                allowed = " or ".join(str(reader).lower() for reader in readers)
                raise ValueError(
                    f"{name} is read with {by} {allowed} only, and {by} is "
                    f"{str(getattr(self, by)).lower()}; leave {name} out"
                )

    @property
    def method(self) -> Method:
        """The method's choice in each column."""
        names = [f.name for f in fields(Method) if f.name in type(self).model_fields]
        return Method(**{name: getattr(self, name) for name in names})

    @property
    def group_size(self) -> int:
        """Completions for each prompt of an update."""
        return self.num_generations or 1

    @property
    def num_epochs(self) -> int:
        """Passes over an update's completions."""
        return self.num_iterations

    @property
    def stage_title(self) -> str:
        """Name of the stage in the terminal and the report."""
        return self.title or self.preset

    @property
    def max_refills(self) -> int:
        """Times that more prompts are sampled where groups were left out; 0: none are."""
        return self.refill_cap if self.dynamic_sampling else 0

    @property
    def overlong(self) -> tuple[int, float] | None:
        """Last tokens of the longest length, and what the very last of them costs."""
        tokens = round((self.overlong_frac or 0.0) * self.sampling.max_tokens)
        return (tokens, self.overlong_penalty) if tokens else None

    @property
    def drops_truncated(self) -> bool:
        """Whether a completion that does not end teaches nothing."""
        return self.mask_truncated_completions


def _row(preset: presets.Preset) -> dict[str, Any]:
    """Every option that a preset decides, with its value."""
    usual = {f.name: getattr(Method(beta=0.0), f.name) for f in fields(Method) if f.name != "beta"}
    return usual | _OTHERWISE | dict(preset.columns)
