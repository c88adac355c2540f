"""Estimates with their intervals, bars, and the reliability diagram, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from heed.report import numbers
from heed.report.drawing import NOTHING, Axis, axis, dot, rule, svg, words


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval, on a row of its own."""

    label: str
    estimate: float
    low: float | None = None
    high: float | None = None
    tone: str = "one"
    text: str = ""
    """Written at the end of the row instead of the number."""


def intervals(
    rows: Sequence[Interval],
    *,
    title: str,
    description: str,
    reference: tuple[float, str] | None = None,
    width: int = 360,
    shares: bool = True,
) -> Markup:
    """Draw estimates with whiskers, one below the other on a shared scale.

    Args:
        rows: from top to bottom.
        title: read out by screen readers.
        description: the same in words.
        reference: a value to compare with, and its label.
        width: of the drawing in CSS pixels.
        shares: write ticks as per cent.
    """
    values = [v for r in rows for v in (r.estimate, r.low, r.high) if v is not None]
    values += [reference[0]] if reference else []
    across = axis(values, 8, width - 14, 4, snug=False)
    write = (lambda v: numbers.share(v, 0)) if shares else numbers.figure
    top, height = (22 if reference else 4), 42
    bottom = top + height * len(rows)
    parts = [rule(across(t), top, across(t), bottom, "grid") for t in across.ticks]
    if reference:
        x = across(reference[0])
        parts.append(rule(x, top, x, bottom, "level"))
        near_end = x > width * 0.7
        parts.append(words(x, top - 8, reference[1], "end" if near_end else "start", "note"))
    for i, row in enumerate(rows):
        y = top + height * i + 29
        parts.append(words(0, y - 14, row.label, "start", "label"))
        value = row.text or (numbers.share(row.estimate) if shares else write(row.estimate))
        parts.append(words(width, y - 14, value, "end", "value"))
        if row.low is not None and row.high is not None:
            whisker = '<line class="whisker {}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>'
            parts.append(Markup(whisker).format(row.tone, across(row.low), across(row.high), y, y))
        parts.append(dot(across(row.estimate), y, 5, row.tone))
    for t in across.ticks:
        parts.append(words(across(t), bottom + 16, write(t), "middle", "tick"))
    return svg(parts, width, bottom + 22, title, description)


def bars(
    rows: Sequence[tuple[str, float, str]], *, title: str, description: str, width: int = 360
) -> Markup:
    """Draw one bar for each (label, value from 0, text), the label above the bar."""
    longest = max(value for _, value, _ in rows) or 1.0
    parts = []
    for i, (label, value, text) in enumerate(rows):
        y = 34 * i + 13
        parts.append(words(0, y, label, "start", "label"))
        parts.append(words(width, y, text, "end", "value"))
        for style, length in (("track", width), ("bar", max(width * value / longest, 1.5))):
            shape = '<rect class="{}" x="0" y="{}" width="{:.1f}" height="8" rx="2"/>'
            parts.append(Markup(shape).format(style, y + 6, length))
    return svg(parts, width, 34 * len(rows), title, description)


def reliability(
    points: Sequence[tuple[float, float, int]], *, title: str, description: str, width: int = 330
) -> Markup:
    """Draw predicted against observed shares, (predicted, observed, n), beside the diagonal.

    The area of a point grows with its n.
    """
    left, size = 42.0, width - 56.0
    across = axis([1.0, *(x for x, _, _ in points)], left, left + size, 4, snug=False)
    up = axis([1.0, across.low, *(y for _, y, _ in points)], size * 0.8 + 8, 8, 4, snug=False)
    bottom = size * 0.8 + 8
    parts = []
    for t in up.ticks:
        parts.append(rule(left, up(t), left + size, up(t), "grid"))
        parts.append(words(left - 6, up(t) + 4, numbers.share(t, 0), "end", "tick"))
    for t in across.ticks:
        parts.append(words(across(t), bottom + 16, numbers.share(t, 0), "middle", "tick"))
    parts.append(rule(across(across.low), up(across.low), across(1), up(1), "level"))
    late = across.low + 0.88 * (1 - across.low)
    parts.append(words(across(late) - 8, up(late), "calibrated", "end", "note"))
    most = max((n for _, _, n in points), default=1) or 1
    for predicted, observed, n in points:
        tip = Markup("<title>predicted {}, observed {}, n = {}</title>").format(
            numbers.share(predicted), numbers.share(observed), numbers.whole(n)
        )
        radius = 3 + 6 * math.sqrt(n / most)
        parts.append(dot(across(predicted), up(observed), radius, "proxy", tip))
    parts.append(words(left + size, bottom + 33, "predicted share", "end", "axis"))
    return svg(parts, width, bottom + 39, title, description)


def glyph(low: float | None, estimate: float, high: float | None, verdict: str) -> Markup:
    """Draw a small interval of a share between 0 and 1 with one half marked."""
    across = Axis(0, 1, 4, 216)
    parts = [rule(4, 11, 216, 11, "grid"), rule(110, 2, 110, 20, "level")]
    if low is not None and high is not None:
        whisker = '<line class="whisker {}" x1="{:.1f}" x2="{:.1f}" y1="11" y2="11"/>'
        parts.append(Markup(whisker).format(verdict, across(low), across(high)))
    parts.append(dot(across(estimate), 11, 4, verdict))
    body = NOTHING.join(parts)
    frame = '<svg class="glyph" viewBox="0 0 220 22" aria-hidden="true">{}</svg>'
    return Markup(frame).format(body)
