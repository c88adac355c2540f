"""Every example of the documents runs: commands, Python and files, in the order of their page."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.documents import examples
from tests.documents.test_commands import PAGES, ROOT, commands

import heed
from heed.algorithms.ppo_config import PPOConfig
from heed.cli import main
from heed.data import datasets
from heed.settings import DataSettings

LONG = {"quickstart", "run recipes/hh.toml", "run recipes/methods"}
"""Commands that are proven by tests of their own, and too long for this one."""


def examples_of(page: Path) -> list[tuple[str, str, str]]:
    """Language, the words after it, and the body of each fenced block."""
    text = page.read_text(encoding="utf-8")
    found = [(a, b.strip(), c) for a, b, c in examples.FENCE.findall(text)]
    return [block for block in found if block[0] in ("python", "sh", "toml", "json")]


PAGES_WITH_EXAMPLES = [
    page
    for page in PAGES
    if any(language == "python" for language, _, _ in examples_of(page))
    or page.parent.name in ("how-to", "methods")
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files and runs that pages begin from."""
    folder = tmp_path_factory.mktemp("documents")
    before = Path.cwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        examples.run_small(patch)
        examples.make_files(folder)
        examples.make_runs(folder)
    os.chdir(before)
    return folder


@pytest.mark.parametrize(
    "page", PAGES_WITH_EXAMPLES, ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_the_examples_of_a_page_run(
    page: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    examples.run_small(monkeypatch)
    blocks = examples_of(page)
    names = {"__name__": "example"}  # a page goes on from its earlier blocks
    for language, _, body in blocks:
        named = examples.NAMED.match(body)
        if named and language in ("python", "toml"):
            Path(named[1]).write_text(body, encoding="utf-8")
    for language, _, body in blocks:
        # A page shows the same stage twice, as a command and in Python; each begins afresh.
        for run in () if "resume" in body else examples.made_by(body):
            shutil.rmtree(folder / run, ignore_errors=True)
        if language == "python" and not examples.NAMED.match(body):
            exec(compile(body, str(page), "exec"), names)
        elif language == "sh":
            for words in commands(f"```sh\n{body}```"):
                if words[0] == "heed" and not " ".join(words[1:]).startswith(tuple(LONG)):
                    assert main(words[1:]) == 0, words


def test_the_rows_of_the_data_page_are_read_as_it_says() -> None:
    shown = [b for b in examples_of(ROOT / "docs/how-to/data.md") if b[0] == "json"]
    assert {kind for _, kind, _ in shown} == {
        "demonstrations",
        "texts",
        "preferences",
        "rankings",
        "steps",
        "prompts",
    }


@pytest.mark.parametrize(
    ("kind", "row"),
    [(k, b) for lang, k, b in examples_of(ROOT / "docs/how-to/data.md") if lang == "json"],
)
def test_a_row_of_the_data_page_is_what_it_says(kind: str, row: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(row, encoding="utf-8")
    settings = DataSettings(path=str(path))
    assert datasets.recognise(settings) == kind
    records, report = getattr(datasets, f"load_{kind}")(settings)
    assert len(records) == report.kept == row.strip().count("\n") + 1


def test_the_example_of_the_readme_is_ten_lines() -> None:
    first = next(b for lang, _, b in examples_of(ROOT / "README.md") if lang == "python")
    assert len(first.strip().splitlines()) <= 10
    assert all(len(line) <= 120 for line in first.splitlines())


def test_only_sizes_are_cut() -> None:
    config = heed.load_config(
        PPOConfig,
        flags=["--run.folder", "r", "--model.path", "m", "--data.path", "d",
               "--reward_funcs", "f", "--kl_coef", "0.1", "--batch_size", "512"],
    )  # fmt: skip
    small = examples.shrunk(config)
    changed = {
        name for name in type(config).model_fields if getattr(small, name) != getattr(config, name)
    }
    assert changed <= {*examples.MOST, "sampling", "engine"}
    assert small.kl_coef == config.kl_coef  # type: ignore[attr-defined]
