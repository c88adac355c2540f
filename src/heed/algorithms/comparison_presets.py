"""The table of methods that learn online from comparisons: a name, and its choices.

A method compares completions of the policy with those of a `rival`, and learns from the pairs by a
loss of `preference_rows`, or from the probability of winning by policy gradient (Nash-MD).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

Rival = Literal["policy", "reference", "mixture", "demonstration"]
Labels = Literal["hard", "soft", "sampled"]
Pairing = Literal["halves", "best_worst"]


@dataclass(frozen=True)
class Comparison:
    """One row.

    Args:
        name: as `--preset` takes it.
        title: as reports call it.
        source: where the formula stands.
        rival: who completes the other half of a pair.
        columns: option of `OnlinePreferenceConfig` -> value.
        gradient: learns from the probability of winning, by policy gradient, not from pairs.
    """

    name: str
    title: str
    source: str
    rival: Rival
    columns: Mapping[str, Any]
    gradient: bool = False


def _table(*rows: Comparison) -> Mapping[str, Comparison]:
    return MappingProxyType({row.name: row for row in rows})


COMPARISONS: Mapping[str, Comparison] = _table(
    Comparison(
        "online_dpo",
        "online DPO",
        "Guo et al. 2024 (OAIF, arXiv 2402.04792), algorithm 1; beta 0.1 as in its experiments",
        "policy",
        {},
    ),
    Comparison(
        "iterative_dpo",
        "iterative DPO",
        "Dong et al. 2024 (RLHF Workflow, arXiv 2405.07863), algorithm 1: the best of 8 against "
        "the worst of 8, the reference fixed",
        "policy",
        {"num_generations": 8, "pairing": "best_worst", "num_iterations": 2},
    ),
    Comparison(
        "xpo",
        "XPO",
        "Xie et al. 2024 (arXiv 2405.21046), algorithm 1; alpha 1e-5 as in TRL",
        "reference",
        {"xpo_alpha": 1e-5},
    ),
    Comparison(
        "spin",
        "SPIN",
        "Chen et al. 2024 (arXiv 2401.01335), algorithm 1: demonstrations against the policy's own "
        "completions, the reference replaced by the policy after every round",
        "demonstration",
        {"sync_ref_model": True},
    ),
    Comparison(
        "nash_md",
        "Nash-MD",
        "Munos et al. 2023 (arXiv 2312.00886), section 7: Nash-MD-PG; mixture 0.5 as in TRL",
        "mixture",
        {"num_generations": 1, "labels": "soft"},
        gradient=True,
    ),
)
"""Name -> row."""


def find(name: str) -> Comparison:
    """Return the row of that name.

    Raises:
        ValueError: there is none; the nearest is named.
    """
    if name in COMPARISONS:
        return COMPARISONS[name]
    near = difflib.get_close_matches(name, COMPARISONS, n=1, cutoff=0.3)
    hint = f"; the nearest is {near[0]!r}" if near else ""
    raise ValueError(f"there is no preset {name!r}{hint}. There are {', '.join(COMPARISONS)}")
