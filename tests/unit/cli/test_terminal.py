"""What a person sees: lines and bars, time left, figures, and warnings that do not flood."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from heed.cli import terminal
from heed.cli.terminal import TerminalSink, can_move, closing_lines, duration, figure, finding_line
from heed.records import Finding
from heed.runs.run import Run
from heed.settings import RunSettings


def test_the_time_left_does_not_take_a_large_first_report_for_one_unit() -> None:
    """256 of 2,500 at once say nothing of the speed yet; the next report does."""
    stream = io.StringIO()
    sink = TerminalSink(stream, every_seconds=0.0)
    sink.stage("generate", "sampling", 2500)
    sink.progress(256, 2500, {})
    sink.progress(512, 2500, {})
    _, first, second = stream.getvalue().splitlines()
    assert "left" not in first
    assert "left" in second


def test_plain_lines_show_stage_progress_time_left_and_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with TerminalSink(out, moving=False, every_seconds=10.0) as sink:
        sink.stage("ppo", "optimising", 4)
        for step in range(1, 5):
            now[0] += 6.0
            figures = {"objective/scores": 0.5, "objective/kl": 2.0 * step, "grad_norm": 9.0}
            sink.metrics(step, figures)
            sink.progress(step, 4, figures)
        sink.finish("finished")
    assert out.getvalue().splitlines() == [
        "ppo: optimising (4 steps)",
        "  1/4  18 s left  reward 0.5  KL 2",
        "  3/4  6 s left  reward 0.5  KL 6",
        "  4/4  reward 0.5  KL 8",
    ]


def test_time_left_of_a_resumed_stage_counts_from_where_it_went_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    sink = TerminalSink(out, moving=False, every_seconds=0.0)
    sink.stage("ppo", "optimising", 100)
    for step in (91, 92):
        now[0] += 1.0
        sink.progress(step, 100, {})
    assert out.getvalue().splitlines()[-1] == "  92/100  8 s left"


def test_the_newest_known_figure_stays_and_own_figures_are_named() -> None:
    out = io.StringIO()
    sink = TerminalSink(out, moving=False, every_seconds=0.0)
    sink.stage("ppo", "", None)
    sink.metrics(1, {"eval/true": 1.25})
    sink.metrics(2, {"eval/true": None, "loss": 3})
    sink.progress(2, None, {"files_read": 1234567, "grad_norm": 1.0})
    assert out.getvalue().splitlines() == [
        "ppo",
        "  2  held-out true quality 1.25  loss 3  files read 1,234,567",
    ]


def test_how_many_labels_are_waited_for_reads_as_a_sentence() -> None:
    out = io.StringIO()
    sink = TerminalSink(out, moving=False, every_seconds=0.0)
    sink.stage("live", "online DPO", 4)
    sink.metrics(1, {"labels/waiting": 34, "labels/total": 12, "labels/asked": 8})
    sink.progress(1, 4, {})
    line = out.getvalue().splitlines()[1]
    assert line.endswith("  people's labels 12  waiting for 34 labels")


def test_a_bar_moves_and_warnings_stand_above_it() -> None:
    out = io.StringIO()
    with TerminalSink(out, moving=True) as sink:
        sink.stage("ppo", "optimising", 4)
        sink.metrics(2, {"objective/kl": 1.5})
        sink.progress(2, 4, {})
        sink.warning("objective/kl", "KL [red] is negative")
    text = out.getvalue()
    assert "ppo: optimising" in text
    assert "2/4" in text
    assert "KL 1.5" in text
    assert "KL [red] is negative" in text


def test_a_bar_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    out = io.StringIO()
    with TerminalSink(out, moving=True) as sink:
        sink.stage("ppo", "PPO", 4)
        sink.metrics(1, dict.fromkeys(terminal.SHOWN, 123456))
        sink.progress(1, 4, {})
    escapes = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
    lines = re.split(r"[\r\n]+", escapes.sub("", out.getvalue()))
    assert max(map(len, lines)) <= 50
    assert any(line.startswith("  reward 123,456") for line in lines)


def test_the_same_warning_is_shown_three_times() -> None:
    out = io.StringIO()
    sink = TerminalSink(out, moving=False)
    for _ in range(9):
        sink.warning("val/ratio", "too large")
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[2].endswith("(more of these are in warnings.jsonl)")


def test_only_a_terminal_that_redraws_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    assert can_move(Terminal())
    assert not can_move(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not can_move(Terminal())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "unknown"), (12345, "12,345"), (1234.5, "1,234"), (0.12345, "0.123"), (1e-5, "1e-05")],
)
def test_figures_have_three_digits(value: float | None, text: str) -> None:
    assert figure(value) == text


def test_findings_are_lines_with_interval_unit_and_n() -> None:
    known = Finding(name="win rate", estimate=0.75, low=0.7, high=0.8, n=1200, unit="fraction")
    assert finding_line(known) == "win rate: 0.75 [0.7, 0.8] fraction (n = 1,200)"
    unknown = Finding(name="kl", estimate=None, n=0, unit="nats", reason="no reference")
    assert finding_line(unknown) == "kl: unknown (no reference)"


def test_a_real_run_talks_through_the_sink(tmp_path: Path) -> None:
    out = io.StringIO()
    settings = RunSettings(folder=str(tmp_path / "run"))
    with (
        TerminalSink(out, moving=False) as sink,
        Run.start(settings, "sft", {}, {}, (sink,)) as run,
    ):
        run.stage("fine-tuning", 2)
        run.log(2, {"loss": 0.5}, total=2)
        run.path("model.txt").write_text("m")
        run.finish({"model": run.path("model.txt")})
    assert out.getvalue().splitlines() == ["run: fine-tuning (2 steps)", "  2/2  loss 0.5"]
    lines = closing_lines(run)
    assert lines[0].startswith("finished in 0 s: ")
    assert f"  model: {run.folder / 'model.txt'}" in lines
    assert lines[-1] == f"  page of it: heed report {run.folder}"


def test_standard_output_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert not can_move(sys.stdout)
    TerminalSink().stage("a", "b", None)
    assert capsys.readouterr().out == "a: b\n"
