"""Stages chained by content hash: what has not changed is not run again.

A pipeline is a TOML file:

    [pipeline]
    name = "books"

    [arguments]
    books = "data/books.jsonl"                  # a default; --books PATH gives another
    size = { help = "Hidden size" }             # no default: it must be given

    [[stage]]
    name = "pretrain"
    verb = "sft"
    config = { model = { path = "{stages.init}" }, data = { path = "{books}" } }

    [quick.pretrain]                            # laid over a stage's config by --quick
    num_train_epochs = 0.1

A `[matrix]` repeats stages over methods, settings and seeds; see `heed.pipelines.matrix`.
`{stages.NAME}` is the run folder of an earlier stage, `{NAME}` an argument, `{here}` the folder of
the pipeline file; `{{` is a brace. A text that is one reference only takes the argument's own type.
Each stage is a run in `RUN/stages/NAME`; `RUN/stages/NAME.key` holds the hash of all that its
result depends on.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from heed.config import make_config
from heed.errors import ConfigError
from heed.ids import content_hash, file_hash
from heed.pipelines.matrix import expanded
from heed.pipelines.recipe import Pipeline, Stage, configured
from heed.pipelines.verbs import VERBS, Verb
from heed.records import Finding
from heed.runs.files import read_json, write_atomic, write_json
from heed.runs.manifest import code_hash, input_hash
from heed.runs.run import Run
from heed.runs.sinks import Sink
from heed.settings import RunSettings

_NOT_IN_KEY = (
    "folder", "name", "resume", "overwrite", "checkpoint_seconds", "keep_checkpoints", "report_to",
)  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """One stage with its resolved configuration."""

    stage: Stage
    verb: Verb
    config: BaseModel
    folder: Path


def run_pipeline(
    pipeline: Pipeline,
    settings: RunSettings,
    sinks: Sequence[Sink] = (),
    *,
    verbs: Mapping[str, Verb] = VERBS,
    code: str | None = None,
    say: Callable[[str], object] = print,
) -> Run:
    """Run what has changed, in order, and write the pipeline's manifest, summary and page.

    Every stage's configuration is validated before the first one runs.

    Args:
        pipeline: the stages, with arguments and overrides filled in (`Pipeline.given`).
        settings: the pipeline's run folder and seed; a stage whose config names no seed takes it.
            A folder that holds this pipeline already is gone on with.
        sinks: who hears of the progress of all stages.
        verbs: name -> verb.
        code: hash of the code; by default of the package.
        say: called with one line about each stage that is skipped or resumed.

    Returns:
        The pipeline's run.

    Raises:
        ConfigError: a stage's configuration is not valid; the stage is named.
    """
    folder = Path(settings.folder)
    plan = plan_stages(pipeline, settings, verbs)
    if _is_same_pipeline(folder, pipeline.name) and not settings.overwrite:
        settings = settings.model_copy(update={"resume": True})
    settings = settings.model_copy(update={"name": settings.name or pipeline.name})
    config = pipeline.model_dump(mode="json")
    config["run"] = settings.model_dump(mode="json")
    with Run.start(settings, "pipeline", config, _input_paths(pipeline), sinks) as run:
        for planned in plan:
            _run_stage(run, planned, plan, sinks, code or code_hash(), say)
        outputs = _outputs(plan)
        _summarise(run, plan)
        run.finish(outputs, {"stages": [planned.stage.name for planned in plan]})
    _write_page(run)
    return run


def plan_stages(
    pipeline: Pipeline, settings: RunSettings, verbs: Mapping[str, Verb]
) -> list[Planned]:
    """Resolve and validate every stage's configuration.

    Raises:
        ConfigError: names the stage, and what is wrong with it.
    """
    pipeline = expanded(pipeline)
    folders = {s.name: Path(settings.folder) / "stages" / s.name for s in pipeline.stages}
    plan = []
    for stage in pipeline.stages:
        if stage.verb not in verbs:
            raise ConfigError(
                f"stage {stage.name!r} has verb {stage.verb!r}; there are {', '.join(verbs)}"
            )
        values = configured(pipeline, stage, folders)
        own = {"folder": str(folders[stage.name]), "name": stage.name, "seed": settings.seed}
        own |= {"checkpoint_seconds": settings.checkpoint_seconds}
        own |= {"report_to": settings.report_to}
        run = {**own, **values.get("run", {}), "folder": own["folder"]}
        cls = verbs[stage.verb].config_class()
        try:
            config = make_config(cls, {**values, "run": run})
        except ConfigError as error:
            raise ConfigError(f"stage {stage.name!r} ({stage.verb}): {error}") from error
        plan.append(Planned(stage, verbs[stage.verb], config, folders[stage.name]))
    return plan


def stage_key(planned: Planned, plan: Sequence[Planned], code: str) -> str:
    """Hash what a stage's result depends on: settings, data by content, code, earlier stages.

    A path inside an earlier stage counts by what that stage made, and any other path by its
    content, so that moving a file changes nothing and editing it does.
    """
    config = planned.config.model_dump(mode="json")
    config["run"] = {k: v for k, v in config["run"].items() if k not in _NOT_IN_KEY}
    before = {p.folder: p for p in plan if p is not planned}
    content = {"verb": planned.verb.run, "config": _by_content(config, before), "code": code}
    return content_hash(content, 32)


def _by_content(value: Any, before: Mapping[Path, Planned]) -> Any:
    if isinstance(value, Mapping):
        return {key: _by_content(inner, before) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_by_content(inner, before) for inner in value]
    if not isinstance(value, str) or not value:
        return value
    for folder in (Path(value), *Path(value).parents):
        if folder in before:
            made = input_hash(folder) if folder.exists() else None
            inside = Path(value).relative_to(folder).as_posix()
            return {"stage": made, "inside": inside}
    return _file_content(value)


def _file_content(value: str) -> Any:
    """A text that names a file or a folder, by content; any other text as it is."""
    name, colon, function = value.rpartition(":")
    source = _source_file(name) if colon and function.isidentifier() else None
    if source is not None:
        return {"content": input_hash(source), "function": function}
    path = Path(value)
    try:
        # "." and "/" are folders too, but no stage's input.
        above = path.is_dir() and Path.cwd().is_relative_to(path.resolve())
        if above or not path.exists():
            return value
    except (OSError, ValueError):
        return value  # too long to be a path, or holds a NUL
    content = {"content": input_hash(path)}
    # A bare word such as "linear" may by chance be a file here, and still counts as the word.
    return content if path.parent != Path() or path.suffix else {"word": value, **content}


def _source_file(name: str) -> Path | None:
    """The file of a callable that was named `file.py:function` or `module:function`."""
    if name.endswith(".py"):
        return Path(name) if Path(name).is_file() else None
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and Path(spec.origin).is_file() else None


def _run_stage(
    run: Run,
    planned: Planned,
    plan: Sequence[Planned],
    sinks: Sequence[Sink],
    code: str,
    say: Callable[[str], object],
) -> None:
    name, folder = planned.stage.name, planned.folder
    key = stage_key(planned, plan, code)
    key_file = run.path("stages", f"{name}.key")
    same = key_file.exists() and key_file.read_text(encoding="utf-8").strip() == key
    if same and _is_whole(folder):
        say(f"{name}: unchanged")
        return
    config = planned.config
    if same and (folder / "manifest.json").exists():
        say(f"{name}: goes on where it stopped")
        config = _with_run(config, resume=True)
    else:
        # The old result goes before the new key comes, or a kill between the two would leave
        # the old result under the new key.
        key_file.unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        write_atomic(key_file, key + "\n")
    planned.verb.function()(config, sinks)


def _with_run(config: BaseModel, **changes: Any) -> BaseModel:
    settings: RunSettings = getattr(config, "run")  # noqa: B009
    return config.model_copy(update={"run": settings.model_copy(update=changes)})


def _is_whole(folder: Path) -> bool:
    """Whether a stage finished, and all that it made is there unchanged."""
    if not (folder / "manifest.json").exists():
        return False
    manifest = read_json(folder / "manifest.json")
    if manifest["status"] != "finished":
        return False
    made = [(folder / out["path"], out["hash"]) for out in manifest["outputs"].values()]
    return all(path.exists() and file_hash(path) == expected for path, expected in made)


def _is_same_pipeline(folder: Path, name: str) -> bool:
    if not (folder / "manifest.json").exists():
        return False
    manifest = read_json(folder / "manifest.json")
    return manifest["kind"] == "pipeline" and manifest["config"].get("name") == name


def _input_paths(pipeline: Pipeline) -> dict[str, str]:
    values = {name: argument.value for name, argument in pipeline.arguments.items()}
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    return {name: text for name, text in texts.items() if _file_content(text) != text}


def _outputs(plan: Sequence[Planned]) -> dict[str, Path]:
    outputs = {}
    for planned in plan:
        made = Run.open(planned.folder).manifest["outputs"]
        for name, out in made.items():
            outputs[f"{planned.stage.name}/{name}"] = planned.folder.absolute() / out["path"]
    return outputs


def merged_findings(runs: Mapping[str, Run]) -> list[Finding]:
    """The findings of all stages; a name that two stages use gets the stage's name in front."""
    found = [(stage, finding) for stage, run in runs.items() for finding in run.findings()]
    names = [finding.name for _, finding in found]
    return [
        finding.model_copy(update={"name": f"{stage}: {finding.name}"})
        if names.count(finding.name) > 1
        else finding
        for stage, finding in found
    ]


