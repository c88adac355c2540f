"""What a configuration class can be told: its settings, as dotted names with type, default, help.

A section is a nested configuration. An optional section (default None) is a switch of its own:
`--model.lora` makes it with its defaults, `--no-model.lora` leaves it out, and setting anything
inside makes it too.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from heed.errors import ConfigError

REQUIRED = "required"
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_IN_TRL = {
    "model_name_or_path": "model.path",
    "dataset_name": "data.path",
    "dataset_train_split": "data.split",
    "output_dir": "run.folder",
    "learning_rate": "optim.lr",
    "lr_scheduler_type": "optim.schedule",
    "warmup_steps": "optim.warmup_frac",
    "warmup_ratio": "optim.warmup_frac",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "learner.micro_batch_tokens",
    "response_length": "sampling.max_tokens",
    "max_completion_length": "sampling.max_tokens",
    "use_peft": "model.lora",
    "lora_r": "model.lora.r",
    "lora_alpha": "model.lora.alpha",
    "save_steps": "run.checkpoint_seconds",
    "save_total_limit": "run.keep_checkpoints",
    "resume_from_checkpoint": "run.resume",
    "reward_model_path": "reward_funcs",
    "sft_model_path": "model.path",
    "bf16": "learner.precision",
    "beta": "kl_coef",
}
"""What TRL calls a setting -> what says the same here."""
_SCALARS = {int: "integer", float: "number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Flag:
    """One setting as a person sees it."""

    name: str
    """Dotted name, such as `optim.lr`."""
    type: str
    """What may be written, in words, the allowed range or choices included."""
    default: str
    """The default as it would be written, or `required`."""
    help: str
    """The docstring of the field."""


@dataclass(frozen=True)
class Slot:
    """One setting as the loader needs it."""

    name: str
    annotation: Any
    bounds: tuple[Any, ...]
    default: Any
    """`PydanticUndefined` where there is none."""
    help: str

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The alternatives of the annotation, None left out."""
        return tuple(k for k in _alternatives(self.annotation) if k is not type(None))

    @property
    def optional(self) -> bool:
        """Whether None is allowed."""
        return type(None) in _alternatives(self.annotation)

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is PydanticUndefined

    @property
    def sections(self) -> tuple[type[BaseModel], ...]:
        """The nested configurations it may hold."""
        return tuple(k for k in self.kinds if isinstance(k, type) and issubclass(k, BaseModel))

    @property
    def sequence(self) -> bool:
        """Whether several values may be given."""
        return any(_origin(k) in (tuple, list, frozenset, set) for k in self.kinds)

    @property
    def table(self) -> bool:
        """Whether it takes keys of the user's own."""
        return any(_origin(k) is dict for k in self.kinds)

    @property
    def switch(self) -> bool:
        """Whether `--name` needs no value and `--no-name` exists."""
        return bool in self.kinds or bool(self.sections and self.optional)

    @property
    def expected(self) -> str:
        """What may be written, in words."""
        if self.sections:
            return "a section"
        words = " or ".join(dict.fromkeys(_in_words(kind) for kind in self.kinds))
        bounds = [b for b in self.bounds if not isinstance(b, str)]
        limits = [f"{_BOUNDS[key]} {value:g}" for key, value in _limits(bounds)]
        text = words + (" " + " and ".join(limits) if limits else "")
        return f"{text}, or none" if self.optional else text


def _origin(kind: Any) -> Any:
    return get_origin(kind) or kind


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return tuple(kind for part in get_args(annotation) for kind in _alternatives(part))
    return (annotation,)


def _limits(bounds: Sequence[Any]) -> Iterator[tuple[str, float]]:
    for bound in bounds:
        for key in _BOUNDS:
            value = getattr(bound, key, None)
            if isinstance(value, (int, float)):
                yield key, value


