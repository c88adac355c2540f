"""A cheap stage with every way to end, for the tests of the command line and of pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from heed.errors import DataError
from heed.pipelines.verbs import Verb
from heed.records import Finding
from heed.runs.run import Run
from heed.settings import RunSettings, Settings


class CopyConfig(Settings):
    """Copy a text and add a word to it."""

    run: RunSettings
    path: str
    """File, or run folder of an earlier copy."""
    word: str = "a"
    """What is added."""
    num_steps: int = 3
    """Lines of metrics."""
    end: Literal["well", "wrong", "bug", "interrupt"] = "well"
    """How it ends; `interrupt` comes half-way, and only the first time."""


@dataclass(frozen=True)
class CopyVerb(Verb):
    """A verb whose stage is the function below; `calls` remembers each one."""

    calls: list[tuple[str, bool]] = field(default_factory=list)

    def config_class(self) -> type[CopyConfig]:
        return CopyConfig

    def function(self) -> Any:
        return self.copy

    def copy(self, config: CopyConfig, sinks: Sequence[Any] = ()) -> Run:
        self.calls.append((Path(config.run.folder).name, config.run.resume))
        source = Path(config.path)
        source = source / "out.txt" if source.is_dir() else source
        with Run.start(config.run, self.name, config.model_dump(mode="json"), {}, sinks) as run:
            run.stage("copying", config.num_steps)
            for step in range(1, config.num_steps + 1):
                run.log(step, {"loss": 1.0 / step}, total=config.num_steps)
                if config.end == "interrupt" and step == 2 and not run.resumed:
                    raise KeyboardInterrupt
            if config.end == "wrong":
                raise DataError("found a wrong ending, expected a good one; set --end well")
            if config.end == "bug":
                raise ZeroDivisionError("nobody\nforesaw this")
            run.path("out.txt").write_text(source.read_text() + config.word)
            run.add_findings([Finding(name="words", estimate=1.0, n=1, unit="words")])
            run.finish({"text": run.path("out.txt")})
        return run


@pytest.fixture
def copy_verb() -> CopyVerb:
    return CopyVerb("copy", "tests:CopyConfig", "tests:copy", "Copy a text")
