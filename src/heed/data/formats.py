"""The columns that are accepted, and how a row with them becomes a record.

One table for each kind of record; the first entry whose columns a row has reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from heed.data.columns import (
    LABEL_COLUMNS,
    dialogue_reply,
    label_of,
    labels_of,
    make_prompt,
    messages_of,
    prompt_for,
    prompt_of,
    reply_of,
    reply_pair_of,
    whole_dialogue,
)
from heed.data.dialects.base import Dialect
from heed.data.dialects.chat import ALPACA, SHAREGPT, SHAREGPT_PREFERENCE
from heed.data.dialects.ranked import HELPSTEER_PREFERENCE
from heed.data.dialects.table import dialects_of
from heed.data.judgements import LabelledPair, LabelledReply
from heed.data.report import RowError
from heed.data.transcripts import is_transcript
from heed.ids import content_hash
from heed.records import Demonstration, Prompt

Row = Mapping[str, Any]
T = TypeVar("T")

_FORMAT_COLUMNS = {"prompt", "completion", "reply", "messages", "chosen", "rejected", "text"}
_COMPLETION_COLUMNS = {
    "prompt_id", "prompt_tokens", "tokens", "logprobs", "learnable", "kept", "finish", "error",
    "oldest", "newest", "sampling",
}  # fmt: skip


@dataclass(frozen=True)
class PlainText:
    """A text of which every token is learned, as in pretraining."""

    id: str
    text: str


@dataclass(frozen=True)
class Format(Generic[T]):
    """A way to read a row: it needs these columns, and `fits` looks at a first row's values."""

    columns: tuple[str, ...]
    read: Callable[[Row, dict[str, Any]], T]
    fits: Callable[[Row], bool] = lambda row: True
    says: str = ""

    def __str__(self) -> str:
        if not self.columns:
            return self.says
        return " + ".join(self.columns) + (f" ({self.says})" if self.says else "")


def read_row(row: Row, how: Format[T]) -> T:
    """Turn a row into a record; columns that hold no text of it become `Prompt.meta`.

    Raises:
        RowError: a column is missing, or its value cannot be used.
    """
    for column in how.columns:
        if row.get(column) is None:
            raise RowError(f"{column} is missing")
    hidden = _FORMAT_COLUMNS | set(LABEL_COLUMNS) | set(how.columns)
    if "finish" in row:
        hidden |= _COMPLETION_COLUMNS
    return how.read(row, {k: v for k, v in row.items() if k not in hidden})


def match_format(row: Row, formats: Sequence[Format[T]]) -> Format[T] | None:
    """Find the first format whose columns the row has."""
    present = {name for name, value in row.items() if value is not None}
    for known in formats:
        if present.issuperset(known.columns) and known.fits(row):
            return known
    return None


def _demonstration(row: Row, meta: dict[str, Any]) -> Demonstration:
    value = row["completion"]
    if isinstance(value, Mapping) and "finish" in value:
        value = _completion_text(value)
    prompt = prompt_for(row["prompt"], value, meta)
    strip = is_transcript(row["prompt"])
    return Demonstration(prompt=prompt, reply=reply_of(value, prompt, "completion", strip=strip))


def _demonstration_record(row: Row, meta: dict[str, Any]) -> Demonstration:
    prompt = prompt_for(row["prompt"], row["reply"], meta)
    return Demonstration(prompt=prompt, reply=reply_of(row["reply"], prompt, "reply"))


def _completion_record(row: Row, meta: dict[str, Any]) -> Demonstration:
    meta = {k: v for k, v in meta.items() if k != "id"}
    prompt = prompt_of(row["prompt"], meta)
    return Demonstration(prompt=prompt, reply=reply_of(_completion_text(row), prompt, "text"))


def _completion_text(completion: Row) -> str:
    if completion["finish"] == "error":
        raise RowError("a completion failed", str(completion.get("error")))
    return str(completion["text"])


def _dialogue(row: Row, meta: dict[str, Any]) -> Demonstration:
    messages = messages_of(row["messages"], "messages")
    if messages[-1].role != "assistant":
        raise RowError("no reply at the end", messages[-1].text[-80:])
    first = next(i for i, message in enumerate(messages) if message.role == "assistant")
    if first == 0:
        raise RowError("no prompt before the first assistant turn", messages[0].text[-80:])
    prompt = make_prompt(messages[:first], meta)
    return Demonstration(prompt=prompt, reply=reply_of(messages[first:], prompt, "messages"))


def _chosen(row: Row, meta: dict[str, Any]) -> Demonstration:
    whole = whole_dialogue(row["chosen"])
    if whole is None:
        prompt = prompt_for(row["prompt"], row["chosen"], meta)
        strip = is_transcript(row["prompt"])
        reply = reply_of(row["chosen"], prompt, "chosen", strip=strip)
        return Demonstration(prompt=prompt, reply=reply)
    messages, text = dialogue_reply(whole)
    prompt = make_prompt(messages, meta)
    return Demonstration(prompt=prompt, reply=reply_of(text, prompt, "chosen"))


def _chosen_prompt(row: Row, meta: dict[str, Any]) -> Prompt:
    whole = whole_dialogue(row["chosen"])
    if whole is None:
        raise RowError("chosen is not a whole dialogue")
    return make_prompt(dialogue_reply(whole)[0], meta)


