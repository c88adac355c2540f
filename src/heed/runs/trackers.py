"""Experiment trackers by name: TensorBoard, Weights & Biases, Trackio, MLflow (`run.report_to`).

A run's own files hold everything; a tracker is a copy for those who have one. It never stops a run:
what it raises while the run goes on is one warning, and then it is left alone. A run that goes on
after a stop goes on in the tracker too, under the name kept in `trackers.json`.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heed.errors import MissingExtra, StoreError
from heed.ids import content_hash
from heed.runs.files import read_json, write_json
from heed.runs.sinks import Figure, Sink, TensorBoardSink

NAMES_FILE = "trackers.json"
PROJECT = "heed"
"""Project or experiment, where the tracker's own variable names none."""
_LONGEST_PARAM = 500


@dataclass(frozen=True)
class Tracked:
    """The run that is told of.

    Args:
        folder: of the run.
        name: shown in the tracker.
        kind: of the stage.
        config: resolved settings.
        created: when the run began first; with the folder it names the run.
    """

    folder: Path
    name: str
    kind: str
    config: Mapping[str, Any]
    created: str

    @property
    def id(self) -> str:
        """The same for all parts of a run that was stopped and went on."""
        return content_hash([str(self.folder), self.created])


class Tracker:
    """A sink that keeps metrics and alarms only; subclasses say how."""

    def stage(self, run: str, text: str, total: int | None) -> None:
        """Not kept."""

    def progress(self, done: int, total: int | None, figures: Mapping[str, Figure]) -> None:
        """Not kept."""

    def note(self, text: str) -> None:
        """Not kept."""

    def metrics(self, step: int, metrics: Mapping[str, Figure]) -> None:
        """Keep the metrics that are known."""
        known = {name: float(value) for name, value in metrics.items() if value is not None}
        if known:
            self.log(step, known)

    def warning(self, name: str, message: str) -> None:
        """Keep an alarm."""

    def finish(self, status: str) -> None:
        """End the run there."""

    def log(self, step: int, known: dict[str, float]) -> None:
        """Keep one line."""
        raise NotImplementedError


class WandbTracker(Tracker):
    """Weights & Biases; `WANDB_PROJECT`, `WANDB_MODE` and its other variables are its own.

    The step is a metric of its own, so that a run that goes back to a checkpoint can write it anew.
    """

    def __init__(self, run: Tracked) -> None:
        try:
            import wandb
        except ImportError:
            raise MissingExtra("wandb", "wandb") from None
        self._level = getattr(wandb.AlertLevel, "WARN", None)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=run.name, id=run.id,
            dir=str(run.folder), job_type=run.kind, config=dict(run.config), resume="allow",
            reinit="create_new",
        )  # fmt: skip
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, known: dict[str, float]) -> None:
        """Keep one line."""
        self._run.log({**known, "step": step})

    def warning(self, name: str, message: str) -> None:
        """Raise an alert."""
        self._run.alert(title=name, text=message, level=self._level)

    def finish(self, status: str) -> None:
        """End the run there, as failed where it did not finish."""
        self._run.finish(exit_code=0 if status == "finished" else 1)


class TrackioTracker(Tracker):
    """Trackio; `TRACKIO_PROJECT` names the project."""

    def __init__(self, run: Tracked) -> None:
        try:
            import trackio
        except ImportError:
            raise MissingExtra("trackio", "trackio") from None
        self._run: Any = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=f"{run.name}-{run.id[:8]}",
            config={"kind": run.kind, **dict(_flat(run.config))}, resume="allow", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip

    def log(self, step: int, known: dict[str, float]) -> None:
        """Keep one line."""
        self._run.log(known, step=step)

    def warning(self, name: str, message: str) -> None:
        """Raise an alert."""
        self._run.alert(title=name, text=message)

    def finish(self, status: str) -> None:
        """End the run there."""
        self._run.finish()


class MlflowTracker(Tracker):
    """MLflow; `MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME` say where."""

    def __init__(self, run: Tracked) -> None:
        try:
            from mlflow import entities
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise MissingExtra("mlflow-skinny", "mlflow") from None
        self._entities: Any = entities
        self._client: Any = MlflowClient()
        known = _names(run.folder).get("mlflow")
        if known is not None:
            self._id = known
            self._client.update_run(self._id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        tags = {"heed.kind": run.kind, "heed.id": run.id}
        made = self._client.create_run(experiment, run_name=run.name, tags=tags)
        self._id = made.info.run_id
        params = [entities.Param(k, v[:_LONGEST_PARAM]) for k, v in _flat(run.config)]
        for first in range(0, len(params), 100):
            self._client.log_batch(self._id, params=params[first : first + 100])
        write_json(run.folder / NAMES_FILE, {**_names(run.folder), "mlflow": self._id})

    def log(self, step: int, known: dict[str, float]) -> None:
        """Keep one line."""
        now = int(time.time() * 1000)
        found = [self._entities.Metric(name, value, now, step) for name, value in known.items()]
        self._client.log_batch(self._id, metrics=found)

    def warning(self, name: str, message: str) -> None:
        """Keep the newest alarm of each name as a tag."""
        self._client.set_tag(self._id, f"heed.alarm.{name.replace('/', '.')}", message[:5000])

    def finish(self, status: str) -> None:
        """End the run there."""
        ends = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
        self._client.set_terminated(self._id, ends.get(status, "FAILED"))


class Guarded:
    """A tracker that cannot stop the run: its first error is a warning, and its last word."""

    def __init__(self, name: str, sink: Sink) -> None:
        self._name, self._sink = name, sink
        self._lost = False

    def stage(self, run: str, text: str, total: int | None) -> None:
        """Pass it on."""
        self._try(lambda: self._sink.stage(run, text, total))

    def progress(self, done: int, total: int | None, figures: Mapping[str, Figure]) -> None:
        """Pass it on."""
        self._try(lambda: self._sink.progress(done, total, figures))

    def metrics(self, step: int, metrics: Mapping[str, Figure]) -> None:
        """Pass them on."""
        self._try(lambda: self._sink.metrics(step, metrics))

    def note(self, text: str) -> None:
        """Pass it on."""
        self._try(lambda: self._sink.note(text))

    def warning(self, name: str, message: str) -> None:
        """Pass it on."""
        self._try(lambda: self._sink.warning(name, message))

    def finish(self, status: str) -> None:
        """Pass it on."""
        self._try(lambda: self._sink.finish(status))

    def _try(self, told: Callable[[], None]) -> None:
        if self._lost:
            return
        try:
            told()
        except Exception as error:  # whatever a tracker's library raises
            self._lost = True
            warnings.warn(
                f"{self._name} hears no more of this run ({type(error).__name__}: {error}); the "
                "run goes on, and its own files are whole",
                stacklevel=2,
            )


def _tensorboard(run: Tracked) -> Sink:
    return TensorBoardSink(run.folder / "tensorboard")


TRACKERS: Mapping[str, Callable[[Tracked], Sink]] = {
    "tensorboard": _tensorboard,
    "wandb": WandbTracker,
    "trackio": TrackioTracker,
    "mlflow": MlflowTracker,
}


def trackers(names: Sequence[str], run: Tracked) -> list[Sink]:
    """Open trackers by name.

    Raises:
        MissingExtra: the package of one is not installed.
    """
    return [Guarded(name, TRACKERS[name](run)) for name in dict.fromkeys(names)]


def _names(folder: Path) -> dict[str, str]:
    try:
        found = read_json(folder / NAMES_FILE)
    except (OSError, StoreError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Settings by their dotted names, as text."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", str(value)
