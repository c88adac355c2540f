"""Pipeline files: arguments, references, and what an error says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heed.errors import ConfigError
from heed.pipelines.recipe import Pipeline, configured, parse_pipeline, read_pipeline

FILE = """
[pipeline]
name = "books"
help = "From books to a policy"

[arguments]
books = { help = "JSONL of books" }
size = 16
words = ["a", "b"]

[[stage]]
name = "init"
verb = "init"
config.hidden_size = "{size}"
config.stop = "{words}"

[[stage]]
name = "pretrain"
verb = "sft"
config.model.path = "{stages.init}/model"
config.data.path = ["{books}", "{books}.more"]

[quick.pretrain.optim]
lr = 1.0
"""


def read(tmp_path: Path, text: str = FILE) -> Pipeline:
    path = tmp_path / "books.toml"
    path.write_text(text)
    return read_pipeline(path)


def settings_of(pipeline: Pipeline, number: int) -> dict[str, Any]:
    folders = {stage.name: Path("run") / stage.name for stage in pipeline.stages}
    return configured(pipeline, pipeline.stages[number], folders)


def test_a_whole_reference_keeps_its_type_and_a_part_becomes_text(tmp_path: Path) -> None:
    pipeline = read(tmp_path).given({"books": "b.jsonl"})
    assert settings_of(pipeline, 0) == {"hidden_size": 16, "stop": ["a", "b"]}
    assert settings_of(pipeline, 1) == {
        "model": {"path": "run/init/model"},
        "data": {"path": ["b.jsonl", "b.jsonl.more"]},
    }


def test_quick_and_overrides_are_laid_over_in_that_order(tmp_path: Path) -> None:
    pipeline = read(tmp_path)
    quick = pipeline.given({"books": "b"}, quick=True)
    assert settings_of(quick, 1)["optim"] == {"lr": 1.0}
    own = pipeline.given({"books": "b"}, {"pretrain.optim.lr": 2.0}, quick=True)
    assert settings_of(own, 1)["optim"] == {"lr": 2.0}
    assert "optim" not in settings_of(pipeline.given({"books": "b"}), 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("{books}.more", "{bokks}"), "no argument or stage 'bokks'; the nearest is 'books'"),
        (("{stages.init}", "{stages.pretrain}"), "no argument or stage 'stages.pretrain'"),
        (('name = "pretrain"', 'name = "init"'), "two stages are called 'init'"),
        (('name = "init"', 'name = "a b"'), "is not letters, digits and underscores"),
        (("[arguments]", "[argument]"), "no table 'argument'; the nearest is 'arguments'"),
        (('verb = "sft"', 'vreb = "sft"'), "stages.1.verb: Field required"),
        (("[quick.pretrain.optim]", "[quick.pretrian.optim]"), "no stage 'pretrian'"),
    ],
)
def test_an_error_names_the_place_and_the_nearest(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    def resolve() -> None:
        pipeline = read(tmp_path, FILE.replace(*change)).given({"books": "b"}, quick=True)
        for number in range(2):
            settings_of(pipeline, number)

    with pytest.raises(ConfigError) as caught:
        resolve()
    assert said in str(caught.value)


def test_what_is_not_given_is_listed_with_its_help(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs --books \(JSONL of books\)"):
        read(tmp_path).given()
    with pytest.raises(ConfigError, match="no argument 'book'; the nearest is 'books'"):
        read(tmp_path).given({"book": "b"})
    with pytest.raises(ConfigError, match="no stage 'sft'"):
        read(tmp_path).given({"books": "b"}, {"sft.optim.lr": 1.0})


def test_a_file_without_stages_says_so() -> None:
    with pytest.raises(ConfigError, match=r"has no \[\[stage\]\]"):
        parse_pipeline({"pipeline": {"name": "x"}}, "x.toml")
