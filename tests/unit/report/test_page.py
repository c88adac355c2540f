"""The page is whole, safe, self-contained, and made from whatever a run has left."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from synthetic import write_lines, write_pipeline

from heed.errors import StoreError
from heed.report.page import write_report
from heed.runs.files import write_json

VOID = {"meta", "link", "br", "hr", "img", "input", "col"}
SELF_CLOSED = {"path", "line", "rect", "circle"}


class Page(HTMLParser):
    """Checks that tags balance, and gathers what a page holds."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"unclosed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SELF_CLOSED | VOID, f"<{tag}/> closes itself"
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def check_sound(page: Page) -> None:
    """What holds of every page."""
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)), "an id is used twice"
    for _, name, value in page.attributes:
        if name == "href":
            assert value == "data:," or value.removeprefix("#") in ids, value
        assert name not in ("src", "srcset", "action", "poster")
        assert not name.startswith("on")
        if name not in ("content", "aria-label"):
            assert not re.search(r"\b(nan|inf|none|undefined)\b", value), (name, value)
    assert page.tags.count("script") == 1
    assert not {"iframe", "object", "embed", "img", "form", "base"} & set(page.tags)


def test_pipeline_page_holds_every_part(pipeline: Path) -> None:
    path = pipeline / "report.html"
    page = read(pipeline)
    check_sound(page)
    assert path.stat().st_size < 2_000_000
    for words in (
        "The PPO policy beats the warm-up policy in 71.3",
        "95 % interval 66.8",
        "Over-optimisation, on purpose",
        "proxy and truth part: update",
        "Against √KL",
        "Always the longer completion",
        "ECE 4.1",
        "Accuracy by score gap",
        "Explained variance",
        "longer than max_length",
        "Who owns the boat yard?",
        "heed quickstart --run.folder runs/again --run.seed 3",
        "4f1c9a0d2b7e6c55",
        "2.13.0+cpu",
        "5 min 03 s",
    ):
        assert words in page.text, words


def test_nothing_points_outside(pipeline: Path) -> None:
    text = (pipeline / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href|url\(|@import)\s*[=(]?\s*[\"']?\s*(https?:)?//", text)
    assert "default-src 'none'" in text


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    pages = [write_report(write_pipeline(tmp_path / "run")).read_bytes()]
    shutil.rmtree(tmp_path / "run")
    pages.append(write_report(write_pipeline(tmp_path / "run")).read_bytes())
    assert pages[0] == pages[1]


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}\u0000\ud800"


def poison(value: Any) -> Any:
    """Put an attack after every text of a JSON value, its keys included where they are free."""
    if isinstance(value, dict):
        kept = {key: poison(inner) for key, inner in value.items()}
        return kept | ({f"key {EVIL}": 3} if "reason" in str(value)[:12] else {})
    if isinstance(value, list):
        return [poison(inner) for inner in value]
    return value + EVIL if isinstance(value, str) else value


def test_text_of_a_run_never_becomes_markup(tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path / "run")
    keep = ("kind", "status", "created", "finished")
    for path in folder.rglob("*.json"):
        value = json.loads(path.read_text())
        poisoned = poison(value)
        if path.name == "manifest.json":
            poisoned |= {name: value[name] for name in keep}
            poisoned["error"] = EVIL
        path.write_text(json.dumps(poisoned))
    for path in folder.rglob("samples.jsonl"):
        write_lines(path, [poison(json.loads(line)) for line in path.read_text().splitlines()])
    alarm = {"step": 3, "name": EVIL, "message": EVIL}
    write_lines(folder / "stages" / "ppo" / "warnings.jsonl", [alarm])
    (folder / "stages" / "ppo").rename(folder / "stages" / "<b onclick=x>ppo")
    page = read(folder)
    check_sound(page)
    assert "49" not in re.findall(r"&(\d+)", page.text)
    assert page.text.count("<script>alert(1)</script>") > 50


BROKEN = ("", "null", "[]", "{}", '"text"', '{"a": ', "[1, null, [], {}]", "\xff\x00")


@pytest.mark.parametrize("content", BROKEN)
@pytest.mark.parametrize(
    "name",
    ["manifest.json", "metrics.jsonl", "samples.jsonl", "findings.json", "data_report.json",
     "summary.json", "warnings.jsonl"],
)  # fmt: skip
def test_damaged_files_are_said_and_survived(
    pipeline: Path, tmp_path: Path, name: str, content: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(pipeline, folder)
    for stage in [folder, *(folder / "stages").iterdir()]:
        (stage / name).write_text(content, encoding="latin-1")
    page = read(folder)
    check_sound(page)
    if content == '{"a": ':
        assert f"{name} of" in page.text


def test_missing_files_leave_sentences_not_boxes(pipeline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(pipeline, folder)
    for path in [*folder.rglob("*.jsonl"), *folder.rglob("findings.json"),
                 *folder.rglob("data_report.json"), folder / "manifest.json"]:  # fmt: skip
        path.unlink()
    page = read(folder)
    check_sound(page)
    for words in (
        "there are no findings yet",
        "No stage wrote a data report",
        "Completions over time: no stage kept samples.",
        "Supervised training: no stage logged a loss.",
        "There is no whole manifest, so settings are not known.",
        "Whether this run finished is not known",
    ):
        assert words in page.text, words


@pytest.mark.parametrize("stage", ["world", "sft", "reward", "ppo", "overoptimise", "evaluate"])
def test_a_single_stage_has_its_own_page(pipeline: Path, tmp_path: Path, stage: str) -> None:
    folder = tmp_path / stage
    shutil.copytree(pipeline / "stages" / stage, folder)
    page = read(folder)
    check_sound(page)
    assert page.text.count("How to do it again") == 2
    assert ("Reward model: none was trained" in page.text) == (stage != "reward")
    assert ("no policy was optimised" in page.text) == (stage not in ("ppo", "overoptimise"))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("failed", "This run failed: the disk is full."),
        ("interrupted", "This run was interrupted: the disk is full."),
        ("running", "This run has not finished."),
    ],
)
def test_unfinished_run_says_so(pipeline: Path, tmp_path: Path, status: str, words: str) -> None:
    folder = tmp_path / "ppo"
    shutil.copytree(pipeline / "stages" / "ppo", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", manifest | {"status": status, "error": "the disk is full"})
    assert words in read(folder).text


def test_values_that_are_not_finite_are_gaps_and_named(pipeline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ppo"
    shutil.copytree(pipeline / "stages" / "ppo", folder)
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for row in lines[40:45]:
        row |= {"objective/kl": float("nan"), "eval/true": float("inf"), "loss": -1e308}
    write_lines(path, lines)
    page = read(folder)
    check_sound(page)
    assert "was not finite (NaN or infinite) at step 40" in page.text


def test_a_run_without_truth_says_that_only_the_proxy_is_drawn(
    pipeline: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "ppo"
    shutil.copytree(pipeline / "stages" / "ppo", folder)
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, [{**row, "eval/true": None} for row in lines])
    page = read(folder)
    check_sound(page)
    assert "True quality is not known in this run" in page.text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a run folder"):
        write_report(tmp_path)
    with pytest.raises(StoreError, match="no folder"):
        write_report(tmp_path / "absent")


def test_report_needs_no_torch(pipeline: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from heed.report.page import write_report; "
        f"write_report(Path({str(pipeline)!r})); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
