"""Rows of files and samples of runs become items of each kind of work, and what lacks is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heed.data.store.kinds import kind_of, read_payload
from heed.data.store.rows import NEEDS, SAMPLES, read_items, read_run
from heed.records import Completion, Prompt

ROWS: list[dict[str, Any]] = [
    {"prompt": "a?", "completions": ["1", "2", "3"]},
    {"prompt": "b?", "completion": "4"},
    {"prompt": "c?", "response_a": "5", "response_b": "6"},
    {"prompt": [{"role": "user", "content": "d?"}],
     "completions": [[{"role": "assistant", "content": "7"}]]},
    {"prompt": "e?"},
    {"completions": ["8", "9"]},
    {"prompt": "f?", "completions": "no list"},
    {"prompt": "g?", "completions": [str(number) for number in range(10)]},
]  # fmt: skip

FOUND = {
    "rating": [["1", "2", "3"], ["4"], ["5", "6"], ["7"]],
    "ranking": [["1", "2", "3"], ["5", "6"]],
    "demonstration": [[]] * 7,
    "edit": [["1"], ["2"], ["3"], ["4"], ["5"], ["6"], ["7"], *[[str(n)] for n in range(10)]],
}
FOUND["spans"] = FOUND["edit"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "rows.jsonl"
    found.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return found


@pytest.mark.parametrize("kind", FOUND)
def test_rows_become_items_that_their_kind_takes(path: Path, kind: str) -> None:
    read = read_items(path, kind)
    texts = []
    for item in read.items:
        payload = read_payload(kind_of(kind), item.payload)
        texts.append([candidate.text for candidate in payload.candidates])
    assert texts == FOUND[kind]
    assert len({item.key for item in read.items}) == len(read.items)


def test_what_a_row_lacks_is_counted_by_its_reason(path: Path) -> None:
    assert read_items(path, "ranking").refused == {
        "a ranking has 2 to 9 completions, and this row has one": 2,
        "neither completion nor completions beside the prompt of a ranking": 1,
        "no prompt beside the completions": 1,
        "completions is no list of texts": 1,
        "a ranking has at most 9 completions, and this row has more": 1,
    }
    assert read_items(path, "demonstration").refused == {"no prompt": 1}
    assert read_items(path, "spans").refused == {
        "neither completion nor completions beside the prompt of a spans": 1,
        "no prompt beside the completions": 1,
        "completions is no list of texts": 1,
    }


def test_pairs_are_read_as_ever(path: Path) -> None:
    from heed.data.store.foreign import read_pairs

    assert read_items(path, "pair").items == read_pairs(path).items


@pytest.mark.parametrize("kind", NEEDS)
def test_a_run_gives_as_many_completions_as_a_kind_shows(tmp_path: Path, kind: str) -> None:
    rows = []
    for number in range(2):
        prompt = Prompt.make(f"{number}?")
        for sample in range(4):
            done = Completion(
                id=f"{number}-{sample}", prompt_id=prompt.id, text=f"answer {sample}",
                prompt_tokens=(2,), tokens=(1,), logprobs=(-1.0,), finish="stop",
            )  # fmt: skip
            rows.append({"prompt": prompt.model_dump(), "completion": done.model_dump()})
    (tmp_path / "completions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    read = read_run(tmp_path, kind)
    assert [len(read_payload(kind_of(kind), item.payload).candidates) for item in read.items] == [
        SAMPLES[kind]
    ] * 2
    if kind == "ranking":
        assert len(read_run(tmp_path, kind, size=2, per_prompt=2).items) == 4
