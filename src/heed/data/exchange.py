"""Read and write rows: one dict a row, from files, run folders and hub data sets.

Formats by file name: `.jsonl` (one JSON object a line), `.json` (a list of objects), `.txt` (the
whole file is one row with the column `text`), each also as `.gz` and `.xz`; and `.parquet`.
"""

from __future__ import annotations

import difflib
import gzip
import json
import lzma
import os
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel

from heed.errors import DataError, MissingExtra

NumberedRow = tuple[int, dict[str, Any]]

RECORD_FILES = (
    "demonstrations.jsonl",
    "completions.jsonl",
    "prompts.jsonl",
    "pairs.jsonl",
    "texts.jsonl",
)
"""Record files of a run folder, in the order in which `read_rows` looks for them."""

_SUFFIXES = (".jsonl", ".json", ".txt", ".parquet")
_PACKED = ("", ".gz", ".xz")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SHOWN_CHARACTERS = 120


def read_rows(
    path: str | Path, *, split: str = "train", prefer: Sequence[str] = RECORD_FILES
) -> Iterator[NumberedRow]:
    """Read the rows of a file, of a run folder or of a hub data set, one at a time.

    Args:
        path: file, run folder, or hub id such as `owner/name`.
        split: split of a hub data set.
        prefer: names of record files; the first that a run folder has is read.

    Returns:
        An iterator of (line or row number counted from 1, row).

    Raises:
        DataError: nothing is found at the path, the file is empty or damaged, or a line is not a
            JSON object; the message names the line and shows its text.
        MissingExtra: a hub id is given and `datasets` is not installed.
    """
    if is_hub_id(path):
        return _not_empty(_read_hub(str(path), split), str(path))
    file = find_file(path, prefer)
    return _not_empty(_read_file(file), str(file))


def find_file(path: str | Path, prefer: Sequence[str] = RECORD_FILES) -> Path:
    """Find the file that holds the rows: the path itself, or a record file of a run folder.

    Raises:
        DataError: there is none; the message names what is near.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        for name in prefer:
            for packed in _PACKED:
                if (path / (name + packed)).is_file():
                    return path / (name + packed)
        found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise DataError(
            f"the folder {path} has none of {', '.join(prefer)}; found {found}. "
            "Give a run folder that made records, or name the data files one by one"
        )
    if not path.exists():
        raise DataError(_not_found(path))
    if _kind(path) is None:
        raise DataError(
            f"{path} has a name that says no known format; expected "
            f"{', '.join(_SUFFIXES)}, the first three also with .gz or .xz"
        )
    return path


def is_hub_id(path: str | Path) -> bool:
    """Whether a path can only be the id of a hub data set: `owner/name`, and nothing local."""
    text = str(path)
    return (
        _HUB_ID.fullmatch(text) is not None
        and not text.startswith(".")
        and _kind(Path(text)) is None
        and not Path(text).exists()
        and not Path(text).parent.exists()
    )


def write_rows(
    path: str | Path, rows: Iterable[Mapping[str, Any] | BaseModel], *, overwrite: bool = True
) -> int:
    """Write rows as JSON lines, whole or not at all (temporary file, fsync, rename).

    Args:
        path: `.jsonl`, or `.jsonl.gz` / `.jsonl.xz` to pack.
        rows: dicts or records.
        overwrite: replace an existing file.

    Returns:
        Number of rows written.

    Raises:
        DataError: a row is not JSON (such as NaN; missing is null), or the file exists and
            `overwrite` is false.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists already; remove it, choose another name, or overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    count = 0
    try:
        with _open(Path(name), "wt") as stream:
            for count, row in enumerate(rows, start=1):
                stream.write(_line(row, path, count) + "\n")
        with open(name, "rb+") as written:
            os.fsync(written.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return count


def write_parquet(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as one Parquet file; equal rows give equal bytes with one version of pyarrow.

    Raises:
        DataError: the rows do not share types.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        table = pa.Table.from_pylist([dict(row) for row in rows])
    except pa.ArrowException as error:
        raise DataError(f"the rows do not fit one table for {path}: {error}") from error
    parquet.write_table(table, path, compression="zstd")


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _line(row: Mapping[str, Any] | BaseModel, path: Path, number: int) -> str:
    value = row.model_dump(mode="json") if isinstance(row, BaseModel) else dict(row)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"row {number} cannot be written to {path}: {error}. "
            "A row holds text, finite numbers, true, false, null, lists and objects"
        ) from error


def _kind(path: Path) -> str | None:
    name = path.name
    for packed in (".gz", ".xz"):
        name = name.removesuffix(packed)
    suffix = Path(name).suffix
    if suffix == ".parquet" and name != path.name:
        return None
    return suffix if suffix in _SUFFIXES else None


def _open(path: Path, mode: str) -> IO[str]:
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    # utf-8-sig drops a byte order mark, which some editors put before the first line.
    encoding = "utf-8-sig" if mode == "rt" else "utf-8"
    stream: IO[str] = opener(path, mode, encoding=encoding, newline="\n" if mode == "wt" else None)
    return stream


def _read_file(path: Path) -> Iterator[NumberedRow]:
    kind = _kind(path)
    try:
        if kind == ".parquet":
            yield from _read_parquet(path)
            return
        with _open(path, "rt") as stream:
            if kind == ".jsonl":
                yield from _read_lines(path, stream)
            elif kind == ".json":
                yield from _read_list(path, stream.read())
            else:
                yield 1, {"text": stream.read()}
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); convert it to UTF-8") from error
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cut short ({error}); fetch it again") from error


