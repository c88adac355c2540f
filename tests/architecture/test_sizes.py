"""A file has one subject and a function one thought: sizes, names, and no places of one machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "heed"
FILES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")])

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_A_LOOP = 120

LOOPS: dict[str, str] = {}
"""`module.function` of an algorithm's loop over 60 lines -> why it is not two functions."""

BANNED_MODULES = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "base_trainer"}
PLACES = re.compile(r"(?<![\w.$~])/(?:home|root|Users|work|mnt|opt)/\w|[A-Z]:\\\\Users|\.\./shared")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Every function of a file with its length in lines, docstring and nested ones included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_files_stay_small() -> None:
    """A file over the limit has two subjects: split it by subject."""
    lines = {name_of(p): len(p.read_text(encoding="utf-8").splitlines()) for p in FILES}
    assert {name: n for name, n in lines.items() if n > MOST_LINES_OF_A_FILE} == {}


def test_functions_stay_small() -> None:
    too_long = {}
    for path in FILES:
        module = path.relative_to(ROOT / "src" if path.is_relative_to(PACKAGE) else ROOT)
        for name, lines in functions(path):
            dotted = ".".join([*module.with_suffix("").parts, name])
            limit = MOST_LINES_OF_A_LOOP if dotted in LOOPS else MOST_LINES_OF_A_FUNCTION
            if lines > limit:
                too_long[dotted] = lines
    assert too_long == {}


def test_the_list_of_long_loops_names_loops_that_exist() -> None:
    for dotted in LOOPS:
        module, _, function = dotted.rpartition(".")
        path = ROOT / "src" / Path(*module.split(".")).with_suffix(".py")
        assert function in dict(functions(path))


def test_a_module_is_the_noun_of_its_subject() -> None:
    for path in PACKAGE.rglob("*"):
        assert path.stem.lower() not in BANNED_MODULES, name_of(path)


def text_files() -> list[Path]:
    kinds = {".py", ".toml", ".md", ".jinja", ".html", ".css", ".js", ".json", ".sh", ".yml", ""}
    roots = ("src", "docs", "recipes", "examples", "scripts", "benchmarks", ".ci")
    found = [p for name in roots for p in (ROOT / name).rglob("*") if p.is_file()]
    # In a worktree .git is a file, which names the repository that it belongs to.
    found += [p for p in ROOT.iterdir() if p.is_file() and p.name != ".git"]
    skipped = {"__pycache__", "results"}
    return [p for p in found if p.suffix in kinds and not skipped & set(p.parts)]


def test_no_file_names_a_place_of_one_machine() -> None:
    for path in text_files():
        found = PLACES.search(path.read_text(encoding="utf-8", errors="replace"))
        assert found is None, f"{name_of(path)} names {found[0]!r}"


@pytest.mark.parametrize(
    ("text", "banned"),
    [
        ("open('/home/ann/x')", True),
        ('"/work/data"', True),
        ("../shared/data", True),
        ("runs/home/ann", False),
        ("https://example.org/home/x", False),
        ("framework/main", False),
    ],
)
def test_the_search_for_places_finds_places(text: str, banned: bool) -> None:
    assert bool(PLACES.search(text)) == banned
