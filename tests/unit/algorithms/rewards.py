"""Reward functions in TRL's signature, sound and broken."""

from __future__ import annotations

from typing import Any

Completion = str | list[dict[str, str]]


def _text(completion: Completion) -> str:
    return completion if isinstance(completion, str) else completion[-1]["content"]


def length(completions: list[Completion], **columns: Any) -> list[float]:
    """Longer is better."""
    return [float(len(_text(each))) for each in completions]


def rare(completions: list[Completion], **columns: Any) -> list[float]:
    """1 for a text of some sort that is neither rare nor common, so that some groups vary."""
    return [float(sum(map(ord, _text(each))) % 4 == 0) for each in completions]


def constant(completions: list[Completion], **columns: Any) -> list[float]:
    """The same for all."""
    return [0.1 + 0.2] * len(completions)


def sometimes_nan(completions: list[Completion], **columns: Any) -> list[float]:
    """NaN for about one in eight."""
    texts = map(_text, completions)
    return [float("nan") if sum(map(ord, t)) % 8 == 0 else float(len(t)) for t in texts]


def nan(completions: list[Completion], **columns: Any) -> list[float]:
    """NaN for all."""
    return [float("nan")] * len(completions)


def mostly_nan(completions: list[Completion], **columns: Any) -> list[float]:
    """A number for the first completion alone."""
    return [1.0] + [float("nan")] * (len(completions) - 1)


def raising(completions: list[Completion], **columns: Any) -> list[float]:
    """Fails."""
    raise RuntimeError("no luck")


def short(completions: list[Completion], **columns: Any) -> list[float]:
    """One value too few."""
    return [1.0] * (len(completions) - 1)
