"""`heed data`: what a data set would teach, and the same data in another format."""

from __future__ import annotations

from heed.cli.command import OK, Context
from heed.config import load_config
from heed.data.dialects.convert import ConvertConfig
from heed.errors import ConfigError
from heed.flags import slots_of, split_arguments
from heed.settings import DataSettings, Settings


class InspectConfig(Settings):
    """Which data set to look at, and with which tokenizer."""

    data: DataSettings
    tokenizer: str | None = None
    """Folder or hub id of a tokenizer; without one lengths are counted in characters."""


INSPECT = "heed data inspect PATH ... [--tokenizer T] [--data.a value ...]"
CONVERT = "heed data convert IN OUT.jsonl [--format F] [--to KIND] [--a value ...]"


def main(words: list[str], context: Context) -> int:
    """Run `heed data inspect PATH ...` or `heed data convert IN OUT ...`."""
    helped = "--help" in words or "-h" in words
    if words[:1] == ["convert"]:
        return _convert(words[1:], helped)
    if not helped and words[:1] != ["inspect"]:
        raise ConfigError(f"there are two commands on data: {INSPECT}, and {CONVERT}")
    if helped:
        text = "Show what a data set would teach, and what would be lost"
        return _help("data inspect", text, InspectConfig, INSPECT)
    config = read(words[1:])
    from heed.data.inspect import inspect

    print("\n".join(inspect(config.data, config.tokenizer)))
    return OK


def _convert(words: list[str], helped: bool) -> int:
    if helped:
        text = "Convert a data set from one format to another"
        return _help("data convert", text, ConvertConfig, CONVERT)
    config = read_convert(words)
    from heed.data.dialects.convert import convert

    print("\n".join(convert(config).lines()))
    return OK


def _help(verb: str, text: str, config: type[Settings], usage: str) -> int:
    from heed.cli.help import verb_help

    shown = verb_help(verb, text, config)
    given = f"heed {verb} [FILE.toml ...] [--a.b value ...] [--print-config]"
    print(shown.replace(given, usage))
    return OK


def read(words: list[str]) -> InspectConfig:
    """Read the words: bare ones are paths of data, and those that end in .toml are settings."""
    bare, flags = _split(InspectConfig, words)
    files = [word for word in bare if word.endswith(".toml")]
    paths = [word for word in bare if not word.endswith(".toml")]
    for path in paths:
        flags += ["--data.path", path]
    return load_config(InspectConfig, files, flags)


def read_convert(words: list[str]) -> ConvertConfig:
    """Read the words: the first bare one is what is read, the second what is written.

    Raises:
        ConfigError: there are more than two, or a setting is wrong.
    """
    bare, flags = _split(ConvertConfig, words)
    files = [word for word in bare if word.endswith(".toml")]
    places = [word for word in bare if not word.endswith(".toml")]
    if len(places) > 2:
        raise ConfigError(f"found {' '.join(places)}; give what is read and what is written")
    for name, place in zip(("path", "out"), places, strict=False):
        flags += [f"--{name}", place]
    return load_config(ConvertConfig, files, flags)


def _split(config: type[Settings], words: list[str]) -> tuple[list[str], list[str]]:
    """Split words into bare ones and flags."""
    bare, _, _ = split_arguments(slots_of(config), words)
    flags = list(words)
    for word in bare:
        flags.remove(word)
    return bare, flags
