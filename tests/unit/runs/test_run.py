import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heed.errors import ConfigError, HeedError, StoreError
from heed.ids import content_hash
from heed.records import Finding
from heed.runs.manifest import differences
from heed.runs.run import Run
from heed.settings import RunSettings


class Ear:
    """A sink that remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: self.heard.append((name, *args))


def start(folder: Path, sinks: tuple = (), config: dict | None = None, **settings: Any) -> Run:
    given = RunSettings(folder=str(folder), **settings)
    return Run.start(given, "sft", config or {"lr": 0.1}, {}, sinks)


def crash(folder: Path, error: BaseException, body: Callable[[Run], None]) -> None:
    """A run whose body is followed by an error."""

    def play() -> None:
        with start(folder) as run:
            body(run)
            raise error

    with pytest.raises(type(error)):
        play()


def test_a_run_leaves_a_whole_manifest(tmp_path: Path) -> None:
    source = tmp_path / "data.jsonl"
    source.write_text("{}\n")
    settings = RunSettings(folder=str(tmp_path / "r"), seed=7)
    inputs = {"data": source, "model": "someone/some-model", "both": (str(source), str(source))}
    with Run.start(settings, "sft", {"lr": 0.1}, inputs) as run:
        run.note_environment(device="cpu", cores=2)
        made = run.path("model", "weights.bin")
        made.write_bytes(b"w")
        run.finish({"model": run.path("model")}, facts={"rows": 3})
    manifest = Run.open(tmp_path / "r").manifest
    assert manifest["schema"] == 1
    assert manifest["kind"] == "sft"
    assert manifest["name"] == "r"
    assert manifest["status"] == "finished"
    assert manifest["seed"] == 7
    assert manifest["config"] == {"lr": 0.1}
    assert manifest["facts"] == {"rows": 3}
    assert manifest["environment"]["device"] == "cpu"
    assert manifest["environment"]["cores"] == 2
    assert manifest["environment"]["python"].startswith("3.")
    assert manifest["outputs"]["model"]["path"] == "model"
    assert len(manifest["outputs"]["model"]["hash"]) == 16
    assert manifest["inputs"]["data"]["hash"] is not None
    assert manifest["inputs"]["model"]["hash"] is None
    assert "not a local" in manifest["inputs"]["model"]["reason"]
    twice = [manifest["inputs"]["data"]["hash"]] * 2
    assert manifest["inputs"]["both"]["hash"] == content_hash(twice)
    assert manifest["created"] <= manifest["finished"]
    assert manifest["peak_memory_bytes"] > 1 << 20
    assert manifest["seconds"] >= 0


def test_an_input_run_is_hashed_by_what_it_made(tmp_path: Path) -> None:
    with start(tmp_path / "a") as made:
        made.path("model").mkdir()
        (made.path("model") / "w").write_text("1")
        made.finish({"model": made.path("model")})

    def hash_now(name: str) -> str:
        settings = RunSettings(folder=str(tmp_path / name))
        with Run.start(settings, "ppo", {}, {"policy": tmp_path / "a"}) as run:
            return run.manifest["inputs"]["policy"]["hash"]

    first = hash_now("b")
    (tmp_path / "a" / "report.html").write_text("a page that was made later")
    assert hash_now("c") == first


def test_metrics_come_back_and_reach_the_sinks(tmp_path: Path) -> None:
    ear = Ear()
    with start(tmp_path / "r", (ear,)) as run:
        run.stage("training", 2)
        run.log(1, {"loss": 0.5, "num_tokens": 12, "perplexity": None}, total=2)
        run.log(2, {"rewards/length/mean": 1.0})
        run.progress(2, 2, loss=0.5)
        run.warn(2, "kl", "too large")
    lines = Run.open(tmp_path / "r").metrics()
    assert [{k: v for k, v in line.items() if k != "wall_seconds"} for line in lines] == [
        {"step": 1, "loss": 0.5, "num_tokens": 12, "perplexity": None},
        {"step": 2, "rewards/length/mean": 1.0},
    ]
    assert isinstance(lines[0]["num_tokens"], int)
    assert 0 <= lines[0]["wall_seconds"] <= lines[1]["wall_seconds"]
    assert [heard[0] for heard in ear.heard] == [
        "stage", "metrics", "progress", "metrics", "progress", "warning", "finish"
    ]  # fmt: skip
    assert ear.heard[-1] == ("finish", "finished")


def test_a_metric_that_is_not_described_is_an_error(tmp_path: Path) -> None:
    with start(tmp_path / "r") as run, pytest.raises(HeedError, match="objective/scores"):
        run.log(1, {"objective/score": 1.0})
    assert Run.open(tmp_path / "r").metrics() == []


def test_a_number_that_is_not_finite_is_written_as_unknown_with_a_warning(tmp_path: Path) -> None:
    with start(tmp_path / "r") as run:
        run.log(3, {"loss": float("nan"), "grad_norm": float("inf")})
        assert run.metrics()[0]["loss"] is None
        assert [w["name"] for w in run.warnings()] == ["loss", "grad_norm"]


def test_samples_findings_and_data_report_come_back(tmp_path: Path) -> None:
    found = Finding(name="win rate", estimate=0.6, low=0.5, high=0.7, n=100, unit="fraction")
    with start(tmp_path / "r") as run:
        run.sample(1, [{"prompt_id": "p", "completion": "a"}])
        run.add_findings([found])
        run.add_findings([found.model_copy(update={"estimate": 0.65})])
        run.write_data_report([{"source": "x", "kept": 2}])
        run.warn(1, "kl", "large")
        run.warn(1, "kl", "large")
    opened = Run.open(tmp_path / "r")
    assert opened.samples() == [{"step": 1, "prompt_id": "p", "completion": "a"}]
    assert [f.estimate for f in opened.findings()] == [0.65]
    assert opened.data_report() == [{"source": "x", "kept": 2}]
    assert opened.warnings() == [{"step": 1, "name": "kl", "message": "large"}]
    with pytest.raises(StoreError, match="open for reading"):
        opened.log(2, {"loss": 1.0})


def test_a_folder_with_content_needs_a_decision(tmp_path: Path) -> None:
    with start(tmp_path / "r") as run:
        run.log(1, {"loss": 1.0})
    with pytest.raises(StoreError, match=r"already holds a run \(finished\).*run.resume"):
        start(tmp_path / "r")
    with start(tmp_path / "r", overwrite=True) as run:
        assert run.metrics() == []
        assert not run.resumed
    with pytest.raises(ConfigError, match="exclude each other"):
        start(tmp_path / "r", overwrite=True, resume=True)


def test_a_folder_that_is_no_run_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for settings in ({"overwrite": True}, {"resume": True}, {}):
        with pytest.raises(StoreError, match="not a run"):
            start(tmp_path, **settings)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_resume_in_an_empty_place_starts_the_run(tmp_path: Path) -> None:
    with start(tmp_path / "r", resume=True) as run:
        assert not run.resumed
    assert Run.open(tmp_path / "r").status == "finished"


def test_status_tells_how_a_run_ended(tmp_path: Path) -> None:
    seen = []
    crash(tmp_path / "a", KeyError("x"), lambda run: seen.append(run.status))
    assert seen == ["running"]
    manifest = Run.open(tmp_path / "a").manifest
    assert (manifest["status"], manifest["error"]) == ("failed", "KeyError: 'x'")
    crash(tmp_path / "b", KeyboardInterrupt(), lambda run: None)
    assert Run.open(tmp_path / "b").manifest["status"] == "interrupted"
    with pytest.raises(StoreError, match="does not exist"), start(tmp_path / "c") as run:
        run.finish({"model": run.path("model")})
    assert Run.open(tmp_path / "c").manifest["status"] == "failed"


def test_a_resumed_run_ends_with_the_lines_of_an_uninterrupted_one(tmp_path: Path) -> None:
    def steps(run: Run, first: int, last: int) -> None:
        for step in range(first, last + 1):
            run.log(step, {"loss": 1 / step})
            run.sample(step, [{"completion": f"c{step}"}])
            run.warn(step, "kl", f"w{step}")
            run.path("rollouts", f"update-{step:08d}.jsonl").write_text("{}\n")

    def begin(run: Run, last: int) -> None:
        run.warn(0, "data", "a setting was ignored")
        steps(run, 1, last)

    with start(tmp_path / "whole") as run:
        begin(run, 9)
    crash(tmp_path / "cut", RuntimeError(), lambda run: begin(run, 6))
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 7, "lo')
    with start(tmp_path / "cut", resume=True) as run:
        assert run.resumed
        run.warn(0, "data", "a setting was ignored")
        run.rewind(4)
        left = sorted(p.name for p in run.path("rollouts").iterdir())
        assert left[-1] == "update-00000005.jsonl"
        assert [row["step"] for row in run.metrics()] == [1, 2, 3, 4]
        steps(run, 5, 9)
    whole, cut = Run.open(tmp_path / "whole"), Run.open(tmp_path / "cut")
    for row in whole.metrics() + cut.metrics():
        assert row["wall_seconds"] >= 0

    def plain(run: Run) -> list[dict]:
        return [{k: v for k, v in row.items() if k != "wall_seconds"} for row in run.metrics()]

    assert plain(cut) == plain(whole)
    assert cut.samples() == whole.samples()
    assert cut.warnings() == whole.warnings()
    assert cut.manifest["resumes"] == 1


def test_starting_over_cuts_the_first_line_too(tmp_path: Path) -> None:
    crash(tmp_path / "r", RuntimeError(), lambda run: run.log(0, {"eval/proxy": 1.0}))
    with start(tmp_path / "r", resume=True) as run:
        run.rewind(0)
        run.log(0, {"eval/proxy": 1.0})
        assert len(run.metrics()) == 1


def test_seconds_and_peak_memory_go_on_over_a_resume(tmp_path: Path) -> None:
    with start(tmp_path / "r") as run:
        run.log(1, {"loss": 1.0})
    path = tmp_path / "r" / "manifest.json"
    manifest = json.loads(path.read_text()) | {"seconds": 100.0, "peak_memory_bytes": 1 << 50}
    path.write_text(json.dumps(manifest))
    with start(tmp_path / "r", resume=True) as run:
        run.log(2, {"loss": 1.0})
    manifest = Run.open(tmp_path / "r").manifest
    assert 100.0 <= manifest["seconds"] < 110.0
    assert manifest["peak_memory_bytes"] == 1 << 50
    assert 100.0 <= run.metrics()[-1]["wall_seconds"] < 110.0


def test_a_resume_under_other_settings_says_what_differs(tmp_path: Path) -> None:
    with start(tmp_path / "r", config={"optim": {"lr": 0.1}, "n": (1, 2)}):
        pass
    with start(tmp_path / "r", config={"optim": {"lr": 0.2}, "n": (1, 2)}, resume=True) as run:
        assert "optim.lr 0.1 -> 0.2" in run.warnings()[0]["message"]
        assert "n " not in run.warnings()[0]["message"].split(": ", 1)[1]
    with pytest.raises(ConfigError, match="has seed 0"):
        start(tmp_path / "r", resume=True, seed=1)


def test_what_differs_in_a_list_is_named_by_entry_and_kept_short() -> None:
    old = {"stages": [{"name": "sft", "lr": 1}, {"name": "ppo", "text": "x" * 500}]}
    new = {"stages": [{"name": "init"}, {"name": "sft", "lr": 2}, {"name": "ppo", "text": "y"}]}
    lines = differences(old, new)
    assert "stages.sft.lr 1 -> 2" in lines
    assert all(len(line) < 200 for line in lines)
    assert len(lines) == 3


@pytest.mark.parametrize("manifest_too", [False, True])
def test_a_full_disk_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest_too: bool
) -> None:
    """Whatever was being written, and also where the manifest has no room either."""

    def full(path: Path, text: str) -> None:
        raise StoreError("the disk is full") from OSError(errno.ENOSPC, "No space left on device")

    said = r"the disk is full: .*No space left.*then go on with `heed resume`"
    with pytest.raises(StoreError, match=said), start(tmp_path / "r"):  # noqa: PT012
        if manifest_too:
            monkeypatch.setattr("heed.runs.run.write_json", full)
        raise RuntimeError("Error while serializing: No space left on device (os error 28)")
    assert Run.open(tmp_path / "r").status == ("interrupted" if manifest_too else "failed")
    monkeypatch.undo()
    with start(tmp_path / "r", resume=True) as run:
        assert run.resumed


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    with start(tmp_path / "r"), pytest.raises(StoreError, match=f"process {os.getpid()}"):
        start(tmp_path / "r", resume=True)
    with start(tmp_path / "r", resume=True) as run:
        assert run.resumed


KILLED = """
import sys
from heed.runs.run import Run
from heed.settings import RunSettings
assert "torch" not in sys.modules and "numpy" not in sys.modules
with Run.start(RunSettings(folder=sys.argv[1]), "sft", {"lr": 0.1}) as run:
    for step in range(1, 10**9):
        run.log(step, {"loss": 1 / step, "grad_norm": 1.0})
        if step == 1:
            print("begun", flush=True)
