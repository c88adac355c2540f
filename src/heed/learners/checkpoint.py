"""Checkpoints that are whole or absent.

checkpoints/
    step-00000012/
        state.json          {schema, step, state}: what the loop itself remembers
        <learner>/...       what each learner's `save` wrote
        SHA256SUMS          of every other file; `sha256sum -c` reads it

One is written under a name that no reader looks at, made durable, and renamed; so a kill at any
time, or a full disk, leaves the earlier ones as they were.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from heed.errors import StoreError
from heed.ids import file_hash
from heed.learners.base import Learner
from heed.runs.files import is_disk_full, read_json, sync_folder, write_json

SUMS, STATE = "SHA256SUMS", "state.json"
_SHA256_DIGITS = 64
# A replaced checkpoint is set aside under the second name until the new one has its place.
_NAME = re.compile(r"(?:\.replaced-)?step-(\d{8,})")
_STATES_PER_WEIGHT = 3
"""A weight comes with two moments of Adam."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint.

    Args:
        folder: with one folder for each learner.
        step: after which it was written.
        state: what the loop remembers.
        warnings: one text for each newer checkpoint that was passed over, with the reason.
    """

    folder: Path
    step: int
    state: dict[str, Any]
    warnings: tuple[str, ...] = ()


def write_checkpoint(
    folder: Path,
    step: int,
    state: Mapping[str, Any],
    learners: Mapping[str, Learner],
    keep: int = 2,
) -> Path:
    """Write a checkpoint, then remove all but it and the `keep` - 1 before it.

    Args:
        folder: of all checkpoints.
        step: after which it is written; an older one of that step is replaced.
        state: JSON that the loop wants back.
        learners: name -> learner, each saved in a folder of that name.
        keep: at least 1.

    Returns:
        the checkpoint's folder.

    Raises:
        StoreError: the disk is full. What was written of it is removed, earlier ones are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    temporary = folder / f".writing-{step:08d}"
    try:
        temporary.mkdir()
        write_json(temporary / STATE, {"schema": 1, "step": step, "state": dict(state)})
        for name, learner in learners.items():
            learner.save(temporary / name)
        _seal(temporary)
        final = _put_in_place(temporary, folder / f"step-{step:08d}")
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_disk_full(error) or is_disk_full(error.__cause__ or error):
            raise StoreError(_explain_full(folder, step, learners)) from error
        raise
    # Those of later steps were passed over as damaged when the run went on from an earlier one.
    listed = _listed(folder)
    place = [path for _, path in listed].index(final)
    for _, old in listed[:place] + listed[place + keep :]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest_checkpoint(folder: Path) -> Checkpoint:
    """Find the newest whole checkpoint; every file is checked against its sum.

    Damaged ones are passed over, and the result's warnings say so.

    Raises:
        StoreError: there is no whole one; the message lists what was found.
    """
    faults: list[str] = []
    for step, path in _listed(folder):
        fault = find_fault(path)
        if fault is None:
            state = read_json(path / STATE)["state"]
            passed = tuple(f"{text}; the run goes on from step {step} instead" for text in faults)
            return Checkpoint(path, step, state, passed)
        faults.append(f"checkpoint {path.name} is damaged ({fault})")
    if faults:
        raise StoreError(
            f"no whole checkpoint in {folder}: {'; '.join(faults)}. Restore one from a copy, or "
            "start over with run.overwrite=true"
        )
    raise StoreError(
        f"no checkpoint in {folder}; the run was stopped before it wrote one. Start over with "
        "run.overwrite=true"
    )


def find_fault(path: Path) -> str | None:
    """Compare a checkpoint with its sums; returns what is wrong, or None if it is whole."""
    try:
        lines = (path / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return f"{SUMS} is missing or unreadable"
    expected: dict[str, str] = {}
    for line in lines:
        digest, _, name = line.partition("  ")
        if len(digest) != _SHA256_DIGITS or not name:
            return f"{SUMS} has a broken line"
        expected[name] = digest
    found = {file.relative_to(path).as_posix(): file for file in _files(path)}
    if set(found) != set(expected):
        differing = sorted(set(found) ^ set(expected))
        return f"files are missing from it or from {SUMS}: {', '.join(differing[:3])}"
    for name, digest in expected.items():
        if file_hash(found[name], _SHA256_DIGITS) != digest:
            return f"{name} differs from its sum"
    return None


def _listed(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of all checkpoints, newest first; one set aside comes after its successor."""
    if not folder.is_dir():
        return []
    named = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    order = sorted(named, key=lambda it: (-int(it[0][1]), it[1].name.startswith(".")))
    return [(int(match[1]), path) for match, path in order]


def _seal(folder: Path) -> None:
    """Write the sums, and make every file and name below the folder durable."""
    lines = []
    for file in _files(folder):
        lines.append(f"{file_hash(file, _SHA256_DIGITS)}  {file.relative_to(folder).as_posix()}\n")
        _sync_file(file)
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    _sync_file(folder / SUMS)
    for child in sorted(folder.rglob("*")):
        if child.is_dir():
            sync_folder(child)
    sync_folder(folder)


def _put_in_place(temporary: Path, final: Path) -> Path:
    aside = final.with_name(f".replaced-{final.name}")
    if final.exists():
        os.rename(final, aside)
    os.rename(temporary, final)
    sync_folder(final.parent)
    shutil.rmtree(aside, ignore_errors=True)
    return final


def _remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left; one set aside goes only where its successor stands."""
    for path in folder.glob(".writing-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".replaced-*"):
        successor = path.with_name(path.name.removeprefix(".replaced-"))
        if successor.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.rename(path, successor)


def _files(folder: Path) -> Iterator[Path]:
    """All files below the folder but the sums, in order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / SUMS:
            yield path


def _sync_file(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _explain_full(folder: Path, step: int, learners: Mapping[str, Learner]) -> str:
    weights = [w for learner in learners.values() for w in learner.weights().values()]
    num_bytes = sum(_STATES_PER_WEIGHT * 4 * w.numel() for w in weights if isinstance(w, Tensor))
    kept = _listed(folder)
    earlier = f"that of step {kept[0][0]} is kept" if kept else "there is no earlier one"
    return (
        f"the disk is full: the checkpoint of step {step} needs about {_size(num_bytes)}, and "
        f"{_size(shutil.disk_usage(folder).free)} are free in {folder}; {earlier}. Free some "
        "space, then go on with run.resume=true"
    )


def _size(num_bytes: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 1000:.1f} kB"
