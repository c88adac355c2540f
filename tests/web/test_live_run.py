"""Four people label over HTTP for a running trainer; server and trainer are each killed once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.people import Annotator, Knower, log_in, make_project, quality_in
from tests.resume.same import fingerprint
from tests.tiny import LEARNER
from tests.web.chromium import SOURCE, Served

from heed.algorithms import online_preference, sft
from heed.algorithms.online_preference_config import OnlinePreferenceConfig
from heed.algorithms.sft import SFTConfig
from heed.config import dump_toml
from heed.data.store import open_store
from heed.data.store.roles import TRAINER_SCOPES
from heed.pipelines import init, world
from heed.pipelines.init import InitConfig
from heed.pipelines.world import WorldConfig
from heed.runs.files import read_lines
from heed.runs.run import Run

NUM_UPDATES = 40
SKILLS = (1.0, 0.95, 0.9, 0.85)
_CODE = "import sys; from heed.cli import main; sys.exit(main(sys.argv[1:]))"
_PATIENCE = 180.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world, and a policy that speaks it badly enough to get better."""
    folder = tmp_path_factory.mktemp("made")
    sizes = {"num_texts": 400, "num_demonstrations": 400, "num_prompts": 64, "num_held_out": 48}
    world.run(WorldConfig(run=_run(folder / "world"), **sizes))  # type: ignore[arg-type]
    fresh = {
        "run": _run(folder / "fresh"), "data": {"path": str(folder / "world/texts.jsonl")},
        "vocab_size": 400, "hidden_size": 64, "num_layers": 2, "num_heads": 4,
        "max_positions": 160,
    }  # fmt: skip
    init.run(InitConfig.model_validate(fresh))
    warm = {
        "run": _run(folder / "policy"), "model": {"path": str(folder / "fresh")},
        "data": {"path": str(folder / "world/demonstrations.jsonl")}, "batch_size": 16,
        "num_train_epochs": 6, "optim": {"lr": 5e-3}, "learner": LEARNER,
    }  # fmt: skip
    sft.run(SFTConfig.model_validate(warm))
    return folder


def _run(folder: Path, **more: Any) -> Any:
    return {"folder": str(folder), "seed": 3, **more}


def config_of(made: Path, folder: Path, **changes: Any) -> OnlinePreferenceConfig:
    values = {
        "run": _run(folder, checkpoint_seconds=0.0),
        "model": {"path": str(made / "policy")},
        "data": {"path": str(made / "world/prompts.jsonl")},
        "eval_prompts": {"path": str(made / "world/held_out.jsonl")},
        "num_eval_prompts": 48, "eval_every": 10, "gold": str(made / "world"),
        "total_episodes": 32 * NUM_UPDATES, "batch_size": 32, "sampling": {"max_tokens": 32},
        "optim": {"lr": 1e-3}, "beta": 0.05, "exact_kl_rows": 0, "learner": LEARNER,
        "label_wait_seconds": 10.0, "max_label_lag": NUM_UPDATES,
    }  # fmt: skip
    return OnlinePreferenceConfig.model_validate(values | changes)


class Trainer:
    """`heed online_preference` in a process of its own."""

    def __init__(self, folder: Path, token: str) -> None:
        self._folder, self._token = folder, token
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str) -> None:
        with (self._folder / "trainer.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE, *words], stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": SOURCE, "HEED_TOKEN": self._token,
                     "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait(self) -> None:
        assert self._process is not None
        said = (self._folder / "trainer.txt").read_text
        assert self._process.wait(_PATIENCE) == 0, said()


def reached(folder: Path, update: int, annotators: list[Annotator]) -> None:
    """Wait until a run has logged an update."""
    ends = time.monotonic() + _PATIENCE
    while True:
        rows = read_lines(folder / "metrics.jsonl")
        if rows and rows[-1]["step"] >= update:
            return
        log = (folder.parent / "trainer.txt").read_text()
        assert time.monotonic() < ends, (log, [one.wrong for one in annotators])
        time.sleep(0.02)


@pytest.fixture
def working(made: Path, tmp_path: Path) -> Iterator[tuple[Served, str, list[Annotator]]]:
    """A server, a trainer's token, and people at work."""
    names = [f"person {skill}" for skill in SKILLS]
    ids = make_project(tmp_path / "labels.db", names)
    gold = quality_in(made / "world")
    knowers = [Knower(gold, name, skill) for name, skill in zip(names, SKILLS, strict=True)]
    with open_store(tmp_path / "labels.db") as store:
        annotators = log_in(store, ids, knowers)
        access = store.people.access
        token = access.make_token("trainer", TRAINER_SCOPES, project="live", actor="x")[1]
    stopped = threading.Event()
    with Served(tmp_path, "labels.db") as served:
        threads = [
            threading.Thread(target=one.work, args=(served.base, stopped), daemon=True)
            for one in annotators
        ]
        for thread in threads:
            thread.start()
        yield served, token, annotators
        stopped.set()
        for thread in threads:
            thread.join(30)


@pytest.mark.slow
def test_people_teach_a_running_policy_and_no_label_is_lost_or_counted_twice(
    made: Path, tmp_path: Path, working: tuple[Served, str, list[Annotator]]
) -> None:
    served, token, annotators = working
    folder = tmp_path / "run"
    people = {"labeller": "web", "store": served.base, "project": "live"}
    (tmp_path / "run.toml").write_text(dump_toml(config_of(made, folder, **people)))
    trainer = Trainer(tmp_path, token)
    trainer.start("online_preference", str(tmp_path / "run.toml"))
    reached(folder, 8, annotators)
    trainer.kill()
    trainer.start("resume", str(folder))
    reached(folder, 20, annotators)
    served.stop(kill=True)
    served.start()
    trainer.wait()

    done = Run.open(folder)
    rows = done.metrics()
    assert done.status == "finished"
    assert done.manifest["resumes"] == 1
    assert [one.wrong for one in annotators] == [[]] * len(annotators)
    assert sum(one.num_resent for one in annotators) > 0  # they noticed that it was away

    # Every acknowledged answer is in the log; every one up to the run's position was taught, once.
    with open_store(tmp_path / "labels.db") as store:
        events = store.log.events(project="live")
        assert store.check() == []
        budget = store.projects.get("live").budget
    judged = {event.subject: event.seq for event in events if event.kind == "judgment"}
    for one in annotators:
        assert set(one.acknowledged.values()) <= set(judged)
    lines = read_lines(folder / "labels.jsonl")
    taught = [row["id"] for line in lines for row in line["preferences"]]
    position = rows[-1]["labels/position"]
    assert taught == [name for name, seq in judged.items() if seq <= position]
    assert len(taught) == len(set(taught)) == rows[-1]["labels/total"] > 200
    assert sum(row["labels/received"] for row in rows[1:]) == len(taught)
    assert sum(row["labels/unused"] for row in rows[1:]) == 0
    assert budget is not None
    assert budget["wanted"] == 0

    assert rows[-1]["eval/true"] > rows[0]["eval/true"] + 0.15
    for name in ("first", "last"):
        print(name, rows[0 if name == "first" else -1]["eval/true"], len(taught))

    # And the whole of it, played again from what was received, ends with the same bits.
    again = tmp_path / "again" / "run"
    replayed = {"labeller": "replay", "replay": str(folder)}
    online_preference.run(config_of(made, again, **replayed))
    assert fingerprint(again) == fingerprint(folder)
