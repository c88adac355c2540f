"""Read a run folder for the report, whatever state it is in.

A report is most needed where something went wrong, so nothing here raises on a missing, damaged or
half-written file: what can be read is read, and a sentence says what could not be and why.
Numbers that are not finite become None and are counted by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from heed.errors import StoreError
from heed.records import Finding

Row = dict[str, Any]
_LARGEST = 1e100
_NOT_FINITE = re.compile(r" is [+-]?(nan|inf)\b")


@dataclass
class RunRecord:
    """What a run folder holds, as far as it can be read."""

    folder: Path
    manifest: Row = field(default_factory=dict)
    metrics: list[Row] = field(default_factory=list)
    samples: list[Row] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    data_report: list[Row] = field(default_factory=list)
    alarms: list[Row] = field(default_factory=list)
    """Lines of warnings.jsonl: step, name, message."""
    summary: Row = field(default_factory=dict)
    stages: list[RunRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Sentences on files that are absent or damaged."""
    nonfinite: dict[str, int] = field(default_factory=dict)
    """Metrics that were NaN or infinite: name -> first such step."""

    @property
    def name(self) -> str:
        """The run's name, or its folder's."""
        return str(self.manifest.get("name") or self.stage)

    @property
    def stage(self) -> str:
        """The name of the folder, which for a stage of a pipeline is the stage's name."""
        return str(_writable(self.folder.name))

    @property
    def kind(self) -> str:
        """Kind of stage, such as "ppo"; "unknown" without a manifest."""
        return str(self.manifest.get("kind") or "unknown")

    @property
    def config(self) -> Row:
        """The resolved configuration."""
        return mapping(self.manifest.get("config"))

    @property
    def facts(self) -> Row:
        """Small facts that the stage left in its manifest."""
        return mapping(self.manifest.get("facts"))

    def series(self, metric: str) -> tuple[list[float], list[float | None]]:
        """Return steps and values of a metric; only rows that name it, None where not known."""
        steps: list[float] = []
        values: list[float | None] = []
        for row in self.metrics:
            step = number(row.get("step"))
            if step is not None and metric in row:
                steps.append(step)
                values.append(number(row[metric]))
        return steps, values

    def known(self, metric: str) -> tuple[list[float], list[float]]:
        """Return steps and values of a metric where its value is known."""
        steps, values = self.series(metric)
        pairs = [(s, v) for s, v in zip(steps, values, strict=True) if v is not None]
        return [s for s, _ in pairs], [v for _, v in pairs]

    def walk(self) -> Iterator[RunRecord]:
        """Yield this run and every stage below it."""
        yield self
        for stage in self.stages:
            yield from stage.walk()


def mapping(value: Any) -> Row:
    """Return `value` if it is a JSON object, and an empty one otherwise."""
    return value if isinstance(value, dict) else {}


def rows(value: Any) -> list[Row]:
    """Return the JSON objects of a JSON list; anything else counts as none."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """Return a finite number as float; None for anything else, booleans included.

    Beyond 1e100 a number counts as not finite: it is an overflow in all but name.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        as_float = float(value)
    except OverflowError:
        return None
    return as_float if abs(as_float) <= _LARGEST else None


