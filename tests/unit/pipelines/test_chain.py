"""Pipelines: what is run again and what is not, and what an interrupted one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heed.config import make_config
from heed.errors import ConfigError, DataError
from heed.pipelines import chain
from heed.pipelines.chain import run_pipeline
from heed.pipelines.recipe import Pipeline, parse_pipeline
from heed.runs.run import Run
from heed.settings import RunSettings

RECIPE: dict[str, Any] = {
    "pipeline": {"name": "words"},
    "arguments": {"books": {"help": "The first text"}, "last": "c"},
    "stage": [
        {"name": "one", "verb": "copy", "config": {"path": "{books}", "word": "-1"}},
        {"name": "two", "verb": "copy", "config": {"path": "{stages.one}", "word": "-2"}},
        {
            "name": "three",
            "verb": "copy",
            "config": {"path": "{stages.two}/out.txt", "word": "{{{last}}}"},
        },
    ],
    "quick": {"two": {"num_steps": 1}},
}


class Workshop:
    """A pipeline of three copies in a folder."""

    def __init__(self, folder: Path, verb: Any) -> None:
        self.folder, self.verb = folder, verb
        self.book = folder / "book.txt"
        self.book.write_text("book")
        self.said: list[str] = []
        self.code = "code"

    def run(self, quick: bool = False, **overrides: Any) -> Run:
        self.verb.calls.clear()
        self.said.clear()
        named = {key.replace("__", "."): value for key, value in overrides.items()}
        pipeline = parse_pipeline(RECIPE, "words.toml").given(
            {"books": str(self.book)}, named, quick=quick
        )
        settings = RunSettings(folder=str(self.folder / "run"), seed=3)
        return run_pipeline(
            pipeline, settings, verbs={"copy": self.verb}, code=self.code, say=self.said.append
        )

    @property
    def ran(self) -> list[str]:
        return [name for name, _ in self.verb.calls]

    def text(self) -> str:
        return (self.folder / "run" / "stages" / "three" / "out.txt").read_text()


@pytest.fixture
def shop(tmp_path: Path, copy_verb: Any, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.setattr(chain, "_write_page", lambda run: None)
    return Workshop(tmp_path, copy_verb)


def test_every_stage_runs_once_and_hands_its_result_on(shop: Workshop) -> None:
    run = shop.run()
    assert shop.ran == ["one", "two", "three"]
    assert shop.text() == "book-1-2{c}"
    assert run.manifest["kind"] == "pipeline"
    assert run.manifest["status"] == "finished"
    assert run.manifest["inputs"]["books"]["hash"]
    assert set(run.manifest["outputs"]) == {"one/text", "two/text", "three/text"}
    assert Run.open(shop.folder / "run" / "stages" / "two").manifest["seed"] == 3


def test_nothing_runs_again_when_nothing_changed(shop: Workshop) -> None:
    shop.run()
    shop.run()
    assert shop.ran == []
    assert shop.said == ["one: unchanged", "two: unchanged", "three: unchanged"]


def test_a_moved_file_with_the_same_content_changes_nothing(shop: Workshop) -> None:
    shop.run()
    shop.book = shop.book.rename(shop.folder / "moved.txt")
    shop.run()
    assert shop.ran == []


def test_changed_content_code_or_setting_runs_what_depends_on_it(shop: Workshop) -> None:
    shop.run()
    shop.book.write_text("novel")
    shop.run()
    assert shop.ran == ["one", "two", "three"]
    shop.run(three__word="!")
    assert shop.ran == ["three"]
    assert shop.text() == "novel-1-2!"
    shop.code = "newer"
    shop.run(three__word="!")
    assert shop.ran == ["one", "two", "three"]


def test_a_stage_that_runs_again_with_the_same_result_stops_the_change_there(
    shop: Workshop,
) -> None:
    shop.run()
    shop.run(one__num_steps=5)
    assert shop.ran == ["one"]


def test_a_damaged_or_lost_result_is_made_again(shop: Workshop) -> None:
    shop.run()
    out = shop.folder / "run" / "stages" / "two" / "out.txt"
    out.write_text("changed by hand")
    shop.run()
    assert shop.ran == ["two"]
    out.unlink()
    shop.run()
    assert shop.ran == ["two"]
    assert shop.text() == "book-1-2{c}"


def run_repeated(shop: Workshop, seeds: list[int], **config: Any) -> Run:
    shop.verb.calls.clear()
    over = {"verb": "copy", "over": ["seed"]}
    recipe = {
        "matrix": {"seed": "{seeds}"},
        "arguments": {"seeds": {"default": seeds}},
        "stage": [
            {"name": "one", "verb": "copy", "config": {"path": str(shop.book)}},
            {
                "name": "two",
                **over,
                "config": {"path": "{stages.one}", "word": "s{seed}", **config},
            },
            {"name": "three", **over, "config": {"path": "{stages.two}"}},
        ],
    }
    settings = RunSettings(folder=str(shop.folder / "run"))
    pipeline = parse_pipeline(recipe, "words.toml").given()
    verbs = {"copy": shop.verb}
    return run_pipeline(pipeline, settings, verbs=verbs, code="code", say=shop.said.append)


def test_more_seeds_run_only_what_is_new(shop: Workshop) -> None:
    run_repeated(shop, [0, 1])
    assert shop.ran == ["one", "two.0", "two.1", "three.0", "three.1"]
    run = run_repeated(shop, [2, 0, 1])
    assert shop.ran == ["two.2", "three.2"]
    assert (run.folder / "stages" / "three.2" / "out.txt").read_text() == "bookas2a"
    assert len(run.manifest["outputs"]) == 7
    assert len(run.manifest["config"]["stages"]) == 3, (
        "the manifest holds the file, not its members"
    )


def test_members_cost_together_and_keep_their_findings(shop: Workshop) -> None:
    run = run_repeated(shop, [0, 1])
    summary = json.loads((run.folder / "summary.json").read_text())
    assert set(summary["seconds"]) == {"one", "two", "three"}
    seconds = [Run.open(run.folder / "stages" / f"two.{seed}").seconds() for seed in (0, 1)]
    assert summary["seconds"]["two"] == pytest.approx(sum(seconds))
    assert [finding["name"] for finding in summary["findings"]] == ["words"]


def test_an_interrupted_member_goes_on(shop: Workshop) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_repeated(shop, [0, 1], end="interrupt")
    assert shop.verb.calls == [("two.0", True), ("two.1", False)]
    run_repeated(shop, [0, 1], end="interrupt")
    assert shop.verb.calls == [("two.1", True), ("three.0", False), ("three.1", False)]


def test_an_interrupted_stage_goes_on_and_a_changed_one_starts_over(shop: Workshop) -> None:
    with pytest.raises(KeyboardInterrupt):
        shop.run(two__end="interrupt")
    run = Run.open(shop.folder / "run")
    assert run.status == "interrupted"
    assert shop.ran == ["one", "two"]
    shop.run(two__end="interrupt")
    assert shop.verb.calls == [("two", True), ("three", False)]
    assert shop.said == ["one: unchanged", "two: goes on where it stopped"]

    with pytest.raises(KeyboardInterrupt):
        shop.run(two__end="interrupt", two__word="x")
    shop.run(two__word="y")
    assert shop.verb.calls == [("two", False), ("three", False)]
    assert shop.text() == "book-1y{c}"


def test_a_failed_stage_fails_the_pipeline_and_is_tried_again(shop: Workshop) -> None:
    with pytest.raises(DataError, match="wrong ending"):
        shop.run(two__end="wrong")
    assert Run.open(shop.folder / "run").status == "failed"
    shop.run()
    assert shop.ran == ["two", "three"]


def test_a_kill_between_removing_and_running_leaves_no_stale_result(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run()

    def killed(*_: Any) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(chain, "write_atomic", killed)
        with pytest.raises(SystemExit):
            shop.run(two__word="new")
    shop.run(two__word="new")
    assert shop.text() == "book-1new{c}"


def test_summary_holds_findings_seconds_and_memory(shop: Workshop) -> None:
    run = shop.run()
    summary = json.loads(run.path("summary.json").read_text())
    assert [f["name"] for f in summary["findings"]] == ["one: words", "two: words", "three: words"]
    assert set(summary["seconds"]) == {"one", "two", "three"}
    assert summary["total_seconds"] == pytest.approx(sum(summary["seconds"].values()))
    assert summary["peak_memory_bytes"] > 1_000_000
    costs = {cost["name"]: cost for cost in summary["costs"]}
    assert set(costs) == {"seconds/one", "seconds/two", "seconds/three", "peak memory"}
    for cost in costs.values():
        assert cost.keys() >= {"estimate", "low", "high", "n", "unit"}
        assert (cost["n"], cost["low"], cost["high"]) == (1, None, None)
    assert costs["seconds/two"]["estimate"] == summary["seconds"]["two"]
    assert costs["peak memory"]["estimate"] == summary["peak_memory_bytes"]
    assert [f.name for f in run.findings()] == [f["name"] for f in summary["findings"]]


def test_quick_lays_its_settings_over_the_stage(shop: Workshop) -> None:
    shop.run(quick=True)
    manifest = Run.open(shop.folder / "run" / "stages" / "two").manifest
    assert manifest["config"]["num_steps"] == 1


def test_everything_is_validated_before_the_first_stage_runs(shop: Workshop) -> None:
    with pytest.raises(ConfigError, match=r"stage 'three' \(copy\): .*num_steps: found"):
        shop.run(three__num_steps="many")
    assert shop.ran == []
    assert not (shop.folder / "run").exists()


def test_a_pipeline_from_its_manifest_is_the_same_pipeline(shop: Workshop) -> None:
    run = shop.run()
    kept = {k: v for k, v in run.manifest["config"].items() if k != "run"}
    again = run_pipeline(
        Pipeline.model_validate(kept),
        RunSettings.model_validate(run.manifest["config"]["run"]),
        verbs={"copy": shop.verb},
        code=shop.code,
        say=shop.said.append,
    )
    assert again.folder == run.folder
    assert len(shop.verb.calls) == 3


def test_a_callable_counts_by_the_content_of_its_file(tmp_path: Path, copy_verb: Any) -> None:
    file = tmp_path / "rules.py"
    keys = []
    for body in ("def f(): return 1", "def f(): return 2", "def f(): return 1"):
        file.write_text(body)
        config = make_config(
            copy_verb.config_class(),
            {"run": {"folder": "r"}, "path": f"{file}:f", "word": "json:dumps"},
        )
        planned = chain.Planned(
            parse_pipeline(RECIPE, "w").stages[0], copy_verb, config, tmp_path / "r"
        )
        keys.append(chain.stage_key(planned, [planned], "code"))
    assert keys[0] == keys[2] != keys[1]
