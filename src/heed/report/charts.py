"""Curves and points over a shared horizontal axis, as inline SVG.

Every chart carries a title and a description; what is not known is a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from heed.report import numbers
from heed.report.drawing import CHARACTER, NOTHING, Axis, axis, dot, rule, svg, tick, words
from heed.report.parting import smooth

_MOST_POINTS = 240


@dataclass(frozen=True)
class Line:
    """A curve, or points. `tone` is a CSS class: proxy, true, one, two, quiet."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    tone: str = "one"
    window: int = 1
    """Points of the moving mean that is drawn bold over the pale measurements; 1 draws neither."""
    dots: bool = False
    hollow: bool = False
    curve: bool = True
    """Join the points."""
    pale: bool = False
    """Draw the curve thin and pale, as a background."""
    ends: Sequence[tuple[float, float]] = ()
    """Low and high end of each point's interval; none are drawn where there are none."""


@dataclass(frozen=True)
class Panel:
    """Lines that share a vertical axis."""

    title: str
    lines: Sequence[Line]
    levels: Sequence[tuple[float, str]] = ()
    """Horizontal lines to compare with: value and label."""
    include: Sequence[float] = ()
    """Values that the axis must reach."""


@dataclass(frozen=True)
class Mark:
    """A vertical line through all panels of a chart; what comes after it is shaded."""

    x: float
    label: str


def plot(
    panels: Sequence[Panel],
    *,
    title: str,
    description: str,
    x_label: str,
    width: int = 360,
    panel_height: int = 132,
    marks: Sequence[Mark] = (),
    include: Sequence[float] = (),
) -> Markup:
    """Draw panels one above the other on a shared horizontal axis.

    Args:
        panels: from top to bottom.
        title: read out by screen readers.
        description: what the curves do, in words.
        x_label: below the axis.
        width: of the drawing, in CSS pixels at its natural size.
        panel_height: of one panel without its heading, in pixels.
        marks: vertical lines with labels.
        include: values that the horizontal axis must reach.

    Returns:
        an `<svg>` element.
    """
    scales = [_y_axis(panel, panel_height) for panel in panels]
    left = max(12 + CHARACTER * max(len(tick(t, a)) for t in a.ticks) for a in scales)
    xs = [x for panel in panels for line in panel.lines for x in line.x] + list(include)
    if xs and 0 < min(xs) <= 0.05 * max(xs):
        xs.append(0.0)
    # There is no half step.
    whole = all(float(x).is_integer() for x in xs)
    across = axis(xs, left, width - 10, 6 if width > 500 else 4, snug=True, whole=whole)
    parts: list[Markup] = []
    top = 18.0 if marks else 0.0
    bottom = top
    for panel, scale in zip(panels, scales, strict=True):
        body = bottom + 26
        parts += [_after(mark, across, body, panel_height) for mark in marks]
        parts.append(_panel(panel, scale, across, body, width))
        bottom = body + panel_height + 14
    inner_bottom = bottom - 14
    for mark in marks:
        parts.append(_mark(mark, across, top, inner_bottom, width))
    for t in across.ticks:
        parts.append(words(across(t), inner_bottom + 15, tick(t, across), "middle", "tick"))
    parts.append(words(width - 10, inner_bottom + 31, x_label, "end", "axis"))
    return svg(parts, width, inner_bottom + 37, title, description)


def _y_axis(panel: Panel, height: float) -> Axis:
    values = [v for line in panel.lines for v in line.y if v is not None]
    values += [end for line in panel.lines for ends in line.ends for end in ends]
    values += [value for value, _ in panel.levels] + list(panel.include)
    return axis(values, height, 0, max(2, round(height / 40)), snug=False)


