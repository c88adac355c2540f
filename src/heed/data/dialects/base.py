"""What a dialect is: rows of another project in, rows of heed's own columns out, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from heed.data.report import RowError

Row = Mapping[str, Any]
Kind = Literal["demonstrations", "preferences", "rankings", "prompts"]
Numbered = tuple[int, Row]
Outcome = tuple[int, "dict[str, Any] | RowError", int]
"""Number of the (first) row in the source, what it became, and how many rows it was made of."""


@dataclass(frozen=True)
class Dialect:
    """One way to write rows.

    Args:
        name: the word for it.
        kind: what its rows are.
        fits: whether a row is of this dialect, judged by its columns.
        read: a row -> a row of heed's own columns; raises RowError.
        write: the other way round, one row or several; raises RowError.
        says: its columns, for people.
        gather: rows -> outcomes, where several rows become one; by default each stands alone.
    """

    name: str
    kind: Kind
    fits: Callable[[Row], bool]
    read: Callable[[Row], dict[str, Any]]
    write: Callable[[Row], dict[str, Any] | list[dict[str, Any]]]
    says: str
    gather: Callable[[Iterable[Numbered], str], Iterator[Outcome]] | None = None

    def read_all(self, rows: Iterable[Numbered], score: str = "") -> Iterator[Outcome]:
        """Read rows one after the other; one that cannot be used comes as its RowError.

        Args:
            rows: with their numbers in the source.
            score: name of the score to rank by, where the dialect has several.
        """
        if self.gather is not None:
            yield from self.gather(rows, score)
            return
        for number, row in rows:
            try:
                yield number, self.read(row), 1
            except RowError as problem:
                yield number, problem, 1


def has(*columns: str) -> Callable[[Row], bool]:
    """A test whether a row has all of these columns, and a value in each."""
    return lambda row: all(row.get(column) is not None for column in columns)


def rest_of(row: Row, *used: str) -> dict[str, Any]:
    """The columns of a row that a dialect does not read; they are kept as they are."""
    return {name: value for name, value in row.items() if name not in used and value is not None}


def text_in(row: Row, column: str, *, empty: bool = False) -> str:
    """The text of a column.

    Raises:
        RowError: it is missing, not text, or empty where it must not be.
    """
    value = row.get(column)
    if value is None and empty:
        return ""
    if not isinstance(value, str):
        raise RowError(f"{column} is {'missing' if value is None else 'not text'}", str(value)[:80])
    if not value.strip() and not empty:
        raise RowError(f"{column} is empty")
    return value


def number_in(row: Row, column: str) -> float:
    """The number of a column.

    Raises:
        RowError: it is missing or not a finite number.
    """
    value = row.get(column)
    try:
        number = float("nan") if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if number != number or abs(number) == float("inf"):
        raise RowError(f"{column} is not a finite number", repr(value)[:80])
    return number


def ranks_of(scores: Sequence[float]) -> list[int]:
    """Ranks from scores: 1 for the highest, equal scores an equal rank, no rank left out."""
    order = {score: rank for rank, score in enumerate(sorted(set(scores), reverse=True), start=1)}
    return [order[score] for score in scores]


def ranking(
    prompt: Any, completions: Sequence[Any], ranks: Sequence[int], **more: Any
) -> dict[str, Any]:
    """A ranking in heed's own columns.

    Raises:
        RowError: there are fewer than two completions.
    """
    if len(completions) < 2:
        raise RowError("a ranking needs two completions", f"found {len(completions)}")
    return {
        "prompt": prompt,
        "completions": list(completions),
        "ranks": list(ranks),
        **{name: value for name, value in more.items() if value is not None},
    }
