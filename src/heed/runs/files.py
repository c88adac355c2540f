"""Files that survive a kill: whole-file replacement, and JSON lines whose last one may be torn."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from heed.errors import StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an exception means that the disk or the quota is full.

    Libraries written in Rust report it in words, so the message is read too.
    """
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return "No space left on device" in str(error) or "os error 28" in str(error)


def full_disk(error: BaseException) -> StoreError | None:
    """Turn what was raised while the disk was full into an error that says how to go on."""
    if not (is_disk_full(error) or is_disk_full(error.__cause__ or error)):
        return None
    said = " ".join(str(error).split())
    return StoreError(
        f"the disk is full: {said}. Free some space, then go on with `heed resume` or "
        "run.resume=true"
    )


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, text: str) -> None:
    """Replace a file as a whole: a reader sees the old text or the new, and a kill keeps one.

    Raises:
        StoreError: the disk is full; the old file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _explain(error, path) from error


def write_json(path: Path, value: Any) -> None:
    """Replace a file by a value's JSON, as a whole."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StoreError: the file is absent or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist; name a folder that a heed run wrote") from None
    except ValueError as error:
        raise StoreError(
            f"{path} is damaged ({error}); restore it from a copy, or start the run again "
            "with run.overwrite=true"
        ) from error


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row as one line of JSON, handed to the system before this returns.

    Raises:
        StoreError: the disk is full.
    """
    line = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line)
    except OSError as error:
        raise _explain(error, path) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read rows of JSON lines; an absent file has none, and a torn last line is left out.

    Raises:
        StoreError: a line before the last is not JSON.
    """
    if not path.exists():
        return []
    rows = []
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise StoreError(
                f"line {number} of {path} is not JSON ({line[:60]!r}); a kill tears the last "
                "line only, so the file was changed from outside: restore or delete the line"
            ) from error
    return rows


def keep_lines(path: Path, keep: Callable[[dict[str, Any]], bool]) -> int:
    """Cut the rows that are not to be kept, and a torn last line; returns the rows cut."""
    if not path.exists():
        return 0
    rows = read_lines(path)
    kept = [row for row in rows if keep(row)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    if text.encode() != path.read_bytes():
        write_atomic(path, text)
    return len(rows) - len(kept)


def _explain(error: OSError, path: Path) -> StoreError:
    if is_disk_full(error):
        return StoreError(
            f"the disk is full: {path} could not be written. Free some space in {path.parent} "
            "and go on with run.resume=true"
        )
    return StoreError(f"{path} could not be written ({error.strerror or error})")
