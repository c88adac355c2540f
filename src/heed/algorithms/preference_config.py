"""The settings of `heed preference`; names and defaults are TRL's where TRL has the setting."""

from __future__ import annotations

from pydantic import Field, model_validator

from heed.algorithms.preference_settings import PairLossSettings
from heed.settings import (
    DataSettings,
    LearnerSettings,
    ModelSettings,
    NoEffect,
    OptimSettings,
    RunSettings,
    Settings,
)


class PreferenceData(Settings):
    """What is trained, on which comparisons, and how long."""

    run: RunSettings
    model: ModelSettings
    """The policy to start from, usually fine-tuned on demonstrations (best on the chosen side)."""
    reference: ModelSettings | None = None
    """The frozen policy to compare with; by default the policy as it starts."""
    data: DataSettings
    """Comparisons: `chosen` and `rejected` with or without `prompt`, or a run of `heed compare`."""
    eval_data: DataSettings | None = None
    """Comparisons to measure on; by default a share of `data` held out by prompt."""
    eval_frac: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the prompts held out where there is no `eval_data`; 0 for none."""
    eval_every: int = Field(default=100, ge=1)
    """Steps between two measurements on the held-out comparisons."""
    num_train_epochs: float = Field(default=1.0, gt=0.0)
    """Passes over the data."""
    batch_size: int = Field(default=64, ge=1)
    """Pairs of one optimiser step."""
    harden_labels: bool = False
    """Take the likelier side of every pair for certainly better, and leave ties out."""


class PreferenceConfig(PairLossSettings, PreferenceData):
    """A policy trained on comparisons alone, without sampling."""

    sync_ref_model: bool = False
    """Let the reference follow the policy (TR-DPO)."""
    ref_model_mixup_alpha: float = Field(default=0.6, gt=0.0, le=1.0)
    """Share of the policy in the new reference; 1 replaces it."""
    ref_model_sync_steps: int = Field(default=512, ge=1)
    """Steps between two such updates."""

    optim: OptimSettings = OptimSettings(lr=1e-6)
    learner: LearnerSettings = LearnerSettings()

    @model_validator(mode="after")
    def _check(self) -> PreferenceConfig:
        if self.sync_ref_model and not self.needs_reference:
            raise ValueError("sync_ref_model moves a reference, and this loss has none")
        if self.sync_ref_model and self.model.lora is not None:
            raise ValueError("sync_ref_model needs a reference of its own; train without lora")
        return self

    def without_effect(self) -> tuple[NoEffect, ...]:
        """See `Settings.without_effect`."""
        return (
            self.unread(),
            NoEffect(not self.use_weighting, ("clamp_weighting",), "use_weighting is off"),
            NoEffect(not self.needs_reference, ("reference",), "no loss here has a reference"),
            NoEffect(self.eval_data is not None, ("eval_frac",), "eval_data is held out"),
        )
