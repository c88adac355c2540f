"""Prompts cut out of running text begin and end where they are told to, and fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from heed.data.datasets import load_prompts
from heed.data.excerpt import excerpt
from heed.data.exchange import write_rows
from heed.pipelines.generate import GenerateConfig
from heed.records import Message, Prompt, prompt_id
from heed.settings import DataSettings, PromptSettings

TEXT = "cut off here. One two. Three four five. Six"


class Words:
    """One token a word."""

    def prompt_tokens(self, prompt: Prompt) -> list[int]:
        return list(range(len(prompt.text.split())))


def cut(text: str, start: str | None, end: str | None, most: int = 99) -> str | None:
    prompt = Prompt.make(text, raw=True)
    found = excerpt(prompt, start, end, lambda p: len(Words().prompt_tokens(p)), most)
    return None if found is None else found.text


@pytest.mark.parametrize(
    ("start", "end", "most", "expected"),
    [
        (None, None, 99, TEXT),
        (".", None, 99, "One two. Three four five. Six"),
        (None, ".", 99, "cut off here. One two. Three four five."),
        (".", ".", 99, "One two. Three four five."),
        (".", ".", 5, "One two. Three four five."),
        (".", ".", 4, "One two."),
        (".", ".", 2, "One two."),
        (".", ".", 1, None),
        ("!", None, 99, None),
        (None, "!", 99, None),
        ("Six", None, 99, None),
    ],
)
def test_the_longest_piece_between_start_and_end_that_fits(
    start: str | None, end: str | None, most: int, expected: str | None
) -> None:
    assert cut(TEXT, start, end, most) == expected


def test_only_the_last_message_is_cut_and_the_id_is_that_of_what_is_left() -> None:
    first = Message(role="user", text="a. b. c")
    messages = (first, Message(role="assistant", text="x"), Message(role="user", text="a. b. c"))
    prompt = Prompt(id=prompt_id(messages), messages=messages, meta={"kind": 1})
    found = excerpt(prompt, ".", ".", lambda p: 0, 1)
    assert found is not None
    assert [m.text for m in found.messages] == ["a. b. c", "x", "b."]
    assert found.id == prompt_id(found.messages) != prompt.id
    assert found.meta == {"kind": 1}


def test_what_is_cut_is_counted_and_pieces_that_became_equal_are_kept_once(tmp_path: Path) -> None:
    rows = [{"prompt": text} for text in (TEXT, "other. One two. Three", "no period", "a. b c d")]
    write_rows(tmp_path / "rows.jsonl", rows)
    data = PromptSettings(
        path=str(tmp_path / "rows.jsonl"), start_text=".", end_text=".", max_length=2
    )
    prompts, report = load_prompts(data, Words())
    assert [p.text for p in prompts] == ["One two."]
    assert report.num_dropped == 2
    assert report.num_set_aside == 1
    assert any("no prompt between" in reason for reason in report.reasons)


def test_settings_that_say_nothing_of_cutting_will_do() -> None:
    data = DataSettings(path="p.jsonl", max_length=7)
    found = GenerateConfig.model_validate(
        {"run": {"folder": "r"}, "model": {"path": "m"}, "data": data}
    )
    assert found.data == PromptSettings(path="p.jsonl", max_length=7)
    assert found.data.model_fields_set == {"path", "max_length"}
