"""Trackers by name: what each is told, what happens where one fails, and where a run goes on.

The libraries are stood in for by what they are called with; tests/contracts/test_sink.py runs the
real ones where they are installed.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heed.errors import ConfigError, MissingExtra
from heed.runs.run import Run
from heed.settings import RunSettings

PACKAGES = {"wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow-skinny"}


class Heard(list[tuple[str, tuple[Any, ...], dict[str, Any]]]):
    """Every call of every attribute, by name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **more: Any) -> Any:
            self.append((name, args, more))
            return self.answers.get(name, self)

        return call

    answers: dict[str, Any] = {}

    def of(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(args, more) for called, args, more in self if called == name]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """Stand-ins for the three libraries, which write down what they hear."""
    heard = Heard()
    heard.answers = {
        "get_experiment_by_name": None,
        "create_experiment": "7",
        "create_run": SimpleNamespace(info=SimpleNamespace(run_id="run-1")),
    }
    level = SimpleNamespace(WARN="WARN")
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=heard.init, AlertLevel=level))
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=heard.init))
    entities = SimpleNamespace(Metric=lambda *values: values, Param=lambda *values: values)
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(entities=entities))
    client = SimpleNamespace(MlflowClient=lambda: heard)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", client)
    return heard


def settings(folder: Path, *names: str, resume: bool = False) -> RunSettings:
    return RunSettings(folder=str(folder), report_to=names, resume=resume)  # type: ignore[arg-type]


def run_of(folder: Path, name: str, *, resume: bool = False, first: int = 1) -> None:
    with Run.start(settings(folder, name, resume=resume), "sft", {"optim": {"lr": 0.1}}) as run:
        run.log(first, {"loss": 0.5, "perplexity": None})
        run.warn(first, "objective/kl", "a KL cannot be negative")


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_that_is_absent_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for module in (name, "mlflow.tracking"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"'{PACKAGES[name]}'.*heed-rlhf\[{name}\]"):
        Run.start(settings(tmp_path / "r", name), "sft", {})
    # Nothing is held: the same folder can be used at once.
    run_without = Run.start(RunSettings(folder=str(tmp_path / "r"), overwrite=True), "sft", {})
    run_without.finish()


def test_wandb_hears_metrics_by_their_step_and_goes_on_under_one_id(
    tmp_path: Path, heard: Heard
) -> None:
    run_of(tmp_path / "r", "wandb")
    run_of(tmp_path / "r", "wandb", resume=True, first=2)
    ids = [more["id"] for _, more in heard.of("init")]
    assert len(ids) == 2
    assert ids[0] == ids[1]
    assert heard.of("init")[0][1]["config"] == {"optim": {"lr": 0.1}}
    assert [args[0] for args, _ in heard.of("log")] == [
        {"loss": 0.5, "step": 1}, {"loss": 0.5, "step": 2},
    ]  # fmt: skip
    assert heard.of("alert")[0][1]["title"] == "objective/kl"
    assert heard.of("finish") == [((), {"exit_code": 0})] * 2


def test_trackio_hears_metrics_and_alarms(tmp_path: Path, heard: Heard) -> None:
    run_of(tmp_path / "r", "trackio")
    assert heard.of("log") == [(({"loss": 0.5},), {"step": 1})]
    assert heard.of("alert")[0][1]["text"] == "a KL cannot be negative"
    assert heard.of("init")[0][1]["config"] == {"kind": "sft", "optim.lr": "0.1"}


def test_mlflow_hears_metrics_and_goes_on_in_its_run(tmp_path: Path, heard: Heard) -> None:
    run_of(tmp_path / "r", "mlflow")
    run_of(tmp_path / "r", "mlflow", resume=True, first=2)
    assert len(heard.of("create_run")) == 1
    assert heard.of("update_run") == [(("run-1",), {"status": "RUNNING"})]
    logged = [more["metrics"] for _, more in heard.of("log_batch") if "metrics" in more]
    assert [(name, value, step) for ((name, value, _, step),) in logged] == [
        ("loss", 0.5, 1), ("loss", 0.5, 2),
    ]  # fmt: skip
    assert [args for args, _ in heard.of("set_terminated")] == [("run-1", "FINISHED")] * 2


def test_a_tracker_that_fails_is_one_warning_and_the_run_goes_on(
    tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **more: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(heard, "log", refuse)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Run.start(settings(tmp_path / "r", "trackio"), "sft", {}) as run:
            for step in range(3):
                run.log(step, {"loss": 0.5})
    told = [str(w.message) for w in caught if "hears no more" in str(w.message)]
    assert len(told) == 1
    assert "ConnectionError: no route" in told[0]
    assert (run.status, len(run.metrics())) == ("finished", 3)


def test_an_unknown_tracker_is_an_error_that_lists_them() -> None:
    from heed.config import make_config

    with pytest.raises(ConfigError, match="wandb"):
        make_config(RunSettings, {"folder": "r", "report_to": ["wanb"]})
