"""kill -9 of the stages that train nothing: `heed resume` ends with the same files and findings."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.resume.killing import run, start
from tests.tiny import LEARNER, Tiny

from heed.config import dump_toml
from heed.pipelines.generate import GenerateConfig
from heed.pipelines.verbs import VERBS
from heed.runs.files import read_lines
from heed.runs.run import Run

ENGINE = {"max_tokens": 12}


def _values(tiny: Tiny, verb: str) -> dict[str, Any]:
    prompts = {"path": str(tiny.world / "prompts.jsonl"), "limit": 24}
    model = {"path": str(tiny.policy)}
    if verb == "generate":
        sampling = {"n": 4, "max_tokens": 12}
        return {"model": model, "data": prompts, "sampling": sampling, "batch_size": 4}
    if verb == "compare":
        return {
            "data": {"path": str(tiny.pairs.parent / "completions")},
            "scorers": [str(tiny.world)],
        }
    judges = {"true": str(tiny.world), "proxy": str(tiny.reward)}
    baseline = {"path": str(tiny.fresh)}
    return {
        "model": model,
        "baseline": baseline,
        "data": prompts,
        "judges": judges,
        "sampling": ENGINE,
    }


def _left(folder: Path) -> dict[str, Any]:
    """What the settings determine."""
    made = Run.open(folder)
    assert made.status == "finished"
    return {
        "outputs": {name: output["hash"] for name, output in made.manifest["outputs"].items()},
        "findings": [finding.model_dump() for finding in made.findings()],
        "facts": made.manifest["facts"],
        "files": sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")),
    }


def _num_starts(folder: Path) -> int:
    made = (folder / "manifest.json").exists()
    return 1 + Run.open(folder).manifest["resumes"] if made else 0


def _killed(words: Callable[[Path], list[str]], tmp_path: Path, times: int, seed: int) -> None:
    """Run once whole and once with kills; both must leave the same.

    A run that ends before its first kill says nothing, so it begins anew, to be killed sooner.
    """
    whole, cut, log = tmp_path / "whole" / "run", tmp_path / "cut" / "run", tmp_path / "log.txt"
    run(words(whole), log)
    seconds = Run.open(whole).seconds()
    moments = random.Random(seed)
    kills = 0
    for _ in range(3 * times):
        process = start(["resume", str(cut)] if kills else words(cut), log)
        while process.is_alive() and _num_starts(cut) <= kills:
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, seconds))
        process.kill()
        process.join()
        if Run.open(cut).status != "finished":
            kills += 1
        elif not kills:
            shutil.rmtree(cut)
            seconds /= 2
        if kills == times or (kills and Run.open(cut).status == "finished"):
            break
    run(["resume", str(cut)], log)
    assert kills > 0, "it was too quick to be killed"
    assert _left(cut) == _left(whole), kills
    assert Run.open(cut).manifest["resumes"] == kills


@pytest.mark.parametrize("verb", ["generate", "compare", "evaluate"])
def test_a_killed_tool_ends_with_the_same_files(tiny: Tiny, tmp_path: Path, verb: str) -> None:
    values = _values(tiny, verb)
    if verb != "compare":
        values["learner"] = LEARNER

    def words(folder: Path) -> list[str]:
        config = (
            VERBS[verb].config_class().model_validate({**values, "run": {"folder": str(folder)}})
        )
        file = folder.parent.with_suffix(".toml")
        file.write_text(dump_toml(config))
        return [verb, str(file)]

    _killed(words, tmp_path, times=3, seed=0)


def test_what_was_sampled_before_the_stop_is_not_sampled_again(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heed.engines.local import LocalEngine
    from heed.pipelines import generate

    asked: list[int] = []
    original = LocalEngine.generate

    def counting(engine: LocalEngine, prompts: Any, sampling: Any) -> Any:
        asked.append(len(prompts))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return original(engine, prompts, sampling)

    monkeypatch.setattr(LocalEngine, "generate", counting)
    values = {**_values(tiny, "generate"), "learner": LEARNER}
    values["data"] = {**values["data"], "limit": 18}

    def config(name: str, **changes: Any) -> GenerateConfig:
        run_settings = {"folder": str(tmp_path / name / "run"), **changes}
        return GenerateConfig.model_validate({**values, "run": run_settings})

    with pytest.raises(KeyboardInterrupt):
        generate.run(config("cut"))
    generate.run(config("cut", resume=True))
    assert asked == [4, 4, 4, 4, 4, 2], "two batches were kept, and three were to come"
    generate.run(config("whole"))
    files = [tmp_path / name / "run" / "completions.jsonl" for name in ("cut", "whole")]
    assert len(read_lines(files[0])) == 72
    assert files[0].read_bytes() == files[1].read_bytes()


def test_samples_of_other_settings_are_not_gone_on_with(tiny: Tiny, tmp_path: Path) -> None:
    from heed.pipelines import generate

    values = {**_values(tiny, "generate"), "learner": LEARNER}
    folder = tmp_path / "run"
    config = GenerateConfig.model_validate({**values, "run": {"folder": str(folder)}})
    generate.run(config)
    stale = folder / "sampled-0123456789abcdef.jsonl"
    stale.write_text('{"groups": [[]]}\n')
    again = config.model_copy(update={"run": config.run.model_copy(update={"overwrite": True})})
    generate.run(again)
    assert not stale.exists()
