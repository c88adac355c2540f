"""The plan of the house names every room that there is, and calls none planned that is built."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "heed"
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
ROOMS = DESIGN.split("## 3. Rooms")[1].split("```")[1]
PACKAGES = sorted(p for p in PACKAGE.iterdir() if (p / "__init__.py").exists())


def described() -> dict[str, str]:
    """Room -> its lines: what begins at the margin, and the indented lines under it."""
    rooms: dict[str, str] = {}
    name = ""
    for line in ROOMS.splitlines():
        if line and not line[0].isspace():
            name, _, line = line.partition(" ")
        if line.strip():
            rooms[name] = rooms.get(name, "") + " " + line
    return rooms


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def test_every_file_at_the_top_is_a_room() -> None:
    files = {path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    assert files <= set(described())


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_package_is_described_by_its_modules(package: Path) -> None:
    built, _, planned = described()[f"{package.name}/"].partition("planned:")
    there = {path.stem for path in package.glob("*.py") if not path.stem.startswith("__")}
    assert not there - words(built)
    assert not there & words(planned)


def test_the_plan_names_no_place_outside_the_project() -> None:
    named = re.findall(r"`((?:docs|src|tests|benchmarks|recipes|scripts)/[\w./-]+)`", DESIGN)
    assert all((ROOT / name).exists() for name in named)
    assert "reference/" not in DESIGN.replace("docs/reference/", "")
    assert "../" not in DESIGN
