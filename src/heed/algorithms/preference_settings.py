"""Which losses of pairs, and what they read: settings that offline and online methods share."""

from __future__ import annotations

from pydantic import Field, model_validator

from heed.algorithms.preference_rows import BENDS, Row, row_of
from heed.learners.base import Further
from heed.losses.replies import Divergence
from heed.settings import NoEffect, Settings

LOSS_SETTINGS = (
    "label_smoothing", "f_divergence_type", "f_alpha_divergence_coef", "discopop_tau",
    "rpo_alpha", "rdpo_alpha", "tdpo_alpha", "slic_delta", "slic_lambda", "cpo_alpha",
    "simpo_gamma", "alphapo_alpha",
)  # fmt: skip
"""Settings that some losses read and others do not."""


class PairLossSettings(Settings):
    """Losses of pairs by name, each with its settings; names and defaults are TRL's."""

    loss_type: str | tuple[str, ...] = "sigmoid"
    """The loss, or several to add up (sigmoid is DPO); see docs/methods/preference.md."""
    loss_weights: tuple[float, ...] | None = None
    """A weight for each of several losses; by default 1."""
    beta: float | None = Field(default=None, gt=0.0)
    """How strongly the policy is held near the reference, or the loss's scale; by default 0.1,
    for simpo and alphapo 2, for sppo 0.001."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Share of labels taken to be flipped: cdpo, robust, exo_pair, aot, aot_unpaired, cpo."""
    reference_free: bool = False
    """Take the reference for uniform: log-probabilities in the place of log-ratios."""
    f_divergence_type: Divergence = "reverse_kl"
    """What holds the policy to the reference, for losses of the difference of rewards."""
    f_alpha_divergence_coef: float = 0.5
    """alpha of the alpha-divergence; 1 is the reverse KL."""
    ld_alpha: float | None = Field(default=None, ge=0.0, le=1.0)
    """Weight of tokens beyond the shorter reply (LD-DPO); none for 1."""
    use_weighting: bool = False
    """Weigh pairs by how likely the policy would sample them (WPO)."""
    clamp_weighting: bool = True
    """Keep those weights at most 1, as WPO's authors do and TRL does not."""
    discopop_tau: float = Field(default=0.05, gt=0.0)
    """Temperature of the blend in discopop."""
    rpo_alpha: float = Field(default=1.0, ge=0.0)
    """Weight of the chosen reply's mean negative log-probability in rpo."""
    rdpo_alpha: float | None = Field(default=None, ge=0.0)
    """Reward taken off a token of length in rdpo; no default, it depends on the lengths."""
    tdpo_alpha: float = Field(default=0.5, ge=0.0)
    """Weight of the difference of sequence KLs in tdpo2."""
    slic_delta: float = Field(default=1.0, gt=0.0)
    """Margin in nats of slic."""
    slic_lambda: float = Field(default=0.1, ge=0.0)
    """Weight of the chosen reply's negative log-probability in slic."""
    cpo_alpha: float = Field(default=1.0, ge=0.0)
    """Weight of the chosen replies' mean negative log-probability in cpo."""
    simpo_gamma: float | None = Field(default=None, ge=0.0)
    """Margin of simpo and alphapo in the unit of beta x nats; by default half of beta."""
    alphapo_alpha: float | None = None
    """Bend of alphapo's reward; no default, 0 is simpo."""

    @model_validator(mode="after")
    def _check_losses(self) -> PairLossSettings:
        rows = self.rows
        if not rows:
            raise ValueError("loss_type is empty; name at least one loss")
        if self.loss_weights is not None and len(self.loss_weights) != len(rows):
            raise ValueError(
                f"there are {len(self.loss_weights)} loss_weights for {len(rows)} losses; "
                "give one for each"
            )
        for name, setting in (("rdpo", "rdpo_alpha"), ("alphapo", "alphapo_alpha")):
            if name in rows and getattr(self, setting) is None:
                raise ValueError(f"{name} needs {setting}, which has no default; choose it")
        for name in ("cdpo", "exo_pair"):
            if name in rows and self.label_smoothing == 0:
                raise ValueError(
                    f"{name} needs label_smoothing above 0 (0.1 for cdpo, 0.001 for exo_pair)"
                )
        straight = [n for n, row in rows.items() if row.has_reference and n not in BENDS]
        if self.f_divergence_type != "reverse_kl" and straight:
            raise ValueError(
                f"{', '.join(straight)} has no form with f_divergence_type "
                f"{self.f_divergence_type}; those that have are {', '.join(BENDS)}"
            )
        if self.reference_free and any(row.whole_batch or row.also for row in rows.values()):
            raise ValueError("reference_free has no meaning for aot and tdpo; leave one out")
        return self

    @property
    def rows(self) -> dict[str, Row]:
        """The losses by name."""
        names = (self.loss_type,) if isinstance(self.loss_type, str) else self.loss_type
        return {name: row_of(name) for name in names}

    @property
    def weights(self) -> tuple[float, ...]:
        """One weight for each loss."""
        return self.loss_weights or (1.0,) * len(self.rows)

    def beta_of(self, row: Row) -> float:
        """The coefficient of a loss."""
        return row.beta if self.beta is None else self.beta

    @property
    def needs_reference(self) -> bool:
        """Whether some loss compares with a reference."""
        return not self.reference_free and any(row.has_reference for row in self.rows.values())

    @property
    def also(self) -> tuple[Further, ...]:
        """Further outputs of the policy that the losses read."""
        asked: list[Further] = [name for row in self.rows.values() for name in row.also]
        if self.use_weighting:
            asked.append("log_collision")
        return tuple(dict.fromkeys(asked))

    def unread(self) -> NoEffect:
        """Name the settings of losses that are not here."""
        read = {name for row in self.rows.values() for name in row.reads}
        unread = tuple(name for name in LOSS_SETTINGS if name not in read)
        return NoEffect(True, unread, f"none of {', '.join(self.rows)} reads it")
