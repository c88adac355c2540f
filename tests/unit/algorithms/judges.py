"""Pairwise judges, sound and broken."""

from __future__ import annotations

from typing import Any


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else completion[-1]["content"]


def shorter(prompts: list[Any], completions: list[tuple[Any, Any]], **columns: Any) -> list[float]:
    """Nine times in ten the shorter is better."""
    lengths = [(len(_text(a)), len(_text(b))) for a, b in completions]
    return [0.5 if a == b else 0.9 if a < b else 0.1 for a, b in lengths]


def first(prompts: list[Any], completions: list[tuple[Any, Any]]) -> list[float]:
    """Whoever is shown first."""
    return [1.0] * len(completions)


def silent(prompts: list[Any], completions: list[tuple[Any, Any]]) -> list[None]:
    """Cannot say."""
    return [None] * len(completions)


def raises(prompts: list[Any], completions: list[tuple[Any, Any]]) -> list[float]:
    """Fails."""
    raise RuntimeError("the judge is out")


def too_few(prompts: list[Any], completions: list[tuple[Any, Any]]) -> list[float]:
    """One value too few."""
    return [0.5] * (len(completions) - 1)


def beyond(prompts: list[Any], completions: list[tuple[Any, Any]]) -> list[float]:
    """No probability."""
    return [1.5] * len(completions)


class ShorterJudge:
    """A judge in TRL's form: the place of the better completion."""

    def judge(
        self, prompts: list[str], completions: list[list[str]], shuffle_order: bool = True
    ) -> list[int]:
        """0 or 1; -1 where it cannot say."""
        return [-1 if len(a) == len(b) else int(len(b) < len(a)) for a, b in completions]
