"""Texts that say the same become one text.

`normalise` applies its rules again and again until none changes anything, so it is idempotent. No
rule turns a text that says something into an empty one: of `The` or of `.` it stays as it is.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_VULGAR = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_SIGNS = {
    **dict.fromkeys(map(ord, "−‐‑‒–—―﹣－"), "-"),
    **dict.fromkeys(map(ord, "“”„«»″"), '"'),
    **dict.fromkeys(map(ord, "‘’‚′´`"), "'"),
    **dict.fromkeys(map(ord, "×∙⋅·"), "*"),
    ord("÷"): "/",
    ord("⁄"): "/",
    ord("∕"): "/",
    **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"), None),
}

_WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mathbb|mathcal|operatorname|"
    r"boxed|fbox|mbox|emph|underline|bm)\s*\{([^{}]*)\}"
)
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)")
_POWER = re.compile(r"\^\s*\{([^{}]*)\}")
_LATEX = (
    (re.compile(r"\\(?:left|right|displaystyle|limits|bigl?|bigr?|quad|qquad)(?![a-zA-Z])"), " "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(?<=\d)\\[,!](?=\d{3})"), ""),
    (re.compile(r"\\[,;:!> ]|\\[()\[\]]|(?<!\\)~"), " "),
    (re.compile(r"\^\s*\{?\\circ\}?"), "°"),
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\([$%&#_])"), r"\1"),
    (re.compile(r"\$\$?([^$]+)\$\$?"), r" \1 "),
)
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+)(?![,.]?\d{4}|,\d|\d)")
_CURRENCY = re.compile(r"[$€£¥₹]\s*(?=-?[.\d])")
_ARTICLE = re.compile(r"\b(?:a|an|the)\s+(?=\w\w)", re.IGNORECASE)
_STOPS = re.compile(r"[.](?!\d)|,(?!\d)|(?<!\d),|[;?]|(?<!\d)[!]|:(?!\d)|(?<!\d):|\"")
_QUOTES = re.compile(r"(?<!\w)'|'(?!\w)")
_TIGHT = re.compile(r"\s*([()\[\]{}<>/*^=+])\s*")
_KEPT_CHARACTERS = 200
_MARKS = " \t\n*_#"


def plain(text: str) -> str:
    """One spelling for each sign: NFKC, with ASCII minus, quotes and slashes, and `^` for powers.

    Characters that cannot be seen are removed; `x²` becomes `x^2`, and `1½` becomes `1 1/2`.
    """
    text = _VULGAR.sub(" ", text)
    text = _SUPERSCRIPT.sub(lambda m: "^" + m[0].translate(_SUPERSCRIPTS), text)
    return unicodedata.normalize("NFKC", text.translate(_SIGNS)).translate(_SIGNS)


def unwrap_latex(text: str) -> str:
    """Take LaTeX's wrappers and spaces away, and write its fractions and powers in a line."""
    for pattern, by in _LATEX:
        text = pattern.sub(by, text)
    text = _SHORT_FRACTION.sub(r"\1/\2", text)
    text = _FRACTION.sub(lambda m: f"{_grouped(m[1])}/{_grouped(m[2])}", text)
    return _WRAPPED.sub(r" \1 ", _POWER.sub(lambda m: "^" + _grouped(m[1]), text))


def _grouped(part: str) -> str:
    part = part.strip()
    return part if re.fullmatch(r"[\w.,-]*", part) else f"({part})"


def normalise(
    text: str, *, case: bool = False, articles: bool = False, punctuation: bool = False
) -> str:
    """Bring a text into the form in which answers are compared.

    Signs have one spelling, LaTeX is unwrapped, thousands are not separated, currency signs before
    a number, marks of emphasis at the ends and needless spaces are gone. Brackets stay.

    Args:
        case: keep the case of letters.
        articles: keep `a`, `an` and `the` before a word of two letters or more.
        punctuation: keep stops and quotes. Without, those between digits stay (3.5, 10:30), and
            so do apostrophes inside words.
    """
    settled = _settled if len(text) <= _KEPT_CHARACTERS else _settled.__wrapped__
    return settled(text, case, articles, punctuation)


@lru_cache(maxsize=4096)
def _settled(text: str, case: bool, articles: bool, punctuation: bool) -> str:
    while True:
        new = _once(text, case, articles, punctuation)
        if new == text:
            return text
        text = new


def _once(text: str, case: bool, articles: bool, punctuation: bool) -> str:
    text = unwrap_latex(plain(text))
    if not case:
        text = unicodedata.normalize("NFKC", text.casefold())
    text = _CURRENCY.sub("", _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text))
    text = _unless_empty(text.strip(_MARKS), text)
    if not punctuation:
        text = _unless_empty(_QUOTES.sub("", _STOPS.sub("", text)), text)
    if not articles:
        text = _unless_empty(_ARTICLE.sub("", text), text)
    return " ".join(_TIGHT.sub(r"\1", text).split())


def _unless_empty(new: str, old: str) -> str:
    return new if new.strip() else old
