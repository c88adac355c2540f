"""Records become rows that fit; what is cut or left out is counted with its reason."""

from __future__ import annotations

import pytest

from heed.data.formats import PlainText
from heed.data.judgements import LabelledPair
from heed.data.render import Overlong, Renderer
from heed.data.report import DataReport
from heed.data.rows import pair_rows, supervised_rows
from heed.records import Demonstration, Message, Prompt

from .conftest import CHATML, MISTRAL, MakeTokenizer

LONG = "Where does the miller live, and what does the baker say about the old bridge?"


def demo(question: str, reply: str) -> Demonstration:
    return Demonstration(
        prompt=Prompt.make(question), reply=(Message(role="assistant", text=reply),)
    )


def labelled(question: str, chosen: str, rejected: str) -> LabelledPair:
    sides = [(Message(role="assistant", text=text),) for text in (chosen, rejected)]
    return LabelledPair("pair", Prompt.make(question), sides[0], sides[1], 0.9)


def read(num_rows: int) -> DataReport:
    report = DataReport("rows")
    report.add_read(num_rows)
    return report


@pytest.fixture
def renderer(make_tokenizer: MakeTokenizer) -> Renderer:
    return Renderer(make_tokenizer(CHATML))


def test_rows_that_fit_are_kept_whole(renderer: Renderer) -> None:
    demos = [demo("a", "b"), demo(LONG, "Yes.")]
    report = read(2)
    rows = supervised_rows(demos, renderer, report, max_length=200)
    assert rows == [renderer.demonstration_row(d) for d in demos]
    assert report.lengths == [len(row.tokens) for row in rows]
    assert report.num_lost == 0


def test_long_rows_are_dropped_cut_or_an_error_and_counted(renderer: Renderer) -> None:
    demos = [demo("a", "b"), demo(LONG, "Yes."), demo("a", LONG)]
    limit = len(renderer.demonstration_row(demos[0]).tokens) + 2
    report = read(3)
    assert len(supervised_rows(demos, renderer, report, max_length=limit)) == 1
    assert (report.num_dropped, report.kept) == (2, 1)

    report = read(3)
    rows = supervised_rows(demos, renderer, report, max_length=limit, on_overlong="truncate")
    # The long prompt is cut; the long reply would have to be, so its row goes.
    assert [len(row.tokens) for row in rows] == report.lengths
    assert (report.num_cut, report.num_dropped, report.kept) == (1, 1, 2)
    assert len(rows[1].tokens) == limit

    with pytest.raises(Overlong, match=r"data\.max_length"):
        supervised_rows(demos, renderer, read(3), max_length=limit, on_overlong="error")


def test_a_long_text_is_split_and_is_no_loss(renderer: Renderer) -> None:
    text = PlainText("t", LONG * 5)
    report = read(1)
    rows = supervised_rows([text], renderer, report, max_length=16)
    assert len(rows) > 5
    assert report.num_lost == 0
    assert report.kept == 1
    assert sum(sum(row.learn) for row in rows) == len(renderer.text_row("t", text.text).tokens) - 1


def test_a_pair_is_cut_alike_and_stays_or_goes_as_a_whole(renderer: Renderer) -> None:
    pairs = [labelled(LONG, "Yes, by the old bridge.", "No."), labelled("a", "b", LONG * 2)]
    chosen = renderer.item_row(pairs[0].prompt, pairs[0].chosen)
    limit = len(chosen.tokens) - 4
    report = read(2)
    ((pair, a, b),) = pair_rows(pairs, renderer, report, max_length=limit, on_overlong="truncate")
    assert pair is pairs[0]
    said = [sum(row.learn) for row in (a, b)]
    assert a.tokens[: -said[0]] == b.tokens[: -said[1]]
    assert (report.num_cut, report.num_dropped) == (1, 1)
    assert report.lengths == [len(a.tokens), len(b.tokens)]


def test_sides_that_are_the_same_tokens_are_dropped(make_tokenizer: MakeTokenizer) -> None:
    # This template trims, so the sides differ in the file and not in the row.
    trims = CHATML.replace("m['content']", "m['content'] | trim")
    report = read(1)
    pairs = [labelled("a", "Yes.", "Yes. ")]
    assert not pair_rows(pairs, Renderer(make_tokenizer(trims)), report, max_length=99)
    assert dict(report.reasons) == {"chosen and rejected are the same tokens": 1}


def test_a_row_that_the_template_refuses_is_dropped_with_its_words(
    make_tokenizer: MakeTokenizer,
) -> None:
    turns = (Message(role="user", text="a"), Message(role="user", text="b"))
    twice = Demonstration(
        prompt=Prompt(id="p", messages=turns), reply=(Message(role="assistant", text="c"),)
    )
    report = read(1)
    assert not supervised_rows([twice], Renderer(make_tokenizer(MISTRAL)), report, max_length=99)
    assert report.num_dropped == 1
    assert "alternate" in str(report.examples)


def test_notes_of_the_renderer_reach_the_report(make_tokenizer: MakeTokenizer) -> None:
    report = read(1)
    supervised_rows([demo("a", "b")], Renderer(make_tokenizer(None)), report, max_length=99)
    assert any("no chat template" in note for note in report.notes)
