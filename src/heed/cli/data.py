"""`heed data inspect`: what a data set would teach, and what would be lost, before any training."""

from __future__ import annotations

from heed.cli.command import OK, Context
from heed.config import load_config
from heed.errors import ConfigError
from heed.flags import slots_of, split_arguments
from heed.settings import DataSettings, Settings


class InspectConfig(Settings):
    """Which data set to look at, and with which tokenizer."""

    data: DataSettings
    tokenizer: str | None = None
    """Folder or hub id of a tokenizer; without one lengths are counted in characters."""


def main(words: list[str], context: Context) -> int:
    """Run `heed data inspect PATH ... [--tokenizer T] [--data.a value ...]`."""
    helped = "--help" in words or "-h" in words
    if not helped and words[:1] != ["inspect"]:
        raise ConfigError("there is one command on data: heed data inspect PATH [--tokenizer T]")
    if helped:
        from heed.cli.help import verb_help

        text = "Show what a data set would teach, and what would be lost"
        shown = verb_help("data inspect", text, InspectConfig)
        print(shown.replace("[FILE.toml ...] [--a.b value ...] [--print-config]",
                            "PATH ... [--tokenizer T] [--data.a value ...]"))  # fmt: skip
        return OK
    config = read(words[1:])
    from heed.data.inspect import inspect

    print("\n".join(inspect(config.data, config.tokenizer)))
    return OK


def read(words: list[str]) -> InspectConfig:
    """Read the words: bare ones are paths of data, and those that end in .toml are settings."""
    bare, _, _ = split_arguments(slots_of(InspectConfig), words)
    flags = list(words)
    for word in bare:
        flags.remove(word)
    files = [word for word in bare if word.endswith(".toml")]
    paths = [word for word in bare if not word.endswith(".toml")]
    for path in paths:
        flags += ["--data.path", path]
    return load_config(InspectConfig, files, flags)
