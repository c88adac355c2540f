"""What a pipeline file says: arguments, stages, what `--quick` changes, and references."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from heed.config import read_toml
from heed.errors import ConfigError
from heed.settings import Settings

_REFERENCE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][\w.]*)\}")
_NAME = re.compile(r"[A-Za-z_]\w*")
_MOST_NAMES = 40


class Argument(Settings):
    """What a person gives to a pipeline: a path, a model, a size."""

    value: Any = None
    """The default, or what was given; None means that it must be given."""
    help: str = ""


class Stage(Settings):
    """One stage: a verb and its settings, with references."""

    name: str
    verb: str
    config: dict[str, Any] = Field(default_factory=dict)
    over: tuple[str, ...] = ()
    """Axes of the matrix: the stage is repeated for each combination of their values."""
    of: str = ""
    """The stage of the file that this one is a member of."""


class Pipeline(Settings):
    """Stages in order, with their arguments."""

    name: str
    help: str = ""
    here: str = ""
    """Folder of the pipeline file, which `{here}` stands for."""
    arguments: dict[str, Argument] = Field(default_factory=dict)
    matrix: dict[str, Any] = Field(default_factory=dict)
    """Axis -> values, over which stages are repeated; see `heed.pipelines.matrix`."""
    stages: tuple[Stage, ...] = Field(min_length=1)
    quick: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Stage -> settings that `--quick` lays over the stage's own; `matrix` -> axes."""

    @field_validator("stages")
    @classmethod
    def _names(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        names = [stage.name for stage in stages]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two stages are called {name!r}; give each its own name")
            if not _NAME.fullmatch(name):
                raise ValueError(f"the stage name {name!r} is not letters, digits and underscores")
            if name == "matrix":
                raise ValueError("a stage cannot be called 'matrix', which is where axes stand")
        return stages

    def given(
        self,
        arguments: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
        *,
        quick: bool = False,
    ) -> Pipeline:
        """Fill in what a person gives.

        Args:
            arguments: argument -> value.
            overrides: `stage.setting` -> value, such as `sft.optim.lr`.
            quick: lay the `quick` settings over the stages.

        Raises:
            ConfigError: an argument or a stage does not exist, or an argument has no value.
        """
        given = dict(self.arguments)
        for name, value in (arguments or {}).items():
            if name not in given:
                raise ConfigError(no_such("argument", name, given))
            given[name] = given[name].model_copy(update={"value": value})
        missing = [f"--{n} ({a.help})" if a.help else f"--{n}" for n, a in given.items()
                   if a.value is None]  # fmt: skip
        if missing:
            raise ConfigError(f"the pipeline {self.name!r} needs {', '.join(missing)}")
        configs = {stage.name: dict(stage.config) for stage in self.stages}
        changed = dict(self.quick) if quick else {}
        axes = changed.pop("matrix", {})
        for axis in axes:
            if axis not in self.matrix:
                raise ConfigError("[quick.matrix]: " + no_such("axis", axis, self.matrix))
        for name, changes in changed.items():
            if name not in configs:
                raise ConfigError("[quick]: " + no_such("stage", name, configs))
            configs[name] = laid_over(configs[name], changes)
        for dotted, value in (overrides or {}).items():
            name, _, setting = dotted.partition(".")
            if name not in configs:
                raise ConfigError(no_such("stage", name, configs))
            configs[name] = laid_over(configs[name], nested(setting, value))
        stages = tuple(s.model_copy(update={"config": configs[s.name]}) for s in self.stages)
        matrix = {**self.matrix, **axes}
        filled_in = {"arguments": given, "matrix": matrix, "stages": stages, "quick": {}}
        return self.model_copy(update=filled_in)


def read_pipeline(path: str | Path) -> Pipeline:
    """Read a pipeline file.

    Raises:
        ConfigError: the file is absent, not TOML, or not a pipeline (says what is expected).
    """
    return parse_pipeline(read_toml(path), str(path))


def parse_pipeline(table: Mapping[str, Any], source: str) -> Pipeline:
    """Turn the content of a pipeline file into a pipeline; `source` names it in errors."""
    known = ("pipeline", "arguments", "matrix", "stage", "quick")
    strange = [key for key in table if key not in known]
    if strange:
        raise ConfigError(f"{source}: " + no_such("table", strange[0], known))
    if not table.get("stage"):
        raise ConfigError(f"{source} has no [[stage]]; a pipeline file needs at least one")
    arguments = {
        name: {"value": given.get("default"), "help": given.get("help", "")}
        if isinstance(given, Mapping)
        else {"value": given}
        for name, given in table.get("arguments", {}).items()
    }
    try:
        return Pipeline.model_validate(
            {
                "name": Path(source).stem,
                "here": str(Path(source).absolute().parent),
                **table.get("pipeline", {}),
                "arguments": arguments,
                "matrix": table.get("matrix", {}),
                "stages": table["stage"],
                "quick": table.get("quick", {}),
            }
        )
    except ValidationError as error:
        lines = []
        for found in error.errors(include_url=False):
            where = ".".join(str(part) for part in found["loc"])
            lines.append(f"{where}: {found['msg']}")
        raise ConfigError(f"{source}: " + "; ".join(lines)) from error


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested settings over others, key by key."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        out[key] = laid_over(old, value) if both and old is not None else value
    return out


def nested(dotted: str, value: Any) -> dict[str, Any]:
    """`a.b` and a value become {"a": {"b": value}}."""
    for part in reversed(dotted.split(".")):
        value = {part: value}
    return dict(value)


def configured(pipeline: Pipeline, stage: Stage, folders: Mapping[str, Path]) -> dict[str, Any]:
    """A stage's settings with the references filled in.

    Raises:
        ConfigError: a reference names no argument and no earlier stage.
    """
    earlier = []
    for other in pipeline.stages:
        if other.name == stage.name:
            break
        earlier.append(other.name)
    known = {f"stages.{name}": str(folders[name]) for name in earlier}
    known["here"] = pipeline.here
    values = {**known, **{name: arg.value for name, arg in pipeline.arguments.items()}}

    def look_up(name: str) -> Any:
        if name in values:
            return values[name]
        raise ConfigError(f"stage {stage.name!r}: " + no_such("argument or stage", name, values))

    config = filled(stage.config, look_up)
    assert isinstance(config, dict)
    return config


def filled(value: Any, look_up: Callable[[str], Any], *, keep_braces: bool = False) -> Any:
    """Fill in the references of nested settings; a text that is one reference takes its type.

    In a list, a reference to a list gives its items. `keep_braces` leaves `{{` and `}}` doubled,
    for a second filling.
    """
    if isinstance(value, Mapping):
        return {
            key: filled(inner, look_up, keep_braces=keep_braces) for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        out = []
        for inner in value:
            found = filled(inner, look_up, keep_braces=keep_braces)
            out += found if isinstance(inner, str) and isinstance(found, list) else [found]
        return out
    if not isinstance(value, str):
        return value
    whole = _REFERENCE.fullmatch(value)
    if whole and whole.group(1):
        return look_up(whole.group(1))

    def part(found: re.Match[str]) -> str:
        if not found[1]:
            return found[0] if keep_braces else found[0][0]
        text = look_up(found[1])
        if isinstance(text, list):
            raise ConfigError(
                f"{value!r}: {{{found[1]}}} stands for {len(text)} values, and a text has room "
                "for one; make it an item of a list"
            )
        return str(text)

    return _REFERENCE.sub(part, value)


def no_such(kind: str, name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """Say that there is nothing of that name, what is nearest, and what there is."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"; the nearest is {near[0]!r}" if near else ""
    names = [*known][:_MOST_NAMES] + ["..."] * (len(known) > _MOST_NAMES)
    return f"there is no {kind} {name!r}{hint}. There are: {', '.join(names) or 'none'}"
