"""Rows come back as they were written, and every damage is named with its line."""

from __future__ import annotations

import gzip
import json
import lzma
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from heed.data import exchange
from heed.data.exchange import find_file, is_hub_id, read_rows, write_rows
from heed.errors import DataError, MissingExtra
from heed.records import Prompt

ROWS = [{"prompt": "a\nb", "n": 1}, {"prompt": "grün \u2028 x", "n": None}]


def values(path: Path | str, **options: Any) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(path, **options)]


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "r.jsonl.xz"])
def test_rows_come_back_as_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    assert write_rows(path, iter(ROWS)) == 2
    assert list(read_rows(path)) == [(1, ROWS[0]), (2, ROWS[1])]
    assert [p.name for p in path.parent.iterdir()] == [name]
    magic = {"gz": b"\x1f\x8b", "xz": b"\xfd7"}.get(name.rpartition(".")[2], b"{")
    assert path.read_bytes().startswith(magic)


def test_records_are_written_as_json(tmp_path: Path) -> None:
    prompt = Prompt.make("hello", meta={"kind": "x"})
    write_rows(tmp_path / "p.jsonl", [prompt])
    assert Prompt.model_validate(values(tmp_path / "p.jsonl")[0]) == prompt


def test_other_formats_are_read(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(ROWS))
    assert values(tmp_path / "r.json") == ROWS
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "r.parquet")
    assert list(read_rows(tmp_path / "r.parquet")) == [(1, ROWS[0]), (2, ROWS[1])]
    with lzma.open(tmp_path / "r.txt.xz", "wt") as stream:
        stream.write("one\ntwo\n")
    assert values(tmp_path / "r.txt.xz") == [{"text": "one\ntwo\n"}]


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n  \r\n{"a": 2}\r\n')
    assert list(read_rows(tmp_path / "r.jsonl")) == [(1, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.jsonl.gz"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path / "e.jsonl.gz", [])
    (tmp_path / name).write_bytes(
        (tmp_path / "e.jsonl.gz").read_bytes() if name.endswith("gz") else b"\n"
    )
    with pytest.raises(DataError, match="has no rows"):
        values(tmp_path / name)


def test_a_broken_line_is_shown_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": 1}\n{"a": 2, oops}\n{"a": 3}\n')
    with pytest.raises(DataError, match=r"line 2 is not JSON.*\{\"a\": 2, oops\}"):
        values(path)
    path.write_text('{"a": 1}\n[1, 2]\n')
    with pytest.raises(DataError, match=r"line 2 holds a list"):
        values(path)
    (tmp_path / "r.json").write_text('{"a": 1}\n{"a": 2}\n')
    with pytest.raises(DataError, match=r"line 2.*name it \.jsonl"):
        values(tmp_path / "r.json")
    (tmp_path / "r.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="expected a list of objects"):
        values(tmp_path / "r.json")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"a": 1}\n' * 5000)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "not.jsonl.gz").write_bytes(b"plain text")
    (tmp_path / "not.jsonl.xz").write_bytes(b"plain text")
    (tmp_path / "not.parquet").write_bytes(b"plain text")
    for name in ("cut.jsonl.gz", "not.jsonl.gz", "not.jsonl.xz", "not.parquet"):
        with pytest.raises(DataError, match="fetch it again"):
            values(tmp_path / name)
    (tmp_path / "latin.jsonl").write_bytes('{"a": "grün"}'.encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        values(tmp_path / "latin.jsonl")


def test_a_missing_file_names_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "helpful-base.jsonl").write_text("{}")
    (tmp_path / "notes.md").write_text("")
    with pytest.raises(DataError, match=r"does not exist; .* has helpful-base\.jsonl$"):
        read_rows(tmp_path / "helpfull-base.jsonl")
    with pytest.raises(DataError, match=r"has helpful-base\.jsonl$"):
        read_rows(tmp_path / "zzz.jsonl")
    (tmp_path / "runs").mkdir()
    with pytest.raises(DataError, match=r"there is no folder .*did you mean .*runs"):
        read_rows(tmp_path / "run" / "a.jsonl")
    with pytest.raises(DataError, match="says no known format"):
        read_rows(tmp_path / "notes.md")


def test_a_run_folder_gives_the_file_that_is_asked_for(tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": "p"}])
    write_rows(tmp_path / "demonstrations.jsonl.gz", [{"prompt": "p", "completion": "c"}])
    assert values(tmp_path)[0] == {"prompt": "p", "completion": "c"}
    assert values(tmp_path, prefer=("prompts.jsonl",)) == [{"prompt": "p"}]
    assert find_file(tmp_path, ("texts.jsonl", "prompts.jsonl")).name == "prompts.jsonl"
    with pytest.raises(DataError, match=r"none of pairs\.jsonl; found demonstrations"):
        find_file(tmp_path, ("pairs.jsonl",))


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write_rows(path, ROWS)
    with pytest.raises(DataError, match=r"row 2 cannot be written.*finite numbers"):
        write_rows(path, [{"a": 1}, {"a": float("nan")}])
    with pytest.raises(DataError, match="exists already"):
        write_rows(path, ROWS, overwrite=False)
    assert values(path) == ROWS
    assert [p.name for p in tmp_path.iterdir()] == ["r.jsonl"]


def test_a_hub_id_is_only_what_can_be_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("owner/name")
    assert not is_hub_id("owner/name.jsonl")
    assert not is_hub_id("name")
    assert not is_hub_id("./owner/name")
    assert not is_hub_id(tmp_path / "name")
    (tmp_path / "owner").mkdir()
    assert not is_hub_id("owner/name")


def test_the_hub_is_asked_for_the_split_and_its_failure_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def load_dataset(name: str, split: str) -> list[dict[str, Any]]:
        if split != "test":
            raise OSError("offline")
        return [{"text": name}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert list(read_rows("owner/name", split="test")) == [(1, {"text": "owner/name"})]
    with pytest.raises(DataError, match=r"'train'.*offline.*give a local path"):
        list(read_rows("owner/name"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"heed-rlhf\[hub\]"):
        list(read_rows("owner/name"))


def test_reading_is_lazy(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": 1}\nbroken\n')
    rows = read_rows(path)
    assert next(rows) == (1, {"a": 1})
    assert exchange.RECORD_FILES[0] == "demonstrations.jsonl"
    with pytest.raises(DataError, match="line 2"):
        next(rows)
