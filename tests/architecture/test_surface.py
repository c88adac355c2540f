"""The public surface: every public name says what it is, and the lazy one is complete."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import heed
from heed.config import make_config
from heed.errors import ConfigError
from heed.pipelines.verbs import VERBS

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "src" / "heed").rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "src").as_posix()


def public(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Public classes and functions, and the public methods of public classes."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for child in ast.iter_child_nodes(node):
        if isinstance(child, kinds) and not child.name.startswith("_"):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{child.name}.")


def test_every_public_name_has_a_docstring() -> None:
    silent = []
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if tree.body and not ast.get_docstring(tree):
            silent.append(name_of(path))
        for name, node in public(tree):
            assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if not ast.get_docstring(node):
                silent.append(f"{name_of(path)}: {name}")
    assert silent == []


def test_everything_public_is_there() -> None:
    for name in heed.__all__:
        assert getattr(heed, name) is not None
    assert set(heed.__all__) <= set(dir(heed))
    with pytest.raises(AttributeError, match="no attribute 'sftt'"):
        heed.sftt  # noqa: B018


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_leads_to_a_configuration_and_a_function(verb: str) -> None:
    config, function = VERBS[verb].config_class(), VERBS[verb].function()
    assert "run" in config.model_fields
    assert config.__doc__
    names = list(inspect.signature(function).parameters)
    assert names == ["config", "sinks"]
    assert inspect.signature(function).parameters["sinks"].default == ()


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_setting_has_help(verb: str) -> None:
    from heed.flags import slots_of

    for name, slot in slots_of(VERBS[verb].config_class()).items():
        of_sections = [section.__doc__ for section in slot.sections]
        about = slot.help or (of_sections and all(of_sections))
        assert about, f"heed {verb} --{name} has no docstring"


def test_a_call_takes_a_configuration_or_settings() -> None:
    with pytest.raises(ConfigError, match="missing, and without a default"):
        heed.sft(run={"folder": "r"})
    with pytest.raises(ConfigError, match="nearest is optim"):
        heed.sft(run={"folder": "r"}, optm={"lr": 1.0})
    with pytest.raises(ConfigError, match="takes a SFTConfig"):
        heed.sft({"run": 1})
    config = make_config(
        VERBS["sft"].config_class(),
        {"run": {"folder": "r"}, "model": {"path": "m"}, "data": {"path": "d"}},
    )
    with pytest.raises(ConfigError, match="one or the other"):
        heed.sft(config, optim={"lr": 1.0})


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == heed.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changes, re.MULTILINE)
    assert newest is not None
    assert newest[1] == heed.__version__