def _transcript(row: Row, meta: dict[str, Any]) -> Demonstration:
    messages, text = dialogue_reply(row["text"])
    prompt = make_prompt(messages, meta)
    return Demonstration(prompt=prompt, reply=reply_of(text, prompt, "text"))


def _preference(row: Row, meta: dict[str, Any]) -> LabelledPair:
    prompt, chosen, rejected = reply_pair_of(row, meta)
    p, margin, weight = labels_of(row)
    content = [[m.role, m.text] for m in (*prompt.messages, *chosen, *rejected)]
    pair_id = "pair-" + content_hash([content, p, margin, weight])
    return LabelledPair(pair_id, prompt, chosen, rejected, p, margin, weight)


def _unpaired(row: Row, meta: dict[str, Any]) -> LabelledReply:
    # Only here is `label` an answer; of prompts it is a column for reward functions.
    meta = {name: value for name, value in meta.items() if name != "label"}
    demonstration = _demonstration(row, meta)
    prompt, reply, label = demonstration.prompt, demonstration.reply, label_of(row)
    content = [[m.role, m.text] for m in (*prompt.messages, *reply)]
    weight = labels_of(row)[2]
    return LabelledReply(
        "reply-" + content_hash([content, label, weight]), prompt, reply, label, weight
    )


def _prompt(row: Row, meta: dict[str, Any]) -> Prompt:
    if "finish" in row:
        meta = {k: v for k, v in meta.items() if k != "id"}
    return prompt_for(row["prompt"], row.get("messages") or row.get("chosen") or "", meta)


def _prompt_messages(row: Row, meta: dict[str, Any]) -> Prompt:
    first = row["messages"][0] if isinstance(row["messages"], list) and row["messages"] else None
    if "id" in row and isinstance(first, Mapping) and "text" in first:
        return prompt_of(dict(row), {})
    messages = messages_of(row["messages"], "messages")
    last = len(messages)
    while last and messages[last - 1].role == "assistant":
        last -= 1
    return make_prompt(messages[:last] or messages, meta)


def _text(row: Row, meta: dict[str, Any]) -> PlainText:
    if not isinstance(row["text"], str):
        raise RowError("text is not text", repr(row["text"])[:80])
    if not row["text"].strip():
        raise RowError("empty text")
    return PlainText("t-" + content_hash(row["text"]), row["text"])


def _holds_dialogue(row: Row) -> bool:
    value = row["chosen"]
    return is_transcript(value) or isinstance(value, (list, tuple))


def _is_transcript_row(row: Row) -> bool:
    return is_transcript(row["text"])


def _of_dialect(dialect: Dialect, formats: Sequence[Format[T]]) -> Format[T]:
    """Rows of another project's columns, read where a row can be of that dialect alone."""

    def read(row: Row, meta: dict[str, Any]) -> T:
        own = dialect.read(row)
        how = match_format(own, formats)
        assert how is not None, "a dialect gives heed's own columns"
        return read_row(own, how)

    return Format((), read, lambda row: dialects_of(row) == [dialect], dialect.says)


DEMONSTRATIONS: tuple[Format[Demonstration], ...] = (
    Format(("prompt", "completion"), _demonstration),
    Format(("prompt", "reply"), _demonstration_record),
    Format(("messages",), _dialogue),
    Format(("prompt", "text", "finish"), _completion_record, says="completions of a run"),
    Format(("prompt", "chosen"), _chosen, says="the chosen side"),
    Format(("chosen",), _chosen, _holds_dialogue, "the chosen side, a whole dialogue"),
    Format(("text",), _transcript, _is_transcript_row, "a transcript"),
)
PROMPTS: tuple[Format[Prompt], ...] = (
    Format(("prompt",), _prompt),
    Format(("messages",), _prompt_messages, says="up to the last reply"),
    Format(("chosen",), _chosen_prompt, _holds_dialogue,
           "up to the last reply"),
    Format(("chosen", "rejected"), lambda row, meta: reply_pair_of(row, meta)[0]),
    Format(("text",), lambda row, meta: _transcript(row, meta).prompt, _is_transcript_row,
            "a transcript"),
)  # fmt: skip
PREFERENCES: tuple[Format[LabelledPair], ...] = (
    Format(("prompt", "chosen", "rejected"), _preference),
    Format(("chosen", "rejected"), _preference),
)
DEMONSTRATIONS += tuple(_of_dialect(d, DEMONSTRATIONS) for d in (ALPACA, SHAREGPT))
PROMPTS += tuple(_of_dialect(d, PROMPTS) for d in (ALPACA, SHAREGPT))
PREFERENCES = (
    # Its chosen and rejected are one turn each, which would be looked for a prompt.
    _of_dialect(SHAREGPT_PREFERENCE, PREFERENCES),
    *PREFERENCES,
    _of_dialect(HELPSTEER_PREFERENCE, PREFERENCES),
)
UNPAIRED: tuple[Format[LabelledReply], ...] = (
    Format(("prompt", "completion", "label"), _unpaired),
)
TEXTS: tuple[Format[PlainText], ...] = (Format(("text",), _text),)
