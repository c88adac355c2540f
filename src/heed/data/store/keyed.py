"""Ids that tell nothing, and draws that only the holder of a project's secret can foresee."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Any


def new_id(prefix: str) -> str:
    """Make an id that cannot be guessed and says nothing but what it is of."""
    return f"{prefix}-{secrets.token_hex(10)}"


def new_secret() -> str:
    """Make a secret of 256 bits."""
    return secrets.token_hex(32)


def digest(text: str) -> str:
    """Hash a text, or a secret that is itself random."""
    return hashlib.sha256(text.encode()).hexdigest()


def draw(secret: str, *name: Any) -> float:
    """Draw from [0, 1) by a keyed hash of what the draw is for."""
    code = hmac.new(secret.encode(), repr(name).encode(), hashlib.sha256).digest()
    return int.from_bytes(code[:7], "big") / (1 << 56)


def shuffled(secret: str, count: int, *name: Any) -> list[int]:
    """Order 0..count-1 by keyed hashes."""
    return sorted(range(count), key=lambda place: draw(secret, *name, place))


def first_of(secret: str, ids: Sequence[str], *name: Any) -> str | None:
    """Choose one of some ids by keyed hashes; None of none."""
    return min(ids, key=lambda one: draw(secret, *name, one), default=None)
