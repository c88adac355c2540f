"""TOML files left to right, then dotted flags, become one frozen configuration.

Every problem is found before anything runs, all at once, each with the file or flag it comes from,
what was found and what was expected. `"none"` stands for None, in files and in flags.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from heed.errors import ConfigError
from heed.flags import REQUIRED, Flag, Slot, find, flags_of, slots_of, split_arguments, unknown

__all__ = ["REQUIRED", "Flag", "dump_toml", "flags_of", "load_config", "make_config", "read_toml"]

C = TypeVar("C", bound=BaseModel)


def load_config(cls: type[C], files: Sequence[str | Path] = (), flags: Sequence[str] = ()) -> C:
    """Load a configuration from TOML files, left to right, and then flags.

    Args:
        cls: the configuration class, such as `SFTConfig`.
        files: TOML files; a later one overrides an earlier one key by key.
        flags: words of a command line, such as `["--optim.lr", "1e-4", "--no-run.resume"]`.

    Returns:
        The validated, frozen configuration.

    Raises:
        ConfigError: lists every unknown key with the nearest one, every value that does not fit
            with what was found and expected, and every missing setting.
    """
    slots = slots_of(cls)
    words, typed, problems = split_arguments(slots, flags)
    problems += [f"{word!r} is not a flag; settings are written --name value" for word in words]
    tree: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for file in files:
        values = _flatten(read_toml(file), slots, "")
        problems += _assign(values, tree, sources, slots, lambda name, file=file: f"{file}: {name}")
    problems += _assign(typed, tree, sources, slots, lambda name: f"--{name}")
    return _build(cls, tree, sources, slots, problems)


def make_config(cls: type[C], values: Mapping[str, Any]) -> C:
    """Make a configuration from nested values, as a Python call gives them.

    Args:
        cls: the configuration class.
        values: settings by name; a section is a mapping (its other settings keep their defaults)
            or an instance.

    Raises:
        ConfigError: as `load_config`.
    """
    slots = slots_of(cls)
    tree: dict[str, Any] = {}
    sources: dict[str, str] = {}
    problems = _assign(_flatten(values, slots, ""), tree, sources, slots, lambda name: name)
    return _build(cls, tree, sources, slots, problems)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: the file is absent, or its text is not TOML (says where).
    """
    path = Path(path)
    if path.suffix != ".toml" and not path.is_file():
        raise ConfigError(
            f"{str(path)!r} is neither a setting nor a TOML file; settings are written --name "
            "value, and several values --name first --name second"
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        folder = path.parent
        near = sorted(p.name for p in folder.glob("*.toml")) if folder.is_dir() else []
        where = "this folder" if folder == Path() else str(folder)
        there = f"; {where} holds {', '.join(near[:8])}" if near else "; give an existing TOML file"
        raise ConfigError(f"{path}: no such file{there}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _flatten(values: Mapping[str, Any], slots: dict[str, Slot], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        slot = find(name, slots)
        section = slot is not None and slot.name == name and bool(slot.sections)
        inside = isinstance(value, Mapping) and (section or slot is None)
        if inside and value and any(n.startswith(name + ".") for n in slots):
            flat.update(_flatten(value, slots, name + "."))
        elif isinstance(value, Mapping):
            flat[name] = dict(value)
        else:
            flat[name] = value
    return flat


def _assign(
    values: Mapping[str, Any],
    tree: dict[str, Any],
    sources: dict[str, str],
    slots: dict[str, Slot],
    where: Any,
) -> list[str]:
    """Write values into the tree; returns what is wrong with their names."""
    problems = []
    for name, value in values.items():
        slot = find(name, slots)
        if slot is None:
            problems.append(unknown(where(name), name, slots))
            continue
        if slot.optional and isinstance(value, str) and value.lower() == "none":
            value = None
        node = tree
        *owners, last = name.split(".")
        for owner in owners:
            if not isinstance(node.get(owner), dict):
                below = node.get(owner)
                node[owner] = dict(below) if isinstance(below, BaseModel) else {}
            node = node[owner]
        if value == {} and slot.sections and isinstance(node.get(last), dict):
            continue
        node[last] = value
        sources[name] = where(name)
    return problems


def _over_defaults(cls: type[BaseModel], tree: dict[str, Any]) -> dict[str, Any]:
    """Lay values over the defaults that the class gives its sections.

    Without this a section of which one setting is given would take the others from the section's
    own class, and lose what the outer class says.
    """
    out = dict(tree)
    for slot in slots_of(cls).values():
        if "." in slot.name or len(slot.sections) != 1:
            continue
        value = out.get(slot.name)
        if not isinstance(value, dict):
            continue
        if isinstance(slot.default, slot.sections[0]):
            base = {key: getattr(slot.default, key) for key in type(slot.default).model_fields}
            value = _overlay(base, value)
        out[slot.name] = _over_defaults(slot.sections[0], value)
    return out


def _overlay(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        below = out.get(key)
        if isinstance(below, BaseModel) and isinstance(value, dict):
            below = {name: getattr(below, name) for name in type(below).model_fields}
            out[key] = _overlay(below, value)
        else:
            out[key] = value
    return out


def _build(
    cls: type[C],
    tree: dict[str, Any],
    sources: dict[str, str],
    slots: dict[str, Slot],
    problems: list[str],
) -> C:
    for name, source in sources.items():
        slot, value = slots.get(name), _get(tree, name)
        if slot is not None and isinstance(value, bool) and bool not in slot.kinds:
            problems.append(f"{source}: found {json.dumps(value)}, expected {slot.expected}")
    try:
        config = cls.model_validate(_over_defaults(cls, tree))
    except ValidationError as error:
        problems += _explain(error, tree, sources, slots)
    if problems:
        unique = list(dict.fromkeys(problems))
        if len(unique) == 1:
            raise ConfigError(unique[0])
        raise ConfigError("\n  ".join([f"{len(unique)} settings need a correction:", *unique]))
    return config


def _get(tree: Mapping[str, Any], name: str) -> Any:
    node: Any = tree
    for part in name.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _explain(
    error: ValidationError, tree: Mapping[str, Any], sources: dict[str, str], slots: dict[str, Slot]
) -> list[str]:
    problems, missing = [], []
    for found in error.errors(include_url=False):
        name = _dotted(found["loc"], slots)
        slot = find(name, slots) if name else None
        source = _source(name, sources)
        if found["type"] == "missing" and slot is not None and found["loc"][-1] == _last(name):
            missing += _required_inside(slot, slots)
        elif found["type"] in ("value_error", "assertion_error") or slot is None:
            text = str(found.get("ctx", {}).get("error", "")) or found["msg"]
            rest = ".".join(str(part) for part in found["loc"])
            problems.append(f"{source or rest}: {text}" if source or rest else text)
        elif slot.sections and isinstance(found["input"], dict):
            rest = ".".join(str(part) for part in found["loc"])
            problems.append(f"{source or rest}: {found['msg'].lower()}")
        elif found["type"] == "extra_forbidden":
            problems.append(f"{source or name}: no setting is called {found['loc'][-1]!r} here")
        else:
            given = _get(tree, name) if found["type"] == "missing" else found["input"]
            value = json.dumps(given, ensure_ascii=False, default=str)
            near = _nearest(str(given), found) if found["type"] == "literal_error" else ""
            problems.append(f"{source or name}: found {value}, expected {_expected(slot)}{near}")
    if missing:
        lines = [f"--{_typed(slot)} ({slot.expected}): {slot.help}" for slot in missing]
        lines = [line.rstrip(": ").removesuffix(".") for line in lines]
        problems.append("missing, and without a default: " + "; ".join(lines))
    return problems


def _typed(slot: Slot) -> str:
    """The setting's name as it is typed; a table takes a key of the user's own."""
    return f"{slot.name}.NAME" if slot.table else slot.name


def _expected(slot: Slot) -> str:
    """What may be written, and under which names where it is more than one value."""
    if slot.sections:
        inside = [f"{slot.name}.{key}" for key in slot.sections[0].model_fields]
        return f"a section: set {inside[0]}" + (
            f" (and where needed {', '.join(inside[1:4])} ...)" if inside[1:] else ""
        )
    return slot.expected + (f": set {_typed(slot)}" if slot.table else "")


def _nearest(given: str, found: Any) -> str:
    """Name the choice that a misspelt one comes nearest to."""
    choices = re.findall(r"'([^']*)'", str(found.get("ctx", {}).get("expected", "")))
    near = difflib.get_close_matches(given, choices, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _required_inside(slot: Slot, slots: dict[str, Slot]) -> list[Slot]:
    """The setting itself, or what a missing section cannot do without."""
    if not slot.sections:
        return [slot]
    depth = slot.name.count(".") + 1
    inside = [s for n, s in slots.items() if n.startswith(slot.name + ".")]
    needed = [s for s in inside if s.name.count(".") == depth and s.required]
    return [leaf for s in needed for leaf in _required_inside(s, slots)] or [slot]


def _dotted(loc: tuple[int | str, ...], slots: dict[str, Slot]) -> str:
    """The longest setting that a pydantic location passes through; union tags are skipped."""
    name = ""
    for part in loc:
        longer = f"{name}.{part}" if name else str(part)
        if find(longer, slots) is not None:
            name = longer
    return name


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _source(name: str, sources: dict[str, str]) -> str:
    while name:
        if name in sources:
            return sources[name]
        name = name.rpartition(".")[0]
    return ""


def dump_toml(config: BaseModel | Mapping[str, Any]) -> str:
    """Write a configuration as TOML that `load_config` reads back to an equal one."""
    tree = config.model_dump(mode="json") if isinstance(config, BaseModel) else dict(config)
    return "\n".join(_table(tree, "")).strip() + "\n"


def _table(tree: Mapping[str, Any], prefix: str) -> list[str]:
    plain = {k: v for k, v in tree.items() if not isinstance(v, Mapping) or not v}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in tree.items():
        if key not in plain:
            name = f"{prefix}{_key(key)}"
            lines += ["", f"[{name}]", *_table(value, name + ".")]
    return lines


def _key(key: str) -> str:
    bare = key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key)
    return key if bare else _text(key)


def _text(text: str) -> str:
    # JSON's escapes are TOML's, but JSON leaves DEL as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = repr(value)
        return text if any(c in text for c in ".enai") else text + ".0"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    return _text(str(value))
