"""A run: one folder that says what was done, with what, and what came of it.

RUN/
    manifest.json       what, when, with which settings, code, environment and inputs
    metrics.jsonl       one line a step; every name is described in heed.runs.metrics
    samples.jsonl       completions of the same prompts over time
    warnings.jsonl      alarms and ignored settings
    data_report.json    rows kept, cut and dropped by source
    findings.json       measured quantities with their intervals
    checkpoints/  rollouts/  model/  stages/  report.html  summary.json
"""

from __future__ import annotations

import contextlib
import math
import numbers
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from heed.errors import ConfigError, HeedError, StoreError
from heed.records import Finding
from heed.runs import manifest as about
from heed.runs.claim import claim, previous_manifest
from heed.runs.files import append_line, full_disk, keep_lines, read_json, read_lines, write_json
from heed.runs.lock import is_locked
from heed.runs.memory import PeakMemory
from heed.runs.metrics import describe
from heed.runs.sinks import Figure, Sink
from heed.runs.trackers import Tracked, trackers
from heed.settings import RunSettings, Settings

_SAVE_SECONDS = 20.0
_LINES = ("metrics.jsonl", "samples.jsonl", "warnings.jsonl")


class Run:
    """One run folder. Make it with `Run.start` to write, with `Run.open` to read.

    As a context manager it ends the run: an exception leaves status failed or interrupted, and a
    block that ends without `finish` is finished without outputs. A full disk is a StoreError.
    """

    folder: Path
    name: str
    seed: int
    resumed: bool
    """Whether the folder held an earlier part of this run."""

    def __init__(self, folder: Path, manifest: dict[str, Any], sinks: Sequence[Sink] = ()) -> None:
        self.folder = folder
        self.name = manifest.get("name") or folder.name
        self.seed = manifest.get("seed") or 0
        self.resumed = False
        self._manifest = manifest
        self._sinks = tuple(sinks)
        self._lock: IO[str] | None = None
        self._memory: PeakMemory | None = None
        self._began = self._saved = time.monotonic()
        self._earlier_seconds = 0.0
        self._earlier_peak: int | None = None
        self._earlier: dict[str, Any] = {}
        self._warned: set[tuple[Any, Any, Any]] = set()

    # -- begin --------------------------------------------------------------------------------

    @classmethod
    def start(
        cls,
        settings: RunSettings,
        kind: str,
        config: Settings | Mapping[str, Any],
        inputs: Mapping[str, about.Input] | None = None,
        sinks: Sequence[Sink] = (),
    ) -> Run:
        """Begin a run in a new folder, or go on in one.

        Args:
            settings: where, under which seed, and what to do with a folder that has content.
            kind: of the stage, such as "ppo".
            config: the resolved settings, or what of them is kept as JSON. Settings that were
                changed and have no effect are warned of.
            inputs: name -> path or paths of what the run reads; hashed into the manifest.
            sinks: who else hears of metrics and progress.

        Raises:
            ConfigError: resume and overwrite together; a resumed run under another seed or kind.
            MissingExtra: a tracker of `report_to` is not installed.
            StoreError: the folder has content and neither was asked for; it is not a run folder;
                another process is writing to it.
        """
        if settings.resume and settings.overwrite:
            raise ConfigError("run.resume and run.overwrite exclude each other; set one of them")
        folder = Path(settings.folder).absolute()
        lock = claim(folder)
        try:
            previous = previous_manifest(folder, settings)
            kept = config.model_dump(mode="json") if isinstance(config, Settings) else config
            run = cls(folder, about.new_manifest(settings, kind, kept, inputs or {}), sinks)
            run._lock = lock
            run._memory = PeakMemory()
            if previous is not None:
                run._take_over(previous)
            if settings.report_to:
                run._sinks += tuple(trackers(settings.report_to, run._tracked(kind, kept)))
            for text in config.ignored() if isinstance(config, Settings) else ():
                run.warn(0, "settings", text)
            run._save()
        except BaseException:
            lock.close()
            raise
        return run

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open a run to read it.

        Raises:
            StoreError: there is no such run, or its manifest is damaged.
        """
        folder = Path(folder).absolute()
        if not (folder / "manifest.json").is_file():
            raise StoreError(
                f"{folder} holds no manifest.json, so it is no run; name a folder that a heed "
                "command wrote"
            )
        return cls(folder, read_json(folder / "manifest.json"))

    def _take_over(self, previous: dict[str, Any]) -> None:
        """Go on from an earlier part: its time counts, and what changed since is a warning."""
        now = self._manifest
        for key, word in (("kind", "kind"), ("seed", "seed")):
            if previous.get(key) != now[key]:
                raise ConfigError(
                    f"the run in {self.folder} has {word} {previous.get(key)!r}, and it is to be "
                    f"resumed with {now[key]!r}; resume with the same {word}, or use another folder"
                )
        for name in _LINES:
            keep_lines(self.folder / name, lambda row: True)
        self.resumed = True
        walls = [row.get("wall_seconds") or 0.0 for row in self.metrics()]
        self._earlier_seconds = max([previous.get("seconds") or 0.0, *walls])
        self._earlier_peak = previous.get("peak_memory_bytes")
        self._earlier = previous.get("environment") or {}
        self._warned = {(w["step"], w["name"], w["message"]) for w in self.warnings()}
        now["created"] = previous.get("created") or now["created"]
        now["resumes"] = (previous.get("resumes") or 0) + 1
        changed = about.differences(about.comparable(previous), about.comparable(now))
        if changed:
            self.warn(0, "resume", f"resumed with what is not as before: {'; '.join(changed)}")

    def _tracked(self, kind: str, config: Mapping[str, Any]) -> Tracked:
        stage = self.folder.parent.name == "stages"
        name = f"{self.folder.parent.parent.name}/{self.name}" if stage else self.name
        return Tracked(self.folder, name, kind, config, str(self._manifest.get("created")))

    # -- read ---------------------------------------------------------------------------------

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest as it stands."""
        return dict(self._manifest)

    @property
    def status(self) -> str:
        """The manifest's status; a run that says it is running but was killed is interrupted."""
        status = str(self._manifest["status"])
        killed = status == "running" and self._lock is None and not is_locked(self.folder)
        return "interrupted" if killed else status

    def path(self, *parts: str) -> Path:
        """A path inside the folder; while the run is written its parent folder is made."""
        path = self.folder.joinpath(*parts)
        if self._lock is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics; a torn last line is left out."""
        return read_lines(self.folder / "metrics.jsonl")

    def samples(self) -> list[dict[str, Any]]:
        """All sampled completions that were written for reading."""
        return read_lines(self.folder / "samples.jsonl")

    def warnings(self) -> list[dict[str, Any]]:
        """All alarms and ignored settings."""
        return read_lines(self.folder / "warnings.jsonl")

    def findings(self) -> list[Finding]:
        """What was measured, with intervals."""
        path = self.folder / "findings.json"
        return [Finding.model_validate(row) for row in read_json(path)] if path.exists() else []

    def data_report(self) -> list[dict[str, Any]]:
        """Rows kept, cut and dropped by source."""
        path = self.folder / "data_report.json"
        return read_json(path) if path.exists() else []

    # -- write --------------------------------------------------------------------------------

    def log(self, step: int, metrics: Mapping[str, Figure], *, total: int | None = None) -> None:
        """Write one line of metrics; None stands for what is not known.

        A value that is not finite becomes None with a warning. With `total` the sinks also hear
        of the progress.

        Raises:
            HeedError: a name is not described in heed.runs.metrics.
        """
        self._writable()
        figures = {name: self._figure(step, name, value) for name, value in metrics.items()}
        line = {"step": int(step), "wall_seconds": round(self.seconds(), 3), **figures}
        append_line(self.folder / "metrics.jsonl", line)
        for sink in self._sinks:
            sink.metrics(step, figures)
            if total is not None:
                sink.progress(step, total, figures)
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self._save()

    def stage(self, text: str, total: int | None = None) -> None:
        """Tell the sinks that a part begins, and how many units it has."""
        for sink in self._sinks:
            sink.stage(self.name, text, total)

    def progress(self, done: int, total: int | None = None, **figures: Figure) -> None:
        """Tell the sinks how far the part is."""
        for sink in self._sinks:
            sink.progress(done, total, figures)

    def note(self, text: str) -> None:
        """Tell the sinks one line to read."""
        for sink in self._sinks:
            sink.note(text)

    def warn(self, step: int, name: str, message: str) -> None:
        """Note an alarm or an ignored setting; the same one at the same step is noted once."""
        self._writable()
        key = (step, name, message)
        if key not in self._warned:
            self._warned.add(key)
            row = {"step": step, "name": name, "message": message}
            append_line(self.folder / "warnings.jsonl", row)
        for sink in self._sinks:
            sink.warning(name, message)

    def sample(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write completions for reading, each with the step."""
        self._writable()
        for row in rows:
            append_line(self.folder / "samples.jsonl", {"step": step, **row})

    def add_findings(self, findings: Sequence[Finding]) -> None:
        """Write what was measured; a finding replaces an earlier one of the same name."""
        self._writable()
        by_name = {finding.name: finding for finding in (*self.findings(), *findings)}
        rows = [finding.model_dump(mode="json") for finding in by_name.values()]
        write_json(self.folder / "findings.json", rows)

    def write_data_report(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows kept, cut and dropped by source."""
        self._writable()
        write_json(self.folder / "data_report.json", [dict(report) for report in reports])

    def note_environment(self, **facts: Any) -> None:
        """Add to the manifest's environment, such as the device and the number of threads.

        Where an earlier part of the run noted something else, that is a warning.
        """
        self._writable()
        earlier = {name: self._earlier[name] for name in facts if name in self._earlier}
        changed = about.differences(earlier, {name: facts[name] for name in earlier})
        if changed:
            self.warn(0, "resume", f"resumed where not all is as before: {'; '.join(changed)}")
        self._manifest["environment"] |= facts
        self._save()

    def rewind(self, step: int) -> None:
        """Cut what was written after a step that the run goes on from; 0 starts over.

        Metrics and samples of later steps are cut (all of them for step 0), warnings of later
        steps too. Rollouts of update step + 1 stay, because they were sampled from the very
        weights the run goes on from; those after it are removed.
        """
        self._writable()
        for name in ("metrics.jsonl", "samples.jsonl"):
            keep_lines(self.folder / name, lambda row: step > 0 and row["step"] <= step)
        keep_lines(self.folder / "warnings.jsonl", lambda row: row["step"] <= step)
        self._warned = {key for key in self._warned if key[0] <= step}
        for path in self.folder.glob("rollouts/update-*"):
            if int(path.name.split("-")[1].split(".")[0]) > step + 1:
                path.unlink()

    # -- end ----------------------------------------------------------------------------------

    def finish(
        self,
        outputs: Mapping[str, Path] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """End the run: hash what it made, and write the last manifest.

        Raises:
            StoreError: an output was not written.
        """
        self._writable()
        self._manifest["outputs"] = about.describe_outputs(self.folder, outputs or {})
        self._manifest["facts"] |= facts or {}
        self._end("finished", None)

    def seconds(self) -> float:
        """Time spent on the run, earlier parts included."""
        if self._lock is None:
            return float(self._manifest.get("seconds") or 0.0)
        return self._earlier_seconds + time.monotonic() - self._began

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is None:
            return
        if error is None:
            self.finish()
        elif isinstance(error, KeyboardInterrupt):
            self._end("interrupted", "stopped by the user")
        else:
            full = full_disk(error)
            # Without room the manifest cannot say so either.
            with contextlib.suppress(*([StoreError] if full else [])):
                self._end("failed", traceback.format_exception_only(error)[-1].strip())
            if full is not None and not isinstance(error, HeedError):
                raise full from error

    def _end(self, status: str, error: str | None) -> None:
        self._manifest |= {"status": status, "finished": about.now(), "error": error}
        try:
            self._save()
        finally:
            assert self._lock is not None
            self._lock.close()
            self._lock = None
            for sink in self._sinks:
                sink.finish(status)

    def _save(self) -> None:
        peaks = [self._earlier_peak, self._memory.bytes() if self._memory else None]
        known = [peak for peak in peaks if peak is not None]
        self._manifest["seconds"] = round(self.seconds(), 3)
        self._manifest["peak_memory_bytes"] = max(known) if known else None
        write_json(self.folder / "manifest.json", self._manifest)
        self._saved = time.monotonic()

    def _figure(self, step: int, name: str, value: Figure) -> Figure:
        describe(name)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, numbers.Integral):
            return int(value)
        number = float(value)
        if math.isfinite(number):
            return number
        self.warn(step, name, f"{name} is {number} at step {step}; it is written as unknown")
        return None

    def _writable(self) -> None:
        if self._lock is None:
            raise StoreError(
                f"the run in {self.folder} is open for reading, or has ended; "
                "start it with run.resume=true to write to it"
            )
