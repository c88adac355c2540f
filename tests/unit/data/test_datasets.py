"""Files become records; what does not fit is dropped with its reason, and torch is not needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heed.data.datasets import (
    load_demonstrations,
    load_preferences,
    load_prompts,
    load_supervised,
    load_texts,
    recognise,
    split_by_prompt,
)
from heed.data.exchange import write_rows
from heed.data.formats import PlainText
from heed.errors import DataError
from heed.records import Completion, Demonstration, Message, Prompt
from heed.settings import DataSettings

DIALOGUE = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "a"},
    {"role": "user", "content": "q2"},
    {"role": "assistant", "content": "a2"},
]
TRANSCRIPT = "\n\nHuman: q\n\nAssistant: a\n\nHuman: q2\n\nAssistant: a2"


def saved(folder: Path, *rows: Any, name: str = "rows.jsonl") -> DataSettings:
    write_rows(folder / name, rows)
    return DataSettings(path=str(folder / name))


def told(messages: Any) -> list[tuple[str, str]]:
    return [(m.role, m.text) for m in messages]


UP_TO_REPLY = [("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "q2")]
PROMPT = Prompt.make("q", meta={"kind": "fact"})
COMPLETION = Completion(
    id="c", prompt_id=PROMPT.id, prompt_tokens=(1,), tokens=(2,), text="a", finish="stop"
)
DEMONSTRATIONS: list[tuple[Any, list[tuple[str, str]], list[tuple[str, str]]]] = [
    ({"prompt": "The", "completion": " end"}, [("text", "The")], [("text", " end")]),
    (
        {"prompt": [DIALOGUE[1]], "completion": [DIALOGUE[2]]},
        [("user", "q")],
        [("assistant", "a")],
    ),
    ({"prompt": [DIALOGUE[1]], "completion": "a"}, [("user", "q")], [("assistant", "a")]),
    ({"prompt": "q", "completion": [DIALOGUE[2]]}, [("user", "q")], [("assistant", "a")]),
    (
        {"messages": DIALOGUE},
        [("system", "s"), ("user", "q")],
        [("assistant", "a"), ("user", "q2"), ("assistant", "a2")],
    ),
    (
        Demonstration(prompt=PROMPT, reply=(Message(role="assistant", text="a"),)),
        [("user", "q")],
        [("assistant", "a")],
    ),
    (
        {"prompt": PROMPT.model_dump(mode="json"), **COMPLETION.model_dump(mode="json")},
        [("user", "q")],
        [("assistant", "a")],
    ),
    (
        {
            "prompt": PROMPT.model_dump(mode="json"),
            "completion": COMPLETION.model_dump(mode="json"),
        },
        [("user", "q")],
        [("assistant", "a")],
    ),
    (
        {"text": TRANSCRIPT},
        [("user", "q"), ("assistant", "a"), ("user", "q2")],
        [("assistant", "a2")],
    ),
    (
        {"chosen": TRANSCRIPT, "rejected": TRANSCRIPT + "!"},
        [("user", "q"), ("assistant", "a"), ("user", "q2")],
        [("assistant", "a2")],
    ),
    ({"prompt": "The", "chosen": " end", "rejected": " x"}, [("text", "The")], [("text", " end")]),
]


@pytest.mark.parametrize(("row", "prompt", "reply"), DEMONSTRATIONS)
def test_demonstrations_are_read_from_every_accepted_format(
    tmp_path: Path, row: Any, prompt: list[tuple[str, str]], reply: list[tuple[str, str]]
) -> None:
    (demo,), report = load_demonstrations(saved(tmp_path, row))
    assert told(demo.prompt.messages) == prompt
    assert told(demo.reply) == reply
    assert (report.read, report.kept) == (1, 1)
    assert "read as demonstrations" in report.notes[0]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "The"}, [("text", "The")]),
        ({"prompt": [DIALOGUE[1]]}, [("user", "q")]),
        ({"messages": DIALOGUE}, UP_TO_REPLY),
        ({"prompt": "q", "messages": DIALOGUE}, [("user", "q")]),
        ({"chosen": TRANSCRIPT, "rejected": TRANSCRIPT + "!"}, UP_TO_REPLY[1:]),
        ({"chosen": "The sky is", "rejected": "The sky was"}, [("text", "The sky")]),
        ({"text": TRANSCRIPT}, UP_TO_REPLY[1:]),
        (PROMPT, [("user", "q")]),
    ],
)
def test_prompts_are_read_from_every_accepted_format(
    tmp_path: Path, row: Any, prompt: list[tuple[str, str]]
) -> None:
    (found,), _ = load_prompts(saved(tmp_path, row))
    assert told(found.messages) == prompt


def test_other_columns_reach_the_prompt_s_meta(tmp_path: Path) -> None:
    data = saved(tmp_path, {"prompt": "2 + 2 =", "answer": "4", "source": {"page": 3}})
    (prompt,), _ = load_prompts(data)
    assert prompt.meta == {"answer": "4", "source": {"page": 3}}
    data = saved(tmp_path, {"prompt": "p", "chosen": "a", "rejected": "b", "p": 0.8, "who": "x"})
    (pair,), _ = load_preferences(data)
    assert pair.prompt.meta == {"who": "x"}
    assert pair.p == 0.8
    row = {"prompt": PROMPT.model_dump(), **COMPLETION.model_dump(mode="json"), "split": "train"}
    (demo,), _ = load_demonstrations(saved(tmp_path, row))
    assert demo.prompt.meta == {"kind": "fact", "split": "train"}
    assert demo.prompt.id == PROMPT.id


def test_equal_prompts_share_an_id_and_the_first_is_kept(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "n": 1}, {"prompt": "b"}, {"prompt": "a", "n": 2}]
    prompts, report = load_prompts(saved(tmp_path, *rows))
    assert [p.meta for p in prompts] == [{"n": 1}, {}]
    assert (report.read, report.kept, report.num_lost) == (3, 2, 0)


def test_rows_that_fail_are_dropped_with_a_reason_and_an_example(tmp_path: Path) -> None:
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    rows = [
        good,
        {**good, "rejected": "a"},
        {**good, "rejected": ""},
        {"prompt": "p", "chosen": "a"},
        {**good, "p": 7},
        {**good, "prompt": ""},
    ]
    pairs, report = load_preferences(saved(tmp_path, *rows))
    assert len(pairs) == report.kept == 1
    assert dict(report.reasons) == {
        "chosen equals rejected": 1,
        "empty reply": 1,
        "rejected is missing": 1,
        "p is outside its range": 1,
        "empty prompt": 1,
    }
    assert report.examples["p is outside its range"] == ["rows.jsonl:5 7; expected 0.0 to 1.0"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": DIALOGUE[:-1]}, "no reply at the end"),
        ({"messages": DIALOGUE[2:]}, "no prompt before the first assistant turn"),
        ({"prompt": "p", "completion": "  "}, "empty reply"),
        ({"prompt": "p", "completion": 3}, "completion is not text"),
        (
            {
                "prompt": PROMPT.model_dump(),
                "completion": {**COMPLETION.model_dump(), "finish": "error", "error": "gone"},
            },
            "a completion failed",
        ),
    ],
)
def test_demonstrations_without_a_reply_are_dropped(tmp_path: Path, row: Any, reason: str) -> None:
    demos, report = load_demonstrations(saved(tmp_path, row))
    assert not demos
    assert dict(report.reasons) == {reason: 1}


def test_missing_columns_name_what_was_found_and_what_is_accepted(tmp_path: Path) -> None:
    data = saved(tmp_path, {"question": "q", "answer": "a"})
    for load in (load_demonstrations, load_prompts, load_preferences, load_texts, recognise):
        with pytest.raises(DataError, match=r"has the columns question, answer;"):
            load(data)
    with pytest.raises(DataError, match=r"prompt \+ chosen \+ rejected; .*Rename the columns"):
        load_preferences(data)
    with pytest.raises(DataError, match="load it as texts"):
        load_demonstrations(saved(tmp_path, {"text": "A story."}))


def test_several_files_and_a_limit(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"text": f"a{i}"} for i in range(3)])
    write_rows(tmp_path / "b.jsonl.gz", [{"text": f"b{i}"} for i in range(3)])
    paths = (str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl.gz"))
    texts, report = load_texts(DataSettings(path=paths))
    assert [t.text for t in texts] == ["a0", "a1", "a2", "b0", "b1", "b2"]
    texts, report = load_texts(DataSettings(path=paths, limit=4))
    assert [t.text for t in texts] == ["a0", "a1", "a2", "b0"]
    assert report.read == 4


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "preferences"),
        ({"prompt": "p", "completion": "a"}, "demonstrations"),
        ({"messages": DIALOGUE}, "demonstrations"),
        ({"prompt": "p"}, "prompts"),
        ({"text": "A story."}, "texts"),
        ({"text": TRANSCRIPT}, "demonstrations"),
    ],
)
def test_a_source_is_recognised_by_its_first_row(tmp_path: Path, row: Any, kind: str) -> None:
    assert recognise(saved(tmp_path, row)) == kind


def test_supervised_data_are_demonstrations_or_texts(tmp_path: Path) -> None:
    assert isinstance(load_supervised(saved(tmp_path, {"text": "A story."}))[0][0], PlainText)
    demos, _ = load_supervised(saved(tmp_path, {"messages": DIALOGUE}))
    assert isinstance(demos[0], Demonstration)


def test_a_run_folder_gives_each_loader_its_file(tmp_path: Path) -> None:
    saved(tmp_path, PROMPT, name="prompts.jsonl")
    saved(tmp_path, {"prompt": "p", "completion": "c"}, name="demonstrations.jsonl")
    saved(tmp_path, {"text": "A story."}, name="texts.jsonl")
    data = DataSettings(path=str(tmp_path))
    assert load_prompts(data)[0] == [PROMPT]
    assert load_demonstrations(data)[0][0].prompt.text == "p"
    assert load_texts(data)[0][0].text == "A story."
    assert recognise(DataSettings(path=str(tmp_path / "prompts.jsonl"))) == "prompts"


def test_prompts_that_are_too_long_are_dropped_or_an_error(tmp_path: Path) -> None:
    class Letters:
        def prompt_tokens(self, prompt: Prompt) -> list[int]:
            if "!" in prompt.text:
                raise DataError("no")
            return [0] * len(prompt.text)

    data = saved(tmp_path, *({"prompt": text} for text in ("abc", "abcd", "a!")))
    short = data.model_copy(update={"max_length": 3})
    prompts, report = load_prompts(short, Letters())
    assert [p.text for p in prompts] == ["abc"]
    assert sorted(report.reasons) == [
        "prompt longer than data.max_length",
        "the prompt cannot be rendered",
    ]
    assert report.lengths == [3]
    with pytest.raises(DataError, match="4 tokens"):
        load_prompts(short.model_copy(update={"on_overlong": "error"}), Letters())


def test_a_split_puts_equal_prompts_on_one_side(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i % 20}", "chosen": f" a{i}", "rejected": " b"} for i in range(100)]
    pairs, _ = load_preferences(saved(tmp_path, *rows))
    rest, held_out = split_by_prompt(pairs, 0.25, seed=3)
    assert len(held_out) == 25
    assert not {p.prompt.id for p in rest} & {p.prompt.id for p in held_out}
    assert sorted(p.id for p in rest + held_out) == sorted(p.id for p in pairs)
    assert split_by_prompt(pairs, 0.25, seed=3) == (rest, held_out)
    assert split_by_prompt(pairs, 0.25, seed=4) != (rest, held_out)
    # The side of a prompt hangs on its text, not on the records around it.
    prompts = [p.prompt for p in reversed(pairs)]
    out = {p.id for p in split_by_prompt(prompts, 0.25, seed=3)[1]}
    assert out == {p.prompt.id for p in held_out}


def test_a_split_leaves_both_sides_something_where_it_can() -> None:
    prompts = [Prompt.make(f"p{i}") for i in range(3)]
    assert [len(side) for side in split_by_prompt(prompts, 0.01, 0)] == [2, 1]
    assert [len(side) for side in split_by_prompt(prompts, 1.0, 0)] == [1, 2]
    assert [len(side) for side in split_by_prompt(prompts, 0.0, 0)] == [3, 0]
    assert [len(side) for side in split_by_prompt(prompts[:1], 0.5, 0)] == [1, 0]


def test_real_comparisons_load_with_the_losses_that_their_notes_count(shared_data: Path) -> None:
    expected = {
        "harmless-base": (2312, 0, 5),
        "helpful-base": (2354, 2, 9),
        "helpful-rejection-sampled": (2749, 32, 3),
    }
    for name, (read, equal, differ) in expected.items():
        path = shared_data / "hh-rlhf" / f"{name}.test.jsonl.gz"
        pairs, report = load_preferences(DataSettings(path=str(path)))
        assert report.read == read
        assert report.reasons["chosen equals rejected"] == equal
        assert report.reasons["prompts of chosen and rejected differ"] == differ
        assert report.reasons["empty reply"] == (0 if "rejection" in name else 4)
        assert len(pairs) == report.kept == read - sum(report.reasons.values())
        for pair in pairs:
            assert pair.prompt.messages[-1].role == "user"
            assert pair.chosen != pair.rejected


def test_loading_needs_no_torch(tmp_path: Path) -> None:
    saved(tmp_path, {"prompt": "p", "chosen": "a", "rejected": "b"})
    code = (
        "import sys\n"
        "import heed.data, heed.data.exchange, heed.data.report, heed.data.judgements\n"
        "from heed.data.datasets import load_preferences\n"
        "from heed.data.inspect import inspect\n"
        "from heed.settings import DataSettings\n"
        f"data = DataSettings(path={str(tmp_path / 'rows.jsonl')!r})\n"
        "assert len(load_preferences(data)[0]) == 1\n"
        "assert inspect(data)[0] == 'kind: preferences'\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
