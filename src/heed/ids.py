"""Content hashes and the random streams derived from them.

Everything random in heed is drawn from a stream that is named by what it is for, never from a
global generator. A stream's name is hashed, so a draw depends on its name alone and neither on
what was drawn before nor on what else is in the batch; nothing random needs to be checkpointed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 20


def content_hash(value: Any, length: int = 16) -> str:
    """Hash a JSON-able value by its canonical JSON; equal content gives equal hex of `length`."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_hash(path: str | Path, length: int = 16) -> str:
    """Hash a file by its bytes, or a folder by the sorted names and hashes of its files."""
    path = Path(path)
    digest = hashlib.sha256()
    if path.is_dir():
        for child in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(str(child.relative_to(path)).encode() + b"\0")
            digest.update(file_hash(child, 64).encode())
        return digest.hexdigest()[:length]
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()[:length]


def stream_seed(*name: Any) -> int:
    """Turn the name of a random stream into a 63-bit seed for a generator.

    Example: `stream_seed(config.seed, "minibatch order", update, epoch)`.
    """
    digest = hashlib.sha256(repr(name).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
