"""Demonstrations and comparisons: alpaca, sharegpt, and Anthropic's transcripts."""

from __future__ import annotations

from typing import Any

from heed.data.columns import reply_pair_of
from heed.data.dialects.base import Dialect, Row, has, rest_of, text_in
from heed.data.dialects.turns import (
    dicts,
    from_sharegpt,
    messages_in,
    only_text,
    reply_in,
    to_sharegpt,
    to_transcript,
    turn,
)
from heed.data.report import RowError
from heed.data.transcripts import is_transcript


def _read_alpaca(row: Row) -> dict[str, Any]:
    asked = text_in(row, "instruction")
    given = text_in(row, "input", empty=True)
    turns = []
    if text_in(row, "system", empty=True).strip():
        turns.append(turn("system", row["system"]))
    for exchange in row.get("history") or ():
        if not isinstance(exchange, (list, tuple)) or len(exchange) != 2:
            raise RowError("history is not a list of [question, answer]", repr(exchange)[:80])
        turns += [turn("user", str(exchange[0])), turn("assistant", str(exchange[1]))]
    turns.append(turn("user", f"{asked}\n{given}" if given.strip() else asked))
    turns.append(turn("assistant", text_in(row, "output")))
    rest = rest_of(row, "instruction", "input", "output", "system", "history")
    return {"messages": turns, **rest}


def _write_alpaca(row: Row) -> dict[str, Any]:
    turns = _demonstrated(row)
    out: dict[str, Any] = {}
    if turns[0]["role"] == "system":
        out["system"], turns = turns[0]["content"], turns[1:]
    roles = [message["role"] for message in turns]
    if roles != ["user", "assistant"] * (len(turns) // 2) or not turns:
        raise RowError("the format has turns of user and assistant one after the other")
    texts = [message["content"] for message in turns]
    history = [list(pair) for pair in zip(texts[:-2:2], texts[1:-2:2], strict=True)]
    out |= {"instruction": texts[-2], "input": "", "output": texts[-1]}
    if history:
        out["history"] = history
    return {**out, **rest_of(row, "messages", "prompt", "completion")}


def _demonstrated(row: Row) -> list[dict[str, str]]:
    if row.get("messages") is not None:
        return messages_in(row["messages"], "messages")
    prompt = messages_in(row.get("prompt"), "prompt")
    return prompt + reply_in(row.get("completion"), "completion")


def _read_sharegpt(row: Row) -> dict[str, Any]:
    turns = from_sharegpt(row["conversations"], "conversations")
    if text_in(row, "system", empty=True).strip():
        turns.insert(0, turn("system", row["system"]))
    if turns[-1]["role"] != "assistant":
        raise RowError("no reply at the end", turns[-1]["content"][-80:])
    return {"messages": turns, **rest_of(row, "conversations", "system")}


def _write_sharegpt(row: Row) -> dict[str, Any]:
    turns = to_sharegpt(_demonstrated(row))
    return {"conversations": turns, **rest_of(row, "messages", "prompt", "completion")}


def _read_sharegpt_preference(row: Row) -> dict[str, Any]:
    turns = from_sharegpt(row["conversations"], "conversations")
    if text_in(row, "system", empty=True).strip():
        turns.insert(0, turn("system", row["system"]))
    sides = {side: from_sharegpt(row[side], side) for side in ("chosen", "rejected")}
    rest = rest_of(row, "conversations", "system", "chosen", "rejected")
    return {"prompt": turns, **sides, **rest}


def _write_sharegpt_preference(row: Row) -> dict[str, Any]:
    out: dict[str, Any] = {"conversations": to_sharegpt(messages_in(row.get("prompt"), "prompt"))}
    for side in ("chosen", "rejected"):
        turns = to_sharegpt(reply_in(row.get(side), side))
        if len(turns) != 1:
            raise RowError(f"{side} has several turns, and the format holds one")
        out[side] = turns[0]
    return {**out, **rest_of(row, "prompt", "chosen", "rejected")}


def _read_hh(row: Row) -> dict[str, Any]:
    prompt, chosen, rejected = reply_pair_of(row, {})
    rest = rest_of(row, "chosen", "rejected")
    sides = {"chosen": dicts(chosen), "rejected": dicts(rejected)}
    return {"prompt": dicts(prompt.messages), **sides, **rest}


def _write_hh(row: Row) -> dict[str, Any]:
    prompt = to_transcript(messages_in(row.get("prompt"), "prompt"))
    sides = {
        side: prompt + to_transcript([turn("assistant", only_text(row.get(side), side))])
        for side in ("chosen", "rejected")
    }
    return {**sides, **rest_of(row, "prompt", "chosen", "rejected")}


def _is_turns(row: Row) -> bool:
    value = row.get("conversations")
    return isinstance(value, (list, tuple)) and any("from" in v for v in value if hasattr(v, "get"))


ALPACA = Dialect(
    "alpaca", "demonstrations",
    lambda row: has("instruction", "output")(row) and "completions" not in row,
    _read_alpaca, _write_alpaca, "instruction + output, perhaps input, system, history",
)  # fmt: skip
SHAREGPT = Dialect(
    "sharegpt", "demonstrations", lambda row: _is_turns(row) and "chosen" not in row,
    _read_sharegpt, _write_sharegpt, "conversations of from and value, perhaps system",
)  # fmt: skip
SHAREGPT_PREFERENCE = Dialect(
    "sharegpt_preference", "preferences",
    lambda row: _is_turns(row) and has("chosen", "rejected")(row),
    _read_sharegpt_preference, _write_sharegpt_preference,
    "conversations + chosen + rejected, each of from and value",
)  # fmt: skip
HH = Dialect(
    "hh", "preferences",
    lambda row: "prompt" not in row
    and is_transcript(row.get("chosen")) and is_transcript(row.get("rejected")),
    _read_hh, _write_hh, "chosen + rejected, each a whole transcript of Human: and Assistant:",
)  # fmt: skip
