"""Rows hold what the engine would see and what the policy should say, whatever the template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from heed.data.batch import Row
from heed.data.render import Overlong, Renderer
from heed.data.template import PLAIN_TEMPLATE
from heed.errors import DataError
from heed.records import Completion, Demonstration, Message, Prompt

from .conftest import CHATML, LLAMA3, MISTRAL, NO_END, TEMPLATES, MakeTokenizer

QUESTION = Prompt.make("Where does the miller live?")
REPLY = "Behind the old bridge, says the baker."


def learned(row: Row) -> list[int]:
    return [t for t, learn in zip(row.tokens, row.learn, strict=True) if learn]


def turns(*texts: str) -> tuple[Message, ...]:
    roles = ("user", "assistant")
    return tuple(Message(role=roles[i % 2], text=t) for i, t in enumerate(texts))  # type: ignore[arg-type]


def prompt_of(*texts: str) -> Prompt:
    return Prompt(id="p", messages=turns(*texts))


@pytest.mark.parametrize("adds_start", [False, True])
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_learned_span_is_the_reply_and_one_end_token(
    make_tokenizer: MakeTokenizer, name: str, adds_start: bool
) -> None:
    renderer = Renderer(make_tokenizer(TEMPLATES[name], adds_start=adds_start))
    row = renderer.item_row(QUESTION, REPLY)
    said = learned(row)
    assert said[-1] == renderer.end_ids[0]
    assert not set(said[:-1]) & set(renderer.end_ids)
    assert renderer.decode(said).lstrip() == REPLY
    assert row.tokens[: len(row.tokens) - len(said)] == renderer.prompt_tokens(QUESTION)
    assert row.learn == sorted(row.learn)


@pytest.mark.parametrize("name", ["plain", "chatml", "llama3", "mistral"])
def test_a_row_is_what_the_template_writes_up_to_the_end_of_the_turn(
    make_tokenizer: MakeTokenizer, name: str
) -> None:
    tokenizer = make_tokenizer(TEMPLATES[name])
    renderer = Renderer(tokenizer)
    row = renderer.item_row(prompt_of("a", "b", "c"), REPLY)
    messages = [{"role": m.role, "content": m.text} for m in turns("a", "b", "c", REPLY)]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert whole.rstrip("\n") == tokenizer.decode(row.tokens)


@pytest.mark.parametrize("template", [None, LLAMA3, MISTRAL])
def test_there_is_one_start_token_and_never_two(
    make_tokenizer: MakeTokenizer, template: str | None
) -> None:
    tokenizer = make_tokenizer(template, adds_start=True)
    renderer = Renderer(tokenizer)
    start = tokenizer.bos_token_id
    rows = [
        renderer.item_row(QUESTION, REPLY),
        renderer.item_row(Prompt.make("The sky", raw=True), " is blue"),
        renderer.item_row(Prompt.make("<|begin|>The sky", raw=True), " is blue"),
        renderer.text_row("t", "The sky is blue"),
        renderer.text_row("t", "<|begin|>The sky is blue"),
    ]
    for row in rows:
        assert row.tokens[0] == start
        assert list(row.tokens).count(start) == 1


def test_a_start_token_that_template_and_text_both_write_comes_once(
    make_tokenizer: MakeTokenizer,
) -> None:
    tokenizer = make_tokenizer("{{ bos_token }}" + LLAMA3, adds_start=True)
    assert Renderer(tokenizer).prompt_tokens(QUESTION).count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("name", ["plain", "chatml", "llama3", "mistral", "qwen3", "no_end"])
def test_every_assistant_turn_of_a_reply_is_learned(
    make_tokenizer: MakeTokenizer, name: str
) -> None:
    renderer = Renderer(make_tokenizer(TEMPLATES[name]))
    demo = Demonstration(prompt=prompt_of("one?"), reply=turns("", "First.", "two?", "Second.")[1:])
    row = renderer.demonstration_row(demo)
    text = renderer.tokenizer.decode(learned(row))
    for end in renderer.end_ids:
        text = text.replace(renderer.tokenizer.decode([end]), "|")
    middle = "" if name == "no_end" else "|"
    assert text.replace(" ", "") == f"First.{middle}Second.|"
    # What stands before the second reply is what the engine is given there.
    before_last = renderer.prompt_tokens(prompt_of("one?", "First.", "two?"))
    assert renderer.tokenizer.decode(row.tokens).startswith(renderer.tokenizer.decode(before_last))


def test_a_template_that_rewrites_earlier_turns_is_an_error_with_a_remedy(
    make_tokenizer: MakeTokenizer,
) -> None:
    hides = CHATML.replace(
        "m['content'] +", "(m['content'] if loop.index0 >= messages | length - 2 else '...') +"
    )
    demo = Demonstration(prompt=prompt_of("one?"), reply=turns("", "First.", "two?", "Second.")[1:])
    with pytest.raises(DataError, match="keep only the last assistant turn"):
        Renderer(make_tokenizer(hides)).demonstration_row(demo)


def test_white_space_before_a_reply_is_learned_once_and_a_reply_can_be_rendered_again(
    make_tokenizer: MakeTokenizer,
) -> None:
    renderer = Renderer(make_tokenizer(MISTRAL))
    assert renderer.turn.lead == " "
    row = renderer.item_row(QUESTION, REPLY)
    sampled = renderer.decode(learned(row))
    assert renderer.item_row(QUESTION, sampled).tokens == row.tokens


def test_a_template_that_trims_makes_the_row_of_the_trimmed_reply(
    make_tokenizer: MakeTokenizer,
) -> None:
    renderer = Renderer(make_tokenizer(LLAMA3))
    assert renderer.turn.trims
    assert (
        renderer.item_row(QUESTION, f"  {REPLY}\n").tokens
        == renderer.item_row(QUESTION, REPLY).tokens
    )


def test_the_end_of_turn_is_found_in_the_template(make_tokenizer: MakeTokenizer) -> None:
    for template, token in ((CHATML, "<|im_end|>"), (LLAMA3, "<|eot_id|>"), (None, None)):
        tokenizer = make_tokenizer(template)
        eos = tokenizer.eos_token_id
        end = tokenizer.convert_tokens_to_ids(token) if token else eos
        assert Renderer(tokenizer).end_ids == tuple(dict.fromkeys((end, eos)))


def test_raw_text_ends_with_the_end_of_text_and_a_dialogue_with_the_end_of_turn(
    make_tokenizer: MakeTokenizer,
) -> None:
    renderer = Renderer(make_tokenizer(CHATML))
    raw = Prompt.make("The sky", raw=True)
    assert renderer.item_row(raw, " is blue").tokens[-1] == renderer.tokenizer.eos_token_id
    assert renderer.item_row(QUESTION, "Blue.").tokens[-1] == renderer.turn.end_id
    assert renderer.tokenizer.eos_token_id != renderer.turn.end_id


def test_without_an_end_token_there_is_an_error_with_a_remedy(
    make_tokenizer: MakeTokenizer,
) -> None:
    with pytest.raises(DataError, match=r"no end token.*set tokenizer\.eos_token"):
        Renderer(make_tokenizer(NO_END, eos=None))
    with pytest.raises(DataError, match=r"no end token.*set tokenizer\.eos_token"):
        Renderer(make_tokenizer(None, eos=None))
    # The template's own end of turn is enough.
    assert Renderer(make_tokenizer(CHATML, eos=None)).end_ids


def test_a_missing_pad_token_is_no_obstacle_and_is_noted(make_tokenizer: MakeTokenizer) -> None:
    without = Renderer(make_tokenizer(CHATML, pad=None))
    assert without.pad_id in without.end_ids
    assert any("no pad token" in note for note in without.notes)
    same = Renderer(make_tokenizer(None, pad="<|endoftext|>"))
    assert same.pad_id == same.end_ids[0]
    assert any("pad token is an end token" in note for note in same.notes)
    # The end token is learned although it is the pad token too.
    assert learned(same.item_row(QUESTION, REPLY))[-1] == same.pad_id
    assert not Renderer(make_tokenizer(CHATML)).notes


def test_the_plain_template_is_saved_with_the_tokenizer(
    make_tokenizer: MakeTokenizer, tmp_path: Path
) -> None:
    renderer = Renderer(make_tokenizer(None))
    assert any("no chat template" in note for note in renderer.notes)
    renderer.tokenizer.save_pretrained(tmp_path)
    again = Renderer(AutoTokenizer.from_pretrained(tmp_path))
    assert again.chat_template == PLAIN_TEMPLATE
    assert again.prompt_tokens(QUESTION) == renderer.prompt_tokens(QUESTION)
    text = again.tokenizer.decode(again.prompt_tokens(QUESTION))
    assert text == "\n\nHuman: Where does the miller live?\n\nAssistant:\n"


def test_a_chat_template_that_is_given_replaces_the_tokenizer_s(
    make_tokenizer: MakeTokenizer,
) -> None:
    renderer = Renderer(make_tokenizer(CHATML), LLAMA3)
    assert "<|eot_id|>" in renderer.tokenizer.decode(renderer.end_ids)


def test_a_refusing_template_says_so_in_its_own_words(make_tokenizer: MakeTokenizer) -> None:
    twice = Prompt(id="p", messages=(*turns("one"), *turns("two")))
    with pytest.raises(DataError, match=r"user, user.*roles must alternate"):
        Renderer(make_tokenizer(MISTRAL)).prompt_tokens(twice)


def test_notes_say_what_the_template_does_differently(make_tokenizer: MakeTokenizer) -> None:
    assert any("<think>" in n for n in Renderer(make_tokenizer(TEMPLATES["qwen3"])).notes)
    assert any(
        "generation prompt" in n for n in Renderer(make_tokenizer(TEMPLATES["thinking"])).notes
    )
    assert any("no token of its own" in n for n in Renderer(make_tokenizer(NO_END)).notes)


def test_a_reply_begun_is_continued(make_tokenizer: MakeTokenizer) -> None:
    renderer = Renderer(make_tokenizer(CHATML))
    begun = prompt_of("Where does the miller live?", "Behind the")
    row = renderer.item_row(begun, " old bridge.")
    assert renderer.tokenizer.decode(row.tokens).endswith("Behind the old bridge.<|im_end|>")
    assert renderer.tokenizer.decode(learned(row)) == " old bridge.<|im_end|>"


def test_a_completion_goes_in_and_out_as_tokens(make_tokenizer: MakeTokenizer) -> None:
    renderer = Renderer(make_tokenizer(CHATML))
    # Byte by byte: another split of the text than the tokenizer would choose.
    tokens = [t for letter in "blue" for t in renderer.tokenizer(letter)["input_ids"]]
    assert tokens != renderer.tokenizer("blue")["input_ids"]
    tokens.append(renderer.end_ids[0])
    before = renderer.prompt_tokens(QUESTION)
    completion = Completion(
        id="c", prompt_id=QUESTION.id, prompt_tokens=tuple(before), tokens=tuple(tokens),
        text="blue", finish="stop", learnable=(True, False, True, True, True),
        kept=((1, 2), (), (3,), (), (4,)),
    )  # fmt: skip
    row = renderer.completion_row(QUESTION, completion)
    assert row.tokens == [*before, *tokens]
    assert row.learn == [False] * len(before) + [True, False, True, True, True]
    assert row.kept is not None
    assert [tuple(k) for k in row.kept] == [()] * len(before) + [(1, 2), (), (3,), (), (4,)]
    assert row.id == "c"
    assert renderer.decode(tokens) == "blue"


def test_a_completion_of_another_prompt_or_without_tokens_is_an_error(
    make_tokenizer: MakeTokenizer,
) -> None:
    renderer = Renderer(make_tokenizer(CHATML))
    base: dict[str, Any] = {"id": "c", "prompt_tokens": (1,), "text": ""}
    other = Completion(prompt_id="another", tokens=(1,), finish="stop", **base)
    with pytest.raises(DataError, match="own prompt"):
        renderer.completion_row(QUESTION, other)
    failed = Completion(prompt_id=QUESTION.id, tokens=(), finish="error", error="gone", **base)
    with pytest.raises(DataError, match="gone"):
        renderer.completion_row(QUESTION, failed)


@pytest.mark.parametrize("adds_start", [False, True])
def test_cutting_takes_the_oldest_of_the_prompt_and_keeps_start_and_reply(
    make_tokenizer: MakeTokenizer, adds_start: bool
) -> None:
    renderer = Renderer(make_tokenizer(None, adds_start=adds_start))
    whole = renderer.item_row(QUESTION, REPLY)
    said = learned(whole)
    for max_length in range(len(said) + 1 + adds_start, len(whole.tokens)):
        row = renderer.item_row(QUESTION, REPLY, max_length, "truncate")
        assert len(row.tokens) == max_length
        assert learned(row) == said
        assert not row.learn[0]
        tail = max_length - adds_start
        assert list(row.tokens[adds_start:]) == list(whole.tokens[-tail:])
        assert row.tokens[:adds_start] == whole.tokens[:adds_start]
    with pytest.raises(Overlong, match="reply"):
        renderer.item_row(QUESTION, REPLY, len(said), "truncate")
    with pytest.raises(Overlong, match=r"data\.max_length"):
        renderer.item_row(QUESTION, REPLY, len(whole.tokens) - 1)
    assert renderer.item_row(QUESTION, REPLY, len(whole.tokens)) == whole


def test_two_replies_lose_the_same_tokens_of_their_prompt(make_tokenizer: MakeTokenizer) -> None:
    renderer = Renderer(make_tokenizer(CHATML))
    long, short = renderer.item_row(QUESTION, REPLY), renderer.item_row(QUESTION, "No.")
    limit = len(long.tokens) - 3
    a, b = renderer.fitted_pair(long, short, limit)
    prompts = [r.tokens[: len(r.tokens) - len(learned(r))] for r in (a, b)]
    assert prompts[0] == prompts[1] == renderer.prompt_tokens(QUESTION)[3:]
    assert len(a.tokens) == limit
    assert learned(b) == learned(short)
    assert renderer.fitted_pair(long, short, limit + 3) == (long, short)
    with pytest.raises(Overlong):
        renderer.fitted_pair(short, long, limit, "error")


@given(text=st.text(min_size=1, max_size=200), max_length=st.integers(2, 40))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_long_text_becomes_rows_in_which_every_token_is_learned_once(
    make_tokenizer: MakeTokenizer, text: str, max_length: int
) -> None:
    renderer = _cached(make_tokenizer)
    whole = renderer.text_row("t", text)
    rows = renderer.text_rows("t", text, max_length)
    assert all(1 <= len(row.tokens) <= max_length for row in rows)
    assert [t for row in rows for t in learned(row)] == list(whole.tokens[1:])
    assert len({row.id for row in rows}) == len(rows)
    assert whole.tokens[-1] == renderer.tokenizer.eos_token_id


@given(
    question=st.text(min_size=1, max_size=60).filter(lambda t: "<|" not in t),
    reply=st.text(max_size=60).filter(lambda t: "<|" not in t),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_reply_survives_the_way_to_tokens_and_back(
    make_tokenizer: MakeTokenizer, question: str, reply: str
) -> None:
    renderer = _cached(make_tokenizer)
    prompt = Prompt.make(question)
    row = renderer.item_row(prompt, reply)
    before = renderer.prompt_tokens(prompt)
    assert row.tokens[: len(before)] == before
    assert renderer.decode(row.tokens[len(before) :]) == reply


_RENDERERS: list[Renderer] = []


def _cached(make_tokenizer: MakeTokenizer) -> Renderer:
    if not _RENDERERS:
        _RENDERERS.append(Renderer(make_tokenizer(CHATML)))
    return _RENDERERS[0]


def test_an_empty_prompt_is_conditioned_on_a_start_token(make_tokenizer: MakeTokenizer) -> None:
    renderer = Renderer(make_tokenizer(None))
    assert renderer.prompt_tokens(Prompt.make("", raw=True)) == [renderer.tokenizer.bos_token_id]


def test_raw_text_and_turns_do_not_mix(make_tokenizer: MakeTokenizer) -> None:
    mixed = Prompt(id="p", messages=(Message(role="text", text="a"), *turns("b")))
    with pytest.raises(DataError, match="mixes raw text"):
        Renderer(make_tokenizer(None)).prompt_tokens(mixed)


def test_a_tokenizer_that_puts_spaces_before_texts_adds_none_inside_a_row(
    metaspace_tokenizer: Any,
) -> None:
    renderer = Renderer(metaspace_tokenizer)
    row = renderer.item_row(Prompt.make("The miller li", raw=True), "ves behind")
    assert renderer.tokenizer.decode(row.tokens[:-1]).strip() == "The miller lives behind"


def test_text_that_the_tokenizer_does_not_know_is_an_error(metaspace_tokenizer: Any) -> None:
    with pytest.raises(DataError, match="does not give the reply back"):
        Renderer(metaspace_tokenizer).item_row(QUESTION, "Здесь")


def test_an_end_token_inside_a_reply_is_an_error(make_tokenizer: MakeTokenizer) -> None:
    renderer = Renderer(make_tokenizer(CHATML))
    for text in ("Yes.<|im_end|>", "Yes.<|endoftext|>No."):
        with pytest.raises(DataError, match="take it out"):
            renderer.item_row(QUESTION, text)
        with pytest.raises(DataError, match="take it out"):
            renderer.item_row(Prompt.make("The sky", raw=True), text)


def test_decoding_keeps_what_the_policy_wrote_and_drops_the_end_alone(
    make_tokenizer: MakeTokenizer,
) -> None:
    renderer = Renderer(make_tokenizer(CHATML))
    text = "Blue.<|im_end|>\n<|im_start|>user"
    tokens = renderer.tokenizer(text)["input_ids"]
    assert renderer.decode([*tokens, renderer.end_ids[0]]) == text
    assert renderer.decode([renderer.end_ids[1]]) == ""
    assert renderer.decode([]) == ""
