"""Sinks: who else wants to hear of a run, beside its own files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from heed.errors import MissingExtra

Figure = float | int | None


class Sink(Protocol):
    """Hears what a run does. The run's own files are written whether or not there are sinks."""

    def stage(self, run: str, text: str, total: int | None) -> None:
        """A part of the run begins: the run's name, what it does, how many units it has."""
        ...

    def progress(self, done: int, total: int | None, figures: Mapping[str, Figure]) -> None:
        """Units of the present stage that are done, with the figures worth showing."""
        ...

    def metrics(self, step: int, metrics: Mapping[str, Figure]) -> None:
        """One line of metrics."""
        ...

    def note(self, text: str) -> None:
        """One line to read, such as how many rows of the data are used."""
        ...

    def warning(self, name: str, message: str) -> None:
        """An alarm, or a setting that was ignored."""
        ...

    def finish(self, status: str) -> None:
        """The run ends: finished, failed or interrupted."""
        ...


class TensorBoardSink:
    """Writes every metric as a TensorBoard scalar under `folder`.

    Args:
        folder: where the event files go.

    Raises:
        MissingExtra: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from tensorboard.summary import Writer
        except ImportError:
            raise MissingExtra("tensorboard", "track") from None
        self._writer: Any = Writer(str(folder))

    def stage(self, run: str, text: str, total: int | None) -> None:
        """TensorBoard shows metrics only."""

    def progress(self, done: int, total: int | None, figures: Mapping[str, Figure]) -> None:
        """TensorBoard shows metrics only."""

    def metrics(self, step: int, metrics: Mapping[str, Figure]) -> None:
        """Write each metric that has a value."""
        for name, value in metrics.items():
            if value is not None:
                self._writer.add_scalar(name, float(value), step)
        self._writer.flush()

    def note(self, text: str) -> None:
        """TensorBoard shows metrics only."""

    def warning(self, name: str, message: str) -> None:
        """TensorBoard shows metrics only."""

    def finish(self, status: str) -> None:
        """Close the event file."""
        self._writer.close()
