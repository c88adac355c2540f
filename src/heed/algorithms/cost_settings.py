"""A cost beside the reward, held at a limit: the settings of safe RLHF."""

from __future__ import annotations

from pydantic import Field, model_validator

from heed.settings import NoEffect, Settings


class CostSettings(Settings):
    """A cost that the policy may have on average, and the price that holds it there."""

    funcs: tuple[str, ...] = Field(min_length=1)
    """What costs, in the forms of `reward_funcs`: a reward model trained to score harm higher, a
    callable, a checker."""
    weights: tuple[float, ...] | None = None
    """One weight for each of `funcs`; 1 each by default."""
    limit: float
    """Largest mean cost of a completion, in the scorer's unit; no default."""
    multiplier: float = Field(default=1.0, gt=0.0)
    """Lagrange multiplier to start from: score taken off for a unit of cost."""
    multiplier_lr: float = Field(default=0.1, ge=0.0)
    """Step of its logarithm: this x the multiplier x (mean cost - limit); 0 keeps it."""
    multiplier_max: float | None = Field(default=None, gt=0.0)
    """Largest multiplier."""
    rescale: bool = True
    """Divide the priced score by 1 + the multiplier, as Safe RLHF does; the KL then holds as with
    beta (1 + multiplier)."""

    @model_validator(mode="after")
    def _check(self) -> CostSettings:
        if self.weights is not None and len(self.weights) != len(self.funcs):
            raise ValueError(
                f"there are {len(self.weights)} weights for {len(self.funcs)} cost funcs; give "
                "one for each"
            )
        if self.multiplier_max is not None and self.multiplier_max < self.multiplier:
            raise ValueError(
                f"multiplier_max {self.multiplier_max} is below multiplier {self.multiplier}"
            )
        return self

    def without_effect(self) -> tuple[NoEffect, ...]:
        """See `Settings.without_effect`."""
        fixed = self.multiplier_lr == 0
        return (
            NoEffect(fixed, ("multiplier_max",), "multiplier_lr is 0 and the multiplier stays"),
        )
