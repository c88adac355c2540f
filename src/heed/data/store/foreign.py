"""Read what other tools write: a run's samples, JSON lines, Label Studio and Argilla exports.

Each reader gives items and answers for `import_rows`, and counts the rows that it cannot use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heed.data.columns import prompt_for, reply_of
from heed.data.completions import load_completions
from heed.data.exchange import read_rows
from heed.data.formats import PREFERENCES, match_format, read_row
from heed.data.report import RowError
from heed.data.store.convert import payload_of
from heed.data.store.importing import ImportedAnswer
from heed.data.store.items import NewItem
from heed.ids import content_hash, stream_seed
from heed.records import Completion, Prompt
from heed.settings import DataSettings

Row = Mapping[str, Any]

_LEFT = ("left", "a", "first", "response1", "answer1", "1", "0")
_RIGHT = ("right", "b", "second", "response2", "answer2", "2")
_OTHER = {
    "tie": "tie", "equal": "tie", "same": "tie", "both_bad": "both_bad", "both bad": "both_bad",
    "bothbad": "both_bad", "cannot_judge": "cannot_judge", "unsure": "cannot_judge",
    "skip": "cannot_judge", "invalid": "invalid",
}  # fmt: skip
_TWO_COLUMNS = tuple(
    (f"{word}{joint}{one}", f"{word}{joint}{two}")
    for word in ("completion", "response", "answer")
    for joint in ("_", "")
    for one, two in (("a", "b"), ("1", "2"))
)
"""Names of two columns that hold two replies, neither of them chosen."""


@dataclass
class Read:
    """What a reader found."""

    items: list[NewItem] = field(default_factory=list)
    answers: list[ImportedAnswer] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def read_pairs(path: str | Path, *, labeller: str | None = None) -> Read:
    """Read rows of `prompt` and `completions` (or `responses`, or two columns such as `response_a`
    and `response_b`), or `chosen` and `rejected` (TRL's columns).

    Args:
        path: a file of rows, see `heed.data.exchange`.
        labeller: pseudonym of whoever chose; without one the rows become items to be judged.

    Which of chosen and rejected is candidate 0 depends on their texts alone, so that place tells
    nothing.
    """
    out = Read()
    for number, row in read_rows(path):
        try:
            several = replies_of(row)
            if several is not None:
                out.items.append(_item_of_completions(row, several))
                continue
            known = match_format(row, PREFERENCES)
            if known is None:
                raise RowError("no known columns")
            labelled = read_row(row, known)
        except (RowError, ValueError) as error:
            reason = error.reason if isinstance(error, RowError) else str(error).splitlines()[0]
            out.refused[reason] += 1
            continue
        texts = [side[-1].text for side in (labelled.chosen, labelled.rejected)]
        swapped = content_hash([texts[0]]) > content_hash([texts[1]])
        item = item_of(labelled.prompt, texts[::-1] if swapped else texts)
        out.items.append(item)
        if labeller is not None:
            answer = {"outcome": "prefer", "side": int(swapped), "level": 1}
            name = f"import {content_hash([labeller, item.key, number])}"
            out.answers.append(
                ImportedAnswer(item=item.key, person=labeller, submission_id=name, answer=answer)
            )
    return out


def read_samples(path: str | Path, *, size: int = 2, per_prompt: int = 1, seed: int = 0) -> Read:
    """Make items of the completions of a run folder (`heed generate`), sources kept and hidden.

    Args:
        path: the run folder, or its `completions.jsonl`.
        size: completions per item: 2 for pairs, 1 for ratings and edits, 2 to 9 for rankings, 0
            for demonstrations.
        per_prompt: items of one prompt at most; each completion stands in one of them.
        seed: which stand together, and in which order, depends on it and on their ids.
    """
    loaded, _ = load_completions(DataSettings(path=str(path)))
    groups: dict[str, tuple[Prompt, dict[str, Completion]]] = {}
    out = Read()
    for prompt, completion in loaded:
        texts = groups.setdefault(prompt.id, (prompt, {}))[1]
        if completion.finish == "error":
            out.refused["a completion failed"] += 1
        elif texts.setdefault(completion.text, completion) is not completion:
            out.refused["a completion of the same text is there"] += 1
    for prompt, texts in groups.values():
        order = sorted(texts.values(), key=lambda one: stream_seed(seed, "items", one.id))
        num = min(per_prompt, len(order) // size) if size else 1
        if num == 0:
            out.refused["too few different completions of a prompt"] += 1
        for start in range(0, num * size, size) if size else (0,):
            payload = payload_of(prompt, order[start : start + size])
            key = content_hash([prompt.id, [one.id for one in order[start : start + size]]], 32)
            out.items.append(NewItem(payload=payload, key=key, origin=Path(path).name[:120]))
    return out


def read_label_studio(
    path: str | Path,
    *,
    prompt: str = "prompt",
    candidates: Sequence[str] = ("answer1", "answer2"),
) -> Read:
    """Read a JSON export of Label Studio whose tasks compare texts (pairwise, choices, ranker).

    Args:
        path: the `.json` file.
        prompt: field of `data` with the prompt.
        candidates: fields of `data` with the texts, in order.
    """
    out = Read()
    for _, task in read_rows(path):
        data = task.get("data")
        if not isinstance(data, Mapping) or any(data.get(n) is None for n in (prompt, *candidates)):
            out.refused["a field of `data` is missing"] += 1
            continue
        item = item_of(prompt_for(data[prompt], "", {}), [str(data[name]) for name in candidates])
        out.items.append(item)
        for annotation in task.get("annotations") or ():
            answer = _label_studio_answer(annotation, candidates)
            if answer is None:
                out.refused["an annotation says nothing known"] += 1
                continue
            out.answers.append(
                ImportedAnswer(
                    item=item.key,
                    person=_who(annotation.get("completed_by")),
                    submission_id=f"label-studio {annotation.get('id')}",
                    answer=answer,
                    seconds=annotation.get("lead_time"),
                    when=annotation.get("created_at"),
                )
            )
    return out


def read_argilla(
    path: str | Path,
    *,
    question: str,
    prompt: str = "prompt",
    candidates: Sequence[str] = ("response1", "response2"),
) -> Read:
    """Read records that Argilla wrote (`dataset.records.to_json`), one question of them.

    Args:
        path: the `.json` or `.jsonl` file.
        question: name of a label question (a side, or tie) or a ranking question.
        prompt: field with the prompt.
        candidates: fields with the texts, in order.
    """
    out = Read()
    for number, record in read_rows(path):
        fields = record.get("fields")
        names = (prompt, *candidates)
        if not isinstance(fields, Mapping) or any(fields.get(name) is None for name in names):
            out.refused["a field is missing"] += 1
            continue
        item = item_of(prompt_for(fields[prompt], "", {}), [str(fields[n]) for n in candidates])
        out.items.append(item)
        for said in (record.get("responses") or {}).get(question) or ():
            answer = _answer_of(said.get("value"), candidates)
            if answer is None or said.get("status", "submitted") == "draft":
                out.refused["a response is a draft or says nothing known"] += 1
                continue
            who = _who(said.get("user_id"))
            name = f"argilla {content_hash([record.get('id', number), question, who])}"
            out.answers.append(
                ImportedAnswer(item=item.key, person=who, submission_id=name, answer=answer)
            )
    return out


def item_of(prompt: Prompt, texts: Sequence[str]) -> NewItem:
    """Make an item of a prompt and replies; its key is the hash of both."""
    payload = {
        "prompt": prompt.model_dump(mode="json"),
        "candidates": [{"text": text} for text in texts],
    }
    return NewItem(payload=payload, key=content_hash(payload, 32))


def replies_of(row: Row) -> Any:
    """Find the unlabelled replies of a row: one column of a list, or two columns."""
    for name in ("completions", "responses"):
        if row.get(name) is not None:
            return row[name]
    for pair in _TWO_COLUMNS:
        if all(row.get(name) is not None for name in pair):
            return [row[name] for name in pair]
    return None


def _item_of_completions(row: Row, completions: Any) -> NewItem:
    if row.get("prompt") is None:
        raise RowError("no prompt beside the completions")
    if not isinstance(completions, Sequence) or isinstance(completions, str):
        raise RowError("completions is no list")
    prompt = prompt_for(row["prompt"], completions[0] if completions else "", {})
    return item_of(prompt, [reply_of(one, prompt, "completions")[-1].text for one in completions])


def _who(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("id", value.get("email"))
    return f"imported {value}"[:80]


def _label_studio_answer(annotation: Row, candidates: Sequence[str]) -> dict[str, Any] | None:
    if annotation.get("was_cancelled"):
        return {"outcome": "cannot_judge"}
    for result in annotation.get("result") or ():
        value = result.get("value") or {}
        said = value.get("selected") or value.get("choices") or value.get("ranker")
        if isinstance(said, Mapping):
            said = next(iter(said.values()), None)
        answer = _answer_of(said, candidates)
        if answer is not None:
            return answer
    return None


def _answer_of(value: Any, candidates: Sequence[str]) -> dict[str, Any] | None:
    """Read a side, a word for no side, or a ranking."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Sequence) or not value:
        return None
    if len(value) == 1 and isinstance(value[0], str):
        return _side_of(value[0], candidates)
    ranks = dict(_ranks(value))
    if sorted(ranks) != sorted(candidates):
        return None
    places = [[k for k, name in enumerate(candidates) if ranks[name] == rank]
              for rank in sorted(set(ranks.values()))]  # fmt: skip
    return {"outcome": "ranked", "buckets": places}


def _ranks(value: Sequence[Any]) -> Iterator[tuple[str, int]]:
    for rank, one in enumerate(value, start=1):
        if isinstance(one, Mapping):
            yield str(one.get("value")), int(one.get("rank", rank))
        else:
            yield str(one), rank


def _side_of(word: str, candidates: Sequence[str]) -> dict[str, Any] | None:
    name = word.strip().casefold()
    fields = [candidate.casefold() for candidate in candidates]
    if name in fields[:2]:
        return {"outcome": "prefer", "side": fields.index(name), "level": 1}
    if name in _LEFT or name in _RIGHT:
        return {"outcome": "prefer", "side": int(name in _RIGHT), "level": 1}
    return {"outcome": _OTHER[name]} if name in _OTHER else None
