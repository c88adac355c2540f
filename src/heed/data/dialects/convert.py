"""Convert rows of any dialect to any kind that they hold, with every row accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, combinations, islice, pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from heed.data.dialects.base import Dialect, Kind, Outcome, Row, rest_of
from heed.data.dialects.table import DIALECTS, dialect_named, dialects_of
from heed.data.dialects.turns import messages_in, reply_in
from heed.data.exchange import NumberedRow, read_rows, write_rows
from heed.data.report import DataReport, RowError
from heed.errors import ConfigError, DataError
from heed.settings import Settings

KINDS: tuple[Kind, ...] = ("demonstrations", "preferences", "rankings", "prompts")

_RANKING = ("prompt", "completions", "ranks", "scores", "attributes", "models")
_OWN_COLUMNS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("rankings", ("prompt", "completions", "ranks")),
    ("preferences", ("prompt", "chosen", "rejected")),
    ("demonstrations", ("messages",)),
    ("demonstrations", ("prompt", "completion")),
    ("prompts", ("prompt",)),
)


class ConvertConfig(Settings):
    """Convert a data set from one format to another."""

    path: str
    """What is read: a file, a run folder, or a hub id."""
    out: str
    """The .jsonl file that is written, perhaps with .gz or .xz."""
    format: str | None = None
    """Format of what is read; by default the only one that its first row can be."""
    to: str = ""
    """A kind (demonstrations, preferences, rankings, prompts) in heed's own columns, or a format;
    by default the kind that is read."""
    score: str = ""
    """The score to rank by, where the rows have several (such as fine-grained_score, verbosity)."""
    pairs: Literal["all", "extremes", "adjacent"] = "all"
    """Which pairs become of a ranking: all, best against worst, or neighbours in rank."""
    ties: bool = False
    """Keep pairs of equal rank, with p = 0.5."""
    rename: dict[str, str] = {}
    """Old name -> new name of columns, before anything else."""
    split: str = "train"
    """Split of a hub data set."""
    limit: int | None = Field(default=None, ge=1)
    """Read only the first rows."""
    max_loss_frac: float = Field(default=0.01, ge=0.0, le=1.0)
    """Write nothing where more than this share of rows cannot be used."""
    overwrite: bool = False
    """Replace an existing file."""


def convert(config: ConvertConfig) -> DataReport:
    """Read, convert and write rows; the report counts rows read, and notes how many were written.

    Raises:
        ConfigError: a format or kind does not exist, or one does not hold the other.
        DataError: nothing readable is there, its format cannot be told, or too much is lost.
    """
    rows = _renamed(islice(read_rows(config.path, split=config.split), config.limit), config.rename)
    first = next(rows)
    source = _source(config, first[1])
    target = config.to or (source.kind if isinstance(source, Dialect) else source)
    steps = _steps(source, target, config)
    report = DataReport(config.path)
    name = source.name if isinstance(source, Dialect) else f"heed's own columns of {source}"
    report.note(f"read as {name}; written as {target}")
    out: list[dict[str, Any]] = []
    for number, row, num in _read(source, chain([first], rows), config.score):
        for _ in range(num):
            report.add_read()
        try:
            if isinstance(row, RowError):
                raise row
            out += _apply(steps, row)
        except RowError as problem:
            for _ in range(num):
                report.drop(problem.reason, f"row {number} {problem.detail}".strip())
    report.check(config.max_loss_frac)
    num_written = write_rows(config.out, out, overwrite=config.overwrite)
    report.note(f"{num_written:,} rows written to {Path(config.out).name}")
    return report


def own_kind(row: Row) -> Kind | None:
    """The kind whose own columns a row has, or None."""
    present = {name for name, value in row.items() if value is not None}
    return next((kind for kind, columns in _OWN_COLUMNS if present.issuperset(columns)), None)


def _renamed(rows: Iterator[NumberedRow], names: Mapping[str, str]) -> Iterator[NumberedRow]:
    for number, row in rows:
        yield number, {names.get(name, name): value for name, value in row.items()}


def _source(config: ConvertConfig, row: Row) -> Dialect | Kind:
    if config.format in KINDS:
        return next(kind for kind in KINDS if kind == config.format)
    if config.format is not None:
        return dialect_named(config.format)
    found = dialects_of(row)
    if len(found) == 1:
        return found[0]
    own = own_kind(row)
    if not found and own is not None:
        return own
    columns = f"{config.path} has the columns {', '.join(row) or '(none)'}"
    if found:
        names = ", ".join(dialect.name for dialect in found)
        raise DataError(f"{columns}, which can be {names}; say which with --format")
    known = "; ".join(f"{dialect.name} ({dialect.says})" for dialect in DIALECTS.values())
    raise DataError(
        f"{columns}, which are of no known format. Known are heed's own columns and {known}. "
        "Rename columns with --rename.OLD NEW, or name the format with --format"
    )


def _read(source: Dialect | Kind, rows: Iterator[NumberedRow], score: str) -> Iterator[Outcome]:
    if isinstance(source, Dialect):
        yield from source.read_all(rows, score)
        return
    for number, row in rows:
        if own_kind(row) is None:
            yield number, RowError("a column is missing", ", ".join(row)[:80]), 1
        else:
            yield number, dict(row), 1


Step = Callable[[Row], "list[dict[str, Any]]"]


def _steps(source: Dialect | Kind, target: str, config: ConvertConfig) -> list[Step]:
    """What is done to each row in heed's own columns, one after the other."""
    if target not in KINDS and target not in DIALECTS:
        known = [*KINDS, *DIALECTS]
        raise ConfigError(f"--to {target!r} is no kind and no format; there are {', '.join(known)}")
    writer = DIALECTS.get(target)
    has = source.kind if isinstance(source, Dialect) else source
    wanted = writer.kind if writer else target
    steps: list[Step] = []
    if has != wanted:
        between: dict[tuple[str, str], Step] = {
            ("rankings", "preferences"): lambda row: pairs_of(row, config.pairs, config.ties),
            ("rankings", "demonstrations"): _best,
            ("preferences", "rankings"): _ranked,
            ("preferences", "demonstrations"): _chosen,
            **{(kind, "prompts"): _prompt for kind in KINDS},
        }
        if (has, wanted) not in between:
            raise ConfigError(f"{has} hold no {wanted}; choose another --to")
        steps.append(between[has, wanted])
    if writer is not None:
        steps.append(lambda row: _listed(writer.write(row)))
    return steps


