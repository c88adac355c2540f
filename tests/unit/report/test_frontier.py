"""Quality against KL on the page: points at their values, a drawing that stands alone, a table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from browser import Browser, find
from tests.unit.audits.measured import evaluation

import heed

METHODS = {"GRPO": (1.0, 0.4), "DPO <b>": (2.0, 0.7), "KTO": (1.5, 0.2)}
"""Method -> KL and true quality of its first setting."""
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frontier of three methods; one setting of KTO is far beyond all frontiers."""
    here = tmp_path_factory.mktemp("frontier")
    runs = [
        evaluation(here, {"method": name, "beta": beta}, seed, kl=kl * times, true=true, noise=0.2)
        for name, (kl, true) in METHODS.items()
        for beta, times in ((1.0, 1.0), (0.1, 30.0 if name == "KTO" else 2.0))
        for seed in (0, 1)
        for true in [true + {1.0: 0.0, 2.0: 0.3, 30.0: -0.5}[times]]
    ]
    run = heed.frontier(run={"folder": str(here / "run")}, runs=runs, kl_limits=[1.2, 2.5])
    heed.write_report(run.folder)
    return run.folder


def test_the_page_has_a_figure_for_each_method_and_the_table(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "True quality against KL, by method" in page
    for name in ("GRPO", "DPO &lt;b&gt;", "KTO"):
        assert f"{name}: true quality against KL</title>" in page
    assert "within 1.2 nats" in page
    assert "Every setting" in page
    assert "Policy optimisation: no policy was optimised" not in page


def test_a_setting_far_beyond_is_said_and_not_drawn(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert re.search(r"Beyond: .0\.\d+ at KL 45\.", page)
    points = json.loads((folder / "frontier.json").read_text())["points"]
    near = [p for p in points if p["kl"]["estimate"] < 10 and p["kl"]["estimate"] > 0]
    drawing = ElementTree.parse(folder / "frontier.svg").getroot()
    assert len(drawing.findall(f".//{SVG}circle")) == len(near)
    assert len(drawing.findall(f".//{SVG}line[@class='bar true']")) == len(near)


def test_points_and_their_intervals_stand_at_their_values(folder: Path) -> None:
    points = json.loads((folder / "frontier.json").read_text())["points"]
    own = [p for p in points if p["setting"]["method"] == "GRPO"]
    drawing = ElementTree.parse(folder / "frontier.svg").getroot()
    chart = next(s for s in drawing.findall(f"{SVG}svg") if s.find(f"{SVG}text").text == "GRPO")
    circles = {c.find(f"{SVG}title").text: c for c in chart.findall(f".//{SVG}circle")}
    bars = [tuple(float(b.get(k)) for k in ("x1", "y1", "y2")) for b in
            chart.findall(f".//{SVG}line[@class='bar true']")]  # fmt: skip
    assert len(circles) == len(bars) == 2
    centres = sorted((float(c.get("cx")), float(c.get("cy"))) for c in circles.values())
    ends = sorted(own, key=lambda p: p["kl"]["estimate"])
    (x1, y1), (x2, y2) = centres
    across = (x2 - x1) / (ends[1]["kl"]["estimate"] - ends[0]["kl"]["estimate"])
    up = (y2 - y1) / (ends[1]["true"]["estimate"] - ends[0]["true"]["estimate"])
    assert across > 0 > up
    for point, (x, low, high) in zip(ends, sorted(bars), strict=True):
        assert x == pytest.approx(
            x1 + across * (point["kl"]["estimate"] - ends[0]["kl"]["estimate"])
        )
        width = point["true"]["high"] - point["true"]["low"]
        assert high - low == pytest.approx(up * width, abs=0.3)


def test_the_markdown_table_holds_the_same_figures(folder: Path) -> None:
    lines = (folder / "frontier.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].endswith("best setting, chosen on other prompts:")
    lines = lines[2:]
    assert lines[0].startswith("| method | within 1.2 nats | within 2.5 nats | at any KL |")
    row = next(line for line in lines if line.startswith("| GRPO"))
    assert row.endswith("| beta 0.1 |")
    assert all(line.count("|") == lines[0].count("|") for line in lines[2:6])
    assert "\N{MINUS SIGN}" not in "".join(lines)


def test_a_damaged_file_leaves_the_page_without_the_section(folder: Path, tmp_path: Path) -> None:
    for name in ("manifest.json", "findings.json"):
        (tmp_path / name).write_text((folder / name).read_text())
    (tmp_path / "frontier.json").write_text("{ half")
    page = heed.write_report(tmp_path).read_text(encoding="utf-8")
    assert "by method" not in page
    assert not (tmp_path / "frontier.svg").exists()


def test_page_and_drawing_in_a_browser(folder: Path) -> None:
    binary = find()
    if binary is None:
        pytest.skip("no Chromium is installed; install the package chromium to run this")
    with Browser(binary) as browser:
        for width in (360, 1280):
            browser.open(folder / "report.html", width)
            assert browser.evaluate("document.documentElement.scrollWidth") == width
            assert browser.complaints() == []
        browser.open(folder / "frontier.svg", 1280, dark=True)
        back = "getComputedStyle(document.querySelector('.back')).fill"
        dark = browser.evaluate(back)
        browser.open(folder / "frontier.svg", 1280)
        assert dark != browser.evaluate(back)
        assert browser.complaints() == []
