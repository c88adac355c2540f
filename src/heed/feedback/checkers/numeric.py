"""The answer is the number."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from heed.feedback.checkers.base import Checker, Row, Verdict, cannot_judge, right, wrong
from heed.feedback.checkers.exact import accepted_answers
from heed.feedback.checkers.extract import after_thinking, find_answer
from heed.feedback.checkers.normalise import normalise
from heed.feedback.checkers.numbers import (
    Decimal,
    Number,
    find_numbers,
    parse_number,
    same_number,
)

_FLOAT_SLACK = 1e-9


class Numeric(Checker):
    """1 where the final number equals the reference, |a - b| <= max(absolute, relative * |b|)."""

    word: ClassVar[str] = "numeric"

    answer: str = "answer"
    """Column of the number, of a list of accepted ones, or of a worked solution that marks it."""
    where: Literal["auto", "tag", "boxed", "hashes", "phrase", "last"] = "auto"
    """Where the final number stands: behind a marker, last in the text, or the first that is."""
    absolute: float = Field(default=0.0, ge=0.0)
    """Largest difference that counts as equal."""
    relative: float = Field(default=0.0, ge=0.0)
    """Largest difference as a share of the reference; of one that is a float, at least 1e-9."""
    percent: Literal["either", "fraction", "unit"] = "either"
    """Where only one of the two is in per cent: 20 % is 0.2, or 20, or either."""
    units: Literal["ignore", "require"] = "ignore"
    """Whether what stands behind the number must begin with the unit of the reference."""
    decimal: Decimal = "."
    """The sign before decimals in completions."""

    def columns(self) -> tuple[str, ...]:
        """The column of the answer."""
        return (self.answer,)

    def judge(self, text: str, row: Row) -> Verdict:
        """Judge one text; `found` says whether there was a number at all."""
        references = accepted_answers(row[self.answer])
        read = [(one, _reference(one)) for one in references]
        unread = [one for one, number in read if number is None]
        if unread or not read:
            return cannot_judge(f"the row's {self.answer} is no number: {str(unread)[:80]}")
        number, place = self.find(text)
        if number is None:
            return wrong(f"no number ({place})", found=0.0)
        for one, wanted in read:
            slack = _FLOAT_SLACK if isinstance(one, float) else 0.0
            if wanted is not None and self._same(number, wanted, slack):
                return right(f"{place}: {_shown(number)}", found=1.0)
        wanted_text = str(references[0])[:40]
        return wrong(f"{place}: {_shown(number)}, not {wanted_text}", found=1.0)

    def find(self, text: str) -> tuple[Number | None, str]:
        """Find the final number, and say where it stood."""
        if self.where != "last":
            found = find_answer(text, self.where)
            if found is not None and found.where != "whole":
                return _stated(found.text, self.decimal), found.where
            if self.where != "auto":
                return None, self.where
        said = after_thinking(text)
        if said is None:
            return None, "the thinking does not end"
        numbers = find_numbers(said, self.decimal)
        return (numbers[-1], "last") if numbers else (None, "last")

    def _same(self, found: Number, wanted: Number, slack: float) -> bool:
        unit, said = normalise(wanted.unit), normalise(found.unit)
        if self.units == "require" and unit and said != unit and not said.startswith(f"{unit} "):
            return False
        return same_number(
            found,
            wanted,
            absolute=self.absolute,
            relative=max(self.relative, slack),
            percent=self.percent,
        )


def _stated(answer: str, decimal: Decimal) -> Number | None:
    """The number of a marked answer: all of it, else the first one after its last `=`."""
    whole = parse_number(answer, decimal)
    if whole is not None:
        return whole
    numbers = find_numbers(answer.rpartition("=")[2], decimal) or find_numbers(answer, decimal)
    return numbers[0] if numbers else None


def _reference(value: object) -> Number | None:
    whole = parse_number(value)
    if whole is not None or not isinstance(value, str):
        return whole
    marked = find_answer(value)
    if marked is not None and marked.where != "whole":
        return _stated(marked.text, ".")
    numbers = find_numbers(value)
    # A reference is read with more care than a completion: several numbers name none.
    return numbers[0] if len({number.value for number in numbers}) == 1 else None


def _shown(number: Number) -> str:
    value = number.value
    text = str(value) if value.denominator in (1, 3, 7) else f"{float(value):.12g}"
    return f"{text[:40]} {number.unit}".strip()