def _summarise(run: Run, plan: Sequence[Planned]) -> None:
    """Write what was found and what it cost.

    The members of a repeated stage cost together, and their findings stay with them: a stage that
    gathers them says what they add up to.
    """
    runs = {planned.stage.name: Run.open(planned.folder) for planned in plan}
    findings = merged_findings({p.stage.name: runs[p.stage.name] for p in plan if not p.stage.of})
    run.path("findings.json").unlink(missing_ok=True)
    run.add_findings(findings)
    seconds: dict[str, float] = {}
    for stage in (planned.stage for planned in plan):
        name = stage.of or stage.name
        seconds[name] = seconds.get(name, 0.0) + runs[stage.name].seconds()
    peaks = [stage.manifest.get("peak_memory_bytes") for stage in runs.values()]
    costs = [
        *(_cost(f"seconds/{name}", value, "seconds") for name, value in seconds.items()),
        *(_cost("peak memory", float(peak), "bytes") for peak in [_largest(peaks)] if peak),
    ]
    summary = {
        "findings": [finding.model_dump(mode="json") for finding in findings],
        "costs": [cost.model_dump(mode="json") for cost in costs],
        "seconds": seconds,
        "total_seconds": sum(seconds.values()),
        "peak_memory_bytes": _largest(peaks),
    }
    write_json(run.path("summary.json"), summary)


def _cost(name: str, value: float, unit: str) -> Finding:
    """One measurement on one machine: there is no interval to give."""
    return Finding(name=name, estimate=value, n=1, unit=unit)


def _largest(peaks: Sequence[int | None]) -> int | None:
    return max((peak for peak in peaks if peak is not None), default=None)


def _write_page(run: Run) -> None:
    from heed.report.page import write_report

    write_report(run.folder)
