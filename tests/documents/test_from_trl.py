"""The page for users of TRL names verbs, settings, presets and losses that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from heed.algorithms.comparison_presets import COMPARISONS
from heed.algorithms.preference_rows import ROWS
from heed.algorithms.presets import PRESETS
from heed.flags import _IN_TRL, flags_of
from heed.pipelines.verbs import VERBS

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/from-trl.md"
TEXT = PAGE.read_text(encoding="utf-8")


def lines(title: str) -> list[list[str]]:
    """Cells of the table under a heading, its head left out."""
    body = TEXT.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in body.splitlines() if line.startswith("|")]  # fmt: skip
    return rows[2:]


def settings(verb: str) -> set[str]:
    return {flag.name for flag in flags_of(VERBS[verb].config_class())}


def named(cell: str) -> list[str]:
    """What a cell names before it explains: the words in backticks up to the first ; or :."""
    return re.findall(r"`([\w.]+)`", re.split(r"[;:]| and |\(| read by", cell)[0])


def test_every_verb_is_one() -> None:
    found = re.findall(r"heed (\w+)[ `]", "\n".join(" ".join(row) for row in lines("Trainers")))
    assert len(found) >= 10
    assert set(found) <= set(VERBS)


def test_presets_and_losses_exist() -> None:
    text = "\n".join(row[1] for row in lines("Trainers"))
    for preset in re.findall(r"heed online --preset (\w+)", text):
        assert preset in PRESETS
    for preset in re.findall(r"online_preference --preset (\w+)", text):
        assert preset in COMPARISONS
    for loss in re.findall(r"preference --loss_type (\w+)", text):
        assert loss in ROWS


def test_every_setting_of_all_verbs_exists() -> None:
    rows = lines("Settings of every trainer")
    shared = settings("preference")
    for _, ours in rows:
        for name in named(ours):
            assert name in shared, name
    assert len(rows) > 12


@pytest.mark.parametrize("row", lines("Settings of one trainer"), ids=lambda row: row[0][1:40])
def test_every_setting_of_one_verb_exists(row: list[str]) -> None:
    _, verb, ours = row
    names = named(ours)
    assert names
    for name in names:
        assert name in settings(verb), name


def test_the_command_lines_own_hints_are_on_the_page() -> None:
    """What the command says of a name of TRL, the page says too."""
    pairs = {}
    for row in lines("Settings of every trainer"):
        theirs, ours = re.findall(r"`([\w.]+)`", row[0]), named(row[1])
        pairs |= {name: ours[min(i, len(ours) - 1)] for i, name in enumerate(theirs)}
    for row in lines("Settings of one trainer"):
        theirs = [n.rpartition(".")[2] for n in re.findall(r"`([\w.]+)`", row[0])]
        ours = named(row[2])
        for i, name in enumerate(theirs):
            pairs.setdefault(name, ours[min(i, len(ours) - 1)])
    for theirs, ours in _IN_TRL.items():
        if theirs not in ("beta", "warmup_steps"):  # of PPO alone; steps, and not a share
            assert pairs.get(theirs) == ours, theirs