"""


def test_a_killed_run_can_be_read_and_resumed_and_needs_no_torch(tmp_path: Path) -> None:
    path = os.pathsep.join(sys.path)
    folder = tmp_path / "r"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    time.sleep(0.2)
    assert Run.open(folder).status == "running"
    with pytest.raises(StoreError, match=f"process {process.pid}"):
        start(folder, resume=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed = Run.open(folder)
    assert killed.manifest["status"] == "running"
    assert killed.status == "interrupted"
    steps = [row["step"] for row in killed.metrics()]
    assert steps == list(range(1, len(steps) + 1))
    with start(folder, resume=True) as run:
        run.rewind(steps[-1] // 2)
        assert run.metrics()[-1]["step"] == steps[-1] // 2
        assert run.seconds() >= killed.metrics()[-1]["wall_seconds"]


def test_what_is_not_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no manifest\.json"):
        Run.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        start(tmp_path / "file" / "run")


def test_a_resume_in_another_environment_says_what_differs(tmp_path: Path) -> None:
    with start(tmp_path / "r") as run:
        run.note_environment(engine_path="native", cores=2)
    with start(tmp_path / "r", resume=True) as run:
        run.note_environment(engine_path="native")
        assert not run.warnings()
        run.note_environment(engine_path="torch", cores=2, new=1)
        (warning,) = run.warnings()
    assert warning["message"].endswith("engine_path 'native' -> 'torch'")
