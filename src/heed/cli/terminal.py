"""What a person sees while a run goes on: stage, bar, time left, the figures that matter.

On a terminal a bar moves; anywhere else plain lines come, at most one every few seconds, so that a
log stays short.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from heed.runs.metrics import METRICS

if TYPE_CHECKING:
    from heed.cli.bar import Bar
    from heed.records import Finding
    from heed.runs.run import Run
    from heed.runs.sinks import Figure

SHOWN = {
    "objective/scores": "reward",
    "eval/proxy": "held-out reward",
    "quality/true": "true quality",
    "eval/true": "held-out true quality",
    "objective/kl": "KL",
    "loss": "loss",
    "eval/loss": "held-out loss",
    "accuracy": "accuracy",
    "eval/accuracy": "held-out accuracy",
    "completions/mean_length": "length",
    "labels/total": "people's labels",
    "labels/waiting": "waiting for {} labels",
    "samples_per_second": "samples/s",
    "tokens_per_second": "tokens/s",
}
"""Metrics that are shown, in this order, under these names; in place of {} stands the figure."""

_PLAIN_SECONDS = 10.0
_SAME_WARNINGS = 3


class TerminalSink:
    """Shows the progress of a run, and of the stages inside it, as they come.

    Args:
        stream: where to; standard output by default.
        moving: True for a moving bar, False for plain lines; by default what the stream can do.
        every_seconds: least time between two plain lines.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        moving: bool | None = None,
        every_seconds: float = _PLAIN_SECONDS,
    ) -> None:
        self._stream = stream or sys.stdout
        self._moving = can_move(self._stream) if moving is None else moving
        self._every = every_seconds
        self._title = ""
        self._began = self._printed = time.monotonic()
        self._figures: dict[str, Figure] = {}
        self._warned: Counter[str] = Counter()
        self._bar: Bar | None = None
        self._first: int | None = None

    def __enter__(self) -> TerminalSink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop_bar()

    def stage(self, run: str, text: str, total: int | None) -> None:
        """Begin a part: a new bar, or a line that says so."""
        self._stop_bar()
        self._title = f"{run}: {text}" if text else run
        self._figures = {}
        self._first = None
        self._began = time.monotonic()
        # The first progress comes at once, whatever was printed before.
        self._printed = self._began - self._every
        if self._moving:
            from heed.cli.bar import Bar

            self._bar = Bar(self._stream, self._title, total)
        else:
            self._line(self._title + (f" ({total:,} step{'s' * (total > 1)})" if total else ""))

    def metrics(self, step: int, metrics: Mapping[str, Figure]) -> None:
        """Remember the newest figures that are shown."""
        self._figures |= {n: v for n, v in metrics.items() if n in SHOWN and v is not None}

    def progress(self, done: int, total: int | None, figures: Mapping[str, Figure]) -> None:
        """Move the bar, or print a line where the last one is long enough ago."""
        own = {n: v for n, v in figures.items() if n not in METRICS}
        self._figures |= {n: v for n, v in own.items() if v is not None}
        if self._first is None:
            self._first = 0
            if done > 1:
                # A first report may be of many units, or of a resumed stage's middle; the speed
                # counts from there.
                self._first, self._began = done, time.monotonic()
        if self._bar is not None:
            self._bar.update(done, total, "  ".join(self._shown()))
            return
        now = time.monotonic()
        last = total is not None and done >= total
        if not self._moving and (last or now - self._printed >= self._every):
            self._printed = now
            self._line(self._plain(done, total, now))

    def note(self, text: str) -> None:
        """Print a line that is to be read."""
        self._line(text)

    def warning(self, name: str, message: str) -> None:
        """Print a warning; the same name three times at most."""
        self._warned[name] += 1
        count = self._warned[name]
        if count <= _SAME_WARNINGS:
            more = "" if count < _SAME_WARNINGS else " (more of these are in warnings.jsonl)"
            self._line(f"warning: {name}: {message}{more}")

    def finish(self, status: str) -> None:
        """End the bar."""
        self._stop_bar()

    def _plain(self, done: int, total: int | None, now: float) -> str:
        words = [f"  {done:,}/{total:,}" if total else f"  {done:,}"]
        passed = done - (self._first or 0)
        if total and passed > 0 and done < total:
            left = (now - self._began) / passed * (total - done)
            words.append(f"{duration(left)} left")
        return "  ".join([*words, *self._shown()])

    def _shown(self) -> Iterator[str]:
        for name, label in SHOWN.items():
            if name in self._figures:
                said = figure(self._figures[name])
                yield label.format(said) if "{}" in label else f"{label} {said}"
        for name, value in self._figures.items():
            if name not in SHOWN:
                yield f"{name.replace('_', ' ')} {figure(value)}"

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.print(text)
        else:
            print(text, file=self._stream, flush=True)


def can_move(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can redraw a line."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def duration(seconds: float) -> str:
    """Write a time span: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def figure(value: Figure) -> str:
    """Write a number with three significant digits, whole thousands with a separator."""
    if value is None:
        return "unknown"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def closing_lines(run: Run) -> list[str]:
    """What a finished run says last: time, findings, and where things are."""
    lines = [f"{run.status} in {duration(run.seconds())}: {run.folder}"]
    lines += [f"  {finding_line(finding)}" for finding in run.findings()]
    made = run.manifest.get("outputs", {})
    single = [name for name in made if "." not in name.partition("/")[0]]
    lines += [f"  {name}: {run.folder / made[name]['path']}" for name in single]
    if len(single) < len(made):
        lines.append(f"  and {len(made) - len(single)} of repeated stages: {run.folder / 'stages'}")
    page = run.folder / "report.html"
    lines.append(
        f"  report: {page}" if page.exists() else f"  page of it: heed report {run.folder}"
    )
    return lines


def finding_line(finding: Finding) -> str:
    """One measured quantity as a line: estimate, interval, unit, n."""
    if finding.estimate is None:
        return f"{finding.name}: unknown ({finding.reason})"
    text = f"{finding.name}: {figure(float(finding.estimate))}"
    if finding.low is not None and finding.high is not None:
        text += f" [{figure(float(finding.low))}, {figure(float(finding.high))}]"
    return f"{text} {finding.unit} (n = {finding.n:,})"
