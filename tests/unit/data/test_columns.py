"""One row of columns is understood as its author meant it, or refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.data.columns import labels_of, messages_of, prompt_of, reply_pair_of, shared_prefix
from heed.data.report import RowError
from heed.data.transcripts import is_transcript, split_transcript, transcript_reply


def told(messages: Any) -> list[tuple[str, str]]:
    return [(m.role, m.text) for m in messages]


def test_a_transcript_becomes_turns_and_is_split_at_the_last_reply() -> None:
    text = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nAnd more: yes\n\nHuman: Why?\n\nAssistant: So."
    assert told(split_transcript(text)) == [
        ("user", "Hi"),
        ("assistant", "Hello.\n\nAnd more: yes"),
        ("user", "Why?"),
        ("assistant", "So."),
    ]
    prompt, reply = transcript_reply(text)
    assert told(prompt) == [
        ("user", "Hi"),
        ("assistant", "Hello.\n\nAnd more: yes"),
        ("user", "Why?"),
    ]
    assert reply == "So."


def test_only_a_dialogue_is_a_transcript() -> None:
    assert is_transcript("Human: a\n\nAssistant: b")
    assert not is_transcript("A story. Human: a\n\nAssistant: b")
    assert not is_transcript("\n\nHuman: a")
    assert not is_transcript(None)


def test_turns_of_one_speaker_in_a_row_are_joined() -> None:
    prompt, reply = transcript_reply("\n\nHuman: a\n\nHuman: b\n\nAssistant: c")
    assert told(prompt) == [("user", "a\n\nb")]
    assert reply == "c"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n\nHuman: a\n\nAssistant: b\n\nHuman: c", "no reply at the end"),
        ("\n\nHuman: a\n\nAssistant: b\n\nAssistant: c", "two assistant turns at the end"),
    ],
)
def test_a_transcript_without_one_reply_is_refused(text: str, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        transcript_reply(text)
    assert caught.value.reason == reason


def test_messages_come_in_three_spellings() -> None:
    expected = [("system", "s"), ("user", "u"), ("assistant", "a")]
    for role, text, roles in (
        ("role", "content", ("system", "user", "assistant")),
        ("role", "text", ("developer", "user", "assistant")),
        ("from", "value", ("system", "human", "gpt")),
    ):
        rows = [{role: r, text: t} for r, t in zip(roles, "sua", strict=True)]
        assert told(messages_of(rows, "messages")) == expected
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}]
    assert told(messages_of(parts, "messages")) == [("user", "ab")]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "messages is not a list of messages"),
        (["hi"], "messages is not a list of messages"),
        ([{"role": "wizard", "content": "x"}], "unknown message role"),
        ([{"role": "assistant", "content": None, "tool_calls": []}], "message content is not text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "message content is not text"),
    ],
)
def test_what_is_no_text_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        messages_of(value, "messages")
    assert caught.value.reason == reason


def test_a_prompt_is_raw_text_or_turns() -> None:
    assert told(prompt_of("The sky", {}).messages) == [("text", "The sky")]
    assert told(prompt_of([{"role": "user", "content": "q"}], {}).messages) == [("user", "q")]
    open_end = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    turns = [("user", "a"), ("assistant", "b"), ("user", "c")]
    assert told(prompt_of(open_end, {}).messages) == turns
    record = prompt_of("x", {"k": 1}).model_dump(mode="json")
    assert prompt_of(record, {}).model_dump(mode="json") == record
    with pytest.raises(RowError, match="empty prompt"):
        prompt_of("  \n", {})


PAIRS: list[tuple[dict[str, Any], list[tuple[str, str]], list[tuple[str, str]]]] = [
    (
        {"prompt": "The sky", "chosen": " is blue", "rejected": " is red"},
        [("text", "The sky")],
        [("text", " is blue"), ("text", " is red")],
    ),
    (
        {"chosen": "The sky is blue", "rejected": "The sky is black"},
        [("text", "The sky is")],
        [("text", " blue"), ("text", " black")],
    ),
    (
        {
            "prompt": [{"role": "user", "content": "q"}],
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
        },
        [("user", "q")],
        [("assistant", "a"), ("assistant", "b")],
    ),
    (
        {
            "prompt": "q",
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
        },
        [("user", "q")],
        [("assistant", "a"), ("assistant", "b")],
    ),
    (
        {
            "prompt": "q",
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
        },
        [("user", "q")],
        [("assistant", "a"), ("assistant", "b")],
    ),
    (
        {
            "chosen": "\n\nHuman: q\n\nAssistant: a",
            "rejected": "\n\nHuman: q\n\nAssistant: b",
        },
        [("user", "q")],
        [("assistant", "a"), ("assistant", "b")],
    ),
    (
        {
            "prompt": "\n\nHuman: q\n\nAssistant:",
            "chosen": " a",
            "rejected": " b",
        },
        [("user", "q")],
        [("assistant", "a"), ("assistant", "b")],
    ),
]


@pytest.mark.parametrize(("row", "prompt", "replies"), PAIRS)
def test_pairs_are_read_with_and_without_a_prompt(
    row: dict[str, Any], prompt: list[tuple[str, str]], replies: list[tuple[str, str]]
) -> None:
    found, chosen, rejected = reply_pair_of(row, {})
    assert told(found.messages) == prompt
    assert told(chosen) == [replies[0]]
    assert told(rejected) == [replies[1]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "chosen equals rejected"),
        (
            {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: a "},
            "chosen equals rejected",
        ),
        (
            {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: r\n\nAssistant: b"},
            "prompts of chosen and rejected differ",
        ),
        (
            {
                "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
                "rejected": [
                    {"role": "user", "content": "r"},
                    {"role": "assistant", "content": "a"},
                ],
            },
            "prompts of chosen and rejected differ",
        ),
        (
            {
                "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
                "rejected": [{"role": "user", "content": "q"}],
            },
            "no reply at the end",
        ),
        ({"chosen": "one two", "rejected": "three"}, "chosen and rejected share no prompt"),
        ({"prompt": "p", "chosen": "a", "rejected": " "}, "empty reply"),
        ({"prompt": "p", "chosen": "a", "rejected": None}, "rejected is missing"),
        ({"prompt": "p", "chosen": "a", "rejected": True}, "rejected is not text"),
    ],
)
def test_pairs_that_compare_nothing_are_refused(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError) as caught:
        reply_pair_of(row, {})
    assert caught.value.reason == reason


@given(
    prompt=st.text(min_size=1, max_size=30),
    left=st.text(max_size=10),
    right=st.text(max_size=10),
)
def test_the_shared_prompt_is_a_beginning_of_both_and_cuts_no_word(
    prompt: str, left: str, right: str
) -> None:
    a, b = prompt + left, prompt + right
    shared = shared_prefix(a, b)
    assert a.startswith(shared)
    assert b.startswith(shared)
    if shared:
        assert not shared[-1].isspace()
        assert a[len(shared)].isspace()
        assert b[len(shared)].isspace()


def test_labels_are_numbers_in_their_range() -> None:
    assert labels_of({}) == (1.0, None, None)
    assert labels_of({"p": 0.7, "margin": -1, "weight": 2}) == (0.7, -1.0, 2.0)
    for row in ({"p": 1.2}, {"p": "high"}, {"p": float("nan")}, {"p": True}, {"weight": -1}):
        with pytest.raises(RowError):
            labels_of(row)
