"""All dialects by name, and which ones a row can be."""

from __future__ import annotations

import difflib

from heed.data.dialects.base import Dialect, Row
from heed.data.dialects.chat import ALPACA, HH, SHAREGPT, SHAREGPT_PREFERENCE
from heed.data.dialects.ranked import HELPSTEER, HELPSTEER_PREFERENCE, NEMO, ULTRAFEEDBACK
from heed.data.dialects.verl import VERL
from heed.errors import ConfigError

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        ALPACA,
        SHAREGPT,
        SHAREGPT_PREFERENCE,
        HH,
        ULTRAFEEDBACK,
        HELPSTEER,
        HELPSTEER_PREFERENCE,
        NEMO,
        VERL,
    )
}
"""Name -> dialect."""


def dialects_of(row: Row) -> list[Dialect]:
    """The dialects that a row can be, judged by its columns."""
    return [dialect for dialect in DIALECTS.values() if dialect.fits(row)]


def dialect_named(name: str) -> Dialect:
    """The dialect of a name.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    if name not in DIALECTS:
        near = difflib.get_close_matches(name, DIALECTS, n=1, cutoff=0.5)
        hint = f"; the nearest is {near[0]!r}" if near else ""
        raise ConfigError(f"there is no format {name!r}{hint}. There are {', '.join(DIALECTS)}")
    return DIALECTS[name]
