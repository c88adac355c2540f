"""Write docs/reference from what the code says of itself: commands, metrics, Python names.

make docs                                  write the pages
python scripts/reference.py --check        say which pages are out of date (status 1)
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import heed
from heed import errors, records, settings
from heed.cli.command import COMMANDS
from heed.config import REQUIRED, flags_of
from heed.pipelines import recipe
from heed.pipelines.verbs import VERBS
from heed.runs import run as runs
from heed.runs.metrics import METRICS

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
NOTE = "<!-- Written by `make docs` from the code; change the docstrings instead. -->\n"


def commands() -> str:
    """The page of all verbs with their settings."""
    lines = [
        "# Commands",
        "",
        "```",
        "heed VERB [FILE.toml ...] [--a.b value ...] [--print-config] [--debug]",
        "```",
        "",
        "Files compose left to right, then flags. In a file, `optim.lr` is `lr` in the table "
        '`[optim]`. `"none"` unsets an optional setting. `--print-config` shows the result.',
        "",
    ]
    lines += ["| verb | what it does |", "|---|---|"]
    lines += [f"| [`{v.name}`](#heed-{v.name}) | {v.help}. |" for v in VERBS.values()]
    lines += [f"| `{name}` | {text}. |" for name, (_, text) in COMMANDS.items()]
    for verb in VERBS.values():
        cls = verb.config_class()
        lines += ["", f"## heed {verb.name}", "", f"{verb.help}.", ""]
        lines += [f"`{verb.config.replace(':', '.')}`: {first_line(cls)}", ""]
        lines += ["| setting | value | default | |", "|---|---|---|---|"]
        for flag in flags_of(cls):
            default = "**required**" if flag.default == REQUIRED else code(flag.default)
            lines.append(f"| `{flag.name}` | {cell(flag.type)} | {default} | {cell(flag.help)} |")
    return page(lines)


def metrics() -> str:
    """The page of all metrics."""
    lines = [
        "# Metrics",
        "",
        "Each line of a run's `metrics.jsonl` holds `step`, `wall_seconds` and some of these; "
        "`null` stands for what is not known. `<...>` stands for a name.",
        "",
        "| metric | unit | meaning | better |",
        "|---|---|---|---|",
    ]
    for name, metric in METRICS.items():
        better = metric.better or ""
        lines.append(f"| `{name}` | {cell(metric.unit)} | {cell(metric.meaning)} | {better} |")
    return page(lines)


def python() -> str:
    """The page of the public names: calls, records, run, errors, shared settings."""
    lines = ["# Python", "", *quoted(heed.__doc__), "", "## Calls", ""]
    for name in heed.__all__:
        value = getattr(heed, name)
        if inspect.isfunction(value):
            lines += [
                f"### heed.{name}",
                "",
                *signature(name, value),
                "",
                *quoted(value.__doc__),
                "",
            ]
    lines += ["## Run", "", *quoted(runs.__doc__), ""]
    for name, value in vars(runs.Run).items():
        if not name.startswith("_") and (
            inspect.isfunction(value) or isinstance(value, classmethod)
        ):
            function = value.__func__ if isinstance(value, classmethod) else value
            lines += [f"### Run.{name}", "", *signature(name, function), ""]
            lines += [*quoted(function.__doc__), ""]
    lines += ["## Records", "", *quoted(records.__doc__), ""]
    lines += [line for cls in models(records) for line in fields(cls)]
    lines += ["## Shared settings", "", *quoted(settings.__doc__), ""]
    lines += [line for cls in models(settings) for line in fields(cls)]
    lines += ["## Pipelines", "", *quoted(recipe.__doc__), ""]
    lines += [line for cls in models(recipe) for line in fields(cls)]
    lines += ["## Errors", "", *quoted(errors.__doc__)]
    return page(lines)


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "metrics.md": metrics,
    "python.md": python,
}


def page(lines: list[str]) -> str:
    """Join the lines of a page."""
    return NOTE + "\n".join(lines).rstrip() + "\n"


def cell(text: str) -> str:
    """Make text fit a table's cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def code(text: str) -> str:
    """A default as code, on one line."""
    flat = text.replace("\n", "\\n").replace("|", "\\|")
    return f"`` {flat} ``" if "`" in flat else f"`{flat}`"


def first_line(value: Any) -> str:
    """The first paragraph of a docstring."""
    return cell((inspect.getdoc(value) or "").split("\n\n")[0])


def quoted(text: str | None) -> list[str]:
    """A docstring as a block, because its indentation carries meaning."""
    return ["```text", *inspect.cleandoc(text or "").splitlines(), "```"]


def signature(name: str, function: Callable[..., Any]) -> list[str]:
    """The call as it stands in the code."""
    found = inspect.signature(function)
    given = [p.replace(annotation=bare(p.annotation)) for p in found.parameters.values()]
    found = found.replace(parameters=given, return_annotation=bare(found.return_annotation))
    return ["```python", f"{name}{found}", "```"]


def bare(annotation: Any) -> Any:
    """An annotation that prints without the quotes that a deferred one has."""
    return Bare(annotation) if isinstance(annotation, str) else annotation


class Bare:
    """Text that is its own representation."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def models(module: Any) -> Iterator[type[BaseModel]]:
    """The pydantic classes that a module defines."""
    for value in vars(module).values():
        is_model = isinstance(value, type) and issubclass(value, BaseModel)
        if is_model and value.__module__ == module.__name__ and value.model_fields:
            yield value


def fields(cls: type[BaseModel]) -> list[str]:
    """A class with its fields."""
    lines = [f"### {cls.__name__}", "", first_line(cls), "", "| field | |", "|---|---|"]
    lines += [
        f"| `{n}` | {cell(field.description or '')} |" for n, field in cls.model_fields.items()
    ]
    return [*lines, ""]


def main(words: list[str]) -> int:
    """Write the pages, or check them."""
    stale = []
    for name, make in PAGES.items():
        path, text = FOLDER / name, make()
        if "--check" in words:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"out of date: {', '.join(stale)}; `make docs` writes them")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
