"""The settings of `heed unpaired`; names and defaults are TRL's where TRL has the setting."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from heed.settings import (
    DataSettings,
    LearnerSettings,
    ModelSettings,
    OptimSettings,
    RunSettings,
    Settings,
)


class UnpairedConfig(Settings):
    """A policy trained on single replies that were called good or bad, without sampling."""

    run: RunSettings
    model: ModelSettings
    """The policy to start from, usually fine-tuned on demonstrations."""
    reference: ModelSettings | None = None
    """The frozen policy to compare with; by default the policy as it starts."""
    data: DataSettings
    """`prompt`, `completion` and `label`; or comparisons, each a good and a bad reply."""
    eval_data: DataSettings | None = None
    """Replies to measure on; by default a share of `data` held out by prompt."""
    eval_frac: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the prompts held out where there is no `eval_data`; 0 for none."""
    eval_every: int = Field(default=100, ge=1)
    """Steps between two measurements on the held-out replies."""
    num_train_epochs: float = Field(default=1.0, gt=0.0)
    """Passes over the data."""
    batch_size: int = Field(default=64, ge=1)
    """Replies of one optimiser step; the baseline is measured over all of them."""

    loss_type: Literal["kto", "apo_zero_unpaired", "bco"] = "kto"
    """The loss; see docs/methods/unpaired.md."""
    beta: float = Field(default=0.1, gt=0.0)
    """How strongly the policy is held near the reference."""
    desirable_weight: float = Field(default=1.0, ge=0.0)
    """Weight of good replies (kto, apo_zero_unpaired)."""
    undesirable_weight: float = Field(default=1.0, ge=0.0)
    """Weight of bad replies (kto, apo_zero_unpaired)."""

    sync_ref_model: bool = False
    """Let the reference follow the policy (TR-DPO's update)."""
    ref_model_mixup_alpha: float = Field(default=0.6, gt=0.0, le=1.0)
    """Share of the policy in the new reference; 1 replaces it."""
    ref_model_sync_steps: int = Field(default=512, ge=1)
    """Steps between two such updates."""

    optim: OptimSettings = OptimSettings(lr=1e-6)
    learner: LearnerSettings = LearnerSettings()

    @model_validator(mode="after")
    def _check(self) -> UnpairedConfig:
        if self.loss_type == "kto" and self.batch_size < 2:
            raise ValueError(
                "kto needs a batch_size of at least 2: its baseline pairs each prompt with the "
                "reply to another"
            )
        if self.sync_ref_model and self.model.lora is not None:
            raise ValueError("sync_ref_model needs a reference of its own; train without lora")
        return self
