"""Repeated stages: what is written out, what references mean, and what an error says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heed.errors import ConfigError
from heed.pipelines.matrix import expanded
from heed.pipelines.recipe import Pipeline, configured, parse_pipeline

FILE: dict[str, Any] = {
    "pipeline": {"name": "grid"},
    "arguments": {"seeds": {"default": [0, 1]}, "data": "d.jsonl"},
    "matrix": {
        "seed": "{seeds}",
        "beta": [0.1, 1.0],
        "method": [
            {"name": "dpo", "loss": "sigmoid", "more": {"a": 1}},
            {"name": "re++", "loss": "{data}", "more": {"a": 2}},
        ],
    },
    "stage": [
        {"name": "start", "verb": "sft", "config": {"data": "{data}"}},
        {
            "name": "train",
            "verb": "preference",
            "over": ["method", "beta", "seed"],
            "config": {
                "model": "{stages.start}/model",
                "beta": "{beta}",
                "loss": "{method.loss}",
                "more": "{method.more}",
                "said": "{{{seed}}}",
            },
        },
        {
            "name": "measure",
            "verb": "evaluate",
            "over": ["seed", "method", "beta"],
            "config": {"model": "{stages.train}/model", "start": "{stages.start}"},
        },
        {
            "name": "gather",
            "verb": "frontier",
            "over": ["method"],
            "config": {"runs": ["first", "{stages.measure}"], "all": "{stages.train}"},
        },
    ],
    "quick": {"matrix": {"beta": [1.0]}, "train": {"beta": 3.0}},
}


def changed(**tables: Any) -> Pipeline:
    return parse_pipeline(FILE | tables, "grid.toml")


def settings(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    """Name -> settings of every stage, in order."""
    folders = {stage.name: Path("run") / stage.name for stage in pipeline.stages}
    return {s.name: configured(pipeline, s, folders) for s in pipeline.stages}


def test_members_are_written_out_with_the_first_axis_slowest() -> None:
    names = [stage.name for stage in expanded(changed().given()).stages]
    assert names[:5] == [
        "start", "train.dpo.0.1.0", "train.dpo.0.1.1", "train.dpo.1.0.0", "train.dpo.1.0.1",
    ]  # fmt: skip
    assert names[5] == "train.re_.0.1.0"
    assert len(names) == 1 + 8 + 8 + 2
    of = {stage.name: stage.of for stage in expanded(changed().given()).stages}
    assert (of["start"], of["train.dpo.1.0.1"]) == ("", "train")


def test_references_to_axes_keep_their_types_and_others_stay() -> None:
    found = settings(expanded(changed().given()))
    assert found["train.dpo.0.1.1"] == {
        "model": "run/start/model",
        "beta": 0.1,
        "loss": "sigmoid",
        "more": {"a": 1},
        "said": "{1}",
    }
    assert found["train.re_.1.0.0"]["loss"] == "d.jsonl", "a value may refer to an argument"


def test_a_reference_means_the_members_that_agree() -> None:
    found = settings(expanded(changed().given()))
    assert found["measure.1.dpo.0.1"]["model"] == "run/train.dpo.0.1.1/model"
    assert found["measure.1.dpo.0.1"]["start"] == "run/start"
    assert found["gather.re_"]["runs"] == [
        "first",
        *(f"run/measure.{seed}.re_.{beta}" for seed in (0, 1) for beta in ("0.1", "1.0")),
    ]
    assert len(found["gather.re_"]["all"]) == 4


def test_arguments_quick_and_overrides_change_axes_and_members() -> None:
    few = expanded(changed().given({"seeds": [7]}))
    assert next(s.name for s in few.stages if s.of == "train") == "train.dpo.0.1.7"
    quick = settings(expanded(changed().given(quick=True)))
    assert next(n for n in quick if n.startswith("measure")) == "measure.0.dpo.1.0"
    assert {c["beta"] for n, c in quick.items() if n.startswith("train")} == {3.0}
    own = settings(expanded(changed().given(overrides={"train.beta": 5.0})))
    assert {c["beta"] for n, c in own.items() if n.startswith("train")} == {5.0}


def test_a_file_without_repeated_stages_stays_as_it_is() -> None:
    plain = parse_pipeline({"stage": FILE["stage"][:1], "arguments": {"data": "d"}}, "p.toml")
    assert expanded(plain) == plain


def stage(**changes: Any) -> dict[str, Any]:
    return {"stage": [{"name": "a", "verb": "sft", "over": ["seed"], "config": {}} | changes]}


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"matrix": {"seed": 3}} | stage(), "seed is 3, expected a list of values"),
        ({"matrix": {"seed": []}} | stage(), "seed is [], expected a list of values"),
        ({"matrix": {"seed": "{sead}"}} | stage(), "no argument 'sead'; the nearest is 'seeds'"),
        ({"matrix": {"seed": [1, "1"]}} | stage(), "two values of seed are called '1'"),
        ({"matrix": {"seed": [{"beta": 1}]}} | stage(), "a table of seed has no name"),
        ({"matrix": {"seed": [[1]]}} | stage(), "seed holds [1], expected a text, number or table"),
        ({"matrix": {"data": [1]}} | stage(), "the axis 'data' is the name of an argument"),
        ({"matrix": {"seed": [1]}} | stage(over=["sed"]), "no axis 'sed'; the nearest is 'seed'"),
        ({"matrix": {"seed": [1]}} | stage(over=["seed", "seed"]), "goes over 'seed' twice"),
        ({"matrix": {"seed": [1], "b": [1]}} | stage(), "no stage goes over 'b'"),
        ({"matrix": {"seed": [{"name": "x", "beta": 1}]}} | stage(config={"b": "{seed.bta}"}),
         "no value 'seed.bta'; the nearest is 'seed.beta'"),
    ],
)  # fmt: skip
def test_an_error_names_the_place_and_what_was_expected(tables: dict[str, Any], said: str) -> None:
    tables = {"quick": {}} | tables
    with pytest.raises(ConfigError) as caught:
        expanded(changed(**tables).given())
    assert said in str(caught.value)


def test_an_axis_without_its_stage_and_a_list_in_a_text_are_errors() -> None:
    lost = {"name": "b", "verb": "sft", "config": {"seed": "{seed}"}}
    with pytest.raises(ConfigError, match="stage 'b': there is no argument or stage 'seed'"):
        settings(expanded(changed(stage=[*FILE["stage"], lost], quick={}).given()))
    many = {"name": "b", "verb": "sft", "config": {"path": "{stages.train}/model"}}
    with pytest.raises(ConfigError, match=r"'{stages.train}/model': .* stands for 8 values"):
        expanded(changed(stage=[*FILE["stage"], many], quick={}).given())
    with pytest.raises(ConfigError, match=r"\[quick.matrix\]: there is no axis 'bta'"):
        changed(quick={"matrix": {"bta": [1]}}).given(quick=True)
    with pytest.raises(ConfigError, match="a stage cannot be called 'matrix'"):
        parse_pipeline({"stage": [{"name": "matrix", "verb": "sft"}]}, "m.toml")
