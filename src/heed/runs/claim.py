"""Who may write to a run's folder, and what a run there goes on from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO, Any

from heed.errors import StoreError
from heed.runs.files import read_json
from heed.runs.lock import LOCK_NAME, take_lock
from heed.settings import RunSettings


def claim(folder: Path) -> IO[str]:
    """Make the folder and take its lock.

    Raises:
        StoreError: it cannot be written, or another process writes to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return take_lock(folder)
    except OSError as error:
        raise StoreError(
            f"the run folder {folder} cannot be made or written ({error.strerror}); "
            "give run.folder a place that you may write to"
        ) from error


def previous_manifest(folder: Path, settings: RunSettings) -> dict[str, Any] | None:
    """The manifest to go on from, after the folder was emptied where that was asked for.

    Raises:
        StoreError: the folder has content and neither was asked for, or it is no run.
    """
    content = [path for path in folder.iterdir() if path.name != LOCK_NAME]
    if not content:
        return None
    if not (folder / "manifest.json").is_file():
        raise StoreError(
            f"{folder} holds {len(content)} files or folders and no manifest.json, so it is not "
            "a run; heed neither resumes nor overwrites it: give run.folder another place"
        )
    if settings.overwrite:
        for path in content:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        return None
    manifest: dict[str, Any] = read_json(folder / "manifest.json")
    if not settings.resume:
        # This process holds the lock, so a run that says it is running was killed.
        status = str(manifest.get("status")).replace("running", "interrupted")
        raise StoreError(
            f"{folder} already holds a run ({status}); set run.resume=true to go on with it, "
            "run.overwrite=true to replace it, or give run.folder another place"
        )
    return manifest
