"""What every sink must do: hear a whole run, also one that fails, and never disturb it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from heed.cli.terminal import TerminalSink
from heed.runs.run import Run
from heed.runs.sinks import Sink, TensorBoardSink
from heed.runs.trackers import Tracked, trackers
from heed.settings import RunSettings


def _tensorboard(folder: Path) -> Sink:
    pytest.importorskip("tensorboard")
    return TensorBoardSink(folder / "events")


def _tracker(name: str, package: str) -> Callable[[Path], Sink]:
    def make(folder: Path) -> Sink:
        pytest.importorskip(package, reason=f"the extra `{name}` is not installed")
        (folder / "tracked").mkdir()
        about = Tracked(folder / "tracked", "a run", "sft", {"lr": 0.1}, "2026-01-01")
        return trackers([name], about)[0]

    return make


SINKS: dict[str, Callable[[Path], Sink]] = {
    "terminal": lambda folder: TerminalSink(io.StringIO()),
    "tensorboard": _tensorboard,
    "wandb": _tracker("wandb", "wandb"),
    "trackio": _tracker("trackio", "trackio"),
    "mlflow": _tracker("mlflow", "mlflow"),
}


@pytest.fixture(params=SINKS)
def sink(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sink:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return SINKS[request.param](tmp_path)


def _hear(run: Run, steps: int = 3) -> None:
    run.stage("training", steps)
    run.note("12 rows read, 12 kept")
    for step in range(1, steps + 1):
        run.log(step, {"loss": 1.0 / step, "perplexity": None, "num_tokens": step}, total=steps)
        run.warn(step, "objective/kl", "a KL cannot be negative")
    run.stage("without an end", None)
    run.progress(5, None, samples_per_second=2.0)
    run.progress(10, 5)


def _hear_and_fail(run: Run) -> None:
    _hear(run)
    raise KeyError("half-way")


def test_a_whole_run_is_heard(sink: Sink, tmp_path: Path) -> None:
    with Run.start(RunSettings(folder=str(tmp_path / "run")), "sft", {}, {}, (sink,)) as run:
        _hear(run)
    assert run.status == "finished"
    assert len(run.metrics()) == 3


def test_a_run_that_fails_is_heard_to_its_end(sink: Sink, tmp_path: Path) -> None:
    run = Run.start(RunSettings(folder=str(tmp_path / "run")), "sft", {}, {}, (sink,))
    with pytest.raises(KeyError), run:
        _hear_and_fail(run)
    assert run.status == "failed"


def test_a_sink_hears_several_runs_one_after_the_other(sink: Sink, tmp_path: Path) -> None:
    """As in a pipeline, whose stages share the sinks."""
    for name in ("a", "b"):
        with Run.start(RunSettings(folder=str(tmp_path / name)), "sft", {}, {}, (sink,)) as run:
            _hear(run)
        assert run.status == "finished"


def test_what_a_run_leaves_does_not_depend_on_who_listens(sink: Sink, tmp_path: Path) -> None:
    left = []
    for name, sinks in (("with", (sink,)), ("without", ())):
        with Run.start(RunSettings(folder=str(tmp_path / name)), "sft", {}, {}, sinks) as run:
            _hear(run)
        rows = [{k: v for k, v in row.items() if k != "wall_seconds"} for row in run.metrics()]
        left.append((rows, run.warnings()))
    assert left[0] == left[1]
