"""Records: validated when made, frozen, JSON both ways, and honest about what is missing."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from heed.records import (
    Completion,
    Demonstration,
    Finding,
    Message,
    Pair,
    PolicyRef,
    Preference,
    Prompt,
    Record,
    Rollout,
    RolloutGroup,
    Sampling,
    Score,
)
from heed.stats.intervals import Interval

PROMPT = Prompt.make("Who sells bread?", meta={"level": 3})
POLICY = PolicyRef(run="ppo", step=4)


def completion(**changes: Any) -> Completion:
    values: dict[str, Any] = {
        "id": "c",
        "prompt_id": PROMPT.id,
        "prompt_tokens": (1, 2),
        "tokens": (3, 4),
        "text": "Anna.",
        "finish": "stop",
    }
    return Completion.model_validate(values | changes)


EXAMPLES: list[Record] = [
    Message(role="tool", text="ä\n\u2028"),
    PROMPT,
    Demonstration(prompt=PROMPT, reply=(Message(role="assistant", text="Anna."),)),
    POLICY,
    Sampling(temperature=0.7, stop=("\n",), top_k=3),
    completion(
        logprobs=(-0.1, -1.2345678901234567),
        learnable=(True, False),
        kept=((3, 4), ()),
        oldest=POLICY,
        newest=POLICY,
    ),
    completion(tokens=(), finish="error", error="the server went away"),
    Pair(id="p", prompt=PROMPT, left=completion(), right=completion(id="d")),
    Preference(
        id="1",
        pair_id="p",
        outcome="tie",
        p_left=0.5,
        labeller="ida",
        kind="human",
        when=datetime(2026, 1, 2, tzinfo=UTC),
    ),
    Score(item_id="c", value=0.1, parts={"a": 1.0, "b": None}, scorer="sum"),
    RolloutGroup(
        prompt=PROMPT,
        rollouts=(Rollout(completion=completion(), score=Score(item_id="c", value=1, scorer="s")),),
    ),
    Finding(name="win rate", estimate=0.5, low=0.4, high=0.6, n=100, unit="share"),
]


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_json_gives_back_the_same_record(record: Record) -> None:
    assert type(record).model_validate_json(record.model_dump_json()) == record
    assert type(record).model_validate(record.model_dump(mode="json")) == record


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_records_are_frozen_and_refuse_unknown_fields(record: Record) -> None:
    name = next(iter(type(record).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(record, name, getattr(record, name))
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(record).model_validate({**record.model_dump(), "unheard_of": 1})


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_log_probability_survives_json_to_the_bit(value: float) -> None:
    made = completion(logprobs=(value, 0.0))
    assert Completion.model_validate_json(made.model_dump_json()).logprobs == (value, 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "make",
    [
        lambda v: Score(item_id="c", value=v, scorer="s"),
        lambda v: Score(item_id="c", value=1.0, parts={"a": v}, scorer="s"),
        lambda v: completion(logprobs=(v, 0.0)),
        lambda v: Finding(name="x", estimate=v, n=1, unit="u"),
        lambda v: Finding(name="x", estimate=1.0, low=v, n=1, unit="u"),
    ],
)
def test_a_number_that_is_not_finite_is_refused(value: float, make: Any) -> None:
    with pytest.raises(ValidationError, match="finite numbers, or None with a reason"):
        make(value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: completion(logprobs=(0.0,)), "logprobs has 1 entries for 2 tokens"),
        (lambda: completion(learnable=(True,) * 3), "learnable has 3 entries for 2 tokens"),
        (lambda: completion(kept=()), "kept has 0 entries for 2 tokens"),
        (lambda: completion(finish="error"), "come together or not at all"),
        (lambda: completion(error="but it stopped well"), "come together or not at all"),
        (lambda: Score(item_id="c", value=None, scorer="s"), "a value or an error"),
        (lambda: Score(item_id="c", value=1, error="?", scorer="s"), "a value or an error"),
        (lambda: Finding(name="x", estimate=None, n=0, unit="u"), "needs a reason"),
        (lambda: Prompt(id="p", messages=()), "at least 1"),
        (lambda: Sampling(top_p=0.0), "greater than 0"),
        (lambda: Sampling(max_tokens=0), "greater than or equal to 1"),
        (lambda: PolicyRef(run="r", step=-1), "greater than or equal to 0"),
    ],
)
def test_what_contradicts_itself_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        make()


def _preference(**changes: Any) -> Preference:
    values = {"id": "1", "pair_id": "p", "outcome": "left", "labeller": "x", "kind": "rule"}
    return Preference.model_validate(values | changes)


def test_a_judgement_has_a_probability_and_its_absence_a_reason() -> None:
    with pytest.raises(ValidationError, match="needs p_left"):
        _preference()
    with pytest.raises(ValidationError, match="needs a reason"):
        _preference(outcome="cannot_judge")
    assert _preference(outcome="cannot_judge", reason="not my language").p_left is None
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        _preference(p_left=1.5)


def test_both_sides_of_a_pair_answer_its_prompt() -> None:
    stranger = completion(prompt_id="another")
    with pytest.raises(ValidationError, match="both sides of a pair answer its prompt"):
        Pair(id="p", prompt=PROMPT, left=completion(), right=stranger)


def test_equal_prompts_share_an_id_whatever_their_columns() -> None:
    assert Prompt.make("a").id == Prompt.make("a", meta={"x": 1}).id
    ids = {Prompt.make("a").id, Prompt.make("b").id, Prompt.make("a", raw=True).id}
    assert len(ids) == 3


def test_the_text_of_a_prompt_is_that_of_its_last_message() -> None:
    turns = tuple(Message(role="user", text=text) for text in ("first", "last"))
    assert Prompt(id="p", messages=turns).text == "last"


@pytest.mark.parametrize(
    ("sampling", "truncates"),
    [
        ({}, False),
        ({"top_k": 5}, True),
        ({"top_p": 0.9}, True),
        ({"top_k": 5, "temperature": 0.0}, False),
    ],
)
def test_greedy_decoding_cuts_nothing_from_a_distribution(
    sampling: dict[str, Any], truncates: bool
) -> None:
    assert Sampling(**sampling).truncates == truncates


def test_a_finding_is_made_from_an_interval() -> None:
    found = Finding.of("win rate", Interval(0.5, 0.4, 0.6, 100), "share")
    assert found == Finding(name="win rate", estimate=0.5, low=0.4, high=0.6, n=100, unit="share")
    missing = Finding.unknown("kl", "nats", "greedy")
    assert (missing.estimate, missing.n, missing.reason) == (None, 0, "greedy")
