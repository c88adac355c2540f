"""Formats of other projects: read, written back, read again the same; and recognised, or not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heed.data.datasets import load_demonstrations, load_preferences, load_prompts, recognise
from heed.data.dialects.base import ranks_of
from heed.data.dialects.convert import ConvertConfig, convert, pairs_of
from heed.data.dialects.table import DIALECTS, dialects_of
from heed.data.exchange import read_rows, write_rows
from heed.data.inspect import inspect
from heed.data.report import RowError
from heed.errors import ConfigError, DataError
from heed.settings import DataSettings


def say(role, text):
    return {"role": role, "content": text}


ASKED = [say("user", "Who owns the Swan?")]
RANKED = {"prompt": "a", "completions": ["b", "c"], "ranks": [1, 2]}
MARKED = "Go\n<extra_id_1>Assistant\nWhere?\n<extra_id_1>User\nHome\n<extra_id_1>Assistant\n"
ROWS = {
    "alpaca": [
        {"instruction": "Add.", "input": "1 + 1", "output": "2", "source": "made"},
        {"instruction": "Say hello.", "input": "", "output": "Hello."},
        {"instruction": "And now?", "output": "Bye.", "system": "Be brief.",
         "history": [["Hello", "Hi."], ["How are you?", "Well."]]},
    ],
    "sharegpt": [
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
        {"conversations": [
            {"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Let me look."}, {"from": "observation", "value": "12"},
            {"from": "gpt", "value": "12."}], "id": "x"},
    ],
    "sharegpt_preference": [
        {"conversations": [{"from": "human", "value": "Hi"}],
         "chosen": {"from": "gpt", "value": "Hello."}, "rejected": {"from": "gpt", "value": "No."}},
    ],
    "hh": [
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.",
         "rejected": "\n\nHuman: Hi\n\nAssistant: No."},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Go\n\nAssistant: Gone.",
         "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Go\n\nAssistant: Why?"},
    ],
    "ultrafeedback": [
        {"instruction": "Hi", "source": "made", "completions": [
            {"model": "a", "response": "Hello.", "overall_score": 8.5, "fine-grained_score": 3.0},
            {"model": "b", "response": "No.", "overall_score": 2, "fine-grained_score": 4.0},
            {"model": "c", "response": "Hi.", "overall_score": 8.5, "fine-grained_score": 1.0}]},
    ],
    "helpsteer": [
        {"prompt": "Hi", "response": "Hello.", "helpfulness": 4, "correctness": 4, "coherence": 4,
         "complexity": 1, "verbosity": 1},
        {"prompt": "Hi", "response": "No.", "helpfulness": 1, "correctness": 2, "coherence": 4,
         "complexity": 1, "verbosity": 3},
        {"prompt": MARKED,
         "response": "Gone.", "helpfulness": 2, "correctness": 2, "coherence": 2, "complexity": 2,
         "verbosity": 2},
        {"prompt": MARKED,
         "response": "Why?", "helpfulness": 2, "correctness": 1, "coherence": 1, "complexity": 1,
         "verbosity": 1},
    ],
    "helpsteer_preference": [
        {"context": ASKED, "response1": "Anna.", "response2": "No.", "overall_preference": -3,
         "domain": "general"},
        {"context": ASKED, "response1": "No.", "response2": "Anna.", "overall_preference": 1},
        {"context": ASKED, "response1": "Anna", "response2": "Anna!", "overall_preference": 0},
    ],
    "nemo": [
        {"context": ASKED, "completions": [
            {"rank": 1, "completion": [say("assistant", "No.")]},
            {"rank": 0, "completion": [say("assistant", "Anna.")]},
            {"rank": 1, "completion": [say("assistant", "Why?")]}]},
    ],
    "verl": [
        {"data_source": "openai/gsm8k", "prompt": ASKED, "ability": "math",
         "reward_model": {"style": "rule", "ground_truth": "72"}, "extra_info": {"index": 3}},
    ],
}  # fmt: skip


@pytest.fixture
def file(tmp_path):
    def write(rows, name="in.jsonl"):
        write_rows(tmp_path / name, rows)
        return str(tmp_path / name)

    return write


def rows_of(path):
    return [row for _, row in read_rows(path)]


def converted(tmp_path, path, name="out.jsonl", **settings):
    out = str(tmp_path / name)
    report = convert(ConvertConfig(path=path, out=out, overwrite=True, **settings))
    return rows_of(out), report


@pytest.mark.parametrize("name", DIALECTS)
def test_read_written_and_read_again_is_the_same(name, file, tmp_path):
    first, report = converted(tmp_path, file(ROWS[name]), "first.jsonl")
    assert report.read == report.kept == len(ROWS[name])
    assert f"read as {name}" in report.notes[0]
    converted(tmp_path, str(tmp_path / "first.jsonl"), "written.jsonl", to=name)
    again, _ = converted(tmp_path, str(tmp_path / "written.jsonl"), "again.jsonl")
    assert again == first


@pytest.mark.parametrize("name", DIALECTS)
def test_a_row_is_of_one_dialect_alone(name):
    for row in ROWS[name]:
        assert [dialect.name for dialect in dialects_of(row)] == [name]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda text: text.strip() == text and "Human:" not in text and "Assistant:" not in text
)
EXCHANGES = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(EXCHANGES, st.sampled_from(["alpaca", "sharegpt"]))
def test_any_dialogue_is_the_same_after_a_round(exchanges, name):
    turns = [
        say(r, t) for pair in exchanges for r, t in zip(("user", "assistant"), pair, strict=True)
    ]
    dialect = DIALECTS[name]
    assert dialect.read(dialect.write({"messages": turns, "more": 1})) == {
        "messages": turns,
        "more": 1,
    }


@settings(max_examples=40, deadline=None)
@given(EXCHANGES, TEXT, st.sampled_from(["hh", "sharegpt_preference"]))
def test_any_comparison_is_the_same_after_a_round(exchanges, other, name):
    *before, (asked, reply) = exchanges
    turns = [say(r, t) for pair in before for r, t in zip(("user", "assistant"), pair, strict=True)]
    row = {
        "prompt": [*turns, say("user", asked)],
        "chosen": [say("assistant", reply)],
        "rejected": [say("assistant", other + "!")],
    }
    if reply == other + "!":
        return
    dialect = DIALECTS[name]
    assert dialect.read(dialect.write(row)) == row


def test_rankings_have_ranks_from_scores_and_keep_the_scores(file, tmp_path):
    path = file(ROWS["ultrafeedback"])
    [row], _ = converted(tmp_path, path)
    assert row["prompt"] == [say("user", "Hi")]
    assert row["completions"][1] == [say("assistant", "No.")]
    assert (row["ranks"], row["scores"]) == ([1, 2, 1], [8.5, 2.0, 8.5])
    assert (row["models"], row["source"]) == (["a", "b", "c"], "made")
    [row], _ = converted(tmp_path, path, score="fine-grained_score")
    assert (row["ranks"], row["scores"]) == ([2, 1, 3], [3.0, 4.0, 1.0])
    assert ranks_of([1.0, 3.0, 3.0, 2.0]) == [3, 1, 1, 2]


def test_rows_of_one_prompt_become_a_ranking_by_the_attribute_asked_for(file, tmp_path):
    path = file(ROWS["helpsteer"])
    rows, report = converted(tmp_path, path)
    assert [row["ranks"] for row in rows] == [[1, 2], [1, 1]]
    assert rows[0]["attributes"][1]["verbosity"] == 3.0
    assert [m["role"] for m in rows[1]["prompt"]] == ["user", "assistant", "user"]
    assert (report.read, report.kept) == (4, 4)
    rows, _ = converted(tmp_path, path, score="verbosity")
    assert [row["ranks"] for row in rows] == [[2, 1], [1, 2]]


@pytest.mark.parametrize(
    ("settings", "couples"),
    [
        ({}, [("Hello.", "No.", 6.5), ("Hi.", "No.", 6.5)]),
        ({"ties": True}, [("Hello.", "Hi.", None), ("Hello.", "No.", 6.5), ("Hi.", "No.", 6.5)]),
        ({"pairs": "extremes"}, [("Hello.", "No.", 6.5)]),
        ({"pairs": "adjacent"}, [("Hi.", "No.", 6.5)]),
    ],
)
def test_pairs_of_a_ranking(settings, couples, file, tmp_path):
    rows, _ = converted(tmp_path, file(ROWS["ultrafeedback"]), to="preferences", **settings)
    found = [
        (r["chosen"][0]["content"], r["rejected"][0]["content"], r.get("margin")) for r in rows
    ]
    assert found == couples
    assert [row.get("p") for row in rows if row.get("margin") is None] == [0.5] * (
        "ties" in settings
    )
    pairs, report = load_preferences(DataSettings(path=str(tmp_path / "out.jsonl")))
    assert len(pairs) == len(couples) == report.kept


def test_a_ranking_that_is_all_ties_holds_no_pair():
    row = {"prompt": "a", "completions": ["b", "c"], "ranks": [1, 1]}
    with pytest.raises(RowError, match="tied"):
        pairs_of(row, "all", False)
    assert pairs_of(row, "all", True)[0]["p"] == 0.5


def test_strengths_become_margins_on_the_better_side(file, tmp_path):
    rows, _ = converted(tmp_path, file(ROWS["helpsteer_preference"]))
    found = [(r["chosen"][0]["content"], r["margin"], r.get("p")) for r in rows]
    assert found == [("Anna.", 3, None), ("Anna.", 1, None), ("Anna", 0, 0.5)]
    second = {"prompt": "Hi", "response_1": "a", "response_2": "b", "preference_strength": 2}
    assert DIALECTS["helpsteer_preference"].read(second)["chosen"] == [say("assistant", "b")]


def test_other_kinds_are_made_where_a_kind_holds_them(file, tmp_path):
    path = file(ROWS["nemo"])
    [best], _ = converted(tmp_path, path, to="demonstrations")
    assert best["messages"][-1] == say("assistant", "Anna.")
    [prompt], _ = converted(tmp_path, path, to="prompts")
    assert prompt == {"prompt": ASKED}
    rows, _ = converted(tmp_path, file(ROWS["hh"], "hh.jsonl"), to="rankings")
    assert rows[0]["ranks"] == [1, 2]
    rows, _ = converted(tmp_path, file(ROWS["hh"], "hh.jsonl"), to="alpaca")
    assert rows[1]["history"] == [["Hi", "Yes?"]]
    with pytest.raises(ConfigError, match="demonstrations hold no rankings"):
        converted(tmp_path, file(ROWS["alpaca"], "a.jsonl"), to="rankings")
    with pytest.raises(ConfigError, match="prompts, alpaca, sharegpt"):
        converted(tmp_path, path, to="rankngs")


def test_columns_can_be_renamed(file, tmp_path):
    path = file([{"question": "1 + 1?", "answer": "#### 2"}])
    rows, _ = converted(tmp_path, path, rename={"question": "prompt"})
    assert rows == [{"prompt": "1 + 1?", "answer": "#### 2"}]
    prompts, _ = load_prompts(DataSettings(path=str(tmp_path / "out.jsonl")))
    assert prompts[0].meta == {"answer": "#### 2"}


def test_every_row_that_is_lost_is_counted_with_its_reason(file, tmp_path):
    rows = [
        *ROWS["ultrafeedback"],
        {"instruction": "Hi", "completions": [{"response": "a", "overall_score": 1}]},
        {"instruction": "Hi", "completions": [{"response": "a", "overall_score": "N/A"}] * 2},
        {"instruction": " ", "completions": []},
    ]
    with pytest.raises(DataError, match=r"3 .*are lost"):
        converted(tmp_path, file(rows))
    assert not (tmp_path / "out.jsonl").exists()
    out, report = converted(tmp_path, file(rows), max_loss_frac=0.8)
    assert len(out) == 1
    assert report.num_dropped == 3
    assert set(report.reasons) == {
        "a ranking needs two completions", "overall_score is not a finite number",
        "instruction is empty",
    }  # fmt: skip


def test_columns_that_can_be_two_formats_are_an_error_that_names_both(file, tmp_path):
    row = {**ROWS["alpaca"][0], **ROWS["sharegpt"][0]}
    path = file([row])
    with pytest.raises(DataError, match="can be alpaca, sharegpt; say which with --format"):
        converted(tmp_path, path)
    rows, _ = converted(tmp_path, path, format="sharegpt")
    assert rows[0]["messages"][1] == say("assistant", "Hello.")
    with pytest.raises(DataError, match="look like alpaca or sharegpt; convert them first"):
        load_demonstrations(DataSettings(path=path))


def test_columns_of_no_format_are_an_error_that_names_what_is_known(file, tmp_path):
    with pytest.raises(DataError, match=r"columns q, a.*ultrafeedback \(instruction"):
        converted(tmp_path, file([{"q": "Hi", "a": "Hello"}]))
    with pytest.raises(ConfigError, match="nearest is 'alpaca'"):
        converted(tmp_path, file(ROWS["alpaca"]), format="alpacca")


def test_loaders_read_what_stands_in_one_row(file):
    for name, kind in (("alpaca", "demonstrations"), ("sharegpt", "demonstrations"),
                       ("sharegpt_preference", "preferences"), ("hh", "preferences"),
                       ("helpsteer_preference", "preferences"), ("verl", "prompts")):  # fmt: skip
        data = DataSettings(path=file(ROWS[name], f"{name}.jsonl"))
        assert recognise(data) == kind
        assert "training would accept this data" in inspect(data), name
    demos, _ = load_demonstrations(DataSettings(path=file(ROWS["alpaca"])))
    assert demos[0].prompt.text == "Add.\n1 + 1"
    assert demos[0].prompt.meta == {"source": "made"}
    pairs, _ = load_preferences(DataSettings(path=file(ROWS["helpsteer_preference"])))
    assert [(p.p, p.margin) for p in pairs] == [(1.0, 3.0), (1.0, 1.0), (0.5, 0.0)]


def test_loaders_say_how_to_convert_what_does_not_stand_in_one_row(file):
    for name in ("ultrafeedback", "nemo"):
        path = file(ROWS[name], f"{name}.jsonl")
        with pytest.raises(
            DataError, match=f"look like {name}; convert them first: heed data convert"
        ):
            load_preferences(DataSettings(path=path))


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("alpaca", {"instruction": "Hi", "output": ""}, "output is empty"),
        ("alpaca", {"instruction": 3, "output": "x"}, "instruction is not text"),
        ("alpaca", {"instruction": "Hi", "output": "x", "history": ["a"]}, "history is not"),
        ("sharegpt", {"conversations": [{"from": "function_call", "value": "{}"}]},
         "unknown speaker"),
        ("sharegpt", {"conversations": [{"from": "human", "value": "Hi"}]}, "no reply at the end"),
        ("hh", {"chosen": "\n\nHuman: Hi\n\nAssistant: a",
                "rejected": "\n\nHuman: Ho\n\nAssistant: b"},
         "prompts of chosen and rejected differ"),
        ("helpsteer_preference", {"context": ASKED, "response1": "a", "response2": "b",
                                  "overall_preference": None}, "preference_strength is not"),
        ("nemo", {"context": ASKED, "completions": [{"rank": 0.5, "completion": "a"}] * 2},
         "a rank is not a whole number"),
        ("verl", {"prompt": ASKED, "reward_model": {}}, "no ground_truth"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_says_why(name, row, reason):
    with pytest.raises(RowError, match=reason):
        DIALECTS[name].read(row)


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("alpaca", {"messages": [say("user", "a")]}, "one after the other"),
        ("hh", {"prompt": [say("system", "a")], "chosen": "b", "rejected": "c"}, "no such role"),
        ("hh", {"prompt": "a", "chosen": "b\n\nHuman: c", "rejected": "d"}, "several turns"),
        ("ultrafeedback", RANKED, "needs scores"),
        ("helpsteer", RANKED, "needs attributes"),
        ("helpsteer_preference", {"prompt": "a", "chosen": "b", "rejected": "c"}, "no margin"),
        ("helpsteer_preference", {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 0.5},
         "whole number"),
        ("verl", {"prompt": "a"}, "needs an answer"),
    ],
)  # fmt: skip
def test_a_row_that_a_format_cannot_hold_says_why(name, row, reason):
    with pytest.raises(RowError, match=reason):
        DIALECTS[name].write(row)


def test_real_comparisons_are_the_same_after_a_round(shared_data, tmp_path):
    path = str(shared_data / "hh-rlhf/harmless-base.test.jsonl.gz")
    first, report = converted(tmp_path, path, "first.jsonl", limit=800)
    assert report.kept > 790
    written, _ = converted(tmp_path, str(tmp_path / "first.jsonl"), "hh.jsonl", to="hh")
    again, _ = converted(tmp_path, str(tmp_path / "hh.jsonl"), "again.jsonl")
    assert again == first
    assert len(written) == len(first)
    for name in ("sharegpt_preference", "nemo"):
        converted(tmp_path, str(tmp_path / "first.jsonl"), "other.jsonl", to=name)
        back, _ = converted(tmp_path, str(tmp_path / "other.jsonl"), "back.jsonl", to="preferences")
        assert back == first


def test_real_instructions_are_alpaca(shared_data, tmp_path):
    rows = rows_of(shared_data / "self-instruct/seed_tasks.jsonl.xz")
    flat = [{"instruction": r["instruction"], **i} for r in rows for i in r["instances"]]
    write_rows(tmp_path / "alpaca.jsonl", flat)
    first, report = converted(tmp_path, str(tmp_path / "alpaca.jsonl"), "first.jsonl")
    assert report.kept == len(flat)
    converted(tmp_path, str(tmp_path / "first.jsonl"), "back.jsonl", to="alpaca")
    assert converted(tmp_path, str(tmp_path / "back.jsonl"), "again.jsonl")[0] == first
