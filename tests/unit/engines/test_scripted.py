"""The scripted engine says what it is told, in tokens that training can read."""

from __future__ import annotations

from tests.small import POLICY, renderer

from heed.engines.scripted import ScriptedEngine
from heed.records import Message, Prompt, Sampling, prompt_id

RAW = Prompt.make("Who sells bread?", raw=True)
ASKED = Prompt.make("Where does the miller live?")


def test_replies_come_by_id_or_text_and_go_round() -> None:
    replies = {RAW.id: " The baker.", "Where does the miller live?": ["Here.", "There."]}
    engine = ScriptedEngine(replies, renderer(), POLICY)
    raw, asked = engine.generate([RAW, ASKED], Sampling(n=3))
    assert [c.text for c in raw] == [" The baker."] * 3
    assert [c.text for c in asked] == ["Here.", "There.", "Here."]
    assert all(c.finish == "stop" and c.logprobs is None for c in raw + asked)


def test_tokens_are_those_of_a_demonstration() -> None:
    engine = ScriptedEngine(lambda prompt, index: "The baker.", renderer(), POLICY)
    for prompt in (RAW, ASKED):
        ((completion,),) = engine.generate([prompt], Sampling())
        row = renderer().item_row(prompt, "The baker.")
        made = renderer().completion_row(prompt, completion)
        assert (list(made.tokens), list(made.learn)) == (list(row.tokens), list(row.learn))


def test_long_replies_are_cut() -> None:
    engine = ScriptedEngine(lambda prompt, index: "bread " * 20, renderer(), POLICY)
    ((completion,),) = engine.generate([ASKED], Sampling(max_tokens=5))
    assert (completion.finish, completion.num_tokens) == ("length", 5)


def test_what_the_script_lacks_or_fails_at_is_an_error_of_the_sample() -> None:
    turns = (Message(role="user", text="Who?"), Message(role="assistant", text="Well"))
    open_reply = Prompt(id=prompt_id(turns), messages=turns)
    engine = ScriptedEngine({RAW.id: "x"}, renderer(), POLICY)
    known, unknown, begun = engine.generate([RAW, ASKED, open_reply], Sampling())
    assert known[0].finish == "stop"
    assert "no reply to prompt" in unknown[0].error
    assert begun[0].finish == "error"

    def broken(prompt: Prompt, index: int) -> str:
        raise ZeroDivisionError("oh")

    ((failed,),) = ScriptedEngine(broken, renderer(), POLICY).generate([RAW], Sampling())
    assert failed.error == "the script failed: ZeroDivisionError: oh"
