"""What the page shows of a run that learned from comparisons without sampling."""

from __future__ import annotations

from pathlib import Path

from heed.report.folder import read_folder
from heed.report.page import sections, write_report
from heed.runs.run import Run
from heed.settings import RunSettings


def _run(folder: Path, kind: str) -> Path:
    with Run.start(RunSettings(folder=str(folder)), kind, {}) as run:
        for step in range(1, 7):
            row: dict = {"loss": 0.7 - 0.01 * step, "rewards/margins": 0.02 * step}
            if step % 3 == 0:
                row |= {"eval/loss": 0.7, "eval/logps/chosen_change": -0.1 * step}
            run.log(step, row)
    return folder


def test_margins_and_displacement_are_drawn(tmp_path: Path) -> None:
    for kind in ("preference", "unpaired"):
        folder = _run(tmp_path / kind, kind)
        found, absent = sections(read_folder(folder))
        (section,) = [s for s in found if s.id == f"offline-{kind}"]
        (grid,) = section.blocks
        titles = [figure.title for figure in grid.figures]  # type: ignore[union-attr]
        assert titles == ["Loss", "Reward margin", "Held-out change of chosen"]
        assert not [text for text in absent if text.startswith("Policy optimisation")]
        assert "Held-out change of chosen" in write_report(folder).read_text("utf-8")


def test_other_runs_have_no_such_section(tmp_path: Path) -> None:
    found, _ = sections(read_folder(_run(tmp_path / "sft", "sft")))
    assert not [s for s in found if s.id.startswith("offline")]
