"""Records become rows for training, and every one that does not is counted with its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from heed.data.batch import Row
from heed.data.formats import PlainText
from heed.data.groups import Group, GroupRows
from heed.data.judgements import LabelledPair, LabelledReply
from heed.data.labels import Rating, Steps
from heed.data.render import Overlong, Renderer
from heed.data.report import DataReport
from heed.errors import DataError
from heed.records import Demonstration

OnOverlong = Literal["error", "truncate", "drop"]
T = TypeVar("T")


def supervised_rows(
    records: Sequence[Demonstration | PlainText],
    renderer: Renderer,
    report: DataReport,
    *,
    max_length: int,
    on_overlong: OnOverlong = "drop",
) -> list[Row]:
    """Make rows to fine-tune on.

    A plain text longer than `max_length` becomes several rows, of which nothing is lost.

    Raises:
        Overlong: a row is too long and `on_overlong` is error.
    """
    out: list[Row] = []
    for record in records:
        if isinstance(record, PlainText):
            rows = renderer.text_rows(record.id, record.text, max_length)
            report.add_kept(*(len(row.tokens) for row in rows))
            out += rows
            continue

        def make(how: str, demo: Demonstration = record) -> Row:
            return renderer.demonstration_row(demo, max_length, how)

        row = _fitted(make, report, max_length, on_overlong, record.reply[-1].text)
        if row is None:
            continue
        if any(row.learn):
            report.add_kept(len(row.tokens))
            out.append(row)
        else:
            report.unsupervised("no token of the reply would be learned", record.prompt.text)
    _note(renderer, report)
    return out


def pair_rows(
    pairs: Sequence[LabelledPair],
    renderer: Renderer,
    report: DataReport,
    *,
    max_length: int,
    on_overlong: OnOverlong = "drop",
) -> list[tuple[LabelledPair, Row, Row]]:
    """Make a chosen and a rejected row of each pair; a pair stays, is cut or goes as a whole.

    Raises:
        Overlong: a row is too long and `on_overlong` is error.
    """
    out = []
    for pair in pairs:

        def make(how: str, pair: LabelledPair = pair) -> tuple[Row, Row]:
            chosen = renderer.item_row(pair.prompt, pair.chosen)
            rejected = renderer.item_row(pair.prompt, pair.rejected)
            return renderer.fitted_pair(chosen, rejected, max_length, how)

        rows = _fitted(make, report, max_length, on_overlong, pair.prompt.text)
        if rows is None:
            continue
        if list(rows[0].tokens) == list(rows[1].tokens):
            report.drop("chosen and rejected are the same tokens", pair.chosen[-1].text)
            continue
        report.add_kept(len(rows[0].tokens), len(rows[1].tokens))
        out.append((pair, *rows))
    _note(renderer, report)
    return out


def reply_rows(
    replies: Sequence[LabelledReply],
    renderer: Renderer,
    report: DataReport,
    *,
    max_length: int,
    on_overlong: OnOverlong = "drop",
) -> list[tuple[LabelledReply, Row]]:
    """Make a row of each labelled reply.

    Raises:
        Overlong: a row is too long and `on_overlong` is error.
    """
    out = []
    for reply in replies:

        def make(how: str, reply: LabelledReply = reply) -> Row:
            return renderer.item_row(reply.prompt, reply.reply, max_length, how)

        row = _fitted(make, report, max_length, on_overlong, reply.prompt.text)
        if row is not None:
            report.add_kept(len(row.tokens))
            out.append((reply, row))
    _note(renderer, report)
    return out


def group_rows(
    groups: Sequence[Group],
    renderer: Renderer,
    report: DataReport,
    *,
    max_length: int,
    on_overlong: OnOverlong = "drop",
) -> list[GroupRows]:
    """Make a row of each completion of an element; it stays, is cut or goes as a whole.

    Raises:
        Overlong: a row is too long and `on_overlong` is error.
    """
    out: list[GroupRows] = []
    for group in groups:

        def make(how: str, group: Group = group) -> tuple[Row, ...]:
            rows = [renderer.item_row(group.prompt, reply) for reply in group.replies]
            return renderer.fitted_together(rows, max_length, how)

        # A ranking is one row of the data; gathered pairs are as many as there are.
        num = len(group.pairs) if group.ranks is None else 1
        rows = _fitted(make, report, max_length, on_overlong, group.prompt.text, num)
        if rows is not None:
            report.add_kept(*(len(row.tokens) for row in rows))
            out.append((group, rows))
    _note(renderer, report)
    return out


def rating_rows(
    ratings: Sequence[Rating],
    renderer: Renderer,
    report: DataReport,
    *,
    max_length: int,
    on_overlong: OnOverlong = "drop",
) -> list[tuple[Rating, Row]]:
    """Make a row of each rated completion.

    Raises:
        Overlong: a row is too long and `on_overlong` is error.
    """
    out = []
    for rating in ratings:

        def make(how: str, rating: Rating = rating) -> Row:
            return renderer.item_row(rating.prompt, rating.reply, max_length, how)

        row = _fitted(make, report, max_length, on_overlong, rating.prompt.text)
        if row is not None:
            report.add_kept(len(row.tokens))
            out.append((rating, row))
    _note(renderer, report)
    return out


def step_rows(
    records: Sequence[Steps],
    renderer: Renderer,
    report: DataReport,
    separator: str,
    *,
    max_length: int,
    on_overlong: OnOverlong = "drop",
) -> list[tuple[Steps, Row]]:
    """Make a row of each completion in steps, the end of every step marked as learned.

    Raises:
        Overlong: a row is too long and `on_overlong` is error.
    """
    out = []
    for record in records:

        def make(how: str, record: Steps = record) -> Row:
            return renderer.steps_row(record.prompt, record.steps, separator, max_length, how)

        row = _fitted(make, report, max_length, on_overlong, record.prompt.text)
        if row is not None:
            report.add_kept(len(row.tokens))
            out.append((record, row))
    _note(renderer, report)
    return out


def _fitted(
    make: Callable[[str], T],
    report: DataReport,
    max_length: int,
    on_overlong: OnOverlong,
    example: str,
    num: int = 1,
) -> T | None:
    """Make rows of a record; one that is too long is cut, dropped or an error, and counted.

    Args:
        num: rows of the data that the record was made of.
    """

    def count(what: Callable[[str, str], None], reason: str, detail: str) -> None:
        for _ in range(num):
            what(reason, detail)

    try:
        return make("error")
    except Overlong as error:
        if on_overlong == "error":
            raise
        long = str(error)
    except DataError as error:
        count(report.drop, "cannot be laid out as tokens", f"{error}: {example[-80:]}")
        return None
    if on_overlong == "truncate":
        try:
            rows = make("truncate")
        except Overlong:
            count(report.drop, f"reply longer than {max_length} tokens", long)
            return None
        reason = f"longer than {max_length} tokens; oldest tokens of the prompt cut"
        count(report.cut, reason, long)
        return rows
    count(report.drop, f"longer than {max_length} tokens", long)
    return None


def _note(renderer: Renderer, report: DataReport) -> None:
    for note in renderer.notes:
        report.note(note)
