import errno
import os
from pathlib import Path

import pytest

from heed.errors import StoreError
from heed.runs import files


def test_a_torn_last_line_is_left_out_and_cut(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    assert files.read_lines(path) == [{"step": 1}, {"step": 2}]
    assert files.keep_lines(path, lambda row: True) == 0
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    files.append_line(path, {"step": 3})
    assert [row["step"] for row in files.read_lines(path)] == [1, 2, 3]


def test_a_whole_last_line_without_its_line_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    assert len(files.read_lines(path)) == 2
    files.keep_lines(path, lambda row: True)
    assert path.read_text().endswith('{"step": 2}\n')


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(StoreError, match="line 2 of"):
        files.read_lines(path)


def test_a_line_is_in_the_file_when_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    files.append_line(path, {"text": "Grüße\n", "x": 0.1})
    assert files.read_lines(path) == [{"text": "Grüße\n", "x": 0.1}]
    assert path.read_bytes().count(b"\n") == 1


def test_replacing_keeps_the_old_file_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="disk is full"):
        files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
def test_appending_to_a_full_disk_says_so() -> None:
    with pytest.raises(StoreError, match="disk is full"):
        files.append_line(Path("/dev/full"), {"step": 1})


def test_json_that_is_damaged_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(StoreError, match=r"damaged.*restore it"):
        files.read_json(tmp_path / "a.json")
    with pytest.raises(StoreError, match="does not exist"):
        files.read_json(tmp_path / "b.json")
