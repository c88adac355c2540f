"""`heed run`: its words, its help, and a pipeline from the first word to a resumed end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heed.cli import chain as words
from heed.cli.chain import take_apart
from heed.cli.command import main
from heed.errors import ConfigError
from heed.pipelines import chain

FILE = """
[pipeline]
name = "two-words"
help = "Add two words to a text"
[arguments]
text = { help = "Where it starts" }
end = "well"
[[stage]]
name = "first"
verb = "copy"
config = { path = "{text}", word = "-1" }
[[stage]]
name = "second"
verb = "copy"
config = { path = "{stages.first}", word = "-2", end = "{end}" }
[quick.second]
word = "-quick"
"""


def test_words_are_sorted_by_what_they_are_for() -> None:
    told = take_apart(
        [
            "--books",
            "b.jsonl",
            "p.toml",
            "--set",
            "sft.optim.lr=1e-4",
            "--set=size=3",
            "--quick",
            "--run.folder",
            "f",
            "--run.overwrite",
            "--no-run.resume",
            "--run.seed=4",
            "--stop-words",
            '["a"]',
            "--on=true",
            "--name",
            "1.5.2",
        ]
    )
    assert told.file == "p.toml"
    assert told.quick
    assert told.run == [
        "--run.folder", "f", "--run.overwrite", "--no-run.resume", "--run.seed=4"
    ]  # fmt: skip
    assert told.overrides == {"sft.optim.lr": 1e-4}
    assert told.arguments == {
        "books": "b.jsonl", "size": 3, "stop_words": ["a"], "on": True, "name": "1.5.2"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["a.toml", "b.toml"], "takes one pipeline file"),
        (["a.toml", "--books"], "--books needs a value"),
        (["a.toml", "--set", "books"], "write --set NAME=VALUE"),
    ],
)
def test_words_that_make_no_sense(typed: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        take_apart(typed)


@pytest.fixture
def file(tmp_path: Path, copy_verb: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    table = {"copy": copy_verb}
    monkeypatch.setattr(words, "VERBS", table)
    monkeypatch.setattr(chain, "_write_page", lambda run: None)
    monkeypatch.setattr(
        words,
        "run_pipeline",
        lambda *given: chain.run_pipeline(*given, verbs=table, code="code"),
    )
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pipeline.toml"
    path.write_text(FILE)
    (tmp_path / "text.txt").write_text("text")
    return path


def test_a_pipeline_runs_in_its_folder(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(file), "--text", "text.txt"]) == 0
    assert Path("runs/two-words/stages/second/out.txt").read_text() == "text-1-2"
    capsys.readouterr()
    assert main(["run", str(file), "--text", "text.txt"]) == 0
    out = capsys.readouterr().out
    assert "first: unchanged\nsecond: unchanged\n" in out
    assert main(["run", str(file), "--text", "text.txt", "--quick"]) == 0
    assert Path("runs/two-words-quick/stages/second/out.txt").read_text() == "text-1-quick"


def test_resuming_a_whole_pipeline_writes_the_page_that_a_kill_left_out(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(file), "--text", "text.txt"]) == 0
    page = Path("runs/two-words/report.html")
    assert not page.exists(), "the page is written without the fixture's leave"
    capsys.readouterr()
    assert main(["resume", "runs/two-words"]) == 0
    assert "finished already" in capsys.readouterr().out
    assert "two-words" in page.read_text()


def test_an_interrupted_pipeline_resumes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(file), "--text", "text.txt", "--end", "interrupt"]) == 130
    assert "heed resume runs/two-words\n" in capsys.readouterr().err
    assert main(["resume", "runs/two-words"]) == 0
    out = capsys.readouterr().out
    assert "first: unchanged" in out
    assert "second: goes on where it stopped" in out
    assert Path("runs/two-words/stages/second/out.txt").read_text() == "text-1-2"


def test_help_lists_the_arguments(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    assert main(["run", str(file), "--help"]) == 0
    out = capsys.readouterr().out
    assert "two-words: Add two words to a text" in out
    assert "--text  (required)  Where it starts" in out
    assert "--end  [well]" in out
    assert "stages: first (copy), second (copy)" in out


def test_the_resolved_configuration_of_all_stages(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(file), "--text", "text.txt", "--run.seed", "5", "--print-config"]) == 0
    out = capsys.readouterr().out
    assert out.count("seed = 5") == 2
    assert "# stage second" in out
    assert not Path("runs").exists()


def test_errors_are_messages(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 2
    assert main(["run", str(file)]) == 2
    assert main(["run", str(file), "--text", "text.txt", "--set", "first.wrd=x"]) == 2
    err = capsys.readouterr().err
    assert "needs a pipeline file" in err
    assert "needs --text (Where it starts)" in err
    assert "stage 'first' (copy): wrd: no such setting; the nearest is word" in err
