"""Run a function of the user's own as a stage: whatever it writes is cached and hashed.

    def prepare(folder, *, NAMED INPUTS, NAMED OPTIONS, seed):
        ...write files into `folder`...
        return [report, finding]

Inputs are paths, options are values, and all are given by name. `seed` is given to a function that
has such a parameter. What it returns, if anything, are counts of rows (`DataReport` of
`heed.data.report`) and measurements (`Finding` of `heed.records`), which the run keeps. A file of
the user's that reads another one is hashed by itself only: give what else the result depends on as
an input.
"""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from heed.data.report import DataReport, settle
from heed.errors import ConfigError, DataError
from heed.feedback.callables import load_callable
from heed.records import Finding
from heed.runs.run import Run
from heed.runs.sinks import Sink
from heed.settings import RunSettings, Settings

_PART = ".part"
_OF_THE_RUN = (
    "manifest.json",
    "metrics.jsonl",
    "samples.jsonl",
    "warnings.jsonl",
    "data_report.json",
    "findings.json",
    "summary.json",
    "report.html",
    "error.txt",
    "checkpoints",
    "rollouts",
    "stages",
)
"""Names that a run folder uses by itself; no prepared file may have one of them."""

Prepare = Callable[..., object]


class PrepareConfig(Settings):
    """Run a Python function that writes files, and keep what it wrote."""

    run: RunSettings
    function: str
    """`file.py:function` or `module:function`; called with the folder to write to, then the inputs
    and options by name."""
    inputs: dict[str, str | tuple[str, ...]] = {}
    """Name -> file or folder, or several; the function gets paths. They must exist."""
    options: dict[str, bool | int | float | str | tuple[bool | int | float | str, ...]] = {}
    """Name -> value."""
    max_loss_frac: float = Field(default=1.0, ge=0.0, le=1.0)
    """Stop where the function reports that more than this share of a source's rows was lost."""

    @model_validator(mode="after")
    def _check(self) -> PrepareConfig:
        both = sorted(self.inputs.keys() & self.options.keys())
        if both:
            raise ValueError(f"{both} are inputs and options; give each name once")
        return self


def run(config: PrepareConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Call the function, and leave what it wrote in the run folder, each file an output.

    Raises:
        ConfigError: there is no such function, it does not take what is given, or it would write
            over a file of the run.
        DataError: an input is not there, the function wrote nothing, or reports too many rows lost.
    """
    inputs = dict(config.inputs)
    with Run.start(config.run, "prepare", config, inputs, sinks) as run:
        function = load_callable(config.function)
        values = arguments(function, config)
        folder = run.path(_PART)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        run.stage(config.function.rpartition(":")[2].replace("_", " "), 1)
        kept = _kept(function(folder, **values), config.function)
        outputs = _taken_over(run, folder)
        reports = [one for one in kept if isinstance(one, DataReport)]
        settle(run, [(report, config.max_loss_frac) for report in reports])
        run.add_findings([one for one in kept if isinstance(one, Finding)])
        run.progress(1, 1)
        run.finish(outputs)
    return run


def arguments(function: Prepare, config: PrepareConfig) -> dict[str, Any]:
    """What the function is called with beside the folder: paths of inputs, options, the seed.

    Raises:
        ConfigError: the function requires a name that is not given, or does not take one that is.
        DataError: an input is not there.
    """
    values: dict[str, Any] = dict(config.options)
    for name, given in config.inputs.items():
        values[name] = (
            _path(name, given)
            if isinstance(given, str)
            else tuple(_path(name, path) for path in given)
        )
    parameters = list(inspect.signature(function).parameters.values())[1:]
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if "seed" in named and "seed" not in values:
        values["seed"] = config.run.seed
    strange = sorted(values.keys() - named) if not open_ended else []
    missing = sorted(
        p.name for p in parameters
        if p.default is p.empty and p.name in named and p.name not in values
    )  # fmt: skip
    if strange or missing:
        found = [f"needs {missing}, which are not given"] if missing else []
        found += [f"does not take {strange}"] if strange else []
        raise ConfigError(
            f"{config.function} {' and '.join(found)}; its inputs and options are "
            f"{', '.join(sorted(named - {'seed'})) or 'none'}"
        )
    return values


def _path(name: str, given: str) -> Path:
    path = Path(given).expanduser()
    if not path.exists():
        raise DataError(f"the input {name!r} is {given}, where nothing is; give an existing path")
    return path


def _kept(returned: object, function: str) -> list[DataReport | Finding]:
    """What the function returned: nothing, one record, or several."""
    if returned is None:
        return []
    several = isinstance(returned, Iterable) and not isinstance(returned, (str, bytes, Mapping))
    kept: list[DataReport | Finding] = []
    for one in returned if several else [returned]:  # type: ignore[attr-defined]
        if not isinstance(one, (DataReport, Finding)):
            raise ConfigError(
                f"{function} returned {type(one).__name__}, expected nothing, or DataReport and "
                "Finding records"
            )
        kept.append(one)
    return kept


def _taken_over(run: Run, folder: Path) -> dict[str, Path]:
    """Move what was written into the run folder; an output for each file."""
    written = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    if not written:
        raise DataError(
            "the function wrote no file into the folder that it was given; write there, not to "
            "the current folder"
        )
    taken = sorted({path.parts[0] for path in written} & set(_OF_THE_RUN))
    if taken:
        raise ConfigError(f"the run folder keeps {taken} for itself; write under another name")
    for top in sorted(folder.iterdir()):
        target = run.path(top.name)
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(top, target)
    folder.rmdir()
    return {path.as_posix(): run.path(*path.parts) for path in written}
