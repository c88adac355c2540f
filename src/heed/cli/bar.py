"""A moving bar with a line of figures under it, which fits any width."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _TwoLines(Progress):
    """The bar, and under it what the figures say; cut at the edge rather than wrapped."""

    figures = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The table of the bar, then the figures."""
        yield self.make_tasks_table(self.tasks)
        if self.figures:
            yield Text("  " + self.figures, no_wrap=True, overflow="ellipsis")


class Bar:
    """One part of a run as a bar on a terminal.

    Args:
        stream: the terminal.
        title: stands before the bar.
        total: units of the part, or None where unknown.
    """

    def __init__(self, stream: TextIO, title: str, total: int | None) -> None:
        self._progress = _TwoLines(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(file=stream, force_terminal=True),
        )
        self._task = self._progress.add_task(title, total=total)
        self._moved = False
        self._progress.start()

    def update(self, done: int, total: int | None, figures: str) -> None:
        """Move the bar and change the figures."""
        if not self._moved and done > 1:
            # A first report may be of many units, or of a resumed part's middle; the speed counts
            # from there.
            self._progress.reset(self._task, completed=done, total=total)
        self._moved = True
        self._progress.figures = figures
        self._progress.update(self._task, completed=done, total=total)

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        """Leave the bar as it stands, and the cursor below it."""
        self._progress.stop()
