"""From a word on the command line to a checker: `check:numeric:relative=0.01:answer=target`."""

from __future__ import annotations

import difflib
import re

from pydantic import ValidationError

from heed.errors import ConfigError
from heed.feedback.checkers.base import Checker
from heed.feedback.checkers.choice import Choice
from heed.feedback.checkers.code import PythonTests
from heed.feedback.checkers.exact import Exact
from heed.feedback.checkers.form import Json, Regex, Tags
from heed.feedback.checkers.numeric import Numeric

PREFIX = "check:"

CHECKERS: dict[str, type[Checker]] = {
    kind.word: kind for kind in (Exact, Numeric, Choice, Regex, Tags, Json, PythonTests)
}
"""Word -> checker."""

_OPTION = re.compile(r":(?=[A-Za-z_]\w*=)")


def load_checker(word: str) -> Checker:
    """Make the checker that a word such as `check:numeric:relative=0.01` names.

    Settings are joined by colons as NAME=VALUE. A colon inside a value is no problem unless what
    follows it looks like a setting.

    Raises:
        ConfigError: there is no such checker or setting, or a value is not allowed.
    """
    kind, *pairs = _OPTION.split(word.removeprefix(PREFIX))
    found = CHECKERS.get(kind)
    if found is None:
        near = difflib.get_close_matches(kind, CHECKERS, n=1, cutoff=0.5)
        hint = f"; did you mean check:{near[0]}?" if near else ""
        raise ConfigError(
            f"there is no checker {kind!r}{hint} There are {', '.join(CHECKERS)}; settings follow "
            "as in check:numeric:relative=0.01"
        )
    settings = read_settings(word, pairs, tuple(found.model_fields))
    try:
        return found.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{word}: {where}: {first['msg']}") from error


def split_word(word: str) -> tuple[str, list[str]]:
    """Split a word into what it names and its settings `NAME=VALUE`."""
    head, *pairs = _OPTION.split(word)
    return head, pairs


def read_settings(word: str, pairs: list[str], known: tuple[str, ...]) -> dict[str, str]:
    """Turn `NAME=VALUE` texts into a dict.

    Raises:
        ConfigError: a name is not among the known ones, or stands twice.
    """
    settings: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise ConfigError(
                f"{word}: there is no setting {name!r}{hint}. There are {', '.join(known)}"
            )
        if name in settings:
            raise ConfigError(f"{word}: {name!r} is set twice; set it once")
        settings[name] = value
    return settings
