"""A function of the user's own as a stage: what it is given, what is kept, and when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heed.errors import ConfigError, DataError
from heed.ids import file_hash
from heed.pipelines import chain
from heed.pipelines.chain import run_pipeline
from heed.pipelines.prepare import PrepareConfig, run
from heed.pipelines.recipe import parse_pipeline, read_pipeline
from heed.runs.run import Run
from heed.settings import RunSettings

SOURCE = """
from heed.data.report import DataReport
from heed.records import Finding

def shout(folder, *, books, suffix="!", seed=0):
    (folder / "texts.txt").write_text(books.read_text().upper() + suffix + str(seed))
    (folder / "deep").mkdir()
    (folder / "deep" / "more.txt").write_text("more")
    report = DataReport(str(books))
    report.add_read(4)
    report.drop("too quiet")
    return [report, Finding(name="letters", estimate=3.0, n=1, unit="letters")]

def many(folder, *, books):
    (folder / "texts.txt").write_text("".join(book.read_text() for book in books))

def silent(folder):
    pass

def rude(folder):
    (folder / "manifest.json").write_text("{}")

def odd(folder):
    (folder / "a.txt").write_text("a")
    return {"letters": 3}

def fails(folder):
    (folder / "half.txt").write_text("half")
    raise OSError("the disk is full")

def anything(folder, **given):
    (folder / "a.txt").write_text(repr(sorted(given)))
"""


class Shop:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "mine.py"
        self.file.write_text(SOURCE)
        self.book = folder / "book.txt"
        self.book.write_text("low")

    def config(self, function: str, resume: bool = False, **given: Any) -> PrepareConfig:
        settings = RunSettings(folder=str(self.folder / "run"), seed=7, resume=resume)
        return PrepareConfig(run=settings, function=f"{self.file}:{function}", **given)

    def run(self, function: str, **given: Any) -> Run:
        return run(self.config(function, **given))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_files_are_outputs_and_what_is_returned_is_kept(shop: Shop) -> None:
    made = shop.run("shout", inputs={"books": str(shop.book)}, options={"suffix": "?"})
    assert made.path("texts.txt").read_text() == "LOW?7"
    outputs = made.manifest["outputs"]
    assert set(outputs) == {"texts.txt", "deep/more.txt"}
    assert outputs["deep/more.txt"]["hash"] == file_hash(made.folder / "deep" / "more.txt")
    assert made.manifest["inputs"]["books"]["hash"] == file_hash(shop.book)
    assert [finding.name for finding in made.findings()] == ["letters"]
    assert made.data_report()[0]["dropped"] == 1
    assert made.manifest["status"] == "finished"


def test_an_input_may_be_several_files(shop: Shop) -> None:
    made = shop.run("many", inputs={"books": (str(shop.book), str(shop.book))})
    assert made.path("texts.txt").read_text() == "lowlow"


def test_a_function_that_takes_any_name_gets_no_seed_that_it_did_not_ask_for(shop: Shop) -> None:
    made = shop.run("anything", options={"size": 3})
    assert made.path("a.txt").read_text() == "['size']"


@pytest.mark.parametrize(
    ("function", "given", "says"),
    [
        ("shout", {}, r"needs \['books'\].*its inputs and options are books, suffix"),
        ("silent", {"options": {"loud": True}}, r"does not take \['loud'\]"),
        ("rude", {}, "keeps .*manifest.json"),
        ("odd", {}, "returned dict, expected nothing, or DataReport and Finding"),
        ("shot", {}, "did you mean 'shout'"),
    ],
)
def test_what_does_not_fit_is_an_error_that_says_what_would(
    shop: Shop, function: str, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        shop.run(function, **given)


def test_nothing_written_or_nothing_to_read_is_an_error(shop: Shop) -> None:
    with pytest.raises(DataError, match="wrote no file"):
        shop.run("silent")
    gone = str(shop.folder / "gone.txt")
    with pytest.raises(DataError, match=r"'books' is .*gone\.txt, where nothing is"):
        run(shop.config("shout", resume=True, inputs={"books": gone}))


def test_too_many_lost_rows_stop_the_stage(shop: Shop) -> None:
    with pytest.raises(DataError, match="of 4 rows 1"):
        shop.run("shout", inputs={"books": str(shop.book)}, max_loss_frac=0.1)


def test_a_name_is_an_input_or_an_option(shop: Shop) -> None:
    with pytest.raises(ValueError, match=r"\['books'\] are inputs and options"):
        shop.config("shout", inputs={"books": "a"}, options={"books": 1})


def test_a_stage_that_failed_half_way_leaves_nothing_behind_when_it_goes_on(shop: Shop) -> None:
    with pytest.raises(OSError, match="disk is full"):
        shop.run("fails")
    shop.file.write_text(
        SOURCE.replace('raise OSError("the disk is full")', "(folder / 'b').touch()")
    )
    made = run(shop.config("fails", resume=True))
    assert set(made.manifest["outputs"]) == {"half.txt", "b"}
    assert not (made.folder / ".part").exists()


RECIPE = """
[arguments]
book = {}

[[stage]]
name = "data"
verb = "prepare"
config.function = "{here}/mine.py:shout"
config.inputs.books = "{book}"

[[stage]]
name = "again"
verb = "prepare"
config.function = "{here}/mine.py:shout"
config.inputs.books = "{stages.data}/texts.txt"
"""


def test_in_a_pipeline_it_runs_again_when_its_file_or_its_input_changes(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "_write_page", lambda run: None)
    (shop.folder / "recipe.toml").write_text(RECIPE)
    monkeypatch.chdir(shop.folder)

    def said() -> list[str]:
        lines: list[str] = []
        pipeline = read_pipeline("recipe.toml").given({"book": str(shop.book)})
        settings = RunSettings(folder=str(shop.folder / "chain"))
        run_pipeline(pipeline, settings, code="code", say=lines.append)
        return lines

    assert said() == []
    assert said() == ["data: unchanged", "again: unchanged"]
    final = shop.folder / "chain" / "stages" / "again" / "texts.txt"
    assert final.read_text() == "LOW!0!0"
    shop.book.write_text("high")
    assert said() == []
    assert final.read_text() == "HIGH!0!0"
    shop.file.write_text(SOURCE.replace('suffix="!"', 'suffix="."'))
    assert said() == []
    assert final.read_text() == "HIGH.0.0"


def test_here_is_the_folder_of_the_pipeline_file(tmp_path: Path) -> None:
    table = {"stage": [{"name": "a", "verb": "prepare"}]}
    assert parse_pipeline(table, str(tmp_path / "x.toml")).here == str(tmp_path)
