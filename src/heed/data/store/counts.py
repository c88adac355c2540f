"""What an answer does to an item's counters, and the state that follows from them.

    n_live    leases that hold a place        n_valid   answers that fill a place
    n_cannot  answers "I cannot judge"        n_invalid answers "it is broken"
    n_skips   skips

An ordinary item never has n_valid + n_live above its need: the database refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heed.data.store.project_config import ProjectConfig

COUNTED_ROLES = ("normal", "repeat")
"""Roles of items that need a number of people; the others are for everyone."""

_COUNTER = {"cannot_judge": "n_cannot", "invalid": "n_invalid"}


def counter_of(outcome: str) -> str:
    """Name the counter that an answer with this outcome is counted in."""
    return _COUNTER.get(outcome, "n_valid")


def has_room(item: Mapping[str, Any]) -> bool:
    """Whether one more person may take a place."""
    if item["role"] not in COUNTED_ROLES:
        return True
    return bool(item["n_valid"] + item["n_live"] < item["need"])


def new_state(item: Mapping[str, Any], config: ProjectConfig) -> str:
    """Return the state that follows from an item's counters."""
    if item["closed"]:
        return str(item["closed"])
    if item["n_invalid"] >= config.max_invalid:
        return "quarantined"
    if item["role"] in COUNTED_ROLES and item["n_valid"] >= item["need"]:
        return "satisfied"
    if item["n_cannot"] > config.max_cannot or item["n_skips"] >= config.max_skips:
        return "hard"
    return "ready"
