"""Kinds of work: what fits, what does not, and the places in it."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.data.store import ProjectConfig, Refusal
from heed.data.store.kinds import KINDS, inverse, read_answer, read_payload
from heed.data.store.kinds.marking import slice_utf16
from heed.data.store.scales import SCALES
from heed.records import Prompt

PROMPT = Prompt.make("Why?").model_dump(mode="json")
TEXT = "an 😀 answer"


def payload(*texts: str) -> dict[str, Any]:
    return {"prompt": PROMPT, "candidates": [{"text": text} for text in texts]}


def span(**changes: Any) -> dict[str, Any]:
    spans = [{"start": 3, "end": 5, "kind": "error", "quote": "😀", "comment": "why"} | changes]
    sha = hashlib.sha256(TEXT.encode()).hexdigest()
    return {"outcome": "marked", "spans": spans, "text_sha256": sha}


RATED = [{"place": 0, "attribute": "overall", "value": 5}]
GOOD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("pair", payload("a", "b"), {"outcome": "prefer", "side": 1, "level": 3}),
    ("pair", payload("a", "b"), {"outcome": "invalid", "note": "broken"}),
    ("clips", {"candidates": [{"segment": "s-1"}, {"segment": "s-2"}]}, {"outcome": "tie"}),
    ("ranking", payload(*"abcd"), {"outcome": "ranked", "buckets": [[2], [0, 3], [1]]}),
    ("ranking", payload(*"abc"), {"outcome": "ranked", "buckets": [[2, 0]], "unranked_bad": [1]}),
    ("ranking", payload(*"abc"), {"outcome": "all_bad"}),
    ("rating", payload("a"), {"outcome": "rated", "ratings": RATED}),
    ("demonstration", payload(), {"outcome": "written", "text": "Because."}),
    ("edit", payload("a"), {"outcome": "edited", "text": "better"}),
    ("edit", payload("a"), {"outcome": "unchanged"}),
    ("spans", payload(TEXT), span()),
    ("spans", payload(TEXT), {"outcome": "marked"}),
]
BAD: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("ranking", payload(*"abc"), {"outcome": "ranked", "buckets": [[0], [0, 1]]}, "each of 3"),
    ("ranking", payload(*"abc"), {"outcome": "ranked", "buckets": [[0], [1]]}, "each of 3"),
    ("ranking", payload(*"ab"), {"outcome": "ranked", "buckets": [[0, 1], []]}, "no bucket"),
    ("ranking", payload(*"ab"), {"outcome": "ranked", "unranked_bad": [0, 1]}, "all_bad"),
    ("ranking", payload(*"ab"), {"outcome": "invalid", "buckets": [[0, 1]]}, "leave them out"),
    ("ranking", payload(*"ab"), {"outcome": "ranked", "buckets": [[5, 0]]}, "place 5"),
    ("rating", payload("a"), {"outcome": "rated"}, "overall of candidate 0 is missing"),
    ("rating", payload("a"), {"outcome": "rated", "ratings": [*RATED, *RATED]}, "given twice"),
    ("rating", payload("a"), {"outcome": "rated", "ratings": [{**RATED[0], "value": 8}]}, "is 8"),
    ("rating", payload("a"), {"outcome": "invalid", "ratings": RATED}, "leave them out"),
    ("demonstration", payload(), {"outcome": "written", "text": "  "}, "no text"),
    ("demonstration", payload(), {"outcome": "invalid", "text": "x"}, "leave it out"),
    ("edit", payload("a"), {"outcome": "edited", "text": "a"}, "unchanged"),
    ("spans", payload(TEXT), span(quote="an"), "the span quotes"),
    ("spans", payload(TEXT), span(start=4), "outside the text"),
    ("spans", payload(TEXT), span(kind="odd"), "'odd' is unknown"),
    ("spans", payload("other"), span(), "load the item again"),
]


@pytest.mark.parametrize(("kind", "content", "answer"), GOOD)
def test_an_answer_that_fits(kind: str, content: dict[str, Any], answer: dict[str, Any]) -> None:
    of_kind, config = KINDS[kind], ProjectConfig(kind=kind)
    shown = read_payload(of_kind, content)
    read = read_answer(of_kind, answer, shown, config)
    order = list(reversed(range(len(shown.candidates))))
    turned = of_kind.turn(read, order)
    assert of_kind.turn(turned, inverse(order)).model_dump() == read.model_dump() or kind == (
        "ranking"
    )
    again = of_kind.turn(of_kind.turn(turned, inverse(order)), list(range(len(order))))
    assert again == of_kind.turn(read, list(range(len(order))))


@pytest.mark.parametrize(("kind", "content", "answer", "message"), BAD)
def test_an_answer_that_does_not_fit(
    kind: str, content: dict[str, Any], answer: dict[str, Any], message: str
) -> None:
    shown = read_payload(KINDS[kind], content)
    with pytest.raises(Refusal, match=message):
        read_answer(KINDS[kind], answer, shown, ProjectConfig(kind=kind))


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("pair", payload("a")),
        ("pair", {"candidates": [{"text": "a"}, {"text": "b"}]}),
        ("pair", {"prompt": PROMPT, "candidates": [{"segment": "s"}, {"text": "b"}]}),
        ("pair", {"prompt": PROMPT, "candidates": [{}, {"text": "b"}]}),
        ("clips", payload("a", "b")),
        ("ranking", payload(*"abcdefghij")),
        ("rating", payload()),
        ("demonstration", payload("a")),
        ("edit", payload("a", "b")),
        ("spans", payload("a", "b")),
        ("pair", {**payload("a", "b"), "answer": 1}),
    ],
)
def test_an_item_that_does_not_fit(kind: str, content: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match="no item of kind"):
        read_payload(KINDS[kind], content)


@given(st.permutations(range(5)), st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_turning_a_ranking_keeps_who_stands_where(order: list[int], ranks: list[int]) -> None:
    buckets = [[p for p in range(5) if ranks[p] == rank] for rank in sorted(set(ranks))]
    kind, content = KINDS["ranking"], read_payload(KINDS["ranking"], payload(*"abcde"))
    said = {"outcome": "ranked", "buckets": buckets}
    read = read_answer(kind, said, content, ProjectConfig(kind="ranking"))
    turned: Any = kind.turn(read, order)
    texts = [{"abcde"[p] for p in bucket} for bucket in buckets]
    screen = {place: "abcde"[shown] for shown, place in enumerate(order)}
    assert [{screen[p] for p in bucket} for bucket in turned.buckets] == texts


@pytest.mark.parametrize("name", SCALES)
def test_scales_are_symmetric_and_end_at_one(name: str) -> None:
    scale = SCALES[name]
    assert len(scale.words) == scale.levels
    values = [scale.signed(side, level) for side in (0, 1) for level in range(1, scale.levels + 1)]
    assert max(values) == 1.0
    assert min(values) == -1.0
    assert sum(values) == pytest.approx(0.0)
    assert scale.signed(None, None) == 0.0


@given(st.text(max_size=30), st.data())
def test_spans_count_as_a_browser_does(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    units = [len(text[:at].encode("utf-16-le")) // 2 for at in (start, end)]
    assert slice_utf16(text, *units) == (text[start:end] or None)
