"""A number in any of its spellings becomes an exact fraction.

Read are signs, thousands (1,234 and 1'234, 1_234 and thin spaces), decimals, fractions (3/4,
\\frac{3}{4}, ¾), mixed numbers (1 3/4), powers of ten (1.2e3, 1.2 × 10^3), per cent, currency
signs, and the words hundred, thousand, million, billion and trillion. Not read are roots, π, and
sums: a number is what is written, not what could be computed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from heed.feedback.checkers.normalise import plain, unwrap_latex

Decimal = Literal[".", ","]

_MOST_DIGITS = 400
_MOST_EXPONENT = 400
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_CURRENCY = r"[$€£¥₹]"
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?![\d])(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>(?<![\w)\]}}])[-+]\s?)?(?:{_CURRENCY}\s?)?(?P<sign2>-)?"
    rf"(?:(?P<ten>10\^\(?(?P<power>[-+]?\d+)\)?)"
    rf"|(?P<whole>\d+)\s+(?P<top>\d+)\s?/\s?(?P<bottom>\d+)(?![\d/])"
    rf"|(?P<mantissa>{_DIGITS})"
    r"(?:(?P<exp>[eE][-+]?\d+)(?![\w.])|\s?\*\s?10\s?\^\s?\(?(?P<tens>[-+]?\d+)\)?"
    rf"|\s?/\s?(?P<den>{_DIGITS})(?![\d/])(?!\s?/\s?\d))?)"
    rf"(?:\s?(?P<percent>%|per\s?cents?\b|percent\b)|\s?(?P<scale>{'|'.join(_SCALES)})\b)?"
)
_THIN = re.compile(r"(?<=\d)[\u00a0\u2009\u202f_'’](?=\d{3}(?!\d))")
_COMMA_DECIMALS = re.compile(r"\d{1,3}(?:\.\d{3})+(?:,\d+)?|\d+,\d+")
_DATE = re.compile(r"(?<![\d/])\d+(?:/\d+){2,}(?![\d/])")
_BEHIND = re.compile(r"\s?([^\d\s.;,!?=+*<>][^\d\n.;,!?=+*<>]{0,40})")
_UNIT = re.compile(r"\s*([^\d=+*^]*)")


@dataclass(frozen=True)
class Number:
    """A number that was read.

    Args:
        value: exact; of `50%` it is 1/2.
        percent: whether it was written in per cent.
        unit: what stands behind it, such as `km` or `km on Monday`.
    """

    value: Fraction
    percent: bool = False
    unit: str = ""


def find_numbers(text: str, decimal: Decimal = ".") -> list[Number]:
    """Return the numbers of a text in their order; one that is too long to be one is left out."""
    text = _spelled(text, decimal)
    found = []
    for match in _NUMBER.finditer(text):
        number = _number(match)
        unit = _BEHIND.match(text, match.end())
        if number is not None:
            found.append(Number(number.value, number.percent, unit[1].strip() if unit else ""))
    return found


def parse_number(value: Any, decimal: Decimal = ".") -> Number | None:
    """Read a value that is one number and perhaps a unit; None where it is not."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Number(Fraction(value))
    if isinstance(value, float):
        finite = value == value and abs(value) != float("inf")
        return Number(Fraction(repr(value))) if finite else None
    if not isinstance(value, str):
        return None
    text = _spelled(value, decimal).strip().rstrip(".").strip()
    match = _NUMBER.match(text)
    number = _number(match) if match else None
    if match is None or number is None:
        return None
    unit = _UNIT.fullmatch(text[match.end() :])
    return Number(number.value, number.percent, unit[1].strip()) if unit else None


def same_number(
    found: Number,
    wanted: Number,
    *,
    absolute: float = 0.0,
    relative: float = 0.0,
    percent: Literal["either", "fraction", "unit"] = "either",
) -> bool:
    """Whether two numbers are equal: |found - wanted| <= max(absolute, relative * |wanted|).

    Args:
        found: what was answered.
        wanted: the reference.
        percent: what a sign of per cent means where only one of the two has it: 20 % is 0.2
            (fraction), it is 20 (unit), or both are accepted (either).
    """
    pairs = [(found.value, wanted.value)]
    if found.percent != wanted.percent:
        as_units = (
            found.value * (100 if found.percent else 1),
            wanted.value * (100 if wanted.percent else 1),
        )
        pairs = {"fraction": pairs, "unit": [as_units], "either": [*pairs, as_units]}[percent]
    return any(_near(a, b, absolute, relative) for a, b in pairs)


def _near(a: Fraction, b: Fraction, absolute: float, relative: float) -> bool:
    return abs(a - b) <= max(Fraction(absolute), Fraction(relative) * abs(b))


def _spelled(text: str, decimal: Decimal) -> str:
    text = unwrap_latex(plain(_THIN.sub("", text)))
    if decimal == ",":
        swap = str.maketrans({".": ",", ",": "."})
        text = _COMMA_DECIMALS.sub(lambda m: m[0].translate(swap), text)
    return _DATE.sub(lambda m: m[0].replace("/", ", "), text)


def _number(match: re.Match[str]) -> Number | None:
    if len(match[0]) > _MOST_DIGITS:
        return None
    if match["ten"]:
        value = _scaled(Fraction(1), match["power"])
    elif match["whole"]:
        value = _over(Fraction(match["top"]), match["bottom"])
        value = None if value is None else value + int(match["whole"])
    else:
        value = Fraction(match["mantissa"].replace(",", ""))
        if match["exp"] or match["tens"]:
            value = _scaled(value, (match["exp"] or "").lstrip("eE") or match["tens"])
        elif match["den"]:
            value = _over(value, match["den"])
    if value is None:
        return None
    if (match["sign"] or "").strip() == "-" or match["sign2"]:
        value = -value
    value *= 10 ** _SCALES.get((match["scale"] or "").lower(), 0)
    return Number(value / 100 if match["percent"] else value, bool(match["percent"]))


def _scaled(value: Fraction, exponent: str) -> Fraction | None:
    # Without a bound, 1e999999999 fills the memory.
    if len(exponent) > 5 or abs(int(exponent)) > _MOST_EXPONENT:
        return None
    return value * Fraction(10) ** int(exponent)


def _over(value: Fraction, denominator: str) -> Fraction | None:
    under = Fraction(denominator.replace(",", ""))
    return value / under if under else None
