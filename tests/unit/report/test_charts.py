"""Charts are well-formed, true to their data, and say nothing that they were not told."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.report.charts import Line, Mark, Panel, plot
from heed.report.drawing import axis
from heed.report.estimates import Interval, bars, glyph, intervals, reliability

finite = st.floats(-1e9, 1e9, allow_nan=False).map(lambda v: round(v, 6))


def drawn(lines: list[Line], marks: tuple[Mark, ...] = ()) -> ElementTree.Element:
    return ElementTree.fromstring(
        plot([Panel("Panel", lines)], title="T", description="D", x_label="step", marks=marks)
    )


def paths(svg: ElementTree.Element, style: str) -> list[str]:
    found = svg.iter("path")
    return [p.attrib["d"] for p in found if p.attrib["class"].split()[0] == style]


@given(st.lists(finite, min_size=1, max_size=20), st.booleans())
def test_axis_covers_its_data_with_round_rising_ticks(values: list[float], snug: bool) -> None:
    found = axis(values, 0.0, 100.0, 4, snug=snug)
    # Data may pass the last tick by what no screen can show.
    beyond = 1e-8 * (found.high - found.low)
    assert found.low <= min(values) + beyond
    assert found.high >= max(values) - beyond
    assert list(found.ticks) == sorted(set(found.ticks))
    assert len(found.ticks) <= 12
    for value in values:
        assert -1e-6 <= found(value) <= 100 + 1e-6


def test_points_stand_at_their_values() -> None:
    svg = drawn([Line("", [0, 5, 10], [0.0, 10.0, 5.0])])
    points = re.findall(r"[ML]([\d.]+) ([\d.]+)", paths(svg, "curve")[0])
    (x0, y0), (x1, y1), (x2, y2) = ((float(x), float(y)) for x, y in points)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert (y0 - y2) == pytest.approx((y0 - y1) / 2, abs=0.11)


def test_unknown_values_are_gaps_and_not_zeros() -> None:
    svg = drawn([Line("", [1, 2, 3, 4, 5], [1.0, 2.0, None, 3.0, 4.0], dots=True)])
    (path,) = paths(svg, "curve")
    assert path.count("M") == 2
    assert path.count("L") == 2
    assert len(list(svg.iter("circle"))) == 4


def test_thinning_keeps_the_extremes() -> None:
    values = [0.0] * 5000
    values[1234], values[4321] = 7.0, -3.0
    svg = drawn([Line("", list(range(5000)), values, window=9)])
    (pale,) = paths(svg, "pale")
    heights = [float(y) for y in re.findall(r" ([\d.]+)", pale)]
    assert len(heights) < 600
    assert max(heights) - min(heights) > 80


def test_text_is_escaped_everywhere() -> None:
    evil = "<script>alert('x')</script>&\""
    page = plot(
        [Panel(evil, [Line(evil, [1, 2], [1, 2], dots=True), Line("b", [1, 2], [1, 2])],
               levels=[(1.5, evil)])],
        title=evil, description=evil, x_label=evil, marks=[Mark(1.5, evil)],
    )  # fmt: skip
    page += intervals([Interval(evil, 0.5, 0.4, 0.6)], title=evil, description=evil)
    page += bars([(evil, 1.0, evil)], title=evil, description=evil)
    assert "<script" not in page
    ElementTree.fromstring(f"<x>{page}</x>")


def test_every_chart_has_a_title_and_a_description() -> None:
    for svg in (
        plot([Panel("p", [Line("", [1, 2], [1, 2])])], title="T", description="D", x_label="x"),
        intervals([Interval("a", 0.5)], title="T", description="D"),
        bars([("a", 1.0, "1")], title="T", description="D"),
        reliability([(0.6, 0.5, 10)], title="T", description="D"),
    ):
        root = ElementTree.fromstring(svg)
        ids = {e.attrib["id"]: e.text for e in root if "id" in e.attrib}
        assert [ids[key] for key in root.attrib["aria-labelledby"].split()] == ["T", "D"]


def test_mark_stands_at_its_step_and_its_label_stays_inside() -> None:
    for at in (0, 50, 100):
        svg = drawn([Line("", [0, 100], [0.0, 1.0])], (Mark(at, "proxy and truth part"),))
        (line,) = [e for e in svg.iter("line") if e.attrib["class"] == "mark"]
        (label,) = [e for e in svg.iter("text") if e.attrib["class"] == "mark"]
        width = float(svg.attrib["viewBox"].split()[2])
        room = 6.6 * len("proxy and truth part")
        x = float(label.attrib["x"])
        start = {"start": x, "middle": x - room / 2, "end": x - room}[label.attrib["text-anchor"]]
        assert line.attrib["x1"] == line.attrib["x2"]
        assert start >= -1
        assert start + room <= width + 1


def test_interval_is_drawn_in_proportion() -> None:
    svg = ElementTree.fromstring(glyph(0.25, 0.5, 0.75, "even"))
    (whisker,) = [e for e in svg.iter("line") if e.attrib["class"].startswith("whisker")]
    assert float(whisker.attrib["x2"]) - float(whisker.attrib["x1"]) == pytest.approx(106)
    (dot,) = svg.iter("circle")
    assert float(dot.attrib["cx"]) == pytest.approx(110)


def test_steps_have_whole_ticks() -> None:
    for last in (1.0, 2.0, 4.0, 37.0):
        ticks = axis([0.0, last], 0, 300, 6, snug=True, whole=True).ticks
        assert ticks
        assert all(t.is_integer() for t in ticks)
    assert 0.5 in axis([0.0, 2.0], 0, 300, 4, snug=True).ticks
