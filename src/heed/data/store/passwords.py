"""Passwords by Argon2id. Hashes of random secrets need no such care and use SHA-256."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from heed.data.store.refusal import Refusal
from heed.errors import MissingExtra

if TYPE_CHECKING:
    from argon2 import PasswordHasher

LEAST_CHARACTERS = 10
MOST_CHARACTERS = 256


def hash_password(password: str) -> str:
    """Hash a password for keeping.

    Raises:
        Refusal: it is too short or too long.
        MissingExtra: argon2 is not installed.
    """
    if not LEAST_CHARACTERS <= len(password) <= MOST_CHARACTERS:
        raise Refusal(
            "invalid", f"a password has {LEAST_CHARACTERS} to {MOST_CHARACTERS} characters"
        )
    return _hasher().hash(password)


def fits(password: str, hashed: str | None) -> bool:
    """Whether a password is the one; takes as long where there is none to compare with."""
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        _hasher().verify(hashed or _nobody(), password[:MOST_CHARACTERS])
    except (VerificationError, InvalidHashError):
        return False
    return hashed is not None


@lru_cache(maxsize=1)
def _hasher() -> PasswordHasher:
    try:
        from argon2 import PasswordHasher
    except ImportError as error:
        raise MissingExtra("argon2-cffi", "web") from error
    return PasswordHasher()


@lru_cache(maxsize=1)
def _nobody() -> str:
    from heed.data.store.keyed import new_secret

    return _hasher().hash(new_secret())
