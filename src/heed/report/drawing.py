"""The parts of a chart: axes with round ticks, dots, rules and words as escaped SVG.

Colours are CSS classes, so that a chart follows the page into the dark and onto paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from heed.ids import content_hash
from heed.report import numbers

CHARACTER = 6.6
"""Width of a character of a chart's text, in pixels, on the safe side."""
NOTHING = Markup("")


@dataclass(frozen=True)
class Axis:
    """A linear map from values to pixels, with round ticks."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...] = field(default=())

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def axis(
    values: Sequence[float],
    start: float,
    end: float,
    num: int,
    *,
    snug: bool,
    whole: bool = False,
) -> Axis:
    """Make an axis over `values` with about `num` ticks at 1, 2 or 5 times a power of ten.

    `snug` ends at the data; otherwise the axis reaches out to the next tick. `whole` keeps ticks
    on whole numbers.
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-3):
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / max(num, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 5) if m * power >= raw * 0.75), 10 * power)
    step = max(1.0, step) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if snug:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    else:
        low, high = first * step, last * step
    ticks = tuple(round(i * step, 12) for i in range(first, last + 1))
    return Axis(low, high, start, end, ticks)


def tick(value: float, scale: Axis) -> str:
    """Write a tick with as many decimals as its axis needs."""
    step = scale.ticks[1] - scale.ticks[0] if len(scale.ticks) > 1 else abs(value) or 1.0
    if max(abs(t) for t in scale.ticks) >= 1e5 or step < 1e-4:
        return numbers.figure(value, 2)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    text = f"{value:.{decimals}f}"
    return "0" if float(text) == 0 else text.replace("-", numbers.MINUS)


def dot(
    x: float, y: float, radius: float, tone: str, tip: Markup = NOTHING, hollow: bool = False
) -> Markup:
    """Draw a dot; `tone` is its CSS class, `tip` a `<title>` element."""
    style = "dot hollow" if hollow else "dot"
    shape = '<circle class="{} {}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}">{}</circle>'
    return Markup(shape).format(style, tone, x, y, radius, tip)


def rule(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    """Draw a straight line."""
    shape = '<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
    return Markup(shape).format(style, x1, y1, x2, y2)


def words(x: float, y: float, text: str, anchor: str, style: str) -> Markup:
    """Write text at a point; `anchor` is start, middle or end."""
    shape = '<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>'
    return Markup(shape).format(style, x, y, anchor, text)


def svg(
    parts: Sequence[Markup], width: float, height: float, title: str, description: str
) -> Markup:
    """Close a drawing: the element, with what a screen reader says of it."""
    body = NOTHING.join(parts)
    key = content_hash([title, description, str(body), width], 10)
    return Markup(
        '<svg class="chart" viewBox="0 0 {w:.0f} {h:.0f}" role="img" '
        'aria-labelledby="t{k} d{k}"><title id="t{k}">{title}</title>'
        '<desc id="d{k}">{desc}</desc>{body}</svg>'
    ).format(w=width, h=height, k=key, title=title, desc=description, body=body)
