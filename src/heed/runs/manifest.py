"""What a run's manifest says beside its settings: code, environment, and hashes of inputs."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import heed
from heed.errors import StoreError
from heed.ids import content_hash, file_hash
from heed.runs.files import read_json
from heed.settings import RunSettings

SCHEMA = 1
_SHOWN = 60

Input = Path | str | Sequence[str]


def new_manifest(
    settings: RunSettings, kind: str, config: Mapping[str, Any], inputs: Mapping[str, Input]
) -> dict[str, Any]:
    """The manifest of a run that begins now."""
    return {
        "schema": SCHEMA,
        "kind": kind,
        "name": settings.name or Path(settings.folder).absolute().name,
        "status": "running",
        "created": now(),
        "finished": None,
        "seconds": 0.0,
        "peak_memory_bytes": None,
        "resumes": 0,
        "seed": settings.seed,
        "config": dict(config),
        "code": code(),
        "environment": environment(),
        "inputs": describe_inputs(inputs),
        "outputs": {},
        "error": None,
        "facts": {},
    }


def comparable(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What must not change between the parts of a run."""
    config = {name: v for name, v in (manifest.get("config") or {}).items() if name != "run"}
    hashes = {name: made.get("hash") for name, made in (manifest.get("inputs") or {}).items()}
    return {**config, "code": (manifest.get("code") or {}).get("hash"), "inputs": hashes}


def now() -> str:
    """The time as ISO text, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def code_hash() -> str:
    """Hash the package's code, Python and C++: relative names and bytes."""
    root = Path(heed.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".cpp", ".h")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def code() -> dict[str, str]:
    """The package's version and the hash of its code."""
    return {"version": heed.__version__, "hash": code_hash()}


def environment() -> dict[str, Any]:
    """Versions and platform; device and threads where torch is loaded, which is not done here."""
    torch = sys.modules.get("torch")
    return {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
        "platform": platform.platform(),
        "device": _device(torch) if torch else None,
        "threads": torch.get_num_threads() if torch else None,
    }


def input_hash(path: Path) -> str:
    """Hash an input by content; a run folder by what it made, so that reports do not change it."""
    if (path / "manifest.json").is_file():
        outputs = read_json(path / "manifest.json").get("outputs") or {}
        if outputs:
            return content_hash({name: out["hash"] for name, out in outputs.items()})
    return file_hash(path)


def describe_inputs(inputs: Mapping[str, Input]) -> dict[str, Any]:
    """name -> {path, hash}; the hash is None, with the reason, for what is not on this disk."""
    described: dict[str, Any] = {}
    for name, given in inputs.items():
        if isinstance(given, str | Path):
            described[name] = _one_input(str(given))
        else:
            parts = [_one_input(str(path)) for path in given]
            hashes = [part["hash"] for part in parts]
            whole = content_hash(hashes) if None not in hashes else None
            described[name] = {"path": [part["path"] for part in parts], "hash": whole}
            if whole is None:
                described[name]["reason"] = "one of the paths is not a local file or folder"
    return described


def describe_outputs(folder: Path, outputs: Mapping[str, Path]) -> dict[str, Any]:
    """name -> {path relative to the run, hash}.

    Raises:
        StoreError: an output was not written.
    """
    described = {}
    for name, path in outputs.items():
        path = Path(path)
        if not path.exists():
            raise StoreError(f"the run says that it made {name!r} at {path}, which does not exist")
        inside = path.is_relative_to(folder)
        shown = path.relative_to(folder).as_posix() if inside else str(path)
        described[name] = {"path": shown, "hash": file_hash(path)}
    return described


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Name the settings that differ, as `a.b 1 -> 2`; list entries by name or place."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted({*old, *new})
        return [
            line
            for key in keys
            for line in differences(old.get(key), new.get(key), f"{prefix}{key}.")
        ]
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        return differences(_by_name(old), _by_name(new), prefix)
    return [] if old == new else [f"{prefix.rstrip('.')} {_short(old)} -> {_short(new)}"]


def _by_name(entries: Sequence[Any]) -> dict[str, Any]:
    """Entries under their own `name` where they have one, so that one put in front moves none."""
    return {
        str(entry["name"]) if isinstance(entry, Mapping) and "name" in entry else str(i): entry
        for i, entry in enumerate(entries)
    }


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _one_input(path: str) -> dict[str, Any]:
    if Path(path).exists():
        return {"path": path, "hash": input_hash(Path(path))}
    return {"path": path, "hash": None, "reason": "not a local file or folder"}


def _device(torch: Any) -> str:
    """The device that `auto` stands for; a run on another one says so by `note_environment`."""
    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
