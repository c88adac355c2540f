"""Dialogues in one string: turns that start with `\\n\\nHuman:` and `\\n\\nAssistant:`.

The format of Anthropic's published comparisons. The spaces around a turn's text are not part of
it. A row's reply is what follows the last `Assistant:`.
"""

from __future__ import annotations

import re
from typing import Any

from heed.data.report import RowError
from heed.records import Message, Role

Messages = tuple[Message, ...]

_SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_REPLY = "\n\nAssistant:"


def is_transcript(text: Any) -> bool:
    """Whether a text is a dialogue that begins with a `Human:` turn and has an `Assistant:` one."""
    if not isinstance(text, str) or "\n\nAssistant:" not in text:
        return False
    return text.lstrip().startswith("Human:")


def split_transcript(text: str) -> Messages:
    """Split a transcript into its turns, stripped; an empty last turn is kept."""
    parts = _TURN.split(text.lstrip())
    return tuple(
        Message(role=_SPEAKERS[speaker], text=turn.strip())
        for speaker, turn in zip(parts[1::2], parts[2::2], strict=True)
    )


def transcript_reply(text: str) -> tuple[Messages, str]:
    """Split a transcript at its last `Assistant:` turn into prompt and reply.

    Raises:
        RowError: the last turn is not the assistant's, or the assistant speaks twice at the end.
    """
    turns = split_transcript(text)
    if turns[-1].role != "assistant":
        raise RowError("no reply at the end", turns[-1].text)
    prompt = join_speakers(turns[:-1])
    if not prompt or prompt[-1].role == "assistant":
        raise RowError("two assistant turns at the end", turns[-1].text)
    return prompt, turns[-1].text


def join_speakers(turns: Messages) -> Messages:
    """Join turns of one speaker that follow each other, which most chat templates refuse."""
    out: list[Message] = []
    for turn in turns:
        if out and out[-1].role == turn.role:
            joined = f"{out[-1].text}\n\n{turn.text}".strip()
            out[-1] = Message(role=turn.role, text=joined)
        else:
            out.append(turn)
    return tuple(out)


def before_reply(text: str) -> str:
    """Return what stands before the last `Assistant:` of a transcript, as it stands."""
    return text.rpartition(_REPLY)[0]