def _apply(steps: Sequence[Step], row: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [row]
    for step in steps:
        rows = [made for one in rows for made in step(one)]
    return rows


def _listed(made: dict[str, Any] | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return made if isinstance(made, list) else [made]


def pairs_of(
    row: Row, which: Literal["all", "extremes", "adjacent"], ties: bool
) -> list[dict[str, Any]]:
    """The comparisons that a ranking holds; `margin` is the difference of scores, if it has any.

    Raises:
        RowError: none is left.
    """
    ranks, scores = row["ranks"], row.get("scores")
    order = sorted(range(len(ranks)), key=lambda i: (ranks[i], i))
    couples = list(combinations(order, 2))
    if which == "extremes":
        couples = [(order[0], order[-1])]
    elif which == "adjacent":
        couples = list(pairwise(order))
    out = []
    for better, worse in couples:
        tie = ranks[better] == ranks[worse]
        if (tie and not ties) or row["completions"][better] == row["completions"][worse]:
            continue
        pair = {
            "prompt": row["prompt"],
            "chosen": row["completions"][better],
            "rejected": row["completions"][worse],
        }
        if tie:
            pair["p"] = 0.5
        elif scores is not None:
            pair["margin"] = scores[better] - scores[worse]
        out.append({**pair, **rest_of(row, *_RANKING)})
    if not out:
        raise RowError("all completions of a ranking are tied or equal")
    return out


def _best(row: Row) -> list[dict[str, Any]]:
    ranks = row["ranks"]
    best = [i for i, rank in enumerate(ranks) if rank == min(ranks)]
    return [_demonstration(row["prompt"], row["completions"][best[0]], rest_of(row, *_RANKING))]


def _chosen(row: Row) -> list[dict[str, Any]]:
    rest = rest_of(row, "prompt", "chosen", "rejected", "p", "margin", "weight")
    return [_demonstration(row["prompt"], row["chosen"], rest)]


def _demonstration(prompt: Any, reply: Any, rest: dict[str, Any]) -> dict[str, Any]:
    if isinstance(prompt, str) and isinstance(reply, str):
        return {"prompt": prompt, "completion": reply, **rest}
    messages = messages_in(prompt, "prompt") + reply_in(reply, "completion")
    return {"messages": messages, **rest}


def _ranked(row: Row) -> list[dict[str, Any]]:
    p = row.get("p")
    if p not in (None, 0, 0.5, 1):
        raise RowError("a ranking has no probability", f"p = {p}")
    ranks = {None: [1, 2], 1: [1, 2], 0.5: [1, 1], 0: [2, 1]}[p]
    rest = rest_of(row, "prompt", "chosen", "rejected", "p", "margin", "weight")
    sides = [row["chosen"], row["rejected"]]
    return [{"prompt": row["prompt"], "completions": sides, "ranks": ranks, **rest}]


def _prompt(row: Row) -> list[dict[str, Any]]:
    """The prompt of a row; of messages, what stands before the last reply."""
    prompt = row.get("prompt")
    if prompt is None:
        messages = messages_in(row["messages"], "messages")
        while messages and messages[-1]["role"] == "assistant":
            messages.pop()
        if not messages:
            raise RowError("no prompt before the first reply")
        prompt = messages
    hidden = (*_RANKING, "messages", "completion", "chosen", "rejected", "p", "margin", "weight")
    return [{"prompt": prompt, **rest_of(row, *hidden)}]
