"""What an online method is: one choice in each column, and nothing else.

    score -> reward -> advantage                          baseline, scale_rewards, credit, ...
    advantage, ratio -> loss                              loss_type, ratio, epsilon, ...
    loss -> gradient                                      average
    KL to the reference                                   kl_place, kl_estimator, beta

The loop (`online`), the credit (`advantages`) and the losses (`updates`) read these columns and
know no method by its name. `presets` is the table of the methods that have one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CriticFree = Literal[
    "none", "batch", "group", "leave_one_out", "greedy", "best", "above", "softmax", "even"
]
Baseline = CriticFree | Literal["value"]
Scale = Literal["none", "group", "batch", "mean", "varied"]
Credit = Literal["sequence", "token"]
Whitening = Literal["batch", "minibatch", "none"]
LossType = Literal["clip", "weight", "plain", "sapo", "vespo"]
Ratio = Literal["token", "sequence", "sequence_mean", "sequence_mean_token"]
Average = Literal["token", "sequence", "constant", "sum"]
Estimator = Literal["k1", "k2", "k3"]
Place = Literal["reward", "loss"]
Correction = Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]

COMPARES: tuple[Baseline, ...] = ("group", "leave_one_out", "best", "softmax")
"""Baselines that need other completions of the same prompt."""

SELECTS: tuple[Baseline, ...] = ("best", "above")
"""Baselines that choose what is learned: a completion that is not chosen teaches nothing."""


@dataclass(frozen=True)
class Method:
    """The columns; what each means stands beside the options of `OnlineConfig`.

    Args:
        beta: reward per nat, where the KL stands in the reward; loss per nat, where in the loss.
        whiten_rewards, lam, value_clip, vf_coef: read with the baseline "value" only.
    """

    beta: float
    baseline: Baseline = "group"
    scale_rewards: Scale = "none"
    credit: Credit = "sequence"
    whiten_advantages: Whitening = "none"
    loss_type: LossType = "clip"
    ratio: Ratio = "token"
    epsilon: float = 0.2
    epsilon_high: float = 0.2
    delta: float | None = None
    average: Average = "token"
    kl_estimator: Estimator = "k1"
    kl_place: Place = "reward"
    use_bias_correction_kl: bool = False
    importance_sampling: Correction = "none"
    importance_sampling_cap: float = 3.0
    threshold: float = 0.5
    softmax_temperature: float = 1.0
    gamma: float = 1.0
    lam: float = 0.95
    whiten_rewards: bool = False
    value_clip: float | None = None
    vf_coef: float = 0.1

    @property
    def has_values(self) -> bool:
        """Whether a value model is trained."""
        return self.baseline == "value"

    @property
    def selects(self) -> bool:
        """Whether only chosen completions are learned."""
        return self.baseline in SELECTS

    @property
    def needs_groups(self) -> bool:
        """Whether a completion is compared with others of its prompt."""
        return self.baseline in COMPARES or self.scale_rewards in ("group", "mean")