def _in_words(kind: Any) -> str:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _in_words(args[0])
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in args)
    if origin in (tuple, list, set, frozenset):
        inner = " or ".join(_in_words(a) for a in _alternatives(args[0]))
        if origin is tuple and Ellipsis not in args:
            return f"{len(args)} of: {inner}"
        return f"list of {inner}"
    if origin is dict:
        return "table of " + " or ".join(_in_words(a) for a in _alternatives(args[1]))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(str(member.value) for member in kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "section"
    return _SCALARS.get(kind, "text")


@cache
def slots_of(cls: type[BaseModel]) -> dict[str, Slot]:
    """List every setting of a configuration class, sections included, by dotted name.

    Read only: every caller is given the same table.
    """
    return {slot.name: slot for slot in _walk(cls, "", None)}


def _walk(cls: type[BaseModel], prefix: str, instance: BaseModel | None) -> Iterator[Slot]:
    for key, field in cls.model_fields.items():
        if instance is not None:
            default = getattr(instance, key)
        elif field.is_required():
            default = PydanticUndefined
        else:
            default = field.get_default(call_default_factory=True, validated_data={})
        slot = Slot(
            name=prefix + key,
            annotation=field.annotation,
            bounds=tuple(field.metadata),
            default=default,
            help=" ".join((field.description or "").split()),
        )
        yield slot
        for section in slot.sections:
            inner = default if isinstance(default, section) else None
            yield from _walk(section, slot.name + ".", inner)


def written(value: Any) -> str:
    """Write a value as it would be typed on the command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, (tuple, list, set, frozenset)):
        return ",".join(written(v) for v in value) or "[]"
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, BaseModel):
        return "section"
    return str(value) if str(value) else '""'


def flags_of(cls: type[BaseModel]) -> list[Flag]:
    """List the flags of a configuration class; the help is the docstring of the field."""
    flags = []
    for slot in slots_of(cls).values():
        if slot.sections and not slot.optional:
            continue
        kind = "switch" if slot.sections else slot.expected
        default = REQUIRED if slot.required else written(slot.default)
        flags.append(Flag(slot.name, kind, default, slot.help))
    return flags


def nearest(name: str, slots: dict[str, Slot]) -> list[str]:
    """Names of settings that a mistyped name most likely means, best first, at most three."""
    settings = [n for n, slot in slots.items() if not slot.sections or slot.optional]
    last = name.rsplit(".", 1)[-1]
    same_last = [n for n in settings if n.rsplit(".", 1)[-1] == last]
    close = difflib.get_close_matches(name, slots, n=3, cutoff=0.7)
    by_last: dict[str, list[str]] = {}
    for setting in settings:
        by_last.setdefault(setting.rsplit(".", 1)[-1], []).append(setting)
    alike = difflib.get_close_matches(last, by_last, n=2, cutoff=0.7)
    close_last = [n for part in alike for n in by_last[part]]
    return list(dict.fromkeys([*same_last, *close, *close_last]))[:3]


def find(name: str, slots: dict[str, Slot]) -> Slot | None:
    """The setting of that name, or the table that holds a key of that name."""
    if name in slots:
        return slots[name]
    owner = name.rsplit(".", 1)[0]
    return slots[owner] if owner in slots and slots[owner].table else None


def read_text(slot: Slot, texts: Sequence[str], name: str) -> Any:
    """Turn what was typed for a setting into a value for validation.

    Args:
        slot: the setting.
        texts: what was typed, once per time that the flag was given.
        name: the dotted name that was typed (longer than the setting's for a key of a table).
    """
    text = texts[-1]
    if slot.optional and text.lower() == "none":
        return None
    structured = slot.sequence or slot.table or any(get_args(k) for k in slot.kinds)
    if structured and text[:1] in ("[", "{"):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(
                f"--{name}: {text!r} is not a TOML value ({error}); "
                'write lists like ["a", "b"] and tables like {key = 1}'
            ) from error
    if slot.sequence:
        # A comma inside brackets belongs to one word, such as min(a, b).
        items = [item for part in texts for item in re.split(r",(?![^()]*\))", part)]
        alone = len(items) == 1 and any(kind in _SCALARS for kind in slot.kinds)
        return items[0] if alone else items
    return _as_written(slot, text) if slot.table else text


def _as_written(slot: Slot, text: str) -> Any:
    """The value of a table's key: a number or truth value where it is written like one."""
    tables = [get_args(kind) for kind in slot.kinds if _origin(kind) is dict]
    allowed = {kind for args in tables if args for kind in _alternatives(args[1])}
    if not allowed & {bool, int, float}:
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if type(value) in allowed else text


def split_arguments(
    slots: dict[str, Slot], tokens: Sequence[str]
) -> tuple[list[str], dict[str, Any], list[str]]:
    """Read a command line: `--a.b value`, `--a.b=value`, `--a.b` and `--no-a.b` for switches.

    Args:
        slots: the settings, from `slots_of`.
        tokens: the words of the command line.

    Returns:
        The words that belong to no flag (files), the values by dotted name, and the problems.
    """
    typed: dict[str, list[str]] = {}
    switched: dict[str, Any] = {}
    words: list[str] = []
    problems: list[str] = []
    queue = list(tokens)
    while queue:
        token = queue.pop(0)
        if not token.startswith("--") or token == "--":
            words.append(token)
            continue
        name, equals, text = token[2:].partition("=")
        name = name.replace("-", "_")
        slot = find(name, slots)
        off = None if slot else _switched_off(name, slots)
        if off is not None and not equals:
            switched[off.name] = False if bool in off.kinds else None
            typed.pop(off.name, None)
        elif slot is None:
            problems.append(unknown(f"--{name}", name, slots))
            if not equals and queue and not queue[0].startswith("--"):
                queue.pop(0)
        elif slot.switch and not equals and not (queue and _is_switch_word(queue[0], slot)):
            switched[name] = True if bool in slot.kinds else {}
            typed.pop(name, None)
        elif not equals and (not queue or queue[0].startswith("--")):
            problems.append(f"--{name} needs a value: {slot.expected}")
        else:
            typed.setdefault(name, []).append(text if equals else queue.pop(0))
            switched.pop(name, None)
    values: dict[str, Any] = dict(switched)
    for name, texts in typed.items():
        slot = find(name, slots)
        assert slot is not None
        try:
            values[name] = read_text(slot, texts, name)
        except ConfigError as error:
            problems.append(str(error))
    return words, values, problems


def _switched_off(name: str, slots: dict[str, Slot]) -> Slot | None:
    slot = slots.get(name.removeprefix("no_")) if name.startswith("no_") else None
    return slot if slot is not None and slot.switch else None


def _is_switch_word(word: str, slot: Slot) -> bool:
    return word.lower() in ("true", "false") or (slot.optional and word.lower() == "none")


def unknown(where: str, name: str, slots: dict[str, Slot]) -> str:
    """Say that a setting does not exist, and which one is probably meant."""
    here = _IN_TRL.get(name)
    if here in slots:
        return f"{where}: no such setting; what TRL calls so is {here} ({slots[here].expected})"
    guesses = nearest(name, slots)
    if guesses:
        best = slots[guesses[0]]
        text = f"{where}: no such setting; the nearest is {best.name} ({best.expected})"
        return text + (f", then {', '.join(guesses[1:])}" if guesses[1:] else "")
    section = name.rsplit(".", 1)[0] + "." if "." in name else ""
    inside = [n for n in slots if n.startswith(section)] if section else []
    known = inside or [n for n in slots if "." not in n]
    return f"{where}: no such setting; there are {', '.join(known)}"
