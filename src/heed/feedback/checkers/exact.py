"""The answer is one of the accepted texts."""

from __future__ import annotations

from typing import Any, ClassVar

from heed.feedback.checkers.base import Checker, Row, Verdict, cannot_judge, right, wrong
from heed.feedback.checkers.extract import Where, find_answer, has_marker
from heed.feedback.checkers.normalise import normalise
from heed.feedback.checkers.numbers import parse_number


class Exact(Checker):
    """1 where the final answer equals an accepted one after both are brought into one form."""

    word: ClassVar[str] = "exact"

    answer: str = "answer"
    """Column of the accepted answer, or of a list of accepted answers."""
    where: Where = "auto"
    """Where the final answer stands: tag, boxed, hashes, phrase, whole, or the first that is."""
    case: bool = False
    """Case of letters counts."""
    articles: bool = False
    """a, an and the count."""
    punctuation: bool = False
    """Stops and quotes count."""
    numbers: bool = True
    """Answers that are numbers are equal where the numbers are: 3.0 is 3."""

    def columns(self) -> tuple[str, ...]:
        """The column of the answer."""
        return (self.answer,)

    def judge(self, text: str, row: Row) -> Verdict:
        """Judge one text; `found` says whether there was an answer at all."""
        accepted = [self.form(str(one)) for one in accepted_answers(row[self.answer])]
        accepted = [one for one in accepted if one]
        if not accepted:
            return cannot_judge(f"the row's {self.answer} is empty")
        found = find_answer(text, self.where)
        if found is None or not found.text:
            return wrong(f"no answer ({self.where})", found=0.0)
        said = self.form(found.text)
        if said in accepted or (self.numbers and any(_equal(said, one) for one in accepted)):
            return right(f"{found.where}: {said[:80]!r}", found=1.0)
        return wrong(f"{found.where}: {said[:80]!r}, not {accepted[0][:80]!r}", found=1.0)

    def form(self, text: str) -> str:
        """Bring an answer into the form that is compared."""
        # What is found in a text has no space around it, which after a backslash is a sign.
        return normalise(
            text.strip(), case=self.case, articles=self.articles, punctuation=self.punctuation
        )


def accepted_answers(value: Any) -> list[Any]:
    """The accepted answers of a column: a value, or each of a list, out of its marker."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return [_out_of_marker(one) for one in values if one is not None]


def _out_of_marker(value: Any) -> Any:
    """A worked solution as reference: only the answer that it marks counts."""
    if isinstance(value, str) and has_marker(value):
        found = find_answer(value)
        return found.text if found else value
    return value


def _equal(said: str, accepted: str) -> bool:
    a, b = parse_number(said), parse_number(accepted)
    same = a is not None and b is not None
    return same and (a.value, a.percent, a.unit) == (b.value, b.percent, b.unit)  # type: ignore[union-attr]
