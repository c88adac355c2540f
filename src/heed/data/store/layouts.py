"""The layouts of exports: what rows an answer becomes in each, or the reason why it becomes none.

    judgments       one row per answer, for every kind of work
    trl_preference  prompt, chosen, rejected, margin, group_id
    trl_unpaired    prompt, completion, label
    ranking         prompt, completions with rank (1 is best), group_id
    sft             prompt, completion
    preferences     heed's own: pairs.jsonl and preferences.jsonl
    critiques       heed's own: critiques.jsonl

Prompts and completions are lists of messages, or strings where the prompt is raw text, as TRL
reads them. A margin is the share of the scale, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from heed.data.store.convert import critique_of, demonstration_of, prompt_of, reply_role, when_of
from heed.data.store.kinds import Payload
from heed.data.store.project_config import ProjectConfig
from heed.data.store.scales import SCALES
from heed.data.store.views import Judgment
from heed.records import Message, Prompt

Row = dict[str, Any]


class Dropped(Exception):  # noqa: N818  it is counted, not reported
    """An answer becomes no row in this layout; the reason is counted."""


@dataclass(frozen=True)
class Source:
    """One answer with what it was about."""

    judgment: Judgment
    payload: Payload
    item_key: str
    item_role: str
    pseudonym: str
    config: ProjectConfig


def judgment_rows(source: Source) -> list[Row]:
    """One row of all there is; item and person by the names that outlive this store."""
    one = source.judgment
    scale = SCALES.get(one.scale or "")
    return [
        {
            "item": source.item_key,
            "item_role": source.item_role,
            "person": source.pseudonym,
            "submission_id": one.submission_id,
            "role": one.role,
            "outcome": one.outcome,
            "side": one.side,
            "level": one.level,
            "scale": one.scale,
            "signed": scale.signed(one.side, one.level) if scale else None,
            "answer": one.answer,
            "shown": list(one.shown),
            "seconds": one.seconds,
            "when": when_of(one).isoformat(timespec="milliseconds"),
            "late": one.late,
            "surplus": one.surplus,
            "practice": one.practice,
        }
    ]


def preference_rows(source: Source) -> list[Row]:
    """Chosen and rejected: of a pair, of an edit, and all pairs that a ranking implies."""
    one, payload = source.judgment, source.payload
    prompt = prompt_of(payload)
    texts = [candidate.text or "" for candidate in payload.candidates]
    if one.outcome == "prefer":
        side = one.side or 0
        margin = abs(SCALES[one.scale or "binary"].signed(side, one.level))
        found = [(texts[side], texts[1 - side], margin)]
    elif one.outcome == "edited":
        found = [(str(one.answer["text"]), texts[0], 1.0)]
    elif one.outcome == "ranked":
        ranks = ranks_of(one, len(texts))
        last = len(one.answer["buckets"]) + bool(one.answer["unranked_bad"])
        found = [
            (texts[a], texts[b], (ranks[b] - ranks[a]) / max(last - 1, 1))
            for a in range(len(texts))
            for b in range(len(texts))
            if ranks[a] < ranks[b]
        ]
    else:
        raise Dropped(one.outcome)
    different = [(a, b, margin) for a, b, margin in found if a != b]
    if not different:
        raise Dropped("all equal" if one.outcome == "ranked" else "chosen equals rejected")
    return [
        {
            "prompt": as_prompt(prompt),
            "chosen": as_reply(prompt, chosen),
            "rejected": as_reply(prompt, rejected),
            "margin": margin,
            "group_id": source.item_key,
        }
        for chosen, rejected, margin in different
    ]


def unpaired_rows(source: Source) -> list[Row]:
    """Completions that are good or bad by themselves."""
    one, payload = source.judgment, source.payload
    prompt, labels = prompt_of(payload), _labels(source)
    if not labels:
        raise Dropped(one.outcome if one.outcome != "rated" else "rated in the middle")
    return [
        {
            "prompt": as_prompt(prompt),
            "completion": as_reply(prompt, payload.candidates[place].text or ""),
            "label": good,
            "group_id": source.item_key,
        }
        for place, good in sorted(labels.items())
    ]


def ranking_rows(source: Source) -> list[Row]:
    """Completions with their ranks."""
    one, payload = source.judgment, source.payload
    if one.outcome != "ranked":
        raise Dropped(one.outcome)
    prompt = prompt_of(payload)
    ranks = ranks_of(one, len(payload.candidates))
    rows = [
        {"rank": ranks[place], "completion": as_reply(prompt, candidate.text or "")}
        for place, candidate in enumerate(payload.candidates)
    ]
    return [{"prompt": as_prompt(prompt), "completions": rows, "group_id": source.item_key}]


def sft_rows(source: Source) -> list[Row]:
    """A prompt and the reply that a person wrote or approved."""
    found = demonstration_of(source.judgment, source.payload)
    if found is None:
        raise Dropped(source.judgment.outcome)
    return [
        {
            "prompt": as_prompt(found.prompt),
            "completion": as_reply(found.prompt, found.reply[0].text),
        }
    ]


def critique_rows(source: Source) -> list[Row]:
    """The marks on a text."""
    found = critique_of(source.judgment, source.payload)
    if found is None:
        raise Dropped(source.judgment.outcome)
    row = found.model_dump(mode="json")
    row["id"], row["critic"] = source.judgment.submission_id, source.pseudonym
    return [{**row, "replaces": None}]


def ranks_of(judgment: Judgment, count: int) -> list[int]:
    """The rank of each place, 1 for the best bucket; what is unranked comes last."""
    buckets = judgment.answer["buckets"]
    ranks = [len(buckets) + 1] * count
    for rank, bucket in enumerate(buckets, start=1):
        for place in bucket:
            ranks[place] = rank
    return ranks


def _labels(source: Source) -> dict[int, bool]:
    one, answer = source.judgment, source.judgment.answer
    places = range(len(source.payload.candidates))
    if one.outcome in ("both_bad", "all_bad"):
        return dict.fromkeys(places, False)
    if one.outcome == "prefer":
        return {one.side or 0: True, 1 - (one.side or 0): False}
    if one.outcome == "ranked":
        best = dict.fromkeys(answer["buckets"][0], True)
        return best | dict.fromkeys(answer["unranked_bad"], False)
    if one.outcome == "rated":
        first = source.config.attributes[0]
        middle = (first.low + first.high) / 2
        return {
            mark["place"]: mark["value"] > middle
            for mark in answer["ratings"]
            if mark["attribute"] == first.name and mark["value"] != middle
        }
    return {}


def as_prompt(prompt: Prompt) -> Any:
    """A prompt as TRL reads it."""
    if reply_role(prompt) == "text" and len(prompt.messages) == 1:
        return prompt.messages[0].text
    return [_message(message) for message in prompt.messages]


def as_reply(prompt: Prompt, text: str) -> Any:
    """A reply as TRL reads it beside this prompt."""
    role = reply_role(prompt)
    return text if role == "text" else [_message(Message(role=role, text=text))]


def _message(message: Message) -> Row:
    return {"role": message.role, "content": message.text}


LAYOUTS: dict[str, Callable[[Source], list[Row]]] = {
    "judgments": judgment_rows,
    "trl_preference": preference_rows,
    "trl_unpaired": unpaired_rows,
    "ranking": ranking_rows,
    "sft": sft_rows,
    "critiques": critique_rows,
}
SPLIT = ("trl_preference", "trl_unpaired", "ranking", "sft")
"""Layouts with a train and a held-out file, parted by the prompt's hash."""
