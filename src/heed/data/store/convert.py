"""Answers become the records that the rest of heed reads: preferences, rankings, demonstrations.

The four ways of not preferring stay apart; what was not judged has no p_left and a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from heed.data.store.kinds import Candidate, Payload
from heed.data.store.views import Judgment
from heed.ids import content_hash
from heed.records import (
    Completion,
    Critique,
    Demonstration,
    Message,
    Pair,
    Preference,
    Prompt,
    RankingJudgment,
    Span,
)

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")

_WHY_NOT = {
    "both_bad": "both are bad",
    "cannot_judge": "the labeller could not judge",
    "invalid": "the item is broken",
    "all_bad": "all are bad",
}


def pair_of(item: str, payload: Payload, origin: str = "") -> Pair:
    """Make the pair of an item of two texts; candidate 0 is left."""
    prompt = prompt_of(payload)
    left, right = (completion_of(prompt, candidate) for candidate in payload.candidates)
    return Pair(id=item, prompt=prompt, left=left, right=right, origin=origin)


def preference_of(judgment: Judgment, pair: str | None = None) -> Preference:
    """Make the preference of an answer to a pair; `strength` is the level on its scale."""
    outcome: Any = judgment.outcome
    p_left = {"tie": 0.5}.get(outcome)
    if outcome == "prefer":
        outcome = SIDES[judgment.side or 0]
        p_left = 1.0 if judgment.side == 0 else 0.0
    first, second = (SIDES[place] for place in judgment.shown)
    return Preference(
        id=judgment.id,
        pair_id=pair or judgment.item,
        outcome=outcome,
        strength=judgment.level,
        p_left=p_left,
        reason=_WHY_NOT.get(judgment.outcome),
        labeller=judgment.person,
        kind="human",
        shown=(first, second),
        seconds=judgment.seconds,
        note=judgment.answer.get("note"),
        when=when_of(judgment),
        replaces=judgment.replaces,
    )


def ranking_of(judgment: Judgment, payload: Payload, origin: str = "") -> RankingJudgment:
    """Make the ranking of an answer to an item of two to nine texts."""
    prompt, answer = prompt_of(payload), judgment.answer
    ranked = judgment.outcome == "ranked"
    return RankingJudgment(
        id=judgment.id,
        prompt=prompt,
        items=tuple(completion_of(prompt, candidate) for candidate in payload.candidates),
        origin=origin,
        buckets=tuple(tuple(b) for b in answer["buckets"]) if ranked else None,
        unranked_bad=tuple(answer["unranked_bad"]) if ranked else (),
        reason=_WHY_NOT.get(judgment.outcome),
        labeller=judgment.person,
        kind="human",
        shown=judgment.shown,
        seconds=judgment.seconds,
        note=answer.get("note"),
        when=when_of(judgment),
        replaces=judgment.replaces,
    )


def demonstration_of(judgment: Judgment, payload: Payload) -> Demonstration | None:
    """Make the demonstration of a reply that was written, edited or found good as it is."""
    prompt, text = prompt_of(payload), judgment.answer.get("text")
    if judgment.outcome == "unchanged":
        text = payload.candidates[0].text
    if text is None:
        return None
    return Demonstration(prompt=prompt, reply=(Message(role=reply_role(prompt), text=text),))


def critique_of(judgment: Judgment, payload: Payload) -> Critique | None:
    """Make the critique of an answer that marks spans; None where it was not judged."""
    if judgment.outcome != "marked":
        return None
    spans = tuple(
        Span(
            start=span["start"], end=span["end"], kind=span["kind"], quote=span["quote"],
            text=span["comment"],
        )
        for span in judgment.answer["spans"]
    )  # fmt: skip
    completion = completion_of(prompt_of(payload), payload.candidates[0])
    return Critique(
        id=judgment.id,
        item_id=completion.id,
        spans=spans,
        text=judgment.answer.get("note"),
        critic=judgment.person,
        kind="human",
        when=when_of(judgment),
        replaces=judgment.replaces,
    )


def payload_of(prompt: Prompt, completions: Sequence[Completion]) -> dict[str, Any]:
    """Make what an item shows from completions of a run; all but their text is hidden source."""
    return {
        "prompt": prompt.model_dump(mode="json"),
        "candidates": [
            {"text": one.text, "source": one.model_dump(mode="json", exclude={"text"})}
            for one in completions
        ],
    }


def prompt_of(payload: Payload) -> Prompt:
    """The prompt of a payload that has one."""
    assert payload.prompt is not None
    return payload.prompt


def completion_of(prompt: Prompt, candidate: Candidate) -> Completion:
    """Make the completion of a candidate: the run's own where it came from one."""
    if "finish" in candidate.source and "tokens" in candidate.source:
        return Completion.model_validate({**candidate.source, "text": candidate.text})
    return Completion(
        id="c-" + content_hash([prompt.id, candidate.text]),
        prompt_id=prompt.id,
        prompt_tokens=(),
        tokens=(),
        text=candidate.text or "",
        finish="stop",
    )


def reply_role(prompt: Prompt) -> Any:
    """The role of what follows a prompt."""
    return "text" if prompt.messages[-1].role == "text" else "assistant"


def when_of(judgment: Judgment) -> datetime:
    """When an answer was given, UTC."""
    return datetime.fromtimestamp(judgment.at / 1000, tz=UTC)
