"""Out and in: the same bytes for the same input, every answer accounted for, nothing astray."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from tests.store.conftest import PLAIN, Clock, make_project, pair, prefer
from tests.store.test_kinds import GOOD

from heed.data.datasets import load_preferences, load_supervised
from heed.data.store import Refusal, Store, open_store
from heed.data.store.convert import pair_of, payload_of, preference_of
from heed.data.store.exporting import Wanted, export
from heed.data.store.foreign import read_argilla, read_label_studio, read_pairs, read_samples
from heed.data.store.importing import import_export, import_rows
from heed.errors import StoreError
from heed.records import Completion, Critique, PolicyRef, Preference, Prompt
from heed.settings import DataSettings

SAID = [prefer(0, 3), prefer(1, 1), {"outcome": "tie"}, {"outcome": "both_bad"},
        {"outcome": "cannot_judge"}, {"outcome": "invalid"}]  # fmt: skip


def answered(store: Store, clock: Clock, num_items: int = 24) -> list[str]:
    """A project in which two people said everything that can be said."""
    people = make_project(store, num_items, "ann", "ben", config={"need": 2})
    for number in range(num_items):
        for person in people:
            work = store.queue.claim("p", person).work[0]
            clock.pass_seconds(1 + number % 7)
            said = {**SAID[number % len(SAID)], "note": f"= {number}", "reasons": ["style"]}
            store.answers.submit(work.lease, person, said, submission_id=f"{person[-4:]} {number}")
    store.answers.undo("p", people[0])
    newest = store.answers.history("p", people[1])[0]
    store.answers.amend(newest.id, people[1], prefer(0, 1), submission_id="amended")
    return people


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def data_files(folder: Path) -> dict[str, bytes]:
    """What an import gives back: all but the log and the manifest."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("events.jsonl", "manifest.json")
    }


