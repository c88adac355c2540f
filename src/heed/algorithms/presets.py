"""The table of online methods: a name, and its choice in each column, as its source has it.

A column that a row does not name has the value of `Method`. `beta` is in a row only where its
source publishes a KL coefficient; elsewhere the user chooses it, because 0 against a learned
reward is the recipe of over-optimisation. Every row says where the KL stands and by which
estimator; where the source has none, in the reward by k1, where the optimum is the regularised one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Preset:
    """One row.

    Args:
        name: as `--preset` takes it.
        title: as reports call it.
        source: where the formula stands.
        columns: option of `OnlineConfig` -> value.
    """

    name: str
    title: str
    source: str
    columns: Mapping[str, Any]


def _table(*rows: Preset) -> Mapping[str, Preset]:
    return MappingProxyType({row.name: row for row in rows})


_K1_IN_REWARD = {"kl_place": "reward", "kl_estimator": "k1"}
_GROUP_STD = {"baseline": "group", "scale_rewards": "group", "num_generations": 8}

PRESETS: Mapping[str, Preset] = _table(
    Preset(
        "reinforce",
        "REINFORCE",
        "Williams 1992, section 3, without a baseline",
        {
            **_K1_IN_REWARD,
            "baseline": "none",
            "credit": "token",
            "loss_type": "plain",
            "average": "sum",
        },
    ),
    Preset(
        "remax",
        "ReMax",
        "Li et al. 2023 (arXiv 2310.10505), algorithm 1",
        {
            **_K1_IN_REWARD,
            "baseline": "greedy",
            "credit": "token",
            "loss_type": "plain",
            "average": "sum",
        },
    ),
    Preset(
        "rloo",
        "RLOO",
        "Ahmadian et al. 2024 (arXiv 2402.14740), equation 6; beta 0.03 and k 4 of its section 4",
        {
            **_K1_IN_REWARD,
            "baseline": "leave_one_out",
            "ratio": "sequence",
            "average": "sequence",
            "beta": 0.03,
            "num_generations": 4,
        },
    ),
    Preset(
        "reinforce++",
        "REINFORCE++",
        "Hu et al. 2025 (arXiv 2501.03262), equations 8 to 10",
        {**_K1_IN_REWARD, "baseline": "none", "credit": "token", "whiten_advantages": "batch"},
    ),
    Preset(
        "reinforce++-baseline",
        "REINFORCE++-baseline",
        "Hu et al. 2025 (arXiv 2501.03262): the group's mean first, then the batch's whitening",
        {**_K1_IN_REWARD, "baseline": "group", "whiten_advantages": "batch", "num_generations": 8},
    ),
    Preset(
        "grpo",
        "GRPO",
        "Shao et al. 2024 (DeepSeekMath, arXiv 2402.03300), equation 3; beta 0.04 of section 4.2",
        {
            **_GROUP_STD,
            "average": "sequence",
            "kl_place": "loss",
            "kl_estimator": "k3",
            "beta": 0.04,
        },
    ),
    Preset(
        "dr_grpo",
        "Dr. GRPO",
        "Liu et al. 2025 (arXiv 2503.20783), section 3.2",
        {**_K1_IN_REWARD, "baseline": "group", "average": "constant", "num_generations": 8},
    ),
    Preset(
        "dapo",
        "DAPO",
        "Yu et al. 2025 (arXiv 2503.14476), section 3; group of 16",
        {
            **_K1_IN_REWARD,
            **_GROUP_STD,
            "epsilon_high": 0.28,
            "dynamic_sampling": True,
            "overlong_frac": 0.2,
            "num_generations": 16,
        },
    ),
    Preset(
        "gspo",
        "GSPO",
        "Zheng et al. 2025 (arXiv 2507.18071), equations 5 to 7; bounds of its section 5.1",
        {
            **_K1_IN_REWARD,
            **_GROUP_STD,
            "ratio": "sequence_mean",
            "average": "sequence",
            "epsilon": 3e-4,
            "epsilon_high": 4e-4,
        },
    ),
    Preset(
        "gspo-token",
        "GSPO-token",
        "Zheng et al. 2025 (arXiv 2507.18071), equations 13 and 14",
        {
            **_K1_IN_REWARD,
            **_GROUP_STD,
            "ratio": "sequence_mean_token",
            "average": "sequence",
            "epsilon": 3e-4,
            "epsilon_high": 4e-4,
        },
    ),
    Preset(
        "cispo",
        "CISPO",
        "MiniMax-M1 2025 (arXiv 2506.13585), equation 4; the upper bound is not published there, a "
        "largest weight of 5 is that of ScaleRL (arXiv 2510.13786)",
        {**_K1_IN_REWARD, **_GROUP_STD, "loss_type": "weight", "epsilon_high": 4.0},
    ),
    Preset(
        "gpg",
        "GPG",
        "Chu et al. 2025 (arXiv 2504.02546): advantages times B / (B - M), M of groups all equal",
        {
            **_K1_IN_REWARD,
            "baseline": "group",
            "scale_rewards": "varied",
            "loss_type": "plain",
            "num_generations": 8,
        },
    ),
    Preset(
        "maxrl",
        "MaxRL",
        "Tajwar et al. 2026 (arXiv 2602.02710): (R - mean) / mean, for rewards of 0 and above",
        {**_K1_IN_REWARD, "baseline": "group", "scale_rewards": "mean", "num_generations": 8},
    ),
    Preset(
        "dual_clip",
        "dual-clip GRPO",
        "Ye et al. 2020 (arXiv 1912.09729), equation 5, c 3, on GRPO's advantages",
        {**_K1_IN_REWARD, **_GROUP_STD, "delta": 3.0},
    ),
    Preset(
        "raft",
        "RAFT",
        "Dong et al. 2023 (arXiv 2304.06767), algorithm 1: the best of K, by likelihood; K 8",
        {**_K1_IN_REWARD, "baseline": "best", "loss_type": "plain", "num_generations": 8},
    ),
    Preset(
        "expert_iteration",
        "expert iteration",
        "Anthony et al. 2017; for language models the filtered form of Singh et al. 2023 "
        "(arXiv 2312.06585), section 3, going on from the last policy",
        {**_K1_IN_REWARD, "baseline": "above", "loss_type": "plain", "num_generations": 8},
    ),
    Preset(
        "rwr",
        "reward-weighted regression",
        "Peters and Schaal 2007, equation 10, normalised over each prompt's completions",
        {**_K1_IN_REWARD, "baseline": "softmax", "loss_type": "plain", "num_generations": 8},
    ),
    Preset(
        "sapo",
        "SAPO",
        "Gao et al. 2025 (SAPO), as TRL 1.16 computes it; temperatures 1 and 1.05",
        {**_K1_IN_REWARD, **_GROUP_STD, "loss_type": "sapo", "average": "sequence"},
    ),
    Preset(
        "luspo",
        "LUSPO",
        "length-unbiased GSPO, as TRL 1.16 computes it",
        {
            **_K1_IN_REWARD,
            **_GROUP_STD,
            "ratio": "sequence_mean",
            "average": "sum",
            "epsilon": 3e-4,
            "epsilon_high": 4e-4,
        },
    ),
    Preset(
        "vespo",
        "VESPO",
        "as TRL 1.16 computes it: gamma weights of the sequence's ratio, (2, 3) and (3, 2)",
        {**_K1_IN_REWARD, **_GROUP_STD, "loss_type": "vespo"},
    ),
)
"""Name -> row."""


def find(name: str) -> Preset:
    """Return the row of that name.

    Raises:
        ValueError: there is none; the nearest is named.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.3)
    hint = f"; the nearest is {near[0]!r}" if near else ""
    raise ValueError(f"there is no preset {name!r}{hint}. There are {', '.join(PRESETS)}")
