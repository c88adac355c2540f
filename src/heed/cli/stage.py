"""One stage from the command line: files and flags become its configuration, then it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heed.cli.command import OK, Context
from heed.config import dump_toml, load_config
from heed.flags import slots_of, split_arguments
from heed.pipelines.verbs import Verb

if TYPE_CHECKING:
    from pydantic import BaseModel

    from heed.runs.run import Run


def run_verb(verb: Verb, words: Sequence[str], context: Context) -> int:
    """Run `heed VERB ...`: help, the resolved configuration, or the stage itself."""
    words = list(words)
    cls = verb.config_class()
    if "--help" in words or "-h" in words:
        from heed.cli.help import verb_help

        print(verb_help(verb.name, verb.help, cls))
        return OK
    show = "--print-config" in words
    words = [word for word in words if word != "--print-config"]
    config = read_words(cls, words)
    if show:
        print(dump_toml(config), end="")
        return OK
    run_config(verb, config, context)
    return OK


def read_words(cls: type[BaseModel], words: Sequence[str]) -> BaseModel:
    """Load a configuration from the words of a command line: files anywhere among the flags.

    Raises:
        ConfigError: as `load_config`.
    """
    files, _, _ = split_arguments(slots_of(cls), words)
    flags = list(words)
    for file in files:
        flags.remove(file)
    return load_config(cls, files, flags)


def run_config(verb: Verb, config: BaseModel, context: Context) -> Run:
    """Run a stage with the terminal listening, and say where its results are."""
    from heed.cli.terminal import TerminalSink, closing_lines

    settings: Any = getattr(config, "run", None)
    if settings is not None:
        context.folder = Path(settings.folder)
    with TerminalSink() as sink:
        run = verb.function()(config, (sink,))
    for line in closing_lines(run):
        print(line)
    return run
