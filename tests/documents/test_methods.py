"""Every offline loss has a section on one plan, and the tests that a page names exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from heed.algorithms.preference_rows import ROWS
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
