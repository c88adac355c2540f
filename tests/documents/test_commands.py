"""What the documents tell a person to type exists: commands, flags, files, make targets, Python."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

import heed
from heed.cli.chain import take_apart
from heed.cli.command import COMMANDS
from heed.flags import slots_of, split_arguments
from heed.pipelines.recipe import Pipeline, parse_pipeline, read_pipeline
from heed.pipelines.verbs import VERBS

ROOT = Path(__file__).resolve().parents[2]
WRITTEN_BY_CODE = ROOT / "docs" / "reference"
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if WRITTEN_BY_CODE not in path.parents
)
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
PLACEHOLDER = re.compile(r"\.\.\.|<|\bVERB\b|\bFILE\b|\[")


def blocks(text: str, *languages: str) -> Iterator[str]:
    for language, body in FENCE.findall(text):
        if language in languages:
            yield body


def commands(text: str) -> Iterator[list[str]]:
    """The words of every whole command line that a page shows."""
    for body in blocks(text, "", "sh", "bash", "console", "shell"):
        for line in body.replace("\\\n", " ").splitlines():
            words = line.strip().removeprefix("$ ")
            if re.match(r"(heed|make|python -m heed) ", words) and not PLACEHOLDER.search(words):
                yield shlex.split(words, comments=True)


def pipelines_in(text: str) -> dict[str, Pipeline]:
    """The pipeline files that a page shows, by the name in their first line."""
    shown = {body[2:].split("\n")[0]: body for body in blocks(text, "toml")}
    return {
        name: parse_pipeline(tomllib.loads(body), name)
        for name, body in shown.items()
        if "[[stage]]" in body
    }


def problems_of(
    words: list[str], shown: Mapping[str, Pipeline] = MappingProxyType({})
) -> list[str]:
    """What is wrong with `heed WORDS`; `shown` are pipeline files beside those of the project."""
    if not words or words[0].startswith("-"):
        return []
    verb, rest = words[0], [w for w in words[1:] if w not in ("--debug", "--print-config")]
    if verb in VERBS:
        rest = [word for word in rest if word not in ("--help", "-h")]
        return split_arguments(slots_of(VERBS[verb].config_class()), rest)[2]
    if verb == "run":
        told = take_apart(rest)
        if told.file is None or not (told.file in shown or (ROOT / told.file).exists()):
            return [f"heed run: no pipeline file {told.file}"]
        known = (shown.get(told.file) or read_pipeline(ROOT / told.file)).arguments
        return [f"{told.file} has no argument {n}" for n in told.arguments if n not in known]
    return [] if verb in COMMANDS else [f"there is no verb {verb}"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_page_says_to_type_exists(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    for words in commands(text):
        if words[0] == "make":
            asked = [word for word in words[1:] if "=" not in word]
            assert set(asked) <= targets, words
        else:
            given = words[1:] if words[0] == "heed" else words[3:]
            assert not problems_of(given, pipelines_in(text)), words


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_python_of_a_page_names_what_exists(page: Path) -> None:
    for body in blocks(page.read_text(encoding="utf-8"), "python", "py"):
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "heed" or hasattr(heed, node.attr), node.attr


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s#]+)", prose):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), target


def test_every_pipeline_file_can_be_planned(tmp_path: Path) -> None:
    from heed.pipelines.chain import plan_stages
    from heed.settings import RunSettings

    files = [*(ROOT / "recipes").glob("*.toml"), *(ROOT / "src").rglob("pipelines/*.toml")]
    assert files
    for file in files:
        pipeline = read_pipeline(file)
        needed = {n: "x" for n, argument in pipeline.arguments.items() if argument.value is None}
        for quick in (False, True):
            filled = pipeline.given(needed, quick=quick)
            plan = plan_stages(filled, RunSettings(folder=str(tmp_path / "run")), VERBS)
            planned = {p.stage.of or p.stage.name for p in plan}
            assert planned == {stage.name for stage in pipeline.stages}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("sft --optm.lr 1", "--optm.lr: no such setting"),
        ("stf", "there is no verb stf"),
        ("run nowhere.toml", "no pipeline file nowhere.toml"),
        ("sft a.toml --optim.lr 1e-4 --no-run.resume", ""),
        ("doctor", ""),
    ],
)
def test_the_check_of_commands_finds_faults(line: str, fault: str) -> None:
    found = problems_of(line.split())
    assert (fault in found[0]) if fault else not found
