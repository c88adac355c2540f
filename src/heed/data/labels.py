"""Rows with labels beyond a pair: rankings, numbers by attribute, and steps.

rankings   prompt + completions + ranks (1 is best, equal is tied) | + scores (more is better) |
           + best (the place of the best, from 0) | prompt + ranking (a list of lists, best
           first); `responses` stands for `completions`
ratings    prompt + completion (or response) + one column a named attribute
steps      prompt + completions (the steps) + labels (true or false, or a probability)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heed.data.columns import number_of, prompt_for, reply_of
from heed.data.formats import Format, Row
from heed.data.report import RowError
from heed.data.transcripts import Messages
from heed.errors import ConfigError
from heed.ids import content_hash
from heed.records import Prompt, Ranking


@dataclass(frozen=True)
class Rating:
    """A completion with the numbers that it was given, one an attribute, None where not given."""

    id: str
    prompt: Prompt
    reply: Messages
    numbers: tuple[float | None, ...]


@dataclass(frozen=True)
class Steps:
    """A completion in steps, each right (1), wrong (0), between, or not labelled (None)."""

    id: str
    prompt: Prompt
    steps: tuple[str, ...]
    labels: tuple[float | None, ...]


def _ranking(row: Row, meta: dict[str, Any], texts: Sequence[Any], ranks: list[float]) -> Ranking:
    if len(texts) < 2:
        raise RowError("a ranking of fewer than two completions", f"found {len(texts)}")
    prompt = prompt_for(row["prompt"], texts[0], meta)
    seen: dict[tuple[tuple[str, str], ...], tuple[Messages, float]] = {}
    for text, rank in zip(texts, ranks, strict=True):
        reply = reply_of(text, prompt, "completions")
        key = tuple((m.role, m.text) for m in reply)
        if key in seen and seen[key][1] != rank:
            raise RowError("one completion at two ranks", reply[-1].text[-80:])
        seen[key] = (reply, rank)
    if len(seen) < 2:
        raise RowError("all completions of a ranking are the same", prompt.text[-80:])
    order = sorted({rank for _, rank in seen.values()})
    replies = tuple(reply for reply, _ in seen.values())
    dense = tuple(order.index(rank) + 1 for _, rank in seen.values())
    content = [[[m.role, m.text] for m in reply] for reply in (prompt.messages, *replies)]
    name = "ranking-" + content_hash([content, dense])
    return Ranking(id=name, prompt=prompt, replies=replies, ranks=dense)


def _list(row: Row, column: str) -> list[Any]:
    value = row[column]
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise RowError(f"{column} is not a list", repr(value)[:80])
    return list(value)


def _numbers(row: Row, column: str, num: int) -> list[float]:
    values = _list(row, column)
    if len(values) != num:
        raise RowError(f"not one of {column} for each completion", f"{len(values)} for {num}")
    found = [number_of({column: value}, column) for value in values]
    if None in found:
        raise RowError(f"{column} holds a missing value", repr(values)[:80])
    return [value for value in found if value is not None]


def _by_numbers(texts: str, column: str, sign: float) -> Callable[[Row, dict[str, Any]], Ranking]:
    def read(row: Row, meta: dict[str, Any]) -> Ranking:
        completions = _list(row, texts)
        numbers = _numbers(row, column, len(completions))
        return _ranking(row, meta, completions, [sign * number for number in numbers])

    return read


def _by_best(texts: str) -> Callable[[Row, dict[str, Any]], Ranking]:
    def read(row: Row, meta: dict[str, Any]) -> Ranking:
        completions, best = _list(row, texts), number_of(row, "best")
        if best not in range(len(completions)):
            raise RowError("best is not the place of a completion", f"{best}, counted from 0")
        return _ranking(row, meta, completions, [float(i != best) for i in range(len(completions))])

    return read


def _by_blocks(row: Row, meta: dict[str, Any]) -> Ranking:
    texts, ranks = [], []
    for place, block in enumerate(_list(row, "ranking")):
        tied = block if isinstance(block, Sequence) and not isinstance(block, str) else [block]
        if tied and all(isinstance(item, Mapping) and "content" in item for item in tied):
            tied = [tied]  # one dialogue reply, not several tied texts
        texts += list(tied)
        ranks += [float(place)] * len(tied)
    return _ranking(row, meta, texts, ranks)


def _record(row: Row, meta: dict[str, Any]) -> Ranking:
    try:
        return Ranking.model_validate({k: row[k] for k in Ranking.model_fields if k in row})
    except ValueError as error:
        raise RowError("not a valid ranking", str(error).splitlines()[-1]) from error


RANKINGS: tuple[Format[Ranking], ...] = (
    Format(("prompt", "replies", "ranks"), _record, says="records of heed"),
    *(
        Format(("prompt", texts, label), read)
        for label, sign in (("ranks", 1.0), ("scores", -1.0))
        for texts in ("completions", "responses")
        for read in [_by_numbers(texts, label, sign)]
    ),
    Format(("prompt", "completions", "best"), _by_best("completions")),
    Format(("prompt", "responses", "best"), _by_best("responses")),
    Format(("prompt", "ranking"), _by_blocks, says="a list of lists, best first"),
)


def rating_formats(attributes: Sequence[str]) -> tuple[Format[Rating], ...]:
    """Say how completions with these attributes are read.

    Raises:
        ConfigError: no attribute is named, or one twice.
    """
    if not attributes or len(set(attributes)) < len(attributes):
        raise ConfigError(f"the attributes are {list(attributes)}; name one or more, each once")

    def reads(texts: str) -> Callable[[Row, dict[str, Any]], Rating]:
        def read(row: Row, meta: dict[str, Any]) -> Rating:
            prompt = prompt_for(row["prompt"], row[texts], meta)
            reply = reply_of(row[texts], prompt, texts)
            numbers = tuple(number_of(row, name) for name in attributes)
            if all(number is None for number in numbers):
                raise RowError("no attribute is labelled", f"{', '.join(attributes)}: all missing")
            content = [[m.role, m.text] for m in (*prompt.messages, *reply)]
            return Rating("rating-" + content_hash([content, numbers]), prompt, reply, numbers)

        return read

    return (
        Format(("prompt", "completion"), reads("completion")),
        Format(("prompt", "response"), reads("response")),
        Format(("prompt", "reply"), reads("reply")),
    )


def _steps(row: Row, meta: dict[str, Any]) -> Steps:
    steps, labels = _list(row, "completions"), _list(row, "labels")
    if len(labels) != len(steps):
        raise RowError("not one label for each step", f"{len(labels)} for {len(steps)}")
    if not steps or not all(isinstance(step, str) and step.strip() for step in steps):
        raise RowError("a step is empty or not text", repr(steps)[:80])
    found = [_step_label(label) for label in labels]
    if all(label is None for label in found):
        raise RowError("no step is labelled", repr(steps[0])[:80])
    prompt = prompt_for(row["prompt"], steps[0], meta)
    name = "steps-" + content_hash([[m.role, m.text] for m in prompt.messages] + [steps, found])
    return Steps(name, prompt, tuple(steps), tuple(found))


def _step_label(label: Any) -> float | None:
    if label is None:
        return None
    if isinstance(label, bool):
        return float(label)
    number = number_of({"labels": label}, "labels", 0.0, 1.0)
    return None if number is None or math.isnan(number) else number


STEPS: tuple[Format[Steps], ...] = (Format(("prompt", "completions", "labels"), _steps),)
