"""`heed run PIPELINE.toml`: arguments and overrides are read, then the stages run."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heed.cli.command import OK, Context
from heed.cli.terminal import TerminalSink, closing_lines
from heed.config import dump_toml, load_config
from heed.errors import ConfigError
from heed.pipelines.chain import plan_stages, run_pipeline
from heed.pipelines.recipe import Pipeline, read_pipeline
from heed.pipelines.verbs import VERBS
from heed.settings import RunSettings, Settings

USAGE = """usage: heed run PIPELINE.toml [--ARGUMENT VALUE ...] [--set STAGE.SETTING=VALUE ...]
                [--quick] [--run.folder FOLDER] [--run.seed N] [--run.overwrite]
                [--print-config] [--debug]

Run a pipeline of stages in one folder (runs/NAME by default). A stage whose data, settings, code
and earlier stages have not changed is not run again; one that was interrupted goes on."""


class _Own(Settings):
    run: RunSettings


@dataclass
class Words:
    """A command line of `heed run`, taken apart."""

    file: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    run: list[str] = field(default_factory=list)
    quick: bool = False
    show: bool = False
    help: bool = False


def main(words: list[str], context: Context) -> int:
    """Run `heed run ...`."""
    told = take_apart(words)
    if told.file is None:
        if told.help:
            print(USAGE)
            return OK
        raise ConfigError("heed run needs a pipeline file: heed run PIPELINE.toml")
    pipeline = read_pipeline(told.file)
    if told.help:
        print(f"{USAGE}\n\n{arguments_help(pipeline)}")
        return OK
    pipeline = pipeline.given(told.arguments, told.overrides, quick=told.quick)
    suffix = "-quick" if told.quick else ""
    default = ["--run.folder", f"runs/{pipeline.name}{suffix}"]
    settings = load_config(_Own, (), [*default, *told.run]).run
    if told.show:
        plan = plan_stages(pipeline, settings, VERBS)
        print("\n".join(f"# stage {p.stage.name}\n{dump_toml(p.config)}" for p in plan), end="")
        return OK
    run_shown(pipeline, settings, context)
    return OK


def run_shown(pipeline: Pipeline, settings: RunSettings, context: Context) -> None:
    """Run a pipeline with the terminal listening, and say where its results are."""
    context.folder = Path(settings.folder)
    with TerminalSink() as sink:
        run = run_pipeline(pipeline, settings, (sink,))
    for line in closing_lines(run):
        print(line)


def take_apart(words: list[str]) -> Words:
    """Sort the words of a command line.

    Raises:
        ConfigError: a word is not understood, or a value is missing.
    """
    told = Words()
    queue = list(words)
    while queue:
        word = queue.pop(0)
        name, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("-"):
            if told.file is not None:
                raise ConfigError(f"{word!r}: heed run takes one pipeline file, {told.file} is it")
            told.file = word
        elif word in ("--help", "-h"):
            told.help = True
        elif word == "--quick":
            told.quick = True
        elif word == "--print-config":
            told.show = True
        elif name.startswith(("run.", "no-run.", "no_run.")):
            told.run.append(word)
            if not equals and queue and not queue[0].startswith("--") and _takes_value(name):
                told.run.append(queue.pop(0))
        elif not equals and (not queue or queue[0].startswith("--")):
            raise ConfigError(f"{word} needs a value: {word} VALUE")
        elif name == "set":
            pair = text if equals else queue.pop(0)
            setting, found, value = pair.partition("=")
            if not found:
                raise ConfigError(f"--set {pair}: write --set NAME=VALUE or STAGE.SETTING=VALUE")
            into = told.overrides if "." in setting else told.arguments
            into[setting] = _typed(value)
        else:
            told.arguments[name.replace("-", "_")] = _typed(text if equals else queue.pop(0))
    return told


def _takes_value(name: str) -> bool:
    return name not in ("run.resume", "run.overwrite") and name.startswith("run.")


def _typed(text: str) -> Any:
    """Numbers, truth values, lists and tables as TOML writes them; all else is text."""
    if text[:1] in ("[", "{") or text in ("true", "false") or _is_number(text):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
    return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def arguments_help(pipeline: Pipeline) -> str:
    """List the arguments and stages of a pipeline."""
    lines = [f"{pipeline.name}: {pipeline.help}".rstrip(": ")]
    if pipeline.arguments:
        lines += ["", "arguments:"]
    for name, argument in pipeline.arguments.items():
        default = "(required)" if argument.value is None else f"[{argument.value}]"
        lines.append(f"  --{name}  {default}  {argument.help}".rstrip())
    stages = [
        (s.name, s.verb + (f", over {' and '.join(s.over)}" if s.over else ""))
        for s in pipeline.stages
    ]
    lines += ["", "stages: " + ", ".join(f"{name} ({verb})" for name, verb in stages)]
    return "\n".join(lines)
