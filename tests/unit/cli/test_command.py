"""The command line: exit status and the one line that says what went wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import heed
from heed.cli import command
from heed.cli.command import Context, guarded, main
from heed.cli.resume import resumed_settings
from heed.cli.stage import run_verb
from heed.errors import StoreError
from heed.runs.run import Run


class Desk:
    """Types commands of one cheap verb."""

    def __init__(self, folder: Path, verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.run_folder, self.verb, self.capsys = folder / "run", verb, capsys
        self.source = folder / "source.txt"
        self.source.write_text("text")
        self.needed = ["--run.folder", str(self.run_folder), "--path", str(self.source)]

    def type(self, *words: str, debug: bool = False) -> tuple[int, str, str]:
        context = Context()
        status = guarded(lambda: run_verb(self.verb, words, context), context, debug)
        out, err = self.capsys.readouterr()
        return status, out, err


@pytest.fixture
def desk(tmp_path: Path, copy_verb: Any, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, copy_verb, capsys)


def test_a_verb_runs_and_says_where_its_results_are(desk: Desk) -> None:
    status, out, err = desk.type(*desk.needed)
    assert (status, err) == (0, "")
    assert "run: copying (3 steps)" in out
    assert "words: 1 words (n = 1)" in out
    assert str(desk.run_folder / "out.txt") in out


def test_files_may_stand_anywhere_and_flags_win(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('word = "file"\nnum_steps = 1\n')
    status, out, _ = desk.type(*desk.needed, str(file), "--word", "flag", "--print-config")
    assert status == 0
    assert 'word = "flag"' in out
    assert "num_steps = 1" in out
    assert not desk.run_folder.exists()


def test_help_lists_settings_by_section_with_defaults(desk: Desk) -> None:
    status, out, _ = desk.type("--help")
    assert status == 0
    assert "required: --run.folder, --path" in out
    assert "  --num_steps  integer [3]\n      Lines of metrics." in out
    assert "  --end  one of well, wrong, bug, interrupt [well]" in out
    assert "run: Where a run is written, and how often." in out
    assert max(len(line) for line in out.splitlines()) <= 100


def test_something_to_correct_is_one_message_and_status_2(desk: Desk) -> None:
    status, out, err = desk.type(*desk.needed, "--wrod", "x")
    assert (status, out) == (2, "")
    assert err == "error: --wrod: no such setting; the nearest is word (text)\n"
    status, _, err = desk.type(*desk.needed, "--end", "wrong")
    assert status == 2
    assert err == "error: found a wrong ending, expected a good one; set --end well\n"


def test_a_bug_is_one_line_and_the_traceback_is_kept(desk: Desk) -> None:
    status, _, err = desk.type(*desk.needed, "--end", "bug")
    assert status == 1
    assert "error: ZeroDivisionError: nobody foresaw this" in err
    assert "Traceback" not in err
    assert "--debug" in err
    kept = (desk.run_folder / "error.txt").read_text()
    assert "Traceback" in kept
    assert "ZeroDivisionError" in kept


def test_debug_shows_the_traceback(desk: Desk) -> None:
    _, _, err = desk.type(*desk.needed, "--end", "bug", debug=True)
    assert "Traceback" in err
    _, _, err = desk.type(*desk.needed, "--run.overwrite", "--end", "wrong", debug=True)
    assert "Traceback" in err


def test_an_interrupt_says_how_to_go_on_and_resume_does(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = desk.type(*desk.needed, "--end", "interrupt")
    assert status == 130
    assert err == f"interrupted; go on with: heed resume {desk.run_folder}\n"
    assert Run.open(desk.run_folder).status == "interrupted"

    monkeypatch.setattr("heed.cli.resume.VERBS", {"copy": desk.verb})
    assert main(["resume", str(desk.run_folder)]) == 0
    assert desk.verb.calls == [("run", False), ("run", True)]
    assert (desk.run_folder / "out.txt").read_text() == "texta"
    desk.capsys.readouterr()
    assert main(["resume", str(desk.run_folder)]) == 0
    assert "finished already" in desk.capsys.readouterr().out


def test_a_run_folder_that_moved_resumes_where_it_is(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.type(*desk.needed, "--end", "interrupt")
    moved = desk.run_folder.rename(tmp_path / "moved")
    monkeypatch.setattr("heed.cli.resume.VERBS", {"copy": desk.verb})
    assert main(["resume", str(moved)]) == 0
    assert (moved / "out.txt").exists()
    assert not desk.run_folder.exists()


def test_resume_says_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume"]) == 2
    assert "heed resume RUN" in capsys.readouterr().err
    assert main(["resume", str(tmp_path)]) == 2
    assert "holds no manifest.json" in capsys.readouterr().err
    with pytest.raises(StoreError, match="holds no settings"):
        resumed_settings({}, tmp_path)


def test_an_interrupt_before_anything_was_written_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop() -> int:
        raise KeyboardInterrupt

    assert guarded(stop, Context(), False) == 130
    assert capsys.readouterr().err == "interrupted before anything was written\n"


def test_no_verb_and_an_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("usage: heed VERB")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"heed {heed.__version__}\n"
    assert main(["evalaute"]) == 2
    assert "the nearest is 'evaluate'" in capsys.readouterr().err


def test_every_verb_and_command_is_in_the_overview() -> None:
    text = command.overview()
    for name in ("sft", "reward", "ppo", "generate", "compare", "evaluate", "report", "data",
                 "resume", "doctor", "run", "quickstart", "init", "world"):  # fmt: skip
        assert f"\n  {name} " in text


def _python(code: str, **how: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(heed.__file__).parents[1])},
        **how,
    )


def test_a_reader_that_goes_away_makes_no_noise() -> None:
    process = _python("import sys; from heed.cli import main; sys.exit(main(['--help']))")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(20) in (0, command.CLOSED_PIPE)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_an_interrupted_run(tmp_path: Path, number: int, status: int) -> None:
    code = f"""
import pathlib, signal, sys, time
# A shell that runs the tests in the background lets all that they start ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
from heed.cli.command import Context, guarded
from heed.runs.run import Run
from heed.settings import RunSettings
context = Context()
def work():
    context.folder = pathlib.Path({str(tmp_path / "run")!r})
    with Run.start(RunSettings(folder=str(context.folder)), "sft", {{}}) as run:
        print("ready", flush=True)
        time.sleep(600)
sys.exit(guarded(work, context, False))
"""
    process = _python(code)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert err == f"interrupted; go on with: heed resume {tmp_path / 'run'}\n"
    assert Run.open(tmp_path / "run").status == "interrupted"


@pytest.mark.parametrize("debug", [False, True])
def test_deprecations_in_libraries_are_for_developers(debug: bool) -> None:
    code = f"""
import sys, warnings
from heed.cli.command import Context, guarded
def work():
    warnings.warn("renamed in version 6", FutureWarning)
    warnings.warn("something is odd", UserWarning)
    return 0
sys.exit(guarded(work, Context(), {debug}))
"""
    _, err = _python(code).communicate(timeout=20)
    assert ("renamed in version 6" in err) is debug
    assert "something is odd" in err
