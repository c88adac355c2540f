"""Write numbers for people: significant digits, true minus signs, times, sizes and shares."""

from __future__ import annotations

import math
from datetime import datetime

MINUS = "\N{MINUS SIGN}"
THIN = "\N{NARROW NO-BREAK SPACE}"
LEVEL = f"95{THIN}%"
"""The level of all intervals."""


def figure(value: float | None, digits: int = 3) -> str:
    """Write a number with `digits` significant digits; "not known" for None.

    Integers of up to six digits are written whole, with a thin space between thousands.
    """
    if value is None or not math.isfinite(value):
        return "not known"
    if value == 0:
        return "0"
    size = abs(value)
    if float(value).is_integer() and size < 1e6:
        return whole(value)
    if size >= 1e6 or size < 1e-3:
        mantissa, exponent = f"{value:.{max(digits - 1, 0)}e}".split("e")
        return f"{_sign(mantissa)}e{_sign(str(int(exponent)))}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    text = f"{value:,.{decimals}f}".replace(",", THIN)
    return _sign(text)


def setting(value: float | None) -> str:
    """Write a number that a person chose, without digits that say nothing."""
    return "not known" if value is None else _sign(f"{value:g}")


def interval(estimate: float, low: float, high: float) -> tuple[str, str, str]:
    """Write an estimate and its ends with as many decimals as the interval's width carries."""
    width = high - low
    if not math.isfinite(width) or width <= 0 or width >= 1e5 or width < 1e-5:
        return figure(estimate), figure(low), figure(high)
    decimals = max(0, 1 - math.floor(math.log10(width)))
    one, two, three = (_sign(f"{v:.{decimals}f}") for v in (estimate, low, high))
    return one, two, three


def fixed(value: float, decimals: int) -> str:
    """Write a number with so many decimals, for columns that line up."""
    return _sign(f"{value:.{decimals}f}")


def change(start: float, end: float) -> str:
    """Write a change with the same decimals on both sides, three digits of the larger one."""
    largest = max(abs(start), abs(end))
    if largest >= 1e5 or 0 < largest < 1e-3:
        return f"{figure(start)} → {figure(end)}"
    decimals = max(0, 2 - math.floor(math.log10(largest))) if largest else 0
    one, two = (_sign(f"{v:.{decimals}f}") for v in (start, end))
    return f"{one} → {two}"


def whole(value: float) -> str:
    """Write a count, with a thin space between thousands from 10 000 on."""
    text = f"{round(value):,}" if abs(value) >= 10_000 else f"{round(value)}"
    return _sign(text.replace(",", THIN))


def share(value: float | None, decimals: int = 1) -> str:
    """Write a fraction of 1 as per cent."""
    if value is None or not math.isfinite(value):
        return "not known"
    return f"{_sign(f'{100 * value:.{decimals}f}')}{THIN}%"


def seconds(value: float | None) -> str:
    """Write a duration: 0.4 s, 42 s, 4 min 52 s, 1 h 07 min."""
    if value is None or not math.isfinite(value) or value < 0:
        return "not known"
    if value < 9.95:
        return f"{value:.1f}{THIN}s"
    total = round(value)
    if total < 60:
        return f"{total}{THIN}s"
    minutes, rest = divmod(total, 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {rest:02d}{THIN}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{THIN}h {minutes:02d}{THIN}min"


def size(value: float | None) -> str:
    """Write a number of bytes in MiB or GiB."""
    if value is None or not math.isfinite(value) or value < 0:
        return "not known"
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= scale:
            return f"{value / scale:.{2 if unit == 'GiB' else 0}f}{THIN}{unit}"
    return f"{round(value)}{THIN}bytes"


def moment(value: object) -> str:
    """Write an ISO time as "23 November 2026, 14:20 UTC"; the text itself where it is not one."""
    try:
        when = datetime.fromisoformat(str(value))
    except ValueError:
        return str(value) if value else "not known"
    zone = f" {when.tzname()}" if when.tzinfo else ""
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"


def _sign(text: str) -> str:
    return text.replace("-", MINUS)
