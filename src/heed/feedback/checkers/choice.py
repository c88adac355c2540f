"""The answer is the option: by its letter, or by its text.

An answer counts where it names exactly one option. One that names several, whose letter and text
disagree, or that only mentions letters on the way, names none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any, ClassVar, Literal

from heed.feedback.checkers.base import Checker, Row, Verdict, cannot_judge, right, wrong
from heed.feedback.checkers.extract import find_answer
from heed.feedback.checkers.normalise import normalise

_LETTER = r"[A-Za-z]"
_LEADING = re.compile(
    rf"[\s*_`$]*(?:option\s+|choice\s+)?"
    rf"(?:\(({_LETTER})\)|\[({_LETTER})\]|({_LETTER})(?=[).:,\]*]|\s|$))[).:,\]*_`$]*",
    re.IGNORECASE,
)
_MENTIONED = re.compile(
    rf"\(([A-Z])\)|(?:^|\n)\s*\**([A-Z])(?:[).:](?=\s|\*|$)|\**\s*(?:\n|$))|"
    rf"\b(?:[Oo]ption|[Cc]hoice)\s+\(?({_LETTER})\b"
)
_LONE = re.compile(r"(?:(?<![\w'])([B-HJ-Z])|(?<=\bor )(A)|(?<=[,/&] )(A)|(?<=[,/&])(A))(?![\w'])")


class Choice(Checker):
    """1 where the final answer names the right option and no other."""

    word: ClassVar[str] = "choice"

    answer: str = "answer"
    """Column of the right option: its letter, as A or (A), its text, or its place from 0."""
    choices: str = "choices"
    """Column of the options: texts in order, or letter -> text, or {text: [...], label: [...]}.
    Without such a column only letters count."""
    where: Literal["auto", "tag", "boxed", "hashes", "phrase", "whole"] = "auto"
    """Where the final answer stands: behind a marker, the whole text, or the first that is."""

    def columns(self) -> tuple[str, ...]:
        """The column of the answer."""
        return (self.answer,)

    def judge(self, text: str, row: Row) -> Verdict:
        """Judge one text; `found` says whether it named exactly one option."""
        options = options_of(row.get(self.choices))
        wanted = _wanted(row[self.answer], options)
        if wanted is None:
            return cannot_judge(f"the row's {self.answer} {row[self.answer]!r} names no option")
        found = find_answer(text, self.where)
        whole = find_answer(text, "whole") if self.where == "auto" else None
        if whole is not None and len(_by_text(whole.text, options)) == 1:
            found = whole  # an option's own text may hold what looks like a marker
        if found is None or not found.text:
            return wrong(f"no answer ({self.where})", found=0.0)
        named = options_named(found.text, options, marked=found.where != "whole")
        if len(named) != 1:
            names = " and ".join(sorted(named)) or "no option"
            return wrong(f"{found.where}: names {names}", found=0.0)
        letter = named.pop()
        if letter == wanted:
            return right(f"{found.where}: {letter}", found=1.0)
        return wrong(f"{found.where}: {letter}, not {wanted}", found=1.0)


def options_of(value: Any) -> dict[str, str]:
    """Letter -> text of a column of options; empty where there is none."""
    if value is None:
        return {}
    if isinstance(value, Mapping) and isinstance(value.get("text"), (list, tuple)):
        labels = value.get("label") or ascii_uppercase
        return {str(k).upper(): str(v) for k, v in zip(labels, value["text"], strict=False)}
    if isinstance(value, Mapping):
        return {str(k).strip("() .").upper(): str(v) for k, v in value.items() if v is not None}
    return {letter: str(text) for letter, text in zip(ascii_uppercase, value, strict=False)}


def options_named(answer: str, options: Mapping[str, str], *, marked: bool) -> set[str]:
    """The letters of the options that an answer names.

    Args:
        answer: the final answer, or a whole text.
        options: letter -> text; empty where only letters count.
        marked: whether it stood behind a marker, so that a letter at its beginning is an answer.
    """
    by_text = _by_text(answer, options)
    if by_text:
        return by_text
    lead = _LEADING.match(answer)
    rest = answer[lead.end() :] if lead else ""
    if lead is not None:
        letter = next(group for group in lead.groups() if group).upper()
        # `a dog` begins with an article, `A dog` may: a lone letter is one where nothing follows.
        bare = lead[0].strip() in (letter, letter.lower())
        counts = not re.match(r"\s*\w", rest) and (marked or not rest.strip()) if bare else True
        if counts and (not options or letter in options):
            return {letter, *_elsewhere(rest, letter, options)}
    return _mentioned(answer, options)


def _by_text(answer: str, options: Mapping[str, str]) -> set[str]:
    """Options whose text an answer is."""
    said = normalise(answer)
    return {letter for letter, text in options.items() if said and normalise(text) == said}


def _elsewhere(rest: str, letter: str, options: Mapping[str, str]) -> set[str]:
    """Options that the text behind a letter names: by their letters, or by being their text."""
    by_text = _by_text(rest, options)
    if letter in by_text:
        return set()
    lone = {k for k in map(_group, _LONE.finditer(rest)) if not options or k in options}
    return lone | by_text | _mentioned(rest, options)


def _group(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group)


def _mentioned(text: str, options: Mapping[str, str]) -> set[str]:
    letters = {next(g for g in match if g).upper() for match in _MENTIONED.findall(text)}
    letters = {letter for letter in letters if not options or letter in options}
    if letters:
        lone = set(map(_group, _LONE.finditer(text)))
        return letters | {letter for letter in lone if not options or letter in options}
    said = f" {normalise(text)} "
    inside = {k: t for k, t in ((k, normalise(t)) for k, t in options.items()) if f" {t} " in said}
    # An option that is part of another one named is not named by it.
    return {
        k
        for k, text in inside.items()
        if not any(text != other and text in other for other in inside.values())
    }


def _wanted(value: Any, options: Mapping[str, str]) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        letters = list(options) or list(ascii_uppercase)
        return letters[value] if 0 <= value < len(letters) else None
    text = str(value).strip()
    letter = text.strip("() .").upper()
    if letter in options or (not options and len(letter) == 1 and letter.isalpha()):
        return letter
    same = [k for k, option in options.items() if normalise(option) == normalise(text)]
    return same[0] if len(same) == 1 else None
