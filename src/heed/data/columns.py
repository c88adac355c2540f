"""Understand one row: which of its columns are the prompt, the replies, the labels and the rest.

Texts follow TRL's convention: a string is raw text that is joined as it stands, a list of messages
is a dialogue for the chat template. Dialogues written as one string, with turns that start with
`\\n\\nHuman:` and `\\n\\nAssistant:`, are recognised and become turns (`heed.data.transcripts`).

A row that cannot be used raises `RowError` with a reason short enough to count.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from heed.data.report import RowError
from heed.data.transcripts import (
    Messages,
    before_reply,
    is_transcript,
    join_speakers,
    split_transcript,
    transcript_reply,
)
from heed.records import Message, Prompt, Role, prompt_id

LABEL_COLUMNS = ("p", "margin", "weight")
"""Optional columns of a preference: probability that chosen is better, margin, weight."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
    "function": "tool",
    "text": "text",
}


def messages_of(value: Any, column: str) -> Messages:
    """Read a list of message dicts (`role` and `content`; also `text`, or `from` and `value`).

    Raises:
        RowError: it is empty, a role is unknown, or a content is not text.
    """
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)) or not value:
        raise RowError(f"{column} is not a list of messages", repr(value)[:80])
    return tuple(_message(item, column) for item in value)


def _message(item: Any, column: str) -> Message:
    if isinstance(item, Message):
        return item
    if not isinstance(item, Mapping):
        raise RowError(f"{column} is not a list of messages", repr(item)[:80])
    role = item.get("role", item.get("from"))
    if not isinstance(role, str) or role not in _ROLES:
        raise RowError("unknown message role", f"{role!r}; known are {', '.join(_ROLES)}")
    content = next((item[k] for k in ("content", "text", "value") if item.get(k) is not None), None)
    if isinstance(content, (list, tuple)):
        content = _joined_parts(content)
    if not isinstance(content, str):
        raise RowError("message content is not text", repr(item)[:80])
    return Message(role=_ROLES[role], text=content)


def _joined_parts(parts: list[Any] | tuple[Any, ...]) -> str | None:
    texts = [p.get("text") for p in parts if isinstance(p, Mapping)]
    known = [text for text in texts if isinstance(text, str)]
    return "".join(known) if len(known) == len(parts) else None


def make_prompt(messages: Messages, meta: dict[str, Any]) -> Prompt:
    """Make a prompt with its content hash as the id.

    Raises:
        RowError: it has no text.
    """
    if not any(message.text.strip() for message in messages):
        raise RowError("empty prompt")
    return Prompt(id=prompt_id(messages), messages=messages, meta=meta)


def prompt_of(value: Any, meta: dict[str, Any]) -> Prompt:
    """Read a prompt: a string, a transcript, a list of messages, or a record of heed.

    Raises:
        RowError: it is empty or none of these.
    """
    if isinstance(value, Mapping) and "messages" in value:
        try:
            prompt = Prompt.model_validate(value)
        except ValidationError as error:
            raise RowError("prompt is not a valid record", _first_error(error)) from error
        return prompt.model_copy(update={"meta": {**meta, **prompt.meta}}) if meta else prompt
    if isinstance(value, str):
        if is_transcript(value):
            turns = split_transcript(value)
            # A transcript that stops after `Assistant:` asks for the reply.
            ends_open = turns[-1].role == "assistant" and not turns[-1].text
            return make_prompt(join_speakers(turns[:-1] if ends_open else turns), meta)
        return make_prompt((Message(role="text", text=value),), meta)
    return make_prompt(messages_of(value, "prompt"), meta)


def reply_of(value: Any, prompt: Prompt, column: str, *, strip: bool = False) -> Messages:
    """Read a reply to a prompt: a string, or a list of messages.

    Args:
        value: what the column holds.
        prompt: a raw text makes a string a continuation, a dialogue makes it the next turn.
        column: its name, for messages.
        strip: take the spaces around a string away, as the rest of a transcript has them.

    Raises:
        RowError: it is empty or not text.
    """
    raw = prompt.messages[-1].role == "text"
    if isinstance(value, str):
        text = value.strip() if strip else value
        reply: Messages = (Message(role="text" if raw else "assistant", text=text),)
    elif value is None or isinstance(value, (bool, int, float)):
        raise RowError(f"{column} is not text", repr(value))
    else:
        reply = messages_of(value, column)
        if raw and all(message.role == "assistant" for message in reply):
            reply = tuple(Message(role="text", text=message.text) for message in reply)
    if not any(m.text.strip() for m in reply if m.role in ("assistant", "text")):
        raise RowError("empty reply", prompt.text[-80:])
    return reply


