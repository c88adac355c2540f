"""What a checker is: a text and its row in, a verdict out; and the scorer made of one.

A verdict keeps three cases apart. A right answer has the value 1. A wrong one, or none where one
was due, has 0: that is the policy's doing. Where the checker itself could not judge (the row has
no answer, the tests do not parse) the value is None with the reason: nobody learns from it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from heed.errors import ConfigError
from heed.feedback.base import Item
from heed.feedback.rules import DECLINED, failed_completion
from heed.records import Score
from heed.settings import Settings

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What a checker says of one text.

    Args:
        value: 0 to 1, or None where the checker could not judge.
        reason: why, in a few words.
        parts: further numbers by name, such as whether an answer was found at all.
    """

    value: float | None
    reason: str
    parts: Mapping[str, float] = field(default_factory=dict)


def right(reason: str, **parts: float) -> Verdict:
    """The verdict on a right answer: 1."""
    return Verdict(1.0, reason, parts)


def wrong(reason: str, **parts: float) -> Verdict:
    """The verdict on a wrong or absent answer: 0."""
    return Verdict(0.0, reason, parts)


def cannot_judge(reason: str) -> Verdict:
    """The verdict where the checker could not judge: None."""
    return Verdict(None, reason)


class Checker(Settings):
    """Base of the checkers: settings, and a judgement of one text with its row.

    Every checker is also a reward function of TRL's signature (version 1.16 and earlier):
    `checker(completions=..., answer=..., ...)` returns one number, or None, for each completion.
    """

    word: ClassVar[str] = ""
    """What stands after `check:` on the command line."""

    name: str = ""
    """Stands in scores and metrics; the checker's word by default."""

    @property
    def label(self) -> str:
        """The name in scores: `name`, else the word."""
        return self.name or self.word

    @property
    def __name__(self) -> str:
        """TRL names a reward function by this."""
        return self.label

    def columns(self) -> tuple[str, ...]:
        """The columns of the data set without which nothing can be judged."""
        return ()

    @abstractmethod
    def judge(self, text: str, row: Row) -> Verdict:
        """Judge one text.

        Args:
            text: the completion.
            row: the columns of its row; `prompt` is the prompt's text.
        """

    def judge_all(self, texts: Sequence[str], rows: Sequence[Row]) -> list[Verdict]:
        """Judge texts, in order. What raises is a judgement that could not be made."""
        return [self._guarded(text, row) for text, row in zip(texts, rows, strict=True)]

    def _guarded(self, text: str, row: Row) -> Verdict:
        missing = [name for name in self.columns() if row.get(name) is None]
        if missing:
            return cannot_judge(f"{DECLINED}the row has no {' and no '.join(missing)}")
        try:
            return self.judge(text, row)
        except Exception as error:
            return cannot_judge(f"the checker failed: {type(error).__name__}: {error}")

    def __call__(
        self, completions: Sequence[Any], prompts: Sequence[Any] | None = None, **columns: Any
    ) -> list[float | None]:
        """Judge completions in TRL's signature: strings, or lists of messages.

        Args:
            completions: N of them.
            prompts: N of them, where the checker reads the prompt.
            columns: name -> N values; anything that is no such list is not looked at.

        Returns:
            N values; None where the checker could not judge.
        """
        num = len(completions)
        listed = {
            name: values
            for name, values in columns.items()
            if isinstance(values, (list, tuple)) and len(values) == num
        }
        rows = [
            {
                **{name: values[i] for name, values in listed.items()},
                "prompt": "" if prompts is None else text_of(prompts[i]),
            }
            for i in range(num)
        ]
        verdicts = self.judge_all([text_of(completion) for completion in completions], rows)
        return [verdict.value for verdict in verdicts]


class CheckerScorer:
    """Scores items with a checker; the parts and the reason of each verdict stand in its score.

    Args:
        checker: who judges.
    """

    def __init__(self, checker: Checker) -> None:
        self.checker = checker

    @property
    def name(self) -> str:
        """Stands in `Score.scorer`."""
        return self.checker.label

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Score items, in order.

        Raises:
            ConfigError: no item has a column that the checker needs.
        """
        scores = [failed_completion(item, self.name) for item in items]
        whole = [i for i, score in enumerate(scores) if score is None]
        rows = [{**items[i].prompt.meta, "prompt": items[i].prompt.text} for i in whole]
        self._check_columns(rows)
        verdicts = self.checker.judge_all([items[i].completion.text for i in whole], rows)
        for i, verdict in zip(whole, verdicts, strict=True):
            scores[i] = _score(items[i].completion.id, verdict, self.name)
        return [score for score in scores if score is not None]

    def _check_columns(self, rows: Sequence[Row]) -> None:
        for needed in self.checker.columns():
            if rows and not any(needed in row for row in rows):
                known = sorted({name for row in rows for name in row} - {"prompt"})
                raise ConfigError(
                    f"the checker {self.name!r} reads the column {needed!r}, and the data set has "
                    f"the columns {known or 'none'}; add the column, or name another one as in "
                    f"check:{self.checker.word}:COLUMN_SETTING=NAME"
                )


def _score(item_id: str, verdict: Verdict, scorer: str) -> Score:
    value, error = verdict.value, None
    if value is None or not math.isfinite(value):
        value, error = None, verdict.reason or "the checker gave no reason"
    return Score(
        item_id=item_id,
        value=value,
        error=error,
        reason=verdict.reason or None,
        parts=dict(verdict.parts),
        scorer=scorer,
    )


def text_of(value: Any) -> str:
    """The text of a completion or prompt: a string, or the last message of a list."""
    if isinstance(value, (list, tuple)) and value:
        value = value[-1]
    if isinstance(value, Mapping):
        value = value.get("content", "")
    return value if isinstance(value, str) else str(value)