def _read_lines(path: Path, stream: IO[str]) -> Iterator[NumberedRow]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {number} is not JSON ({error.msg}, column {error.colno}): "
                f"{_shown(line)!r}. Fix the line or remove it"
            ) from error
        yield number, _object(path, number, row)


def _read_list(path: Path, text: str) -> Iterator[NumberedRow]:
    if not text.strip():
        return
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1] if error.lineno <= text.count("\n") + 1 else ""
        raise DataError(
            f"{path}, line {error.lineno} is not JSON ({error.msg}, column {error.colno}): "
            f"{_shown(line)!r}. If the file has one object a line, name it .jsonl"
        ) from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a {type(rows).__name__}; expected a list of objects")
    for number, row in enumerate(rows, start=1):
        yield number, _object(path, number, row)


def _read_parquet(path: Path) -> Iterator[NumberedRow]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not a whole parquet file ({error}); fetch it again") from error


def _read_hub(name: str, split: str) -> Iterator[NumberedRow]:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets", "hub") from error
    try:
        rows = datasets.load_dataset(name, split=split)
    except Exception as error:
        raise DataError(
            f"{name!r} is no local file or folder, and the hub did not give it "
            f"(split {split!r}): {type(error).__name__}: {_shown(str(error))}. "
            "Check the name, the split and the connection, or give a local path"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield number, dict(row)


def _not_empty(rows: Iterator[NumberedRow], source: str) -> Iterator[NumberedRow]:
    first = next(rows, None)
    if first is None:
        raise DataError(f"{source} has no rows; expected at least one")
    yield first
    yield from rows


def _object(path: Path, number: int, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(
            f"{path}, line {number} holds a {type(row).__name__}: {_shown(str(row))!r}; "
            'expected an object such as {"prompt": ..., "completion": ...}'
        )
    return row


def _not_found(path: Path) -> str:
    parent = path.parent
    while not parent.is_dir():
        parent = parent.parent
    names = sorted(p.name for p in parent.iterdir())
    if parent != path.parent:
        near = difflib.get_close_matches(path.relative_to(parent).parts[0], names, n=3, cutoff=0.5)
        offer = f"; did you mean {' or '.join(str(parent / n) for n in near)}" if near else ""
        return f"{path} does not exist: there is no folder {path.parent}{offer}"
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    readable = near or [n for n in names if _kind(Path(n))][:5]
    where = "this folder" if parent == Path() else str(parent)
    offer = f"{where} has {', '.join(readable)}" if readable else f"{where} has no data files"
    return f"{path} does not exist; {offer}"


def _shown(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
