"""Rankings and comparisons by scores: UltraFeedback, HelpSteer, NeMo."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from heed.data.dialects.base import (
    Dialect,
    Numbered,
    Outcome,
    Row,
    has,
    number_in,
    ranking,
    ranks_of,
    rest_of,
    text_in,
)
from heed.data.dialects.turns import (
    from_marked,
    messages_in,
    only_text,
    reply_in,
    to_marked,
    turn,
)
from heed.data.report import RowError

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
"""The attributes of HelpSteer, 0 to 4 each."""

_OWN = ("prompt", "completions", "ranks", "scores", "attributes", "models")


def _ultrafeedback(row: Row, score: str) -> dict[str, Any]:
    prompt = [turn("user", text_in(row, "instruction"))]
    entries = row["completions"]
    if not isinstance(entries, (list, tuple)) or not all(isinstance(e, Mapping) for e in entries):
        raise RowError("completions is not a list of objects", repr(entries)[:80])
    completions = [[turn("assistant", text_in(entry, "response"))] for entry in entries]
    scores = [number_in(entry, score) for entry in entries]
    models = [entry.get("model") for entry in entries]
    return ranking(
        prompt,
        completions,
        ranks_of(scores),
        scores=scores,
        models=models if all(models) else None,
        **rest_of(row, "instruction", "completions", "models"),
    )


def _read_ultrafeedback(rows: Iterable[Numbered], score: str) -> Iterator[Outcome]:
    for number, row in rows:
        try:
            yield number, _ultrafeedback(row, score or "overall_score"), 1
        except RowError as problem:
            yield number, problem, 1


def _write_ultrafeedback(row: Row) -> dict[str, Any]:
    prompt = messages_in(row.get("prompt"), "prompt")
    if [message["role"] for message in prompt] != ["user"]:
        raise RowError("the format has one user's turn as its prompt")
    scores, models = row.get("scores"), row.get("models")
    if scores is None:
        raise RowError("the format needs scores, and the ranking has ranks only")
    entries = []
    for i, completion in enumerate(row["completions"]):
        entry = {"response": only_text(completion, "completions"), "overall_score": scores[i]}
        entries.append({"model": models[i], **entry} if models else entry)
    return {"instruction": prompt[0]["content"], "completions": entries, **rest_of(row, *_OWN)}


def _read_helpsteer(rows: Iterable[Numbered], score: str) -> Iterator[Outcome]:
    """Join the rows of one prompt that follow each other into a ranking."""
    score = score or "helpfulness"
    for prompt, group in groupby(rows, key=lambda numbered: numbered[1].get("prompt")):
        some = list(group)
        number, first = some[0]
        try:
            if not isinstance(prompt, str):
                raise RowError("prompt is not text", repr(prompt)[:80])
            present = [a for a in ATTRIBUTES if first.get(a) is not None]
            values = [{a: number_in(row, a) for a in {*present, score}} for _, row in some]
            scores = [value[score] for value in values]
            attributes = [{a: value[a] for a in present} for value in values]
            replies = [[turn("assistant", text_in(row, "response"))] for _, row in some]
            made = ranking(
                from_marked(prompt),
                replies,
                ranks_of(scores),
                scores=scores,
                attributes=attributes,
                **rest_of(first, "prompt", "response", *ATTRIBUTES),
            )
            yield number, made, len(some)
        except RowError as problem:
            yield number, problem, len(some)


def _helpsteer_preference(row: Row) -> dict[str, Any]:
    if row.get("overall_preference") is not None:
        strength, sides = "overall_preference", ("response1", "response2")
    else:
        strength, sides = "preference_strength", ("response_1", "response_2")
    given = row.get("context", row.get("prompt"))
    prompt = from_marked(given) if isinstance(given, str) else messages_in(given, "context")
    # Below 0 the first is better, above 0 the second.
    value = number_in(row, strength)
    better, worse = sides if value <= 0 else sides[::-1]
    out: dict[str, Any] = {
        "prompt": prompt,
        "chosen": [turn("assistant", text_in(row, better))],
        "rejected": [turn("assistant", text_in(row, worse))],
        "margin": abs(value),
    }
    if value == 0:
        out["p"] = 0.5
    return {**out, **rest_of(row, "context", "prompt", strength, *sides)}


def _write_helpsteer_preference(row: Row) -> dict[str, Any]:
    margin, p = row.get("margin"), row.get("p")
    if p not in (None, 0.5, 1.0, 1):
        raise RowError("the format has a whole strength, and no probability", f"p = {p}")
    if margin is None and p != 0.5:
        raise RowError("the format needs a strength, and the pair has no margin")
    strength = 0 if p == 0.5 else -abs(number_in(row, "margin"))
    if strength != int(strength) or abs(strength) > 3:
        raise RowError("a strength is a whole number up to 3", f"margin = {margin}")
    return {
        "context": messages_in(row.get("prompt"), "prompt"),
        "response1": only_text(row.get("chosen"), "chosen"),
        "response2": only_text(row.get("rejected"), "rejected"),
        "overall_preference": int(strength),
        **rest_of(row, "prompt", "chosen", "rejected", "margin", "p"),
    }


def _read_nemo(row: Row) -> dict[str, Any]:
    prompt = messages_in(row["context"], "context")
    entries = row["completions"]
    if not isinstance(entries, (list, tuple)) or not all(isinstance(e, Mapping) for e in entries):
        raise RowError("completions is not a list of objects", repr(entries)[:80])
    ranks = []
    for entry in entries:
        rank = number_in(entry, "rank")
        if rank != int(rank):
            raise RowError("a rank is not a whole number", str(rank))
        ranks.append(int(rank))
    completions = [reply_in(entry.get("completion"), "completion") for entry in entries]
    return ranking(prompt, completions, ranks, **rest_of(row, "context", "completions"))


def _write_nemo(row: Row) -> dict[str, Any]:
    entries = [
        {"rank": rank, "completion": reply_in(completion, "completions")}
        for rank, completion in zip(row["ranks"], row["completions"], strict=True)
    ]
    context = messages_in(row.get("prompt"), "prompt")
    return {"context": context, "completions": entries, **rest_of(row, *_OWN[:3])}


def _entries_have(row: Row, column: str) -> bool:
    value = row.get("completions")
    some = value[0] if isinstance(value, (list, tuple)) and value else None
    return isinstance(some, Mapping) and column in some


def _one_row(row: Row) -> dict[str, Any]:
    raise RowError("one row holds no ranking; its neighbours of the same prompt do")


def _write_helpsteer(row: Row) -> list[dict[str, Any]]:
    """A ranking with attributes as HelpSteer's rows, one for each completion.

    Raises:
        RowError: it has no attributes, or its prompt cannot be written there.
    """
    attributes = row.get("attributes")
    if attributes is None:
        raise RowError("the format needs attributes, and the ranking has none")
    prompt = to_marked(messages_in(row.get("prompt"), "prompt"))
    return [
        {"prompt": prompt, "response": only_text(reply, "completions"), **values,
         **rest_of(row, *_OWN)}
        for reply, values in zip(row["completions"], attributes, strict=True)
    ]  # fmt: skip


ULTRAFEEDBACK = Dialect(
    "ultrafeedback", "rankings",
    lambda row: has("instruction")(row) and _entries_have(row, "response"),
    lambda row: _ultrafeedback(row, "overall_score"), _write_ultrafeedback,
    "instruction + completions of response and overall_score", _read_ultrafeedback,
)  # fmt: skip
HELPSTEER = Dialect(
    "helpsteer", "rankings", has("prompt", "response", "helpfulness"), _one_row,
    _write_helpsteer,
    "prompt + response + helpfulness and the other attributes; rows of one prompt together",
    _read_helpsteer,
)  # fmt: skip
HELPSTEER_PREFERENCE = Dialect(
    "helpsteer_preference", "preferences",
    lambda row: has("response1", "response2", "overall_preference")(row)
    or has("prompt", "response_1", "response_2", "preference_strength")(row),
    _helpsteer_preference, _write_helpsteer_preference,
    "context + response1 + response2 + overall_preference (HelpSteer3), or prompt + response_1 + "
    "response_2 + preference_strength (HelpSteer2)",
)  # fmt: skip
NEMO = Dialect(
    "nemo", "rankings", lambda row: has("context")(row) and _entries_have(row, "rank"),
    _read_nemo, _write_nemo, "context + completions of rank and completion",
)  # fmt: skip
