"""One page says what a data set is, what would be lost, and how a row is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heed.data.exchange import write_rows
from heed.data.inspect import histogram, inspect
from heed.errors import DataError
from heed.settings import DataSettings

from .conftest import CHATML, MakeTokenizer

PAIR = {"prompt": "The sky", "chosen": " is blue", "rejected": " is red"}
CASES = {
    "preferences": [PAIR, {**PAIR, "rejected": PAIR["chosen"]}],
    "demonstrations": [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": "q"}]},
    ],
    "prompts": [{"prompt": "The sky"}, {"prompt": ""}],
    "texts": [{"text": "A story."}, {"text": " "}],
}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("with_tokenizer", [False, True])
def test_every_kind_is_described(
    tmp_path: Path, make_tokenizer: MakeTokenizer, kind: str, with_tokenizer: bool
) -> None:
    write_rows(tmp_path / "rows.jsonl", CASES[kind])
    make_tokenizer(CHATML).save_pretrained(tmp_path / "run" / "model")
    data = DataSettings(path=str(tmp_path / "rows.jsonl"))
    lines = inspect(data, str(tmp_path / "run") if with_tokenizer else None)
    text = "\n".join(lines)
    assert lines[0] == f"kind: {kind}"
    assert "2 rows read, 1 kept (0 cut, 1 dropped, 0 unsupervised)" in text
    assert "training would stop" in text
    assert f"length of a row in {'tokens' if with_tokenizer else 'characters'}" in text
    if with_tokenizer:
        shown = {
            "preferences": "The sky[[ is blue<|endoftext|>]]",
            "demonstrations": "assistant",
            "prompts": "The sky",
            "texts": "[[ story.<|endoftext|>]]",
        }
        assert shown[kind] in text
    else:
        assert "first record:" in text


def test_data_without_losses_would_be_accepted(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [PAIR])
    lines = inspect(DataSettings(path=str(tmp_path / "rows.jsonl")))
    assert "training would accept this data" in lines
    assert "  | rejected (text):  is red" in lines


def test_rows_that_are_too_long_show_before_training_stops(
    tmp_path: Path, make_tokenizer: MakeTokenizer
) -> None:
    write_rows(tmp_path / "rows.jsonl", [PAIR])
    make_tokenizer(CHATML).save_pretrained(tmp_path / "tokenizer")
    data = DataSettings(path=str(tmp_path / "rows.jsonl"), max_length=3, on_overlong="error")
    text = "\n".join(inspect(data, str(tmp_path / "tokenizer")))
    assert "longer than 3 tokens" in text
    assert "at least one row must remain" in text


def test_a_folder_without_a_tokenizer_is_explained(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [PAIR])
    data = DataSettings(path=str(tmp_path / "rows.jsonl"))
    with pytest.raises(DataError, match=r"Give a folder that holds tokenizer\.json"):
        inspect(data, str(tmp_path))


@pytest.mark.parametrize("lengths", [[5], [0, 0], [1, 2, 3, 1000], list(range(500))])
def test_a_histogram_counts_every_row_once(lengths: list[int]) -> None:
    lines = histogram(lengths, "tokens")
    counts: list[Any] = [line.split()[3].replace(",", "") for line in lines[1:]]
    assert sum(int(count) for count in counts) == len(lengths)
    assert f"most {max(lengths):,}" in lines[0]
    assert histogram([], "tokens") == []
