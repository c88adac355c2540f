"""The command: from a file to a store, where it may listen, and what is exported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.web.kinds import NAMES, rows_of

from heed.cli import label
from heed.cli import main as heed_main
from heed.cli.label import LabelConfig, is_store, prepare, slug_of
from heed.data.store import Store, open_store
from heed.errors import ConfigError, DataError, MissingExtra
from heed.web import serve
from heed.web.pages import choices
from heed.web.serve import Listening, bind, check_public, make_owner

ROWS: list[dict[str, Any]] = [
    {"prompt": "a?", "completions": ["1", "2"]},
    {"prompt": "b?", "responses": ["3", "4"]},
    {"prompt": "c?", "response_a": "5", "response_b": "6"},
    {"prompt": "d?", "chosen": "7", "rejected": "8"},
    {"prompt": "e?", "completions": ["only one"]},
    {"nothing": "here"},
]


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "My pairs.v2.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    with open_store(tmp_path / "labels.db") as store:
        yield store


def test_a_file_becomes_a_project_once(pairs: Path, opened: Store, capsys: Any) -> None:
    for _ in range(2):
        assert prepare(opened, str(pairs), LabelConfig()) == ["my-pairs"]
    assert opened.items.counts("my-pairs")["items"] == 4
    assert "left out: 1" in capsys.readouterr().out
    config = opened.projects.get("my-pairs").config
    assert (config.scale, config.need, config.max_leases) == ("seven", 1, 10)
    with pytest.raises(ConfigError, match="has scale seven, not binary"):
        prepare(opened, str(pairs), LabelConfig(scale="binary"))
    with pytest.raises(ConfigError, match="no project 'other'"):
        prepare(opened, None, LabelConfig(project="other"))
    assert prepare(opened, None, LabelConfig()) == ["my-pairs"]


def test_a_run_of_samples_becomes_a_project(tmp_path: Path, opened: Store) -> None:
    from heed.records import Completion, Prompt

    folder = tmp_path / "generate"
    folder.mkdir()
    rows = []
    for number in range(3):
        prompt = Prompt.make(f"{number}?")
        for sample in range(2):
            done = Completion(
                id=f"{number}-{sample}", prompt_id=prompt.id, text=f"answer {sample}",
                prompt_tokens=(2,), tokens=(1,), logprobs=(-1.0,), finish="stop",
            )  # fmt: skip
            rows.append({"prompt": prompt.model_dump(), "completion": done.model_dump()})
    (folder / "completions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert prepare(opened, str(folder), LabelConfig(scale="binary_tie", need=2)) == ["generate"]
    assert opened.items.counts("generate")["items"] == 3
    assert opened.projects.get("generate").config.max_leases == 2


def test_what_cannot_be_compared_is_said(tmp_path: Path, opened: Store) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match="nothing to compare"):
        prepare(opened, str(path), LabelConfig())
    with pytest.raises(DataError, match="does not exist"):
        prepare(opened, str(tmp_path / "none"), LabelConfig())


def test_names() -> None:
    assert slug_of("/a/My pairs.v2.jsonl.gz") == "my-pairs"
    assert slug_of("/a/§§§.jsonl") == "labels"


def test_a_store_is_known_by_its_first_bytes(tmp_path: Path, opened: Store, pairs: Path) -> None:
    assert is_store(str(tmp_path / "labels.db"))
    assert is_store("postgresql://me@host/labels")
    assert not is_store(str(pairs))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "labels.example"])
def test_no_public_address_without_accounts_and_tls(opened: Store, host: str) -> None:
    with pytest.raises(ConfigError, match=r"nobody has an account.*no TLS"):
        check_public(Listening(host), opened)
    opened.people.add("ann", email="a@x.org", password="correct horse")
    with pytest.raises(ConfigError, match="no TLS"):
        check_public(Listening(host), opened)
    check_public(Listening(host, cert=Path("c.pem")), opened)
    check_public(Listening(host, allow_public=True), opened)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_this_machine_alone_needs_nothing(opened: Store, host: str) -> None:
    check_public(Listening(host), opened)


def test_a_port_that_is_taken_is_said_or_passed_over() -> None:
    with bind(Listening(port=0)) as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=f":{port} cannot be listened on"):
            bind(Listening(port=port))


def test_the_owner_is_one_and_a_member_of_all(opened: Store) -> None:
    opened.projects.make("one", {"kind": "pair"})
    first = make_owner(opened)
    opened.projects.make("two", {"kind": "pair"})
    assert make_owner(opened) == first
    assert [m.person for name in ("one", "two") for m in opened.people.members(name)] == [first] * 2


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(serve.PACKAGES, "no_such_module", "no-such-package")
    with pytest.raises(MissingExtra, match=r"pip install 'heed-rlhf\[web\]'"):
        serve.require_packages()


def test_the_command_explains_itself(capsys: Any) -> None:
    assert heed_main(["label", "--help"]) == 0
    said = capsys.readouterr().out
    assert "FILE|RUN|STORE" in said
    assert heed_main(["label", "export", "--help"]) == 0
    assert "STORE OUT" in capsys.readouterr().out
    assert heed_main(["label"]) == 2
    assert "name one thing to label" in capsys.readouterr().err


def test_flags_may_have_hyphens() -> None:
    words = ["--no-browser", "--api-only", "--per-prompt=2", "a-b.jsonl", "--no-allow-public"]
    spelled = [label._spelled(word) for word in words]
    assert spelled == ["--no-browser", "--api_only", "--per_prompt=2", "a-b.jsonl",
                       "--no-allow_public"]  # fmt: skip


def test_answers_are_exported_as_trainers_read_them(
    pairs: Path, tmp_path: Path, capsys: Any
) -> None:
    with open_store("labels.db") as store:
        (name,) = prepare(store, str(pairs), LabelConfig())
        owner = make_owner(store)
        for number in range(4):
            (work,) = store.queue.claim(name, owner).work
            said = {"outcome": "tie"} if number == 3 else {
                "outcome": "prefer", "side": number % 2, "level": 3
            }  # fmt: skip
            store.answers.submit(work.lease, owner, said, submission_id=str(number))
    words = ["label", "export", "labels.db", "out", "--to", "trl_preference,preferences",
             "--held_out_frac", "0"]  # fmt: skip
    assert heed_main(words) == 0
    assert "trl_preference: 3 rows; 1 dropped" in capsys.readouterr().out
    lines = Path("out/trl_preference/train.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert all({"prompt", "chosen", "rejected", "margin"} <= set(row) for row in rows)
    assert heed_main(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert heed_main(["label", "export", "none.db", "out2"]) == 2


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        ("binary", ["A better", "B better"]),
        ("binary_tie", ["A better", "Equal ", "B better"]),
        ("seven", ["A much better", "A better", "A slightly better", "Equal ",
                   "B slightly better", "B better", "B much better"]),
    ],
)  # fmt: skip
def test_a_scale_reads_from_left_to_right(scale: str, said: list[str]) -> None:
    from heed.data.store.scales import SCALES

    found = choices(SCALES[scale])
    assert [f"{one['who']} {one['how']}" for one in found] == said
    assert [one["key"] for one in found] == [str(k + 1) for k in range(len(said))]
    assert len(choices(SCALES["nine"])) == 9


def test_the_page_is_small_and_names_no_other_site() -> None:
    from heed.web.app import static_folder

    files = sorted(static_folder().iterdir())
    assert sum(path.stat().st_size for path in files) < 100_000
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
    assert "fastapi" not in sys.modules or files


@pytest.mark.parametrize("kind", NAMES)
def test_a_file_starts_a_project_of_each_kind_and_its_answers_come_out(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(kind, 4)))
    asked = LabelConfig(kind=kind)  # type: ignore[arg-type]
    with open_store("labels.db") as store:
        (name,) = prepare(store, str(path), asked)
        assert prepare(store, str(path), LabelConfig()) == [name]
        assert (store.items.counts(name)["items"], store.projects.get(name).config.kind) == (
            4, kind
        )  # fmt: skip
        with pytest.raises(ConfigError, match=f"has kind {kind}, not pair"):
            prepare(store, str(path), LabelConfig(kind="pair"))
        owner = make_owner(store)
        (work,) = store.queue.claim(name, owner).work
        said: dict[str, dict[str, Any]] = {
            "rating": {"outcome": "rated", "ratings": [
                {"place": p, "attribute": "overall", "value": 7} for p in (0, 1)]},
            "ranking": {"outcome": "ranked", "buckets": [[1, 0], [2], [3]]},
            "demonstration": {"outcome": "written", "text": "mine"},
            "edit": {"outcome": "edited", "text": "mine"},
            "spans": {"outcome": "marked"},
        }  # fmt: skip
        store.answers.submit(work.lease, owner, said[kind], submission_id="one")
    assert heed_main(["label", "export", "labels.db", "out", "--held_out_frac", "0"]) == 0
    layout, rows = {
        "rating": ("trl_unpaired", 2), "ranking": ("trl_preference", 5),
        "demonstration": ("sft", 1), "edit": ("trl_preference", 1), "spans": ("critiques", 1),
    }[kind]  # fmt: skip
    assert f"{layout}: {rows} rows" in capsys.readouterr().out
    assert heed_main(["label", "export", "labels.db", "all", "--to", "all"]) == 0
    assert Path("all/judgments.jsonl").exists()


def test_rows_that_lack_fields_are_explained_by_kind(tmp_path: Path, opened: Store) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\n')
    for kind, words in (
        ("rating", "nothing to rate .1 rows: neither completion.*A row has `prompt` and `compl"),
        ("ranking", "nothing to rank .*two to nine texts"),
        ("demonstration", "nothing to answer .1 rows: no prompt.. A row has `prompt`"),
        ("edit", "nothing to edit"),
        ("spans", "nothing to mark"),
    ):
        with pytest.raises(DataError, match=words):
            prepare(opened, str(path), LabelConfig(kind=kind))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--size 3 does not fit kind edit"):
        prepare(opened, str(path), LabelConfig(kind="edit", size=3))
    assert opened.projects.all() == []


def test_questions_of_a_rating_and_kinds_of_marks_are_named(tmp_path: Path, opened: Store) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a?", "completion": "b"}\n')
    for words in ("help:4", "help:a:b", ":1:2", "help:4:4", "x" * 65):
        config = LabelConfig(kind="rating", attributes=(words,))
        with pytest.raises(ConfigError, match="attribute"):
            prepare(opened, str(path), config)
    config = LabelConfig(kind="rating", attributes=("help:0:4", "style"), project="rated")
    prepare(opened, str(path), config)
    asked = opened.projects.get("rated").config.attributes
    assert [(one.name, one.low, one.high) for one in asked] == [("help", 0, 4), ("style", 1, 7)]
    prepare(opened, str(path), LabelConfig(kind="spans", span_kinds=("odd",), project="marked"))
    assert opened.projects.get("marked").config.span_kinds == ("odd",)
