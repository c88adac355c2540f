"""Repeat a stage over axes: methods, settings, seeds.

    [matrix]
    seed = "{seeds}"                            # a list, or an argument that is one
    method = [                                  # a table has a name; its fields are referred to
        { name = "low", preset = "rloo", beta = 0.01 },
        { name = "high", preset = "rloo", beta = 0.1 },
    ]

    [[stage]]
    name = "train"
    verb = "online"
    over = ["method", "seed"]                   # train.low.0, train.low.1, train.high.0, ...
    config = { preset = "{method.preset}", beta = "{method.beta}", run = { seed = "{seed}" } }

    [[stage]]
    name = "measure"
    verb = "evaluate"
    over = ["method", "seed"]
    config = { model = { path = "{stages.train}" } }    # the one of the same method and seed

A reference to a repeated stage means its members that agree with the referring stage on the axes
that both have: one folder where the referring stage has all of its axes, and else a list of them,
which takes its place in a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from heed.errors import ConfigError
from heed.pipelines.recipe import Pipeline, Stage, filled, no_such

_AXIS = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Point:
    """One value of an axis: its label, and reference -> value."""

    label: str
    values: Mapping[str, Any]


Place = dict[str, Point]
"""Axis -> the point at which a member of a repeated stage stands."""


def expanded(pipeline: Pipeline) -> Pipeline:
    """Write out every member of every repeated stage, in the order of the file.

    The first axis of `over` changes slowest.

    Raises:
        ConfigError: an axis is not a list of differing values, is not there, or is never used.
    """
    axes = _axes(pipeline)
    written: dict[str, list[tuple[Place, Stage]]] = {}
    for stage in pipeline.stages:
        members = []
        for place in _places(stage, axes):
            name = ".".join([stage.name, *(point.label for point in place.values())])
            changes = {"name": name, "config": _located(stage, place, written), "over": ()}
            changes |= {"of": stage.name if stage.over else ""}
            members.append((place, stage.model_copy(update=changes)))
        written[stage.name] = members
    unused = set(axes) - {axis for stage in pipeline.stages for axis in stage.over}
    if unused:
        raise ConfigError(f"[matrix]: no stage goes over {sorted(unused)[0]!r}; name it in `over`")
    stages = tuple(stage for members in written.values() for _, stage in members)
    return pipeline.model_copy(update={"stages": stages, "matrix": {}})


def _axes(pipeline: Pipeline) -> dict[str, list[Point]]:
    given = {name: argument.value for name, argument in pipeline.arguments.items()}

    def look_up(name: str) -> Any:
        if name not in given:
            raise ConfigError("[matrix]: " + no_such("argument", name, given))
        return given[name]

    axes = {}
    for axis, values in pipeline.matrix.items():
        if not _AXIS.fullmatch(axis) or axis in (*given, "here", "stages"):
            raise ConfigError(
                f"[matrix]: the axis {axis!r} is the name of an argument, or not letters, digits "
                "and underscores; call it something else"
            )
        values = filled(values, look_up) if isinstance(values, str) else values
        if not isinstance(values, list) or not values:
            raise ConfigError(f"[matrix]: {axis} is {values!r}, expected a list of values")
        axes[axis] = [_point(axis, value) for value in values]
        labels = [point.label for point in axes[axis]]
        twice = [label for label in labels if labels.count(label) > 1]
        if twice:
            raise ConfigError(f"[matrix]: two values of {axis} are called {twice[0]!r}")
    return axes


def _point(axis: str, value: Any) -> Point:
    if isinstance(value, Mapping):
        if not value.get("name"):
            raise ConfigError(f"[matrix]: a table of {axis} has no name: {dict(value)!r}")
        fields = {f"{axis}.{field}": inner for field, inner in value.items()}
        return Point(_label(value["name"]), fields)
    if not isinstance(value, str | int | float):
        raise ConfigError(f"[matrix]: {axis} holds {value!r}, expected a text, number or table")
    return Point(_label(value), {axis: value})


def _label(value: Any) -> str:
    """A value as a part of a stage's name and folder."""
    return re.sub(r"[^\w.]+", "_", str(value))


def _places(stage: Stage, axes: Mapping[str, list[Point]]) -> Iterator[Place]:
    for axis in stage.over:
        if axis not in axes:
            raise ConfigError(f"stage {stage.name!r}: " + no_such("axis", axis, axes))
        if stage.over.count(axis) > 1:
            raise ConfigError(f"stage {stage.name!r} goes over {axis!r} twice")
    for points in product(*(axes[axis] for axis in stage.over)):
        yield dict(zip(stage.over, points, strict=True))


def _located(
    stage: Stage, place: Place, written: Mapping[str, list[tuple[Place, Stage]]]
) -> dict[str, Any]:
    """The stage's settings at its place; all other references stay as they are."""
    own = {name: value for point in place.values() for name, value in point.values.items()}

    def look_up(name: str) -> Any:
        if name in own:
            return own[name]
        axis = name.partition(".")[0]
        if axis in place:
            raise ConfigError(f"stage {stage.name!r}: " + no_such("value", name, own))
        kind, _, other = name.partition(".")
        members = written.get(other, []) if kind == "stages" else []
        found = [f"{{stages.{near.name}}}" for at, near in members if _agree(at, place)]
        if not found or not members[0][0]:
            return f"{{{name}}}"
        return found[0] if set(members[0][0]) <= set(place) else found

    config = filled(stage.config, look_up, keep_braces=True)
    assert isinstance(config, dict)
    return config


def _agree(one: Place, two: Place) -> bool:
    return all(one[axis].label == two[axis].label for axis in one.keys() & two.keys())
