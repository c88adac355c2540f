"""`heed report RUN ...`: write the page of each run."""

from __future__ import annotations

from pathlib import Path

from heed.cli.command import OK, Context
from heed.errors import ConfigError

USAGE = """usage: heed report RUN [RUN ...] [--debug]

Write RUN/report.html: one file with everything in it, to be opened in any browser."""


def main(words: list[str], context: Context) -> int:
    """Run `heed report RUN ...`."""
    if "--help" in words or "-h" in words:
        print(USAGE)
        return OK
    if not words:
        raise ConfigError("heed report needs a run folder: heed report RUN")
    strange = [word for word in words if word.startswith("-")]
    if strange:
        raise ConfigError(f"{strange[0]}: heed report takes run folders only")
    from heed.report.page import write_report

    for word in words:
        print(write_report(Path(word)))
    return OK