def read_folder(folder: Path) -> RunRecord:
    """Read a run folder and the stages below it.

    Returns the record; `problems` says what could not be read.
    Raises StoreError where the folder does not exist or holds nothing of a run.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StoreError(f"found no folder {str(folder)!r}; give the folder of a run")
    record = RunRecord(folder.resolve())
    known = ("manifest.json", "metrics.jsonl", "samples.jsonl", "findings.json", "summary.json")
    if not any((folder / name).exists() for name in (*known, "stages", "data_report.json")):
        raise StoreError(
            f"{str(folder)!r} is not a run folder: found none of {', '.join(known)}; "
            "give the folder that a heed command wrote"
        )
    record.manifest = mapping(_json(record, "manifest.json", required=True))
    record.summary = mapping(_json(record, "summary.json"))
    record.metrics = _lines(record, "metrics.jsonl")
    record.samples = _lines(record, "samples.jsonl")
    record.alarms = _lines(record, "warnings.jsonl")
    record.findings = _findings(record, _json(record, "findings.json"), "findings.json")
    record.data_report = rows(_json(record, "data_report.json"))
    _note_nonfinite(record)
    record.stages = _stages(record)
    return record


def _stages(record: RunRecord) -> list[RunRecord]:
    """Read the stages in the order of the recipe, or else of the summary, or of their start.

    The members of a repeated stage are not read: there may be hundreds, each a run with a page of
    its own, and a stage that gathers them says what they add up to.
    """
    parent = record.folder / "stages"
    if not parent.is_dir():
        return []
    stages = []
    repeated = {
        str(row.get("name")) for row in rows(record.config.get("stages")) if row.get("over")
    }
    for child in sorted(parent.iterdir()):
        if child.is_dir() and child.name.partition(".")[0] not in repeated:
            try:
                stages.append(read_folder(child))
            except StoreError:
                record.problems.append(f"Stage {child.name} left no readable files.")
    recipe = [str(stage.get("name")) for stage in rows(record.config.get("stages"))]
    names = recipe or list(mapping(record.summary.get("seconds")))
    order = {name: i for i, name in enumerate(names)}
    last = len(order)

    def place(stage: RunRecord) -> tuple[int, str, str]:
        started = str(stage.manifest.get("created") or "~")
        return (order.get(stage.stage, last), started, stage.stage)

    return sorted(stages, key=place)


def _json(record: RunRecord, name: str, *, required: bool = False) -> Any:
    path = record.folder / name
    if not path.is_file():
        if required:
            record.problems.append(f"{name} is missing from {record.folder.name}.")
        return None
    try:
        return _writable(json.loads(path.read_text(encoding="utf-8", errors="replace")))
    except (OSError, ValueError) as error:
        record.problems.append(f"{name} of {record.folder.name} cannot be read ({error}).")
        return None


def _lines(record: RunRecord, name: str) -> list[Row]:
    """Read JSON lines; a line that is not an object is counted and left out."""
    path = record.folder / name
    if not path.is_file():
        return []
    found: list[Row] = []
    broken: list[int] = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        record.problems.append(f"{name} of {record.folder.name} cannot be read ({error}).")
        return []
    for index, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = _writable(json.loads(line))
        except ValueError:
            value = None
        if isinstance(value, dict):
            found.append(value)
        else:
            broken.append(index)
    if broken:
        lines = "line" if len(broken) == 1 else "lines"
        record.problems.append(
            f"{name} of {record.folder.name}: {len(broken)} broken {lines} left out "
            f"(first: line {broken[0]})."
        )
    return found


def _writable(value: Any) -> Any:
    """Replace what a JSON text may hold and a page in UTF-8 may not: lone surrogates and NUL."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")
    if isinstance(value, list):
        return [_writable(inner) for inner in value]
    if isinstance(value, dict):
        return {_writable(key): _writable(inner) for key, inner in value.items()}
    return value


def _findings(record: RunRecord, value: Any, name: str) -> list[Finding]:
    found = []
    for row in rows(value):
        try:
            found.append(Finding.model_validate(row))
        except ValidationError as error:
            what = error.errors()[0]["msg"]
            title = str(row.get("name", "without a name"))[:60]
            record.problems.append(f"{name} of {record.folder.name}: {title!r} left out ({what}).")
    return found


def summary_findings(record: RunRecord) -> list[Finding]:
    """Return a pipeline's merged findings: those of its summary, or else of the run itself."""
    return _findings(record, record.summary.get("findings"), "summary.json") or record.findings


def _note_nonfinite(record: RunRecord) -> None:
    """Collect metrics that were not finite, from the numbers and from the run's own warnings."""
    for row in record.metrics:
        for name, value in row.items():
            if isinstance(value, float) and number(value) is None:
                record.nonfinite.setdefault(name, _step(row))
    for row in record.alarms:
        if _NOT_FINITE.search(str(row.get("message"))):
            record.nonfinite.setdefault(str(row.get("name")), _step(row))


def _step(row: Row) -> int:
    return int(number(row.get("step")) or 0)
