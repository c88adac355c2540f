"""What holds of every text and number: idempotence, all spellings accepted, and bounded time."""

import time
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from heed.feedback.checkers import Choice, Exact, Json, Numeric, Tags
from heed.feedback.checkers.extract import find_answer, has_marker
from heed.feedback.checkers.normalise import normalise
from heed.feedback.checkers.numbers import find_numbers, parse_number

PIECES = st.sampled_from(
    ["the ", "a ", "An ", "$", "\\frac{1}{2}", "\\text{", "}", "{", "\\boxed{", "1,234", "1.", ".5",
     " ", "²", "½", "“", "’", "ﬁ", "ß", "İ", "^{10}", "\\,", "\\left", "*", "_", "-", "−", "(", ")",
     "7", "x", "Paris", "\\(", "!", "?", ":", ";", ",", "\n", "\u200b", "\u00a0", "%", "~", "\\"]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=14).map("".join))
FLAGS = st.booleans()


@settings(max_examples=300, deadline=None)
@given(TEXTS, FLAGS, FLAGS, FLAGS)
def test_normalising_twice_is_normalising_once(text, case, articles, punctuation):
    kept = {"case": case, "articles": articles, "punctuation": punctuation}
    once = normalise(text, **kept)
    assert normalise(once, **kept) == once


@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS)
@example("0\\ ", "")
def test_exact_is_symmetric_and_every_text_equals_itself(one, other):
    exact = Exact(where="whole", numbers=False)
    # Of a reference with a marker only what it marks counts, and thinking is left out of texts.
    if exact.form(one) and not has_marker(one) and "think" not in one:
        assert exact.judge(one, {"answer": [one]}).value in (None, 1.0)
    assert (exact.form(one) == exact.form(other)) == (exact.form(other) == exact.form(one))


def spellings(value: int) -> list[str]:
    sign, size = ("-" if value < 0 else ""), abs(value)
    grouped = f"{size:,}"
    latex = grouped.replace(",", "{,}")
    return [
        f"{value}", f"{sign}{grouped}", f"{value}.00", f"{value}.", f"{sign}${grouped}",
        f"{sign}{grouped} dollars", f"−{size}" if value < 0 else f"+{size}", f"{sign}{latex}",
        f"{sign}{grouped.replace(',', chr(0x202F))}", f"{sign}{grouped.replace(',', '_')}",
        f"\\frac{{{value}}}{{1}}", f"{value * 6}/6", f"{value}e0", f"{value} × 10^0",
        f"{value * 100}%", f"**{value}**", f"${value}$",
    ]  # fmt: skip


FRAMES = [
    "{}", "#### {}", "So there are {}", "The answer is {}.", "A: {}", "<answer>{}</answer>",
    "\\boxed{{{}}}", "First 3, then 4.\n#### {}\n", "<think>maybe 12</think>\n{}",
    "5 * 5 = 25, so the answer is {}.",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.integers(-(10**12), 10**12), st.integers(0, 30), st.integers(0, 30))
def test_any_spelling_of_a_number_in_any_frame_is_that_number(value, spelling, frame):
    texts = spellings(value)
    text = FRAMES[frame % len(FRAMES)].format(texts[spelling % len(texts)])
    numeric = Numeric()
    assert numeric.judge(text, {"answer": str(value)}).value == 1.0, text
    assert numeric.judge(text, {"answer": value}).value == 1.0, text
    assert numeric.judge(text, {"answer": str(value * 3 + 1)}).value == 0.0, text


@settings(max_examples=200, deadline=None)
@given(st.fractions(max_denominator=1000))
def test_a_fraction_is_read_exactly(value):
    for text in (str(value), f"\\frac{{{value.numerator}}}{{{value.denominator}}}"):
        found = parse_number(text)
        assert found is not None
        assert found.value == value


@settings(max_examples=200, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9))
def test_a_decimal_is_read_exactly_in_every_notation(value):
    for text in (f"{value:f}", f"{value:e}", f"{value:E}"):
        found = parse_number(text)
        assert found is not None, text
        assert found.value == Fraction(text), text


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS)
def test_no_text_makes_a_checker_fail(text, answer):
    rows = [{"answer": answer, "choices": ["x", answer]}]
    for checker in (Exact(), Numeric(), Choice(), Tags(), Json()):
        [verdict] = checker.judge_all([text], rows)
        assert verdict.value in (0.0, 1.0, None)
        assert "the checker failed" not in verdict.reason


@pytest.mark.parametrize(
    "text",
    ["1" * 50_000, "1," * 25_000, "1/" * 25_000, "\\boxed{" * 7_000, "(" * 50_000,
     "the answer is " * 4_000, "<think>" * 7_000, "$" * 50_000, "\\frac{1}{" * 5_000,
     " " * 50_000, "A. " * 16_000, "1 " * 25_000, "\\text{a" * 7_000, "-" * 50_000,
     "<answer>" * 6_000, "a " * 25_000, "- 1 1/" * 8_000, "\n" * 50_000, "1e" * 25_000],
    ids=lambda text: repr(text[:10]),
)  # fmt: skip
def test_no_text_of_fifty_thousand_characters_takes_long(text):
    began = time.process_time()
    rows = [{"answer": "12", "choices": ["12", "13"]}]
    for checker in (Exact(), Numeric(), Choice(), Tags(), Json()):
        checker.judge_all([text], rows)
    assert time.process_time() - began < 3.0


def test_a_number_with_too_many_digits_or_too_large_a_power_is_none():
    assert find_numbers("1" * 1000) == []
    assert find_numbers("1e5000") == []
    assert find_numbers("10^999999") == []


def test_the_last_marker_of_a_kind_counts():
    assert find_answer("#### 1\n#### 2").text == "2"
    assert find_answer("\\boxed{1} \\boxed{\\frac{1}{2}}").text == "\\frac{1}{2}"
    assert find_answer("<answer>1</answer><answer>2</answer>").text == "2"
    assert find_answer("<think> no end", "auto") is None
    assert find_answer("nothing marked", "boxed") is None
