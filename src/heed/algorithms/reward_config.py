"""The settings of a reward model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from heed.settings import (
    DataSettings,
    LearnerSettings,
    ModelSettings,
    NoEffect,
    OptimSettings,
    RunSettings,
    Settings,
)


class RewardConfig(Settings):
    """A reward model trained on comparisons, rankings or numbers."""

    run: RunSettings
    model: ModelSettings
    """The model to start from, usually the warmed-up policy; it gets a score head."""
    data: DataSettings
    """What `loss_type` learns from: comparisons (`chosen` and `rejected`, or a run of `heed
    compare`), rankings, or completions with numbers."""
    loss_type: Literal["bradley_terry", "k_wise", "plackett_luce", "regression"] = "bradley_terry"
    """bradley_terry: pairs. k_wise: all pairs of a prompt in one element, as InstructGPT.
    plackett_luce: whole rankings. regression: numbers, one a named attribute."""
    ties: Literal["soft", "davidson", "drop"] = "soft"
    """What a tie says. soft: each side is as likely the better. davidson: it is an outcome with a
    probability of its own. drop: nothing, it is set aside."""
    tie_log_nu: float | None = None
    """Logarithm of Davidson's tie parameter, held fixed; by default it is learned."""
    both_bad: Literal["drop", "tie"] = "drop"
    """Whether a judgement that both are bad is no label, or is read as a tie."""
    margin_per_strength: float | None = Field(default=None, gt=0.0)
    """Where a pair has no margin: this times its strength (Llama 2: 1/3 or 1, of 0 to 3)."""
    attributes: tuple[str, ...] = ()
    """Columns of numbers to fit with `regression`; a row may lack some. By default `score`."""
    attribute_weights: tuple[float, ...] | None = None
    """Weight of each attribute in the score; equal ones by default."""
    eval_data: DataSettings | None = None
    """Data to judge the model on; by default a share of `data` held out by prompt."""
    eval_frac: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the prompts held out where there is no `eval_data`."""
    eval_every: int = Field(default=100, ge=1)
    """Steps between two measurements on the held-out data."""
    subset_column: str | None = None
    """Column whose values part the held-out comparisons; accuracy is also told for each."""
    num_train_epochs: float = Field(default=1.0, gt=0.0)
    """Passes over the data; more than one overfits quickly."""
    batch_size: int = Field(default=64, ge=1)
    """Pairs, prompts (k_wise, plackett_luce) or completions (regression) of one step."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Labels are taken to be wrong with this probability."""
    center_rewards_coefficient: float | None = Field(default=None, ge=0.0)
    """Weight of (r_c + r_r)^2, which keeps scores near 0."""
    head_seed: int | None = None
    """Seed of the fresh score head; by default the run's. Models to average need the same."""
    normalise: Literal["gain_and_bias", "bias", "none"] = "gain_and_bias"
    """After training: mean 0 and deviation 1 (Ziegler), or only mean 0 (Stiennon)."""
    normalise_before: bool = False
    """Normalise before training too (Ziegler)."""
    normalise_data: DataSettings | None = None
    """Completions or demonstrations to normalise on; by default those of the training data."""
    num_normalise: int = Field(default=256, ge=2)
    """How many of them."""
    optim: OptimSettings = OptimSettings(lr=1e-5)
    learner: LearnerSettings = LearnerSettings()

    def without_effect(self) -> tuple[NoEffect, ...]:
        """See `Settings.without_effect`."""
        return (
            NoEffect(self.eval_data is not None, ("eval_frac",), "eval_data is held out"),
            NoEffect(
                self.normalise == "none",
                ("normalise_before", "normalise_data", "num_normalise"),
                "normalise is none",
            ),
        )

    @model_validator(mode="after")
    def _check(self) -> RewardConfig:
        compares = self.loss_type in ("bradley_terry", "k_wise")
        if self.loss_type != "regression" and (self.attributes or self.attribute_weights):
            raise ValueError(
                "attributes are fitted by loss_type 'regression'; set it, or drop them"
            )
        num = len(self.attributes) or 1
        if self.attribute_weights is not None and len(self.attribute_weights) != num:
            raise ValueError(
                f"{len(self.attribute_weights)} attribute_weights for {num} attributes; "
                "give one for each"
            )
        if self.tie_log_nu is not None and self.ties != "davidson":
            raise ValueError("tie_log_nu is Davidson's; set ties to 'davidson', or leave it out")
        if not compares and (self.label_smoothing or self.margin_per_strength):
            raise ValueError(
                f"label_smoothing and margin_per_strength are of comparisons, and loss_type is "
                f"{self.loss_type!r}; use bradley_terry or k_wise, or leave them out"
            )
        if not compares and self.both_bad != "drop":
            raise ValueError(
                f"both_bad is of judged pairs, and loss_type is {self.loss_type!r}; leave it out"
            )
        if self.loss_type == "regression" and self.subset_column:
            raise ValueError("subset_column parts comparisons, and regression has none; drop it")
        if any("/" in name or not name for name in self.attributes):
            raise ValueError(
                f"attributes are {self.attributes}; they name metrics too, so none may be empty or "
                "hold a slash"
            )
        if self.loss_type == "regression" and (
            self.ties != "soft" or self.center_rewards_coefficient
        ):
            raise ValueError(
                "regression has no ties and needs no centring; leave both settings out"
            )
        return self
