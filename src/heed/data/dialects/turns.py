"""Messages in the spellings of the dialects: lists of dicts, transcripts, marked strings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from heed.data.columns import messages_of
from heed.data.report import RowError
from heed.data.transcripts import join_speakers, split_transcript
from heed.records import Message

_MARKED = re.compile(r"<extra_id_1>(User|Assistant)\n")
_SHAREGPT = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}
_FROM_SHAREGPT = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "system": "system",
    "observation": "tool", "tool": "tool",
}  # fmt: skip
_SPEAKERS = {"user": "Human", "assistant": "Assistant"}


def dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as TRL writes them: role and content."""
    return [{"role": message.role, "content": message.text} for message in messages]


def turn(role: str, text: str) -> dict[str, str]:
    """One message as TRL writes it."""
    return {"role": role, "content": text}


def messages_in(value: Any, column: str) -> list[dict[str, str]]:
    """A prompt or reply as a list of messages; a string is a user's turn.

    Raises:
        RowError: it is neither text nor messages.
    """
    if isinstance(value, str):
        return [turn("user", value)]
    return dicts(messages_of(value, column))


def reply_in(value: Any, column: str) -> list[dict[str, str]]:
    """A reply as a list of one or more messages; a string is an assistant's turn.

    Raises:
        RowError: it is neither text nor messages.
    """
    if isinstance(value, str):
        return [turn("assistant", value)]
    return dicts(messages_of(value, column))


def only_text(messages: Any, column: str) -> str:
    """The text of a reply that is one turn.

    Raises:
        RowError: it has another number of turns.
    """
    found = reply_in(messages, column)
    if len(found) != 1:
        raise RowError(f"{column} has several turns, and the format holds one")
    return found[0]["content"]


def from_sharegpt(value: Any, column: str) -> list[dict[str, str]]:
    """Messages of `from` and `value`.

    Raises:
        RowError: the form is another, or a turn is a function call.
    """
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)) or not value:
        raise RowError(f"{column} is not a list of turns", repr(value)[:80])
    out = []
    for item in value:
        if not isinstance(item, Mapping) or not isinstance(item.get("value"), str):
            raise RowError(f"{column} has a turn without from and value", repr(item)[:80])
        role = _FROM_SHAREGPT.get(str(item.get("from")))
        if role is None:
            raise RowError("unknown speaker of a turn", repr(item.get("from")))
        out.append(turn(role, item["value"]))
    return out


def to_sharegpt(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Messages as turns of `from` and `value`.

    Raises:
        RowError: a role has no word there.
    """
    for message in messages:
        if message["role"] not in _SHAREGPT:
            raise RowError("the format has no such role", message["role"])
    return [{"from": _SHAREGPT[m["role"]], "value": m["content"]} for m in messages]


def from_transcript(text: str) -> list[dict[str, str]]:
    """Turns of a transcript of `Human:` and `Assistant:`."""
    return dicts(join_speakers(split_transcript(text)))


def to_transcript(messages: Sequence[Mapping[str, str]]) -> str:
    """A transcript of `Human:` and `Assistant:`.

    Raises:
        RowError: a role is neither user nor assistant, or a text would be read as two turns.
    """
    out = ""
    for message in messages:
        speaker, text = _SPEAKERS.get(message["role"]), message["content"].strip()
        if speaker is None:
            raise RowError("the format has no such role", message["role"])
        if re.search(r"\n\n(Human|Assistant):", text):
            raise RowError("a text would be read as several turns", text[:80])
        out += f"\n\n{speaker}: {text}"
    return out


def from_marked(text: str) -> list[dict[str, str]]:
    """A prompt of HelpSteer2: a user's turn, and perhaps more behind `<extra_id_1>` marks."""
    first, *marked = _MARKED.split(text)
    roles = {"User": "user", "Assistant": "assistant"}
    turns = [turn("user", first.strip("\n") if marked else first)]
    for speaker, said in zip(marked[::2], marked[1::2], strict=True):
        turns.append(turn(roles[speaker], said.strip("\n")))
    # The last mark of a prompt asks for the reply.
    return turns[:-1] if turns[-1] == turn("assistant", "") else turns


def to_marked(messages: Sequence[Mapping[str, str]]) -> str:
    """A prompt as HelpSteer2 writes it.

    Raises:
        RowError: it does not begin with a user's turn, or has other roles.
    """
    names = {"user": "User", "assistant": "Assistant"}
    if not messages or any(m["role"] not in names for m in messages):
        raise RowError("the format has turns of user and assistant only")
    if messages[0]["role"] != "user":
        raise RowError("the format begins with a user's turn")
    head, *others = messages
    if not others:
        return str(head["content"])
    text = head["content"] + "\n"
    for message in others:
        text += f"<extra_id_1>{names[message['role']]}\n{message['content']}\n"
    return text + "<extra_id_1>Assistant\n"
