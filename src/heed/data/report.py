"""Count what happens to every row between the file and the first step, and stop at too much loss.

Every row that was read ends as exactly one of: kept (perhaps cut), dropped, or unsupervised (no
token of it would be learned). Dropped rows are losses, except those set aside because somebody
said so, such as a labeller who could not judge.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from heed.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from heed.data.batch import Row

EXAMPLES_PER_REASON = 2
_SHOWN_CHARACTERS = 160


class RowError(Exception):
    """One row cannot be used: `reason` is counted, `detail` shown as an example; never fatal."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass
class DataReport:
    """The counts of one source. `kept` includes rows that were cut and still teach."""

    source: str
    read: int = 0
    num_cut: int = 0
    num_dropped: int = 0
    num_set_aside: int = 0
    num_unsupervised: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    """Tokens of each row that is kept; of a pair, of both its rows."""

    @property
    def kept(self) -> int:
        """Rows that remain."""
        return self.read - self.num_dropped - self.num_set_aside - self.num_unsupervised

    @property
    def num_lost(self) -> int:
        """Rows cut, dropped or unsupervised; not those set aside."""
        return self.num_cut + self.num_dropped + self.num_unsupervised

    @property
    def loss_frac(self) -> float:
        """Share of the rows read that is lost, 0 to 1."""
        return self.num_lost / self.read if self.read else 0.0

    def add_read(self, num_rows: int = 1) -> None:
        """Count rows read."""
        self.read += num_rows

    def add_kept(self, *num_tokens: int) -> None:
        """Note the tokens of a row that is kept (of a pair: of both its rows)."""
        self.lengths += num_tokens

    def cut(self, reason: str, example: str = "") -> None:
        """Count a row that lost tokens and is kept."""
        self.num_cut += 1
        self._note(reason, example)

    def drop(self, reason: str, example: str = "") -> None:
        """Count a row that is left out."""
        self.num_dropped += 1
        self._note(reason, example)

    def set_aside(self, reason: str, example: str = "") -> None:
        """Count a row that is left out because somebody said so; not a loss."""
        self.num_set_aside += 1
        self._note(reason, example)

    def unsupervised(self, reason: str, example: str = "") -> None:
        """Count a row of which no token would be learned; it is left out."""
        self.num_unsupervised += 1
        self._note(reason, example)

    def note(self, text: str) -> None:
        """Keep a remark, once."""
        if text not in self.notes:
            self.notes.append(text)

    def _note(self, reason: str, example: str) -> None:
        self.reasons[reason] += 1
        shown = self.examples.setdefault(reason, [])
        if example and len(shown) < EXAMPLES_PER_REASON:
            shown.append(" ".join(example.split())[:_SHOWN_CHARACTERS])

    def check(self, max_loss_frac: float) -> None:
        """Stop where too many rows are lost.

        Args:
            max_loss_frac: largest share of rows read that may be cut, dropped or unsupervised.

        Raises:
            DataError: more is lost, or nothing is left. The message has the counts, the main
                reasons with an example, and what to do.
        """
        if self.kept > 0 and self.loss_frac <= max_loss_frac:
            return
        reasons = "; ".join(
            f"{reason} ({count:,})" for reason, count in self.reasons.most_common(3)
        )
        example = next((e[0] for r, _ in self.reasons.most_common() if (e := self.examples[r])), "")
        remedies = "Fix these rows, or raise data.max_length where rows are too long"
        if self.kept > 0:
            remedies += f", or set data.max_loss_frac={_above(self.loss_frac)} to accept the loss"
        raise DataError(
            f"{self.source}: of {self.read:,} rows {self.num_lost:,} "
            f"({self.loss_frac:.2%}) are lost: {self._counts()}. "
            f"Allowed are {max_loss_frac:.2%} (data.max_loss_frac)"
            f"{'' if self.kept > 0 else ', and at least one row must remain'}. "
            f"Main reasons: {reasons or 'none'}."
            f"{f' First example: {example}.' if example else ''} {remedies}."
        )

    def _counts(self) -> str:
        text = (
            f"{self.num_cut:,} cut, {self.num_dropped:,} dropped, "
            f"{self.num_unsupervised:,} unsupervised"
        )
        return text + (f"; {self.num_set_aside:,} more set aside" if self.num_set_aside else "")

    def tokens(self) -> dict[str, float | int] | None:
        """Min, median, max and total of the row lengths in tokens; None before rendering."""
        if not self.lengths:
            return None
        return {
            "min": min(self.lengths),
            "median": statistics.median(self.lengths),
            "max": max(self.lengths),
            "total": sum(self.lengths),
        }

    def to_json(self) -> dict[str, Any]:
        """The entry of `data_report.json`; `dropped` includes the rows set aside."""
        return {
            "source": self.source,
            "read": self.read,
            "kept": self.kept,
            "cut": self.num_cut,
            "dropped": self.num_dropped + self.num_set_aside,
            "set_aside": self.num_set_aside,
            "unsupervised": self.num_unsupervised,
            "reasons": dict(self.reasons.most_common()),
            "examples": {reason: list(shown) for reason, shown in self.examples.items()},
            "notes": list(self.notes),
            "tokens": self.tokens(),
        }

    def lines(self) -> list[str]:
        """The report as lines of text for a terminal."""
        out = [f"{self.source}: {self.read:,} rows read, {self.kept:,} kept ({self._counts()})"]
        for reason, count in self.reasons.most_common():
            out.append(f"  {count:>7,}  {reason}")
            out += [f"           such as {example}" for example in self.examples[reason]]
        tokens = self.tokens()
        if tokens:
            out.append(
                f"  tokens of a row: {tokens['min']:,} to {tokens['max']:,}, "
                f"median {tokens['median']:,.0f}; {tokens['total']:,} in all"
            )
        return out + [f"  note: {note}" for note in self.notes]


