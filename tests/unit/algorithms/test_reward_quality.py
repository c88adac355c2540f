"""Where a reward model is right: by subset, by length difference, by margin, and on the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.tiny import Tiny, run_stage

from heed.algorithms.reward_quality import MAX_SUBSETS, judge_reward_model
from heed.data.judgements import LabelledPair
from heed.errors import DataError
from heed.records import Message, Prompt
from heed.report.page import write_report
from heed.stats.calibration import accuracy_by


def pair(i: int, subset: str, **more: float) -> LabelledPair:
    prompt = Prompt.make(f"Question {i}?", meta={"topic": subset})
    sides = ((Message(role="assistant", text=text),) for text in (f"yes {i}", f"no {i}"))
    return LabelledPair(str(i), prompt, *sides, **more)


def test_subsets_show_what_the_mean_hides() -> None:
    """Right on every pair of one subset, wrong on every pair of the other: 3 to 1."""
    pairs = [pair(i, "code" if i % 4 == 0 else "talk") for i in range(40)]
    gaps = np.array([-1.0 if i % 4 == 0 else 1.0 for i in range(40)])
    lengths = np.array([[10, 5]] * 40)
    findings, facts = judge_reward_model(pairs, gaps, lengths, pairs, "topic")
    named = {f.name: f for f in findings}
    assert named["reward model accuracy"].estimate == 0.75
    assert named["reward model accuracy, subset talk"].estimate == 1.0
    assert named["reward model accuracy, subset code"].estimate == 0.0
    assert [(s["name"], s["n"]) for s in facts["subsets"]] == [("talk", 30), ("code", 10)]


def test_many_subsets_are_pooled() -> None:
    pairs = [pair(i, f"topic {i}") for i in range(MAX_SUBSETS + 7)]
    gaps = np.ones(len(pairs))
    _, facts = judge_reward_model(pairs, gaps, np.ones((len(pairs), 2)), pairs, "topic")
    assert len(facts["subsets"]) == MAX_SUBSETS + 1
    assert facts["subsets"][-1]["name"] == "(others)"
    assert facts["subsets"][-1]["n"] == 7


def test_a_scorer_of_length_is_found_out() -> None:
    """It is right where chosen is longer, and wrong where it is shorter."""
    longer = np.arange(-20, 20) + 0.5
    lengths = np.stack([30 + longer, np.full(40, 30.0)], 1)
    pairs = [pair(i, "any", margin=float(abs(d)), strength=2.0) for i, d in enumerate(longer)]
    _, facts = judge_reward_model(pairs, longer, lengths, pairs)
    bins = facts["length_bins"]
    assert [b["accuracy"] for b in bins] == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert sum(b["n"] for b in bins) == 40
    assert all(b["accuracy"] == 0.5 for b in facts["margin_bins"])
    assert len(facts["strength_bins"]) == 1


def test_bins_of_anything() -> None:
    found = accuracy_by([1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 0.5, 1.0], num_bins=2)
    assert [(b.predicted, b.observed.estimate, b.observed.n) for b in found] == [
        (1.5, 0.5, 2),
        (3.5, 0.75, 2),
    ]
    with pytest.raises(DataError, match="as many of each"):
        accuracy_by([1.0], [1.0, 0.0])


def test_the_page_shows_them(tiny: Tiny, tmp_path: Path) -> None:
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Question {i}?"}],
            "chosen": [{"role": "assistant", "content": "Yes, it is so. " * (1 + i % 3)}],
            "rejected": [{"role": "assistant", "content": "No."}],
            "topic": "<code>" if i % 2 else "talk",
            "margin": 0.1 * (i % 5),
        }
        for i in range(60)
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = tiny.reward_config(
        tmp_path / "run",
        data={"path": str(data)},
        subset_column="topic",
        eval_frac=0.4,
        optim={"lr": 1e-2},
    )
    run = run_stage(config)
    page = write_report(run.folder).read_text()
    for title in ("Accuracy by subset", "Accuracy by margin", "Accuracy by length difference"):
        assert title in page
    assert "&lt;code&gt; (n = " in page
    assert "<code> (n" not in page
    with pytest.raises(DataError, match=r"no held-out row has the column 'theme'.*topic"):
        run_stage(tiny.reward_config(tmp_path / "b", subset_column="theme", data=config.data))


@pytest.mark.parametrize("ties", ["soft", "davidson", "drop"])
def test_ties_of_labellers_are_read_as_asked(tiny: Tiny, tmp_path: Path, ties: str) -> None:
    """Pairs through the whole stage: ties are set aside, or have a parameter that is learned."""
    preferences = [
        json.loads(line) for line in (tiny.pairs / "preferences.jsonl").read_text().splitlines()
    ]
    for i, row in enumerate(preferences):
        if i % 4 == 0:
            row["outcome"], row["p_left"] = "tie", 0.5
        if i % 16 == 1:
            row |= {"outcome": "both_bad", "p_left": None, "reason": "both are rude"}
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "pairs.jsonl").write_text((tiny.pairs / "pairs.jsonl").read_text())
    lines = "".join(json.dumps(row) + "\n" for row in preferences)
    (folder / "preferences.jsonl").write_text(lines)
    config = tiny.reward_config(tmp_path / "run", data={"path": str(folder)}, ties=ties)
    run = run_stage(config)
    (report,) = run.data_report()
    tied = sum(row["outcome"] == "tie" for row in preferences)
    bad = sum(row["outcome"] == "both_bad" for row in preferences)
    assert report["reasons"]["not judged: both_bad"] == bad
    assert report["reasons"].get("a tie", 0) == (tied if ties == "drop" else 0)
    assert any(f.name == "tie parameter" for f in run.findings()) == (ties == "davidson")
