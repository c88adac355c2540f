"""The reference pages say what the code says: every verb, setting, metric and public name."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import heed
from heed.config import flags_of
from heed.pipelines.verbs import VERBS
from heed.runs.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()


@pytest.mark.parametrize("name", sorted(SCRIPT.PAGES))
def test_a_page_is_what_the_code_says(name: str) -> None:
    path = ROOT / "docs" / "reference" / name
    said = path.read_text(encoding="utf-8") if path.exists() else ""
    assert said == SCRIPT.PAGES[name](), f"docs/reference/{name} is out of date: make docs"


def test_every_setting_metric_and_public_name_is_on_a_page() -> None:
    commands, metrics, python = (SCRIPT.PAGES[f"{name}.md"]() for name in
                                 ("commands", "metrics", "python"))  # fmt: skip
    for verb in VERBS.values():
        section = commands.split(f"## heed {verb.name}\n")[1].split("\n## ")[0]
        for flag in flags_of(verb.config_class()):
            assert f"| `{flag.name}` |" in section
    for name in METRICS:
        assert f"| `{name}` |" in metrics
    for name in set(heed.__all__) - {"__version__", "errors", "records", "load_config"}:
        assert f".{name}\n" in python or f"### {name}\n" in python or f"## {name}\n" in python


def test_no_page_holds_a_place_or_an_address_in_memory() -> None:
    for make in SCRIPT.PAGES.values():
        text = make()
        assert " at 0x" not in text
        assert str(ROOT) not in text