class Keeper(Protocol):
    """Whatever keeps reports and shows lines: a run."""

    def write_data_report(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Keep the counts."""
        ...

    def note(self, text: str) -> None:
        """Show a line."""
        ...


def settle(keeper: Keeper, reports: Sequence[tuple[DataReport, float]]) -> None:
    """Keep and show what happened to all rows before the first step, then stop at too much loss.

    Args:
        keeper: the run.
        reports: each with the largest share of its rows that may be lost.

    Raises:
        DataError: a source lost more than its share.
    """
    keeper.write_data_report([report.to_json() for report, _ in reports])
    for report, _ in reports:
        for line in report.lines():
            keeper.note(line)
    for report, max_loss_frac in reports:
        report.check(max_loss_frac)


def _above(frac: float) -> str:
    """A round number just above a share."""
    for digits in (2, 3, 4, 6):
        value = round(frac, digits) + 10**-digits
        if value <= frac * 1.5 or digits == 6:
            break
    return f"{min(value, 1.0):.{digits}f}".rstrip("0").rstrip(".")


def show_example(row: Row, tokenizer: PreTrainedTokenizerBase, *, color: bool = False) -> str:
    """Show one row as text with its learn mask.

    Learned tokens stand between `[[` and `]]`, or in green where `color` is true. Special tokens
    are written out, so that a start token that came twice or an end token that is missing shows.
    """
    before, after = ("\x1b[32m", "\x1b[0m") if color else ("[[", "]]")
    out = []
    for learned, tokens in _spans(row.tokens, row.learn):
        text = tokenizer.decode(
            tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        out.append(f"{before}{text}{after}" if learned else str(text))
    return "".join(out)


def _spans(tokens: Sequence[int], learn: Sequence[bool]) -> list[tuple[bool, list[int]]]:
    spans: list[tuple[bool, list[int]]] = []
    for token, learned in zip(tokens, learn, strict=True):
        if spans and spans[-1][0] == bool(learned):
            spans[-1][1].append(token)
        else:
            spans.append((bool(learned), [token]))
    return spans
