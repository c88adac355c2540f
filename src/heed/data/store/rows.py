"""Rows of prompts and replies, or a run's samples, become items of any kind of work.

pair           `prompt` and `completions` (two), or `chosen` and `rejected`
ranking        `prompt` and `completions` (two to nine)
rating         `prompt` and `completion`, or `completions` (up to nine, shown together)
edit, spans    `prompt` and `completion`; of `completions` each becomes an item of its own
demonstration  `prompt`; whatever else a row holds is not shown
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from heed.data.columns import prompt_for, reply_of
from heed.data.exchange import read_rows
from heed.data.report import RowError
from heed.data.store.foreign import Read, item_of, read_pairs, read_samples, replies_of
from heed.data.store.items import NewItem

Row = Mapping[str, Any]

SAMPLES = {"pair": 2, "ranking": 4, "rating": 1, "edit": 1, "spans": 1, "demonstration": 0}
"""Kind of work -> completions of a run that stand in one item, unless it is told otherwise."""
NEEDS = {
    "pair": "`prompt` and `completions` (two texts), or `prompt`, `chosen` and `rejected`",
    "ranking": "`prompt` and `completions` (two to nine texts)",
    "rating": "`prompt` and `completion` (a text), or `completions` (up to nine)",
    "edit": "`prompt` and `completion` (a text), or `completions`",
    "spans": "`prompt` and `completion` (a text), or `completions`",
    "demonstration": "`prompt`",
}
"""Kind of work -> what a row of it has."""
_MOST = {"ranking": 9, "rating": 9}
_ONE = ("completion", "response", "answer")


def read_items(path: str | Path, kind: str) -> Read:
    """Read a file of rows as items of a kind of work; rows that lack something are counted.

    Args:
        path: a file of rows, see `heed.data.exchange`.
        kind: one of `NEEDS`.
    """
    if kind == "pair":
        return read_pairs(path)
    make: Callable[[Row], list[NewItem]] = _prompt_alone if kind == "demonstration" else (
        lambda row: _with_replies(row, kind)
    )  # fmt: skip
    out = Read()
    for _, row in read_rows(path):
        try:
            out.items += make(row)
        except (RowError, ValueError) as error:
            reason = error.reason if isinstance(error, RowError) else str(error).splitlines()[0]
            out.refused[reason] += 1
    return out


def read_run(path: str | Path, kind: str, *, size: int | None = None, per_prompt: int = 1) -> Read:
    """Make items of a kind of work from the completions of a run folder.

    Args:
        size: completions per item; only rankings and ratings leave a choice.
        per_prompt: items of one prompt at most.
    """
    return read_samples(path, size=SAMPLES[kind] if size is None else size, per_prompt=per_prompt)


def _prompt_alone(row: Row) -> list[NewItem]:
    if row.get("prompt") is None:
        raise RowError("no prompt")
    return [item_of(prompt_for(row["prompt"], "", {}), [])]


def _with_replies(row: Row, kind: str) -> list[NewItem]:
    replies = replies_of(row)
    if replies is None:
        one = next((row[name] for name in _ONE if row.get(name) is not None), None)
        if one is None:
            raise RowError(f"neither completion nor completions beside the prompt of a {kind}")
        replies = [one]
    if row.get("prompt") is None:
        raise RowError("no prompt beside the completions")
    if not isinstance(replies, (list, tuple)) or not replies:
        raise RowError("completions is no list of texts")
    if kind == "ranking" and len(replies) < 2:
        raise RowError("a ranking has 2 to 9 completions, and this row has one")
    if len(replies) > _MOST.get(kind, len(replies)):
        raise RowError(f"a {kind} has at most 9 completions, and this row has more")
    prompt = prompt_for(row["prompt"], replies[0], {})
    texts = [reply_of(one, prompt, "completions")[-1].text for one in replies]
    if kind in ("edit", "spans"):
        return [item_of(prompt, [text]) for text in texts]
    return [item_of(prompt, texts)]
