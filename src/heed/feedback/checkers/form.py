"""The text has a form: it matches a pattern, has these tags in this order, or is JSON."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from heed.feedback.checkers.base import Checker, Row, Verdict, cannot_judge, right, wrong

_FENCE = re.compile(r"\A\s*```(?:json)?[ \t]*\n(.*?)\n?```\s*\Z", re.DOTALL)


class Regex(Checker):
    """1 where the text matches a pattern of Python's `re`.

    A pattern that can be read in exponentially many ways may take for ever on some texts; write
    it without nested repeats. `max_characters` bounds the text that is looked at.
    """

    word: ClassVar[str] = "regex"

    pattern: str = ""
    """The pattern; where it is empty, the row's own stands in the column `column`."""
    column: str = "pattern"
    """Column of the row's own pattern."""
    match: Literal["full", "search", "start"] = "full"
    """The whole text matches, some part of it, or its beginning."""
    ignore_case: bool = False
    """Case of letters does not count."""
    dot_all: bool = True
    """`.` matches line ends too."""
    max_characters: int = 20_000
    """A longer text does not match."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no pattern: {error}") from error
        return pattern

    def columns(self) -> tuple[str, ...]:
        """The column of the pattern, where the checker has none of its own."""
        return () if self.pattern else (self.column,)

    def judge(self, text: str, row: Row) -> Verdict:
        """Judge one text."""
        pattern = self.pattern or str(row[self.column])
        flags = re.IGNORECASE * self.ignore_case | re.DOTALL * self.dot_all
        try:
            compiled = re.compile(pattern, flags)
        except re.error as error:
            return cannot_judge(f"the row's {self.column} is no pattern: {error}")
        if len(text) > self.max_characters:
            return wrong(f"{len(text)} characters, more than {self.max_characters}")
        find = {"full": compiled.fullmatch, "search": compiled.search, "start": compiled.match}
        matches = find[self.match](text.strip() if self.match == "full" else text)
        return right("matches") if matches else wrong("does not match")


class Tags(Checker):
    """1 where the text is these tags, each once, in this order, and nothing but space between."""

    word: ClassVar[str] = "tags"

    tags: str = "think+answer"
    """Names of the tags, joined by +."""
    partial: bool = False
    """Give the share of the tags that stand once and in order, instead of all or nothing."""
    outside: bool = False
    """Text outside the tags is allowed."""
    empty: bool = False
    """A tag may be empty."""

    @field_validator("tags")
    @classmethod
    def _named(cls, tags: str) -> str:
        names = tags.split("+")
        if len(set(names)) < len(names) or not all(re.fullmatch(r"[\w-]+", n) for n in names):
            raise ValueError(f"{tags!r}; give different names joined by +, such as think+answer")
        return tags

    def judge(self, text: str, row: Row) -> Verdict:
        """Judge one text; each tag has a part, 1 where it stands once and in its place."""
        names, at, spans, good = self.tags.split("+"), 0, [], {}
        for name in names:
            opening, closing = f"<{name}>", f"</{name}>"
            once = text.count(opening) == 1 and text.count(closing) == 1
            start, end = text.find(opening), text.find(closing)
            inside = text[start + len(opening) : end] if once and start < end else ""
            good[name] = bool(once and at <= start < end and (self.empty or inside.strip()))
            if good[name]:
                at = end + len(closing)
                spans.append((start, at))
        parts = {name: float(ok) for name, ok in good.items()}
        rest = _without(text, spans)
        clean = self.outside or not rest.strip()
        if all(good.values()) and clean:
            return right("all tags once and in order", **parts)
        bad = [name for name, ok in good.items() if not ok]
        reason = f"not once, in order and filled: {', '.join(bad)}" if bad else ""
        reason = reason or f"text outside the tags: {rest.strip()[:40]!r}"
        share = sum(parts.values()) / len(parts) if clean or bad else 0.0
        return Verdict(share if self.partial and bad else 0.0, reason, parts)


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    for start, end in reversed(spans):
        text = text[:start] + text[end:]
    return text


class Json(Checker):
    """1 where the text is one JSON value (RFC 8259: no NaN, no name twice), with these keys."""

    word: ClassVar[str] = "json"

    keys: str = ""
    """Keys that the object must have, joined by +; without, any JSON value will do."""
    fence: bool = True
    """One fence of three backticks around the value is allowed."""
    kind: Literal["any", "object", "array"] = "any"
    """What the value must be."""

    def judge(self, text: str, row: Row) -> Verdict:
        """Judge one text."""
        fenced = _FENCE.match(text) if self.fence else None
        try:
            value = json.loads(
                fenced[1] if fenced else text,
                parse_constant=_refuse,
                object_pairs_hook=_once_each,
            )
        except (ValueError, RecursionError) as error:
            return wrong(f"no JSON: {str(error)[:80]}", parses=0.0)
        kinds: dict[str, type] = {"object": dict, "array": list, "any": object}
        if not isinstance(value, kinds[self.kind]):
            return wrong(f"a {type(value).__name__}, not an {self.kind}", parses=1.0)
        wanted = [key for key in self.keys.split("+") if key]
        missing = [k for k in wanted if not (isinstance(value, dict) and k in value)]
        if missing:
            return wrong(f"without {', '.join(missing)}", parses=1.0)
        return right("JSON", parses=1.0)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found