def reply_pair_of(
    row: Mapping[str, Any], meta: dict[str, Any]
) -> tuple[Prompt, Messages, Messages]:
    """Read prompt, chosen and rejected of a row, with or without a `prompt` column.

    Raises:
        RowError: the two are equal, answer different prompts, or one is empty.
    """
    chosen, rejected = row.get("chosen"), row.get("rejected")
    for name, value in (("chosen", chosen), ("rejected", rejected)):
        if value is None:
            raise RowError(f"{name} is missing")
    if chosen == rejected:
        raise RowError("chosen equals rejected", _tail(chosen))
    whole = [whole_dialogue(value) for value in (chosen, rejected)]
    if whole[0] is not None and whole[1] is not None:
        prompt, left, right = _split_dialogues(whole[0], whole[1], meta)
    elif row.get("prompt") is not None:
        prompt = prompt_for(row["prompt"], chosen, meta)
        strip = is_transcript(row["prompt"])
        left = reply_of(chosen, prompt, "chosen", strip=strip)
        right = reply_of(rejected, prompt, "rejected", strip=strip)
    elif isinstance(chosen, str) and isinstance(rejected, str):
        shared = shared_prefix(chosen, rejected)
        if not shared.strip():
            raise RowError("chosen and rejected share no prompt", _tail(chosen))
        prompt = make_prompt((Message(role="text", text=shared),), meta)
        left = reply_of(chosen[len(shared) :], prompt, "chosen")
        right = reply_of(rejected[len(shared) :], prompt, "rejected")
    else:
        raise RowError("chosen and rejected share no prompt", _tail(chosen))
    if [(m.role, m.text) for m in left] == [(m.role, m.text) for m in right]:
        raise RowError("chosen equals rejected", _tail(left[-1].text))
    return prompt, left, right


def prompt_for(value: Any, reply: Any, meta: dict[str, Any]) -> Prompt:
    """Read a prompt as `prompt_of`; a string beside a reply of messages is a user's turn.

    Raises:
        RowError: it is empty or no prompt.
    """
    dialogue = isinstance(reply, (list, tuple))
    if isinstance(value, str) and dialogue and not is_transcript(value):
        return make_prompt((Message(role="user", text=value),), meta)
    return prompt_of(value, meta)


def whole_dialogue(value: Any) -> Messages | str | None:
    """Return the value where it holds the prompt too: a transcript, or messages from a user on."""
    if is_transcript(value):
        return str(value)
    if isinstance(value, (list, tuple)):
        messages = messages_of(value, "chosen or rejected")
        return messages if messages[0].role in ("user", "system") else None
    return None


def _split_dialogues(
    chosen: Messages | str, rejected: Messages | str, meta: dict[str, Any]
) -> tuple[Prompt, Messages, Messages]:
    both_text = isinstance(chosen, str) and isinstance(rejected, str)
    # Texts before the last reply are compared as they stand: where the dialogue went on by one
    # more turn on one side only, the row compares no two replies.
    if both_text and before_reply(str(chosen)) != before_reply(str(rejected)):
        raise RowError("prompts of chosen and rejected differ", _tail(chosen))
    sides = [dialogue_reply(side) for side in (chosen, rejected)]
    if sides[0][0] != sides[1][0]:
        raise RowError("prompts of chosen and rejected differ", _tail(chosen))
    prompt = make_prompt(sides[0][0], meta)
    return (
        prompt,
        reply_of(sides[0][1], prompt, "chosen"),
        reply_of(sides[1][1], prompt, "rejected"),
    )


def dialogue_reply(side: Messages | str) -> tuple[Messages, str]:
    """Split a whole dialogue, a transcript or messages, at its last assistant turn.

    Raises:
        RowError: it does not end with one.
    """
    if isinstance(side, str):
        return transcript_reply(side)
    if side[-1].role != "assistant":
        raise RowError("no reply at the end", side[-1].text)
    return side[:-1], side[-1].text


def shared_prefix(left: str, right: str) -> str:
    """The prompt that two texts share: their common beginning up to the end of a word.

    The space before the word in which they part stays with the replies, and so does the last word
    where one text is the beginning of the other.
    """
    common = os.path.commonprefix([left, right])  # noqa: RUF071 (letters, not paths)
    at = len(common)
    ends_word = at < len(left) and at < len(right) and left[at].isspace() and right[at].isspace()
    while not ends_word and at > 0 and not common[at - 1].isspace():
        at -= 1
    while not ends_word and at > 0 and common[at - 1].isspace():
        at -= 1
    return common[:at]


def labels_of(row: Mapping[str, Any]) -> tuple[float, float | None, float | None]:
    """Read p (default 1), margin and weight of a preference.

    Raises:
        RowError: one is not a finite number in its range.
    """
    p = number_of(row, "p", 0.0, 1.0)
    return (
        1.0 if p is None else p,
        number_of(row, "margin", -math.inf, math.inf),
        number_of(row, "weight", 0.0, math.inf),
    )


def label_of(row: Mapping[str, Any]) -> float:
    """Read the label of a single reply: true or false, or the probability that it is good.

    Raises:
        RowError: it is neither.
    """
    if isinstance(row["label"], bool):
        return float(row["label"])
    label = number_of(row, "label", 0.0, 1.0)
    assert label is not None
    return label


def number_of(
    row: Mapping[str, Any], column: str, low: float = -math.inf, high: float = math.inf
) -> float | None:
    """Read a number of a row; None where there is none.

    Raises:
        RowError: it is not a finite number from `low` to `high`.
    """
    value = row.get(column)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RowError(f"{column} is not a finite number", repr(value))
    if not low <= value <= high:
        raise RowError(f"{column} is outside its range", f"{value}; expected {low} to {high}")
    return float(value)


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _tail(value: Any) -> str:
    if isinstance(value, (list, tuple)) and value:
        last = value[-1]
        value = last.get("content", last) if isinstance(last, Mapping) else last
    return str(getattr(value, "text", value))[-80:]
