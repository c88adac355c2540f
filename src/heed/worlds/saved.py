"""A world on disk: one small file from which all of it can be made again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from heed.errors import StoreError
from heed.worlds.faults import Faults
from heed.worlds.town import Town

WORLD_FILE = "world.json"


def describe(town: Town) -> dict[str, Any]:
    """What a world is made from, JSON-able."""
    return {"kind": "town", "seed": town.seed, "faults": asdict(town.faults)}


def is_world(path: str | Path) -> bool:
    """Whether a path is a world's file, or a folder that holds one."""
    path = Path(path)
    return (path.name == WORLD_FILE and path.is_file()) or (path / WORLD_FILE).is_file()


def load_world(path: str | Path) -> Town:
    """Make the world that a file or folder describes.

    Raises:
        StoreError: there is none, or it is of a kind that this version does not know.
    """
    path = Path(path)
    file = path if path.is_file() else path / WORLD_FILE
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{file} is no readable world: {error}; make one with heed world"
        ) from error
    if found.get("kind") != "town":
        raise StoreError(
            f"{file} is a world of kind {found.get('kind')!r}; this version knows 'town'"
        )
    return Town(found["seed"], Faults(**found["faults"]))
