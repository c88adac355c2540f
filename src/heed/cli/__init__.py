"""The command `heed`. Importing this loads nothing large; a verb loads what it needs."""

from heed.cli.command import main

__all__ = ["main"]