def test_the_same_input_gives_the_same_bytes(store: Store, clock: Clock, tmp_path: Path) -> None:
    answered(store, clock)
    seq = store.log.head()[0]
    first = export(store, "p", tmp_path / "a", Wanted(parquet=True))
    make_more = store.queue.claim("p", store.people.all()[0].id)
    store.answers.submit(make_more.work[0].lease, store.people.all()[0].id, prefer(),
                         submission_id="later")  # fmt: skip
    again = export(store, "p", tmp_path / "b", Wanted(parquet=True, seq=seq))
    assert first == again
    files = [
        {p.relative_to(f).as_posix(): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (tmp_path / "a", tmp_path / "b")
    ]
    assert files[0] == files[1]
    assert set(first["files"]) == set(files[0]) - {"manifest.json"}
    for name, sha in first["files"].items():
        assert hashlib.sha256(files[0][name]).hexdigest() == sha
    later = export(store, "p", tmp_path / "c")
    assert later["layouts"]["judgments"]["rows"] == first["layouts"]["judgments"]["rows"] + 1


def test_every_answer_is_accounted_for(store: Store, clock: Clock, tmp_path: Path) -> None:
    answered(store, clock)
    layouts = export(store, "p", tmp_path / "a")["layouts"]
    standing = len(store.log.state("p").standing())
    for name, counts in layouts.items():
        if name == "events":
            continue
        assert counts["answers_in"] == standing
        assert counts["answers_used"] + sum(counts["answers_dropped"].values()) == standing
    assert layouts["judgments"]["answers_dropped"] == {}
    dropped = layouts["trl_preference"]["answers_dropped"]
    assert set(dropped) == {"tie", "both_bad", "cannot_judge", "invalid"}
    assert layouts["trl_unpaired"]["rows"] == 2 * layouts["trl_unpaired"]["answers_used"]


def test_what_was_chosen_is_what_people_meant(store: Store, clock: Clock, tmp_path: Path) -> None:
    """Side 0 of a screen was said; the text that stood there must be the chosen one."""
    people = make_project(store, 12, "ann")
    for number in range(12):
        work = store.queue.claim("p", people[0]).work[0]
        texts = [str(candidate.text) for candidate in work.payload.candidates]
        good = next(place for place, text in enumerate(texts) if text.startswith("good"))
        said = prefer(good, 1 + number % 3)
        store.answers.submit(work.lease, people[0], said, submission_id=str(number))
    manifest = export(store, "p", tmp_path / "a", Wanted(held_out_frac=0.3))
    found = rows(tmp_path / "a/trl_preference/train.jsonl")
    held_out = rows(tmp_path / "a/trl_preference/held_out.jsonl")
    assert len(found) + len(held_out) == 12
    for row in found + held_out:
        assert row["chosen"][0]["content"].startswith("good")
        assert row["rejected"][0]["content"].startswith("bad")
        assert row["margin"] in (pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0)
    prompts = [{str(row["prompt"]) for row in part} for part in (found, held_out)]
    assert not prompts[0] & prompts[1]
    assert manifest["layouts"]["trl_preference"]["rows"] == 12
    data = DataSettings(path=str(tmp_path / "a/trl_preference/train.jsonl"))
    pairs, _ = load_preferences(data)
    assert all(one.chosen[0].text.startswith("good") for one in pairs)
    labelled, _ = load_preferences(DataSettings(path=str(tmp_path / "a/preferences")))
    assert len(labelled) == 12
    assert all(one.chosen[0].text.startswith("good") and one.p == 1.0 for one in labelled)


def test_prompts_never_cross_splits(sqlite_store: Store, tmp_path: Path) -> None:
    """Several items of one prompt, told apart by what their rows hold besides."""
    store = sqlite_store
    (ann,) = make_project(store, 0, "ann")
    added = []
    for number in range(60):
        row = pair(number)
        row["payload"]["prompt"] = Prompt.make(f"Q{number % 15}", meta={"n": number}).model_dump()
        added.append(row)
    store.items.add("p", added, actor="x")
    for number in range(60):
        work = store.queue.claim("p", ann).work[0]
        store.answers.submit(work.lease, ann, prefer(), submission_id=str(number))
    export(store, "p", tmp_path / "a", Wanted(held_out_frac=0.4))
    sides = [
        {str(row["prompt"]) for row in rows(tmp_path / f"a/trl_preference/{part}.jsonl")}
        for part in ("train", "held_out")
    ]
    assert all(sides)
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 15


def test_export_import_export_gives_the_same_bytes(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    answered(store, clock)
    store.items.add("p", [pair(900, role="gold", gold={"answer": prefer()})], actor="x")
    export(store, "p", tmp_path / "a", Wanted(parquet=True))
    with open_store(tmp_path / "other.db", clock=Clock()) as other:
        report = import_export(other, tmp_path / "a", "p", actor="importer")
        assert report.refused == {}
        assert report.answers_new == len(store.log.state("p").standing())
        assert other.check() == []
        export(other, "p", tmp_path / "b", Wanted(parquet=True))
        with pytest.raises(Refusal, match="already"):
            import_export(other, tmp_path / "a", "p", actor="importer")
    assert data_files(tmp_path / "a") == data_files(tmp_path / "b")


@pytest.mark.parametrize("case", range(len(GOOD)))
def test_every_kind_goes_out_and_comes_back(sqlite_store: Store, tmp_path: Path, case: int) -> None:
    kind, content, answer = GOOD[case]
    store = sqlite_store
    store.projects.make("p", {**PLAIN, "kind": kind})
    if kind == "clips":
        names = [store.contents.add_segment({"seed": k}, fps=20, frames=30) for k in range(2)]
        content = {"candidates": [{"segment": name} for name in names]}
    assert store.items.add("p", [{"payload": content}], actor="x")[0].status == "new"
    ann = store.people.add("ann").id
    store.people.join("p", ann)
    work = store.queue.claim("p", ann).work[0]
    store.answers.submit(work.lease, ann, answer, submission_id="1")
    manifest = export(store, "p", tmp_path / "a")
    used = {n for n, c in manifest["layouts"].items() if n != "events" and c["answers_used"]}
    assert "judgments" in used
    if kind == "clips":
        return  # segments travel with the control tasks that make them
    with open_store(tmp_path / "other.db") as other:
        assert import_export(other, tmp_path / "a", "p", actor="x").answers_new == 1
        export(other, "p", tmp_path / "b")
    assert data_files(tmp_path / "a") == data_files(tmp_path / "b")
    if kind in ("demonstration", "edit"):
        path = tmp_path / "a/sft"
        file = next(p for p in path.iterdir() if p.stat().st_size)
        demonstrations, _ = load_supervised(DataSettings(path=str(file)))
        assert len(demonstrations) == 1
    if kind == "spans":
        assert Critique.model_validate(rows(tmp_path / "a/critiques.jsonl")[0]).critic == "ann"


def test_a_ranking_becomes_all_its_pairs(sqlite_store: Store, tmp_path: Path) -> None:
    store = sqlite_store
    store.projects.make("p", {**PLAIN, "kind": "ranking"})
    content = next(content for kind, content, _ in GOOD if kind == "ranking")
    store.items.add("p", [{"payload": content}], actor="x")
    ann = store.people.add("ann").id
    store.people.join("p", ann)
    work = store.queue.claim("p", ann).work[0]
    at = {str(c.text): place for place, c in enumerate(work.payload.candidates)}
    buckets = [[at["c"]], sorted([at["a"], at["d"]]), [at["b"]]]
    store.answers.submit(
        work.lease, ann, {"outcome": "ranked", "buckets": buckets}, submission_id="1"
    )
    export(store, "p", tmp_path / "a", Wanted(held_out_frac=0.0))
    pairs = {
        (row["chosen"][0]["content"], row["rejected"][0]["content"], row["margin"])
        for row in rows(tmp_path / "a/trl_preference/train.jsonl")
    }
    assert pairs == {
        ("c", "a", 0.5), ("c", "d", 0.5), ("c", "b", 1.0), ("a", "b", 0.5), ("d", "b", 0.5)
    }  # fmt: skip
    ranked = rows(tmp_path / "a/ranking/train.jsonl")[0]["completions"]
    assert [row["rank"] for row in ranked] == [2, 3, 1, 2]


def test_majority_and_the_reviewer_who_decides(sqlite_store: Store, tmp_path: Path) -> None:
    store = sqlite_store
    people = make_project(store, 2, "ann", "ben", "cem", "judge", config={"need": 3})
    votes: dict[str, list[int]] = {}
    for number, person in enumerate(people[:3]):
        for _ in range(2):
            work = store.queue.claim("p", person).work[0]
            texts = [str(candidate.text)[:3] for candidate in work.payload.candidates]
            side = texts.index("goo" if number < 2 else "bad")
            votes.setdefault(work.item, []).append(side)
            store.answers.submit(
                work.lease, person, prefer(side), submission_id=f"{person}{work.item}"
            )
    decided = next(iter(votes))
    store.answers.adjudicate(decided, people[3], prefer(1, 3), submission_id="final")
    wanted = Wanted(view="majority", held_out_frac=0.0, layouts=("trl_preference",))
    manifest = export(store, "p", tmp_path / "a", wanted)
    chosen = [
        row["chosen"][0]["content"][:3] for row in rows(tmp_path / "a/trl_preference/train.jsonl")
    ]
    assert sorted(chosen) == ["bad", "goo"]
    counts = manifest["layouts"]["trl_preference"]
    assert (counts["answers_in"], counts["answers_used"]) == (7, 2)


def test_parquet_opens(store: Store, clock: Clock, tmp_path: Path) -> None:
    answered(store, clock)
    export(store, "p", tmp_path / "a", Wanted(parquet=True))
    table = pyarrow.parquet.read_table(tmp_path / "a/judgments.parquet")
    found = rows(tmp_path / "a/judgments.jsonl")
    assert table.num_rows == len(found)
    assert table.column("outcome").to_pylist() == [row["outcome"] for row in found]
    assert [json.loads(one) for one in table.column("answer").to_pylist()] == [
        row["answer"] for row in found
    ]


def test_a_run_s_completions_come_back_whole(sqlite_store: Store) -> None:
    store = sqlite_store
    (ann,) = make_project(store, 0, "ann")
    prompt = Prompt.make("Why?")
    policy = PolicyRef(run="ppo", step=7)
    sides = [
        Completion(
            id=f"c{k}", prompt_id=prompt.id, prompt_tokens=(1, 2), tokens=(3, k), text=f"text {k}",
            logprobs=(-0.5, -0.25), finish="stop", oldest=policy, newest=policy,
        )
        for k in range(2)
    ]  # fmt: skip
    added = store.items.add("p", [{"payload": payload_of(prompt, sides)}], actor="x")
    work = store.queue.claim("p", ann).work[0]
    assert all(candidate.source == {} for candidate in work.payload.candidates)
    receipt = store.answers.submit(work.lease, ann, prefer(0, 3), submission_id="1")
    item = str(added[0].item)
    found = pair_of(item, store.items.payloads("p")[item], "ppo")
    assert (found.left, found.right) == tuple(sides)
    judgment = store.answers.get(receipt.judgment)
    preference = preference_of(judgment)
    assert isinstance(preference, Preference)
    assert preference.outcome == ("left" if judgment.side == 0 else "right")
    assert preference.shown == tuple(("left", "right")[place] for place in judgment.shown)
    assert preference.strength == 3
    assert preference.when is not None
    assert preference.when.timestamp() * 1000 == judgment.at


def test_an_export_never_overwrites_and_refuses_strange_layouts(
    sqlite_store: Store, tmp_path: Path
) -> None:
    make_project(sqlite_store, 1)
    export(sqlite_store, "p", tmp_path / "a")
    with pytest.raises(StoreError, match="exists already"):
        export(sqlite_store, "p", tmp_path / "a")
    with pytest.raises(Refusal, match="'sft' does not fit kind 'pair'"):
        export(sqlite_store, "p", tmp_path / "b", Wanted(layouts=("sft",)))
    assert not (tmp_path / "b").exists()


def test_pairs_of_a_file_become_items_or_answers(sqlite_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    lines = [
        {"prompt": "Why 0?", "completions": ["yes", "no"]},
        *({"prompt": f"Why {k}?", "chosen": f"good {k}", "rejected": f"bad {k}"}
          for k in range(1, 21)),
        {"prompt": "x", "chosen": "same", "rejected": "same"},
        {"other": 1},
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, lines)))
    read = read_pairs(path, labeller="files")
    assert len(read.items) == 21
    assert sum(read.refused.values()) == 2
    assert {answer.answer["side"] for answer in read.answers} == {0, 1}
    make_project(sqlite_store, 0)
    report = import_rows(sqlite_store, "p", read.items, read.answers, actor="x")
    assert (report.items_new, report.answers_new, report.refused) == (21, 20, {})
    again = import_rows(sqlite_store, "p", read.items, read.answers, actor="x")
    assert (again.items_known, again.answers_known) == (21, 20)
    export(sqlite_store, "p", tmp_path / "a", Wanted(held_out_frac=0.0))
    chosen = rows(tmp_path / "a/trl_preference/train.jsonl")
    assert all(row["chosen"].startswith("good") for row in chosen)
    assert len(chosen) == 20


def test_samples_of_a_run_become_items(sqlite_store: Store, tmp_path: Path) -> None:
    from heed.data.exchange import write_rows

    lines = []
    for number in range(6):
        prompt = Prompt.make(f"Why {number}?")
        for k in range(4):
            text = f"because {min(k, 2)}"
            done = Completion(id=f"{number} {k}", prompt_id=prompt.id, prompt_tokens=(1,),
                              tokens=(2,), text=text, finish="stop")  # fmt: skip
            lines.append({"prompt": prompt.model_dump(), "completion": done.model_dump()})
    write_rows(tmp_path / "run/completions.jsonl", lines)
    read = read_samples(tmp_path / "run")
    assert len(read.items) == 6
    assert read.refused == {"a completion of the same text is there": 6}
    assert read_samples(tmp_path / "run").items == read.items
    assert read_samples(tmp_path / "run", seed=1).items != read.items
    make_project(sqlite_store, 0)
    report = import_rows(sqlite_store, "p", read.items, actor="x")
    assert (report.items_new, report.refused) == (6, {})
    one = next(iter(sqlite_store.items.payloads("p").values()))
    assert one.candidates[0].source["tokens"] == [2]
    assert len(read_samples(tmp_path / "run", size=1, per_prompt=3).items) == 18
    assert len(read_samples(tmp_path / "run", size=0).items) == 6
    assert read_samples(tmp_path / "run", size=4).refused["too few different completions of a "
                                                          "prompt"] == 6  # fmt: skip


def test_label_studio_and_argilla_come_in(sqlite_store: Store, tmp_path: Path) -> None:
    def note(number: int, said: dict[str, Any]) -> dict[str, Any]:
        result = [{"type": "pairwise", "value": said}]
        return {"id": number, "completed_by": 3, "lead_time": 4.5, "result": result,
                "created_at": "2024-05-01T10:00:00.000000Z"}  # fmt: skip

    tasks = [
        {"data": {"prompt": f"Q{k}", "answer1": "one", "answer2": "two"},
         "annotations": [note(k, said)]}
        for k, said in enumerate([{"selected": "left"}, {"selected": "right"},
                                  {"choices": ["tie"]}, {"text": ["?"]}])
    ]  # fmt: skip
    tasks[0]["annotations"].append({**note(9, {}), "was_cancelled": True})
    path = tmp_path / "studio.json"
    path.write_text(json.dumps([*tasks, {"data": {}}]))
    read = read_label_studio(path)
    assert [a.answer["outcome"] for a in read.answers] == [
        "prefer",
        "cannot_judge",
        "prefer",
        "tie",
    ]
    assert [a.answer.get("side") for a in read.answers] == [0, None, 1, None]
    assert read.refused == {"an annotation says nothing known": 1,
                            "a field of `data` is missing": 1}  # fmt: skip
    make_project(sqlite_store, 0)
    report = import_rows(sqlite_store, "p", read.items, read.answers, actor="x")
    # One person said two things of the first task: the later is a new version.
    assert (report.items_new, report.answers_new) == (4, 4)
    stored = sqlite_store.log.state("p").standing()
    assert {j.seconds for j in stored} == {4.5}
    assert {j.at for j in stored} == {1_714_557_600_000}
    records = [
        {"id": "r1", "fields": {"prompt": "Q", "response1": "a", "response2": "b"},
         "responses": {"best": [{"value": "response2", "user_id": "u", "status": "submitted"}],
                       "order": [{"value": [{"value": "response2", "rank": 1},
                                            {"value": "response1", "rank": 1}], "user_id": "u"}]}}
    ]  # fmt: skip
    path = tmp_path / "argilla.json"
    path.write_text(json.dumps(records))
    assert read_argilla(path, question="best").answers[0].answer["side"] == 1
    ranked = read_argilla(path, question="order").answers[0].answer
    assert ranked == {"outcome": "ranked", "buckets": [[0, 1]]}
    assert sqlite_store.check() == []
