"""Find where in a text its final answer stands.

    tag     what stands between the last </answer> and the last <answer> before it
    boxed   the last \\boxed{...}, braces counted
    hashes  what follows the last ####, to the end of the line (GSM8K)
    phrase  what follows the last `the answer is`, `answer:` or a line that begins with `A:`,
            to the end of the sentence or line
    whole   the whole text

What a model thinks aloud is not its answer: what stands before the last `</think>` is cut off, and
a text whose `<think>` never ends has no answer. A text may repeat a marker; the last one counts,
so that naming many answers is worth no more than naming the last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Where = Literal["auto", "tag", "boxed", "hashes", "phrase", "whole"]

_OPENING, _CLOSING = (re.compile(tag, re.IGNORECASE) for tag in ("<answer>", "</answer>"))
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")
_PHRASE = re.compile(
    r"(?:\b(?:answer|(?:correct|right|best|final)\s+(?:option|choice))\s*(?:is|=|:)\s*:?|"
    r"^[ \t*]*A\s*:)[ \t*]*\n?",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")


@dataclass(frozen=True)
class Found:
    """A final answer.

    Args:
        text: as it stands, stripped.
        where: which marker it stood behind, `whole` for none.
    """

    text: str
    where: str


def find_answer(text: str, where: Where = "auto") -> Found | None:
    """Find the final answer of a text.

    Args:
        text: a completion, or a reference that is written like one.
        where: the marker to look for; `auto` takes the first that there is, in the order of this
            page, and the whole text where there is none.

    Returns:
        The answer, or None where the marker is absent or the thinking does not end.
    """
    said = after_thinking(text)
    if said is None:
        return None
    finders = {"tag": _tag, "boxed": _boxed, "hashes": _hashes, "phrase": _phrase}
    if where == "whole":
        return Found(said.strip(), "whole")
    if where != "auto":
        found = finders[where](said)
        return None if found is None else Found(found.strip(), where)
    for name, finder in finders.items():
        found = finder(said)
        if found is not None:
            return Found(found.strip(), name)
    return Found(said.strip(), "whole")


def has_marker(text: str) -> bool:
    """Whether a text marks its answer by a tag, a box or hashes."""
    return any(finder(text) is not None for finder in (_tag, _boxed, _hashes))


def after_thinking(text: str) -> str | None:
    """Return what follows the last `</think>`; None where a `<think>` does not end."""
    opened, closed = text.rfind("<think>"), text.rfind("</think>")
    if opened > closed:
        return None
    return text if closed < 0 else text[closed + len("</think>") :]


def _tag(text: str) -> str | None:
    closing = [match.start() for match in _CLOSING.finditer(text)]
    if not closing:
        return None
    opening = [match.end() for match in _OPENING.finditer(text, 0, closing[-1])]
    return text[opening[-1] : closing[-1]] if opening else None


def _boxed(text: str) -> str | None:
    starts = {match.end() for match in _BOXED.finditer(text)}
    if not starts:
        return None
    best, opened = None, []
    for at in range(min(starts), len(text)):
        if text[at] == "{":
            opened.append(at)
        elif text[at] == "}" and opened:
            start = opened.pop()
            if start in starts and (best is None or start > best[0]):
                best = (start, at)
    return text[best[0] + 1 : best[1]] if best else None


def _hashes(text: str) -> str | None:
    _, mark, rest = text.rpartition("####")
    return rest.strip().partition("\n")[0] if mark and rest.strip() else None


def _phrase(text: str) -> str | None:
    ends = [match.end() for match in _PHRASE.finditer(text)]
    if not ends:
        return None
    rest = text[ends[-1] :].lstrip()
    end = _SENTENCE_END.search(rest)
    answer = rest[: end.start()] if end else rest
    return answer if answer.strip() else None