def _panel(panel: Panel, scale: Axis, across: Axis, top: float, width: float) -> Markup:
    parts = [_legend(panel, top - 12, width)]
    for t in scale.ticks:
        y = top + scale(t)
        parts.append(rule(across.start, y, across.end, y, "grid"))
        parts.append(words(across.start - 6, y + 4, tick(t, scale), "end", "tick"))
    for value, label in panel.levels:
        y = top + scale(value)
        parts.append(rule(across.start, y, across.end, y, "level"))
        parts.append(words(across.end, y - 4, label, "end", "note"))
    parts += [_line(line, scale, across, top) for line in panel.lines]
    return NOTHING.join(parts)


def _legend(panel: Panel, y: float, width: float) -> Markup:
    named = [line for line in panel.lines if line.name]
    parts = [words(0, y, panel.title, "start", "panel")] if panel.title else []
    if len(named) > 1 or (named and not panel.title):
        x = width - 10.0
        for line in reversed(named):
            x -= CHARACTER * len(line.name)
            parts.append(words(x, y, line.name, "start", "key"))
            x -= 12
            parts.append(dot(x + 5, y - 4, 4, line.tone, hollow=line.hollow))
            x -= 16
    return NOTHING.join(parts)


def _line(line: Line, scale: Axis, across: Axis, top: float) -> Markup:
    y = list(line.y)
    bold = smooth(y, line.window) if line.window > 1 else y
    parts = []
    if line.window > 1:
        parts.append(_path(line, *_thin(line.x, y), scale, across, top, "pale"))
    if line.curve:
        style = "pale" if line.pale else "curve"
        parts.append(_path(line, *_thin(line.x, bold), scale, across, top, style))
    for px, (low, high) in zip(line.x, line.ends, strict=False):
        x = across(px)
        parts.append(rule(x, top + scale(low), x, top + scale(high), f"bar {line.tone}"))
    if line.dots:
        for px, py in zip(*_thin(line.x, y), strict=True):
            if py is not None:
                what = f"{line.name + ': ' if line.name else ''}{numbers.figure(py)}"
                tip = Markup("<title>{} at {}</title>").format(what, numbers.figure(px))
                parts.append(dot(across(px), top + scale(py), 3, line.tone, tip, line.hollow))
    return NOTHING.join(parts)


def _thin(x: Sequence[float], y: Sequence[float | None]) -> tuple[list[float], list[float | None]]:
    """Keep at most 240 points: the lowest and the highest of each stretch, in their order."""
    if len(x) <= _MOST_POINTS:
        return list(x), list(y)
    size = -(-2 * len(x) // _MOST_POINTS)
    keep: set[int] = {0, len(x) - 1}
    for first in range(0, len(x), size):
        known = [(y[i], i) for i in range(first, min(first + size, len(x))) if y[i] is not None]
        keep |= {min(known)[1], max(known)[1]} if known else {first}
    chosen = sorted(keep)
    return [x[i] for i in chosen], [y[i] for i in chosen]


def _path(
    line: Line,
    x: Sequence[float],
    y: Sequence[float | None],
    scale: Axis,
    across: Axis,
    top: float,
    style: str,
) -> Markup:
    pieces, pen = [], "M"
    for px, py in zip(x, y, strict=True):
        if py is None:
            pen = "M"
            continue
        pieces.append(f"{pen}{across(px):.1f} {top + scale(py):.1f}")
        pen = "L"
    return Markup('<path class="{} {}" d="{}"/>').format(style, line.tone, "".join(pieces))


def _after(mark: Mark, across: Axis, top: float, height: float) -> Markup:
    x = across(mark.x)
    shape = '<rect class="after" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}"/>'
    return Markup(shape).format(x, top, max(across.end - x, 0.0), height)


def _mark(mark: Mark, across: Axis, top: float, bottom: float, width: float) -> Markup:
    x = across(mark.x)
    room = CHARACTER * len(mark.label) / 2
    anchor, at = "middle", x
    if x + room > width:
        anchor, at = "end", min(x + 8, width - 2)
    elif x < room:
        anchor, at = "start", max(x - 8, 2)
    label = words(at, top - 5, mark.label, anchor, "mark")
    return label + rule(x, top, x, bottom, "mark")
