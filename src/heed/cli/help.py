"""The text of `heed VERB --help`: every setting by section, with type, default and help."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator

from pydantic import BaseModel

from heed.flags import REQUIRED, Flag, Slot, flags_of, slots_of

_WIDEST = 100


def verb_help(name: str, text: str, cls: type[BaseModel]) -> str:
    """Write the help of a verb whose settings are the fields of `cls`."""
    width = min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    slots = slots_of(cls)
    flags = flags_of(cls)
    lines = [
        f"usage: heed {name} [FILE.toml ...] [--a.b value ...] [--print-config] [--debug]",
        "",
        f"{text}.",
    ]
    needed = [flag.name for flag in flags if flag.default == REQUIRED]
    unasked = [n for n in needed if not _inside_optional(n, slots)]
    if unasked:
        lines += ["", *_wrapped("required: " + ", ".join(f"--{n}" for n in unasked), width, "  ")]
    for section, members in _sections(flags):
        lines += ["", *_heading(section, slots, width)]
        for flag in members:
            lines += _entry(flag, width)
    lines += [
        "",
        "Lists: repeat the flag, or separate by commas. `none` unsets an optional setting.",
    ]
    return "\n".join(lines)


def _inside_optional(name: str, slots: dict[str, Slot]) -> bool:
    parts = name.split(".")
    owners = [".".join(parts[: i + 1]) for i in range(len(parts) - 1)]
    return any(slots[owner].optional for owner in owners)


def _sections(flags: list[Flag]) -> Iterator[tuple[str, list[Flag]]]:
    groups: dict[str, list[Flag]] = {"": []}
    for flag in flags:
        section = flag.name if flag.type == "switch" else flag.name.rpartition(".")[0]
        groups.setdefault(section, []).append(flag)
    yield from ((name, members) for name, members in groups.items() if members)


def _heading(section: str, slots: dict[str, Slot], width: int) -> list[str]:
    if not section:
        return ["settings of this verb"]
    slot = slots[section]
    about = slot.help or " ".join((slot.sections[0].__doc__ or "").split())
    text = f"{section}: {about}" if about else section
    return _wrapped(text, width, "  ")


def _entry(flag: Flag, width: int) -> list[str]:
    if flag.type == "switch":
        return [f"  --{flag.name}, --no-{flag.name}  switch [{_switch(flag.default)}]"]
    head = f"  --{flag.name}  {flag.type} "
    head += "(required)" if flag.default == REQUIRED else f"[{flag.default}]"
    lines = _wrapped(head, width, "      ")
    if flag.help:
        lines += _wrapped("      " + flag.help, width, "      ")
    return lines


def _switch(default: str) -> str:
    return "off" if default == "none" else "on"


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
