"""Numbers are written for people, and never as NaN."""

from __future__ import annotations

import math

import pytest

from heed.report import numbers


def plain(text: str) -> str:
    return text.replace("\N{NARROW NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (-0.4321, "-0.432"),
        (12.345, "12.3"),
        (1234.5, "1 234"),
        (0.0123, "0.0123"),
        (0.00012, "1.20e-4"),
        (2_500_000.0, "2.50e6"),
        (None, "not known"),
        (math.nan, "not known"),
        (math.inf, "not known"),
    ],
)
def test_figure(value: float | None, text: str) -> None:
    assert plain(numbers.figure(value)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.42, "0.4 s"), (42.4, "42 s"), (59.7, "1 min 00 s"), (292, "4 min 52 s"),
     (4020, "1 h 07 min"), (None, "not known"), (-1, "not known")],
)  # fmt: skip
def test_seconds(value: float | None, text: str) -> None:
    assert plain(numbers.seconds(value)) == text


def test_sizes_and_shares() -> None:
    assert plain(numbers.size(3 * 2**29)) == "1.50 GiB"
    assert plain(numbers.size(700 * 2**20)) == "700 MiB"
    assert plain(numbers.share(0.7134)) == "71.3 %"
    assert numbers.share(None) == "not known"


def test_interval_has_the_decimals_that_its_width_carries() -> None:
    assert numbers.interval(0.93, 0.85, 1.01) == ("0.93", "0.85", "1.01")
    assert numbers.interval(24.13, 23.3, 24.9) == ("24.1", "23.3", "24.9")
    assert numbers.interval(1.0, 1.0, 1.0) == ("1", "1", "1")


def test_moment_says_the_text_itself_where_it_is_no_time() -> None:
    assert numbers.moment("2026-11-23T14:20:05+00:00") == "23 November 2026, 14:20 UTC"
    assert numbers.moment("yesterday") == "yesterday"
    assert numbers.moment(None) == "not known"
