"""The configuration of methods that learn online from comparisons: a preset, and its options."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from heed.algorithms import comparison_presets as presets
from heed.algorithms.comparison_presets import Comparison, Labels, Pairing
from heed.algorithms.live_settings import LiveSettings
from heed.algorithms.method import Method
from heed.algorithms.online_settings import OnlineSettings
from heed.algorithms.preference_settings import LOSS_SETTINGS, PairLossSettings
from heed.settings import NoEffect, OptimSettings

_OTHERWISE: dict[str, Any] = {
    "num_generations": 2,
    "num_iterations": 1,
    "labels": "hard",
    "pairing": "halves",
    "xpo_alpha": 0.0,
    "sync_ref_model": False,
}
"""What a preset that does not name these options has."""

_PAIRS_ONLY = (
    "loss_type", "loss_weights", "reference_free", "ld_alpha", "use_weighting", "clamp_weighting",
    *LOSS_SETTINGS, "ref_model_mixup_alpha", "ref_model_sync_updates",
)  # fmt: skip
"""Options that a method without a loss of pairs does not read."""


class OnlinePreferenceConfig(PairLossSettings, LiveSettings, OnlineSettings):
    """Sample from the policy, compare, and learn: online DPO, XPO, SPIN, Nash-MD."""

    preset: str = "online_dpo"
    """A method by its name; every option below that is not set takes the preset's value."""
    reward_funcs: tuple[str, ...] = ()
    """What compares, by the higher score: reward models, callables, checkers or a world. With
    spin, what is only measured."""
    judge: str | None = None
    """What compares instead: `module:function` or `file.py:function` that takes prompts and pairs
    of completions and returns the probability that the first is better; after `trl:` a judge of
    TRL."""
    labels: Labels | None = None
    """hard: the likelier side is better, a tie is left out. soft: the loss sees the probability.
    sampled: a verdict is drawn by it."""
    label_temperature: float = Field(default=1.0, gt=0.0)
    """Score difference at which the log-odds of `reward_funcs` are 1; not read by hard labels."""
    num_generations: int | None = Field(default=None, ge=1)
    """Completions for each prompt of an update, half of them the rival's."""
    pairing: Pairing | None = None
    """halves: completion i with i + num_generations / 2. best_worst: one pair a prompt, of the
    highest and the lowest score."""
    num_iterations: int | None = Field(default=None, ge=1)
    """Passes over an update's pairs."""
    xpo_alpha: float | None = Field(default=None, ge=0.0)
    """Weight of log pi(the rival's completion) in the loss: XPO's bonus for exploring."""
    mixture_coef: float = Field(default=0.5, ge=0.0, le=1.0)
    """nash_md's opponent: 0 is the policy, 1 the reference, between them their mixture."""
    sync_ref_model: bool | None = None
    """Let the reference follow the policy between updates (SPIN's rounds, TR-DPO)."""
    ref_model_mixup_alpha: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the policy in the new reference; 1 replaces it."""
    ref_model_sync_updates: int = Field(default=1, ge=1)
    """Updates between two such changes."""

    optim: OptimSettings = OptimSettings(lr=5e-7)
    title: str | None = None
    """Name of the stage in the terminal and the report; by default the preset's."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """Give every option that is not set the preset's value, so that all are on record."""
        if not isinstance(values, dict):
            return values
        chosen = presets.find(str(values.get("preset", cls.model_fields["preset"].default)))
        filled = _OTHERWISE | {"title": chosen.title} | dict(chosen.columns)
        return filled | {name: value for name, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_comparer()
        if self.row.gradient:
            for name in ("xpo_alpha", "sync_ref_model"):
                if getattr(self, name):
                    raise ValueError(f"{name} is of losses of pairs, and {self.preset} has none")
        else:
            self._check_pairs()
        for name in ("ptx_data", "cost"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} has no place beside comparisons; use ppo or online")
        return self

    def _check_labeller(self) -> None:
        self.check_live(has_scorer=bool(self.reward_funcs))
        if self.row.gradient or self.row.rival == "demonstration":
            raise ValueError(
                f"{self.preset} asks nobody which of two is better; leave labeller out"
            )
        if self.judge is not None:
            raise ValueError("labeller and judge both compare; set one of them")
        if self.pairing == "best_worst":
            raise ValueError("best_worst goes by scores, and people give none; set halves")
        if not self.reward_funcs:
            for name in ("missing_eos_score", "missing_eos_penalty"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} changes a score, and people give none; leave it out")

    def _check_comparer(self) -> None:
        if self.labeller is not None:
            self._check_labeller()
            return
        demonstrations = self.row.rival == "demonstration"
        if demonstrations and self.judge is not None:
            raise ValueError(
                "spin compares nothing, a demonstration is always better; leave judge out"
            )
        if not demonstrations and bool(self.reward_funcs) == (self.judge is not None):
            raise ValueError(
                f"found {'both' if self.judge else 'neither'} of reward_funcs and judge, expected "
                "one of them, or labeller: who says which of two completions is better"
            )
        if self.judge is not None:
            for name in ("missing_eos_score", "missing_eos_penalty"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} changes a score, and a judge gives none; leave it")

    def _check_pairs(self) -> None:
        if self.group_size % 2:
            raise ValueError(
                f"num_generations is {self.group_size}, expected 2 or another even number: a "
                "completion is compared with another one"
            )
        if self.labels != "hard":
            hard = [name for name, row in self.rows.items() if not row.soft]
            if hard:
                raise ValueError(
                    f"{', '.join(hard)} has no form for labels that are not certain; set labels to "
                    "hard"
                )
            if self.judge is not None and self.pairing == "best_worst" and self.group_size > 2:
                raise ValueError(
                    "best_worst chooses by win rates within the group, which are no probability of "
                    "that pair; set labels to hard, or pairing to halves"
                )
        if self.pairing == "best_worst" and self.row.rival != "policy":
            raise ValueError(f"{self.preset} compares with a rival; set pairing to halves")
        if self.xpo_alpha and self.row.rival == "policy":
            raise ValueError(
                f"xpo_alpha is {self.xpo_alpha}, and {self.preset} has no other sampler to move "
                "away from; use the preset xpo"
            )
        if self.kl_target is not None:
            raise ValueError("kl_target steers a KL penalty, and a loss of pairs has none")
        if self.sync_ref_model and self.model.lora is not None:
            raise ValueError(
                "sync_ref_model needs a reference of its own; train without lora, or set "
                "sync_ref_model to false"
            )

    def without_effect(self) -> tuple[NoEffect, ...]:
        """See `Settings.without_effect`."""
        gradient, demonstrations = self.row.gradient, self.row.rival == "demonstration"
        return (
            *super().without_effect(),
            *(() if gradient else (self.unread(),)),
            *self.live_without_effect(),
            NoEffect(gradient, _PAIRS_ONLY, f"{self.preset} has no loss of pairs"),
            NoEffect(not gradient, ("gamma",), "a pair has no reward per token"),
            NoEffect(self.row.rival != "mixture", ("mixture_coef",), "only nash_md mixes"),
            NoEffect(
                self.labels == "hard"
                or self.judge is not None
                or demonstrations
                or (self.labeller is not None and not self.bootstrap_frac),
                ("label_temperature",),
                "it makes probabilities of scores, and none are made here",
            ),
            NoEffect(
                not self.sync_ref_model,
                ("ref_model_mixup_alpha", "ref_model_sync_updates"),
                "sync_ref_model is off",
            ),
        )

    # -- what the configuration of a method says --------------------------------------------------

    @property
    def row(self) -> Comparison:
        """The preset."""
        return presets.find(self.preset)

    @property
    def method(self) -> Method:
        """Nash-MD's choice in each column; of pairs, the coefficient alone is read."""
        return Method(
            beta=0.1 if self.beta is None else self.beta,
            baseline="even",
            loss_type="plain",
            average="sum",
            kl_place="reward",
            kl_estimator="k1",
            gamma=self.gamma,
        )

    @property
    def group_size(self) -> int:
        """Completions for each prompt of an update."""
        return self.num_generations or 2

    @property
    def num_epochs(self) -> int:
        """Passes over an update's pairs."""
        return self.num_iterations or 1

    @property
    def stage_title(self) -> str:
        """Name of the stage in the terminal and the report."""
        return self.title or self.preset

    @property
    def temperature(self) -> float:
        """Score difference at which log-odds are 1; 0 where the higher score is simply better."""
        return 0.0 if self.labels == "hard" else self.label_temperature
