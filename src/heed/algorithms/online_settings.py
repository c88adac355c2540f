"""The settings that every online method has, whatever its credit and its loss."""

from __future__ import annotations

from pydantic import Field, model_validator

from heed.algorithms.cost_settings import CostSettings
from heed.algorithms.method import Method
from heed.records import Sampling
from heed.settings import (
    DataSettings,
    EngineSettings,
    LearnerSettings,
    ModelSettings,
    NoEffect,
    OptimSettings,
    PromptSettings,
    RunSettings,
    Settings,
)


class OnlineSettings(Settings):
    """What is sampled, scored, watched and kept."""

    run: RunSettings
    model: ModelSettings
    """The policy to start from; a frozen copy of it is the reference of the KL penalty."""
    reference: ModelSettings | None = None
    """Another reference than the policy's start."""
    data: PromptSettings
    """Prompts."""
    reward_funcs: tuple[str, ...] = Field(min_length=1)
    """What is optimised: reward models (folder, run or hub id), Python callables
    (`module:function` or `file.py:function`, with TRL's signature), or a world's run folder."""
    reward_weights: tuple[float, ...] | None = None
    """One weight for each of `reward_funcs`; 1 each by default."""
    gold: str | None = None
    """A scorer that is only measured and never optimised, in the same forms."""
    max_failed_frac: float = Field(default=0.1, ge=0.0, le=1.0)
    """Stop where more than this share of an update's completions has no score."""

    total_episodes: int = Field(default=8192, ge=1)
    """Completions of the whole run."""
    batch_size: int = Field(default=128, ge=1)
    """Completions of one update."""
    num_mini_batches: int = Field(default=1, ge=1)
    """Optimiser steps in one pass over an update's completions."""
    sampling: Sampling = Sampling()
    """Temperature 1 and no truncation sample the policy as it is."""

    kl_target: float | None = Field(default=None, gt=0.0)
    """Nats per completion that an adaptive coefficient steers to; none keeps it fixed."""
    kl_horizon: float | None = Field(default=None, gt=0.0)
    """Adaptive gain as in lm-human-preferences: batch size / horizon (10,000 there)."""
    kl_gain: float | None = Field(default=None, gt=0.0)
    """Adaptive gain as in Ziegler's paper: 0.1 for each batch."""
    exact_kl_rows: int = Field(default=32, ge=0)
    """Completions of each update whose KL is also computed over the whole vocabulary."""

    missing_eos_score: float | None = None
    """Replaces the score of a completion that does not end (-1 in the sources)."""
    missing_eos_penalty: float | None = Field(default=None, ge=0.0)
    """Taken from the score of a completion that does not end (TRL)."""
    truncate_after: str | None = None
    """The scorer sees a completion only up to the first such text, Ziegler's period rule; one
    without it counts as not ended."""
    truncate_min_tokens: int = Field(default=0, ge=0)
    """Tokens before which `truncate_after` does not count."""
    gamma: float = Field(default=1.0, ge=0.0, le=1.0)
    """Discount per token."""

    cost: CostSettings | None = None
    """A cost that is held at a limit by a Lagrange multiplier (safe RLHF)."""

    ptx_data: DataSettings | None = None
    """Text whose likelihood is raised along the way (InstructGPT's PPO-ptx)."""
    ptx_coef: float = Field(default=27.8, ge=0.0)
    """Weight of that likelihood, per token, beside the policy loss."""
    ptx_batch_size: int = Field(default=32, ge=1)
    """Rows of that text for each optimiser step."""

    eval_prompts: PromptSettings | None = None
    """Prompts that are answered again and again to watch the run; by default some of `data`."""
    num_eval_prompts: int = Field(default=64, ge=1)
    """How many of them."""
    eval_every: int = Field(default=10, ge=1)
    """Updates between two looks."""
    num_samples: int = Field(default=8, ge=0)
    """Completions kept at each look for the report."""
    keep_rollouts: bool = False
    """Keep every update's completions and scores instead of those not yet in a checkpoint."""

    optim: OptimSettings = OptimSettings(lr=3e-6, eps=1e-5)
    learner: LearnerSettings = LearnerSettings()
    engine: EngineSettings = EngineSettings()

    @model_validator(mode="after")
    def _check_shared(self) -> OnlineSettings:
        if self.sampling.temperature == 0:
            raise ValueError(
                "sampling.temperature is 0 (greedy), which has no policy gradient; set it above 0"
            )
        if self.reward_weights and len(self.reward_weights) != len(self.reward_funcs):
            raise ValueError(
                f"there are {len(self.reward_weights)} reward_weights for "
                f"{len(self.reward_funcs)} reward_funcs; give one for each"
            )
        if self.batch_size % self.group_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of num_generations "
                f"{self.group_size}; an update holds whole groups"
            )
        if self.num_mini_batches > self.batch_size:
            raise ValueError(
                f"num_mini_batches {self.num_mini_batches} is more than batch_size "
                f"{self.batch_size}; a minibatch holds at least one completion"
            )
        if self.missing_eos_score is not None and self.missing_eos_penalty is not None:
            raise ValueError(
                "missing_eos_score replaces and missing_eos_penalty subtracts; set one of them"
            )
        if self.kl_target is not None and (self.kl_horizon is None) == (self.kl_gain is None):
            raise ValueError("an adaptive kl_target needs exactly one of kl_horizon and kl_gain")
        if self.kl_target is not None and self.method.beta == 0:
            raise ValueError(
                "the KL coefficient is 0, from where an adaptive one (kl_target) never leaves; "
                "start it above 0, such as 0.15 in lm-human-preferences"
            )
        return self

    def without_effect(self) -> tuple[NoEffect, ...]:
        """See `Settings.without_effect`."""
        watched = self.eval_prompts is not None and self.eval_prompts.on_overlong == "truncate"
        never_cut = "a prompt is cut only at end_text; one that is too long is dropped and counted"
        return (
            NoEffect(True, ("sampling.n",), "num_generations is the number for each prompt"),
            NoEffect(True, ("sampling.seed",), "samples follow run.seed"),
            NoEffect(True, ("reference.lora",), "the reference is not trained"),
            NoEffect(
                self.kl_target is None,
                ("kl_horizon", "kl_gain"),
                "without kl_target the coefficient stays as it is",
            ),
            NoEffect(
                self.truncate_after is None, ("truncate_min_tokens",), "truncate_after is not set"
            ),
            NoEffect(self.ptx_data is None, ("ptx_coef", "ptx_batch_size"), "there is no ptx_data"),
            NoEffect(self.data.on_overlong == "truncate", ("data.on_overlong",), never_cut),
            NoEffect(watched, ("eval_prompts.on_overlong",), never_cut),
            NoEffect(
                True, ("ptx_data.on_overlong",), "a long text becomes several rows, none is lost"
            ),
        )

    # -- what the configuration of a method says --------------------------------------------------

    @property
    def method(self) -> Method:
        """The method's choice in each column."""
        raise NotImplementedError

    @property
    def group_size(self) -> int:
        """Completions for each prompt of an update."""
        raise NotImplementedError

    @property
    def num_epochs(self) -> int:
        """Passes over an update's completions."""
        raise NotImplementedError

    @property
    def stage_title(self) -> str:
        """Name of the stage in the terminal and the report."""
        raise NotImplementedError

    @property
    def max_refills(self) -> int:
        """Times that more prompts are sampled where groups were left out; 0: none are."""
        return 0

    @property
    def overlong(self) -> tuple[int, float] | None:
        """Last tokens of the longest length, and what the very last of them costs."""
        return None

    @property
    def drops_truncated(self) -> bool:
        """Whether a completion that does not end teaches nothing."""
        return False

    # -- derived ----------------------------------------------------------------------------------

    @property
    def num_prompts(self) -> int:
        """Prompts of one update."""
        return self.batch_size // self.group_size

    @property
    def num_updates(self) -> int:
        """Updates of the run; the last one is full."""
        return -(-self.total_episodes // self.batch_size)

    @property
    def steps_per_update(self) -> int:
        """Optimiser steps of one update."""
        return self.num_epochs * self.num_mini_batches
