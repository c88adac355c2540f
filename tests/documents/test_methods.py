"""Every offline loss has a section on one plan, and the tests that a page names exist."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import pytest

from heed.algorithms.comparison_presets import COMPARISONS
from heed.algorithms.preference_rows import ROWS
from heed.algorithms.presets import PRESETS
from heed.algorithms.reward_config import RewardConfig
from heed.algorithms.unpaired_config import UnpairedConfig

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "docs/methods" / f"{name}.md" for name in
         ("preference", "dpo", "with-reference", "reference-free", "unpaired")]  # fmt: skip
PLAN = ("Idea", "Formula", "Knobs", "Watch", "Fails", "Proof")
SECTIONS = {
    name: body
    for page in PAGES
    for name, body in re.findall(
        r"^## `(\w+)`\n(.*?)(?=^## |\Z)", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
}
INDEX = (ROOT / "docs/methods/README.md").read_text("utf-8")
REWARDS = get_args(RewardConfig.model_fields["loss_type"].annotation)
UNPAIRED = get_args(UnpairedConfig.model_fields["loss_type"].annotation)


@pytest.mark.parametrize("name", [*(n for n in ROWS if n != "dpo"), *UNPAIRED])
def test_every_loss_is_described_on_the_plan(name: str) -> None:
    found = re.findall(r"^\*\*(\w+)\.\*\*", SECTIONS[name], re.MULTILINE)
    assert found == list(PLAN)


def test_no_section_is_of_a_loss_that_is_not_there() -> None:
    assert set(SECTIONS) == ({*ROWS} - {"dpo"}) | {*UNPAIRED}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tests_and_settings_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for path in re.findall(r"tests/[\w/]+\.py", text):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        ("online --preset", PRESETS),
        ("online_preference --preset", COMPARISONS),
        ("preference --loss_type", ROWS),
        ("unpaired --loss_type", UNPAIRED),
        ("reward --loss_type", REWARDS),
    ],
)
def test_the_index_has_every_row_of_the_code_and_no_other(verb: str, names: Iterable[str]) -> None:
    found = re.findall(rf"^\| `([^`]+)` \|.*`heed {verb} ([^` ]+)", INDEX, re.MULTILINE)
    assert [named for named, called in found if named != called] == []
    assert sorted(named for named, _ in found) == sorted(names)


def test_every_page_is_in_the_index_and_every_link_of_it_leads_somewhere() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)", INDEX))
    assert linked == {page.name for page in (ROOT / "docs/methods").glob("*.md")} - {"README.md"}
    for name, section in re.findall(r"\]\(([\w-]+\.md)#([\w-]+)\)", INDEX):
        text = (ROOT / "docs/methods" / name).read_text("utf-8")
        assert f"## `{section}`" in text, (name, section)


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs/methods").glob("*.md")), ids=lambda page: page.stem
)
def test_every_page_says_how_its_method_fails_and_what_proves_it(page: Path) -> None:
    text = page.read_text("utf-8")
    if page.name in ("README.md", "preference.md"):
        return
    for word in ("[Ww]atch", "[Ff]ails", "Proof"):
        assert re.search(rf"^(\*\*|## ).*{word}", text, re.MULTILINE), word
    assert "tests/" in text or "preference.md" in text  # which names those of every loss
