"""What the recipes' own functions do with rows: splits, cuts and counts, on rows made up here."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from heed.config import make_config
from heed.data.exchange import read_rows, write_rows
from heed.data.report import DataReport, RowError
from heed.feedback.callables import load_callable
from heed.pipelines.matrix import expanded
from heed.pipelines.recipe import configured, read_pipeline
from heed.pipelines.verbs import VERBS

RECIPES = Path(__file__).parents[2] / "recipes"


def function(name: str) -> Any:
    file, _, attribute = name.partition(":")
    return load_callable(f"{RECIPES / file}:{attribute}")


def rows(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(path)]


def pair(first: str, chosen: str = "Yes, do.", rejected: str = "No.", more: str = "") -> dict:
    start = f"\n\nHuman: {first}{more}\n\nAssistant: "
    return {"chosen": start + chosen, "rejected": start + rejected}


def test_a_conversation_is_on_one_side_whatever_follows_its_first_turn(tmp_path: Path) -> None:
    more = "\n\nAssistant: Why?\n\nHuman: Because."
    made = [pair(f"Question {i}?") for i in range(200)]
    made += [pair(f"question {i}", more=more) for i in range(200)]
    write_rows(tmp_path / "in" / "helpful.jsonl", made)
    write_rows(tmp_path / "in" / "harmless.jsonl", [pair("How do I harm?")])
    out = tmp_path / "out"
    out.mkdir()
    reports = function("hh_data.py:comparisons")(out, comparisons=tmp_path / "in", seed=3)
    assert [(r.read, r.kept) for r in reports] == [(400, 400)]
    sides = {
        name: {
            row["prompt"][0]["content"].lower().strip("?") for row in rows(out / f"{name}.jsonl")
        }
        for name in ("prompts", "proxy", "gold", "judge")
    }
    assert sum(len(side) for side in sides.values()) == 200
    shares = {name: len(side) / 200 for name, side in sides.items()}
    expected = {"prompts": 0.24, "proxy": 0.28, "gold": 0.40, "judge": 0.08}
    assert shares == pytest.approx(expected, abs=0.1)
    learned = {row["prompt"][0]["content"] for row in rows(out / "demonstrations.jsonl")}
    assert learned <= {row["prompt"][0]["content"] for row in rows(out / "prompts.jsonl")}


def test_conversations_that_come_to_one_prompt_are_on_one_side(tmp_path: Path) -> None:
    more = "\n\nAssistant: " + "b" * 400 + "\n\nHuman: Thanks!"
    write_rows(tmp_path / "helpful.jsonl", [pair(f"Question {i}?", more=more) for i in range(50)])
    (report,) = function("hh_data.py:comparisons")(tmp_path, comparisons=tmp_path, seed=3)
    with_rows = [
        name
        for name in ("prompts", "proxy", "gold", "judge")
        if (tmp_path / f"{name}.jsonl").stat().st_size
    ]
    assert len(with_rows) == 1
    assert report.read == 50
    assert report.reasons["prompt stands in another part already"] == 50 - report.kept > 10


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (pair("Hi", "Same.", "Same."), "chosen equals rejected"),
        (pair("Hi", "x" * 601), "reply longer than 600 letters"),
        (pair("x" * 401), "last turn longer than 400 letters"),
        ({"chosen": pair("Hi")["chosen"], "rejected": pair("Ho")["rejected"]}, "prompts of chosen"),
        (pair("Hi", ""), "empty reply"),
    ],
)
def test_what_cannot_be_compared_is_left_out_with_its_reason(row: dict, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        function("hh_data.py:split_pair")(row, 400, 600, DataReport("test"), 0)


def test_the_oldest_turns_go_first_and_the_prompt_begins_with_the_human() -> None:
    more = "\n\nAssistant: " + "b" * 100 + "\n\nHuman: " + "c" * 50
    report = DataReport("test")
    _, made = function("hh_data.py:split_pair")(pair("a" * 300, more=more), 400, 600, report, 0)
    assert [turn["content"][0] for turn in made["prompt"]] == ["c"]
    assert [turn["role"] for turn in made["prompt"]] == ["user"]
    assert report.num_cut == 1


def test_dialogues_close_what_the_assistant_says_and_nothing_else() -> None:
    text = function("hh_data.py:turns_text")([["U", "Hi"], ["S", "Yes?"], ["U", "Bye"]])
    assert text == "<|user|>Hi<|assistant|>Yes?<|endoftext|><|user|>Bye"


def test_every_book_gives_as_many_passages(tmp_path: Path) -> None:
    books = [{"title": str(i), "text": "\n\n".join(f"{i} {'a' * 998}" for _ in range(20 + i))}
             for i in range(4)]  # fmt: skip
    write_rows(tmp_path / "books.jsonl", books)
    passages = function("books.py:passages")
    passages(tmp_path, books=tmp_path / "books.jsonl", num_letters=24_000, seed=0)
    made = rows(tmp_path / "texts.jsonl")
    assert sorted(row["title"] for row in made) == sorted("0123" * 3)
    assert all(row["text"].startswith(row["title"] + " ") for row in made)


def polarity(path: Path) -> Path:
    good = [f"a {word} film about {i}" for i in "abcdefghij" for word in ("fine", "lovely")]
    bad = [f"a {word} film about {i}" for i in "abcdefghij" for word in ("dull", "awful")]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sentence_polarity/rt-polarity.pos", "\n".join(good * 1))
        archive.writestr("sentence_polarity/rt-polarity.neg", "\n".join(bad * 1))
    return path


def test_a_classifier_is_a_reward_function_that_scores_as_it_was_fitted(tmp_path: Path) -> None:
    source = polarity(tmp_path / "p.zip")
    classifier = function("sentiment_data.py:classifier")
    found = classifier(tmp_path, polarity=source, part="gold", pairs=True, penalty=0.1, seed=0)
    assert found[0].estimate == 1.0
    texts = ["a LOVELY film", "a dull film about it"]
    score = load_callable(f"{tmp_path / 'scorer.py'}:score")
    got = score(completions=texts, prompts=["", ""])
    assert got[0] > 0 > got[1]
    kept = json.loads((tmp_path / "weights.json").read_text())
    logit = function("sentiment_data.py:logit")
    expected = [logit(text, kept["weights"], kept["bias"], True) * kept["scale"] for text in texts]
    assert got == pytest.approx(expected)


def test_the_two_classifiers_have_no_sentence_in_common() -> None:
    half_of = function("sentiment_data.py:half_of")
    halves = [half_of(f"sentence {i}", 0) for i in range(400)]
    assert halves == [half_of(f"sentence {i}", 0) for i in range(400)]
    assert 150 < halves.count("proxy") < 250


def test_a_start_leaves_six_words_to_say_and_is_taken_once() -> None:
    starts_of = function("sentiment_data.py:starts_of")
    long = " ".join(f"w{i}" for i in range(14))
    assert starts_of([f"{long}\nshort one .", long], 8) == [" ".join(long.split()[:8])]


@pytest.mark.parametrize("name", ["hh.toml", "sentiment.toml"])
@pytest.mark.parametrize("quick", [False, True])
def test_recipes_are_valid_and_have_no_path_of_their_own(name: str, quick: bool) -> None:
    recipe = read_pipeline(RECIPES / name)
    assert all(argument.value is None for argument in recipe.arguments.values())
    recipe = recipe.given({key: f"/given/{key}" for key in recipe.arguments}, quick=quick)
    folders = {stage.name: Path("/run") / stage.name for stage in recipe.stages}
    for stage in recipe.stages:
        values = configured(recipe, stage, folders)
        run = {"folder": "/run", **values.get("run", {})}
        make_config(VERBS[stage.verb].config_class(), {**values, "run": run})


@pytest.mark.parametrize("name", ["methods.toml", "methods_hh.toml"])
def test_methods_have_the_same_budget_and_are_all_measured(name: str) -> None:
    """Four settings a method and seed, one evaluation each, gathered by the last stage."""
    recipe = read_pipeline(RECIPES / name)
    given = {key: "/given" for key, a in recipe.arguments.items() if a.value is None}
    whole = expanded(recipe.given(given | {"seeds": [5]}))
    stages = whole.stages
    folders = {stage.name: Path("/run") / stage.name for stage in stages}
    tags = {
        str(folders[s.name]): configured(whole, s, folders)["tags"]
        for s in stages
        if s.verb == "evaluate"
    }
    settings = Counter(str(tag["method"]) for tag in tags.values())
    assert set(settings.values()) == {4}
    assert len(settings) == (14 if name == "methods.toml" else 4)
    gathered = configured(whole, stages[-1], folders)["runs"]
    assert sorted(gathered) == sorted([*tags, "/run/best_of_n.5"])
    sizes = {
        int(c["total_episodes"]) / (c["batch_size"] / c["num_mini_batches"])
        for c in (configured(whole, s, folders) for s in stages if s.verb in ("online", "ppo"))
    }
    assert len(sizes) == 1, "every method that samples takes the same number of steps"
