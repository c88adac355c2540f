"""Texts of strangers as HTML that can do nothing: Markdown, or as written, with hidden signs shown.

HTML in a text is shown as text. Images and links become words: nothing is loaded, nothing can be
clicked. Characters that a reader cannot see, or that turn the direction of a line, become visible
tokens such as U+202E, in Markdown and in the raw view.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

TAGS = {
    "p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "span",
    "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
CLASSES = {"span": {"link", "address", "image"}}
_FIRST_HEADING = 3
"""Headings inside a text stand below the headings of the page."""

# Two characters of the private use area bracket a token on its way through Markdown; the text's
# own ones are shown as tokens, so none can be forged.
_OPEN, _CLOSE = "\ue000", "\ue001"
_JOINERS = "\u200c\u200d"
_ALWAYS_SHOWN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff9-\ufffb"
    "\ue000\ue001\U000e0000-\U000e0fff\ud800-\udfff]"
)
_JOINED = re.compile(f"[{_JOINERS}]")
_JOINABLE = {"So", "Sk", "Lo", "Mn", "Mc"}
_TOKEN = re.compile(f"{_OPEN}([0-9A-F]{{4,6}}){_CLOSE}")


@lru_cache(maxsize=512)
def as_markdown(text: str) -> str:
    """Render Markdown as safe HTML."""
    html = _MARKDOWN.render(_bracketed(_newlines(text)), {"links": []})
    clean = nh3.clean(
        html, tags=TAGS, attributes={"ol": {"start"}}, allowed_classes=CLASSES, url_schemes=set(),
        link_rel=None,
    )  # fmt: skip
    return _with_tokens(clean)


@lru_cache(maxsize=512)
def as_written(text: str) -> str:
    """Return the text itself as HTML: every character is there, or its token."""
    return _with_tokens(escape(_bracketed(_newlines(text))))


def shown_plain(text: str) -> str:
    """Make a short text, such as a name or a title, visible as plain text."""
    return _TOKEN.sub(lambda found: f"[U+{found[1]}]", _bracketed(text))


def _newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _bracketed(text: str) -> str:
    shown = _ALWAYS_SHOWN.sub(lambda found: _token(found[0]), text)
    return _JOINED.sub(lambda found: _joiner(found, shown), shown)


def _token(sign: str) -> str:
    return f"{_OPEN}{ord(sign):04X}{_CLOSE}"


def _joiner(found: re.Match[str], text: str) -> str:
    """Keep a joiner where scripts and emoji need it; elsewhere it hides something."""
    before, after = text[: found.start()][-1:], text[found.end() :][:1]
    kinds = [unicodedata.category(sign) for sign in (before, after) if sign]
    needed = len(kinds) == 2 and all(kind in _JOINABLE for kind in kinds)
    return found[0] if needed else _token(found[0])


def _with_tokens(html: str) -> str:
    def visible(found: re.Match[str]) -> str:
        name = unicodedata.name(chr(int(found[1], 16)), "control character").lower()
        return f'<span class="sign" title="{escape(name)}">U+{found[1]}</span>'

    return _TOKEN.sub(visible, html)


def _link_open(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    env["links"].append((str(tokens[at].attrs.get("href", "")), tokens[at + 1].content))
    return '<span class="link">'


def _link_close(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    address, text = env["links"].pop()
    if address == text:
        return "</span>"
    return f'</span> <span class="address">({escape(address)})</span>'


def _image(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    address = escape(str(tokens[at].attrs.get("src", "")))
    words = f"image not shown: {escape(tokens[at].content) or 'no description'}"
    return f'<span class="image">[{words}, {address}]</span>'


def _lower_headings(state: Any) -> None:
    for token in state.tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + _FIRST_HEADING - 1, 6)}"


def _make_markdown() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    made.core.ruler.push("lower_headings", _lower_headings)
    made.add_render_rule("link_open", _link_open)
    made.add_render_rule("link_close", _link_close)
    made.add_render_rule("image", _image)
    # Addresses are shown and never followed, so those that could do harm are shown too.
    made.validateLink = lambda url: True  # type: ignore[method-assign]
    return made


_MARKDOWN = _make_markdown()
