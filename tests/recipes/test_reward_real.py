"""Every kind of reward model on comparisons, rankings, numbers and steps that people gave.

Small models on few rows: what is shown is that real labels, with their ties, gaps and lengths, go
the whole way, and are counted. How good a model becomes is not measured here.
"""

from __future__ import annotations

import json
import lzma
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from tests.labelled import write
from tests.tiny import LEARNER

from heed.algorithms import prm, reward
from heed.algorithms.prm import PRMConfig
from heed.algorithms.reward import RewardConfig
from heed.data.exchange import read_rows
from heed.models.load import load_extra
from heed.pipelines import init
from heed.pipelines.init import InitConfig
from heed.runs.run import Run

pytestmark = pytest.mark.slow
KINDS = ("Irrelevant", "Wrong-Grounding", "Unverifiable", "Redundant", "Incoherent")
NUM = 120


@pytest.fixture(scope="module")
def asked(shared_data: Path) -> list[dict[str, Any]]:
    """Questions with four long answers, six comparisons, and error spans of the first answer."""
    file = shared_data / "fine-grained-rlhf-qa" / "dev_feedback.jsonl.xz"
    with lzma.open(file, "rt") as lines:
        return [json.loads(line) for _, line in zip(range(NUM), lines, strict=False)]


@pytest.fixture(scope="module")
def base(asked: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh small model with a tokenizer of these texts."""
    folder = tmp_path_factory.mktemp("real")
    texts = [row[f"prediction {i}"] for row in asked for i in (1, 2, 3, 4)]
    write(folder / "texts.jsonl", [{"text": text} for text in texts if text.strip()])
    values = {
        "run": {"folder": str(folder / "base")},
        "data": {"path": str(folder / "texts.jsonl")},
        "vocab_size": 1500,
        "hidden_size": 32,
        "num_layers": 1,
        "num_heads": 4,
        "max_positions": 640,
    }
    return init.run(InitConfig.model_validate(values)).folder


def trained(
    base: Path, folder: Path, data: Path, *, max_loss_frac: float = 0.05, **changes: Any
) -> Run:
    values: dict[str, Any] = {
        "run": {"folder": str(folder)},
        "model": {"path": str(base)},
        "data": {"path": str(data), "max_length": 640, "max_loss_frac": max_loss_frac},
        "batch_size": 8,
        "optim": {"lr": 2e-3},
        "learner": LEARNER,
        **changes,
    }
    if "step_separator" in changes:
        return prm.run(PRMConfig.model_validate(values))
    return reward.run(RewardConfig.model_validate(values))


def turn(text: str, role: str = "user") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def test_comparisons_of_dialogues_by_subset(base: Path, shared_data: Path, tmp_path: Path) -> None:
    rows = []
    for subset in ("harmless-base", "helpful-base"):
        found = read_rows(shared_data / "hh-rlhf" / f"{subset}.test.jsonl.gz")
        rows += [{**row, "subset": subset} for _, (_, row) in zip(range(150), found, strict=False)]
    data = write(tmp_path / "pairs.jsonl", rows)
    run = trained(base, tmp_path / "run", data, subset_column="subset", max_loss_frac=0.3)
    named = {f.name: f for f in run.findings()}
    for subset in ("harmless-base", "helpful-base"):
        assert named[f"reward model accuracy, subset {subset}"].n > 0


def pairs_of(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for row in asked:
        for (i, j), label in zip(combinations(range(1, 5), 2), row["preference"], strict=True):
            left, right = (turn(row[f"prediction {k}"], "assistant") for k in (i, j))
            p = {1: 1.0, 2: 0.0, 0: 0.5}[label]
            if left != right:
                prompt = turn(row["question"])
                rows.append({"prompt": prompt, "chosen": left, "rejected": right, "p": p})
    return rows


def test_all_pairs_of_a_question_with_their_ties(
    base: Path, asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    rows = pairs_of(asked)
    ties = sum(row["p"] == 0.5 for row in rows)
    assert 0.05 < ties / len(rows) < 0.3
    data = write(tmp_path / "pairs.jsonl", rows)
    run = trained(base, tmp_path / "run", data, loss_type="k_wise", ties="davidson")
    (nu,) = [f.estimate for f in run.findings() if f.name == "tie parameter"]
    assert nu is not None
    # Answers are not equals, so the share among equals is above the plain share of ties.
    assert 0.5 * ties / len(rows) < nu / (2 + nu) < 3 * ties / len(rows)
    dropped = trained(base, tmp_path / "drop", data, loss_type="k_wise", ties="drop")
    (report,) = dropped.data_report()
    assert report["reasons"]["a tie"] == ties


def test_rankings_of_four_answers(base: Path, asked: list[dict[str, Any]], tmp_path: Path) -> None:
    """By comparisons won, ties half: a ranking with tied ranks."""
    rows = []
    for row in asked:
        won = dict.fromkeys(range(1, 5), 0.0)
        for (i, j), label in zip(combinations(range(1, 5), 2), row["preference"], strict=True):
            won[i] += {1: 1.0, 0: 0.5, 2: 0.0}[label]
            won[j] += {2: 1.0, 0: 0.5, 1: 0.0}[label]
        texts = [turn(row[f"prediction {i}"], "assistant") for i in won]
        scores = list(won.values())
        rows.append({"prompt": turn(row["question"]), "completions": texts, "scores": scores})
    data = write(tmp_path / "rankings.jsonl", rows)
    for ties in ("drop", "davidson"):
        run = trained(base, tmp_path / ties, data, loss_type="plackett_luce", ties=ties)
        (report,) = run.data_report()
        all_tied = sum(len(set(row["scores"])) == 1 for row in rows)
        assert report["set_aside"] == (all_tied if ties == "drop" else 0)
        assert report["kept"] > 0.9 * (NUM - all_tied)
        if ties == "davidson":
            most = max(row["scores"].count(score) for row in rows for score in row["scores"])
            assert len(load_extra(run.folder / "model")["tie_log_nu"]) == most - 1
        (best,) = [f for f in run.findings() if f.name == "best completion ranked first"]
        assert best.n > 0


def test_counts_of_errors_are_fitted_by_kind(
    base: Path, asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    rows = []
    for row in asked:
        kinds = [error["error type"] for error in row["feedback"]["errors"]]
        counts = {kind: float(kinds.count(kind)) for kind in KINDS[:3]}
        text = turn(row["prediction 1"], "assistant")
        rows.append({"prompt": turn(row["question"]), "completion": text, **counts})
    data = write(tmp_path / "ratings.jsonl", rows)
    run = trained(
        base, tmp_path / "run", data, loss_type="regression", attributes=KINDS[:3],
        attribute_weights=[-1.0, -2.0, -1.0], num_train_epochs=3.0,
    )  # fmt: skip
    assert load_extra(run.folder / "model")["attributes"] == list(KINDS[:3])
    assert run.metrics()[-1]["loss"] < run.metrics()[0]["loss"]
    assert any(f.name == "explained variance of Irrelevant" for f in run.findings())


def test_sentences_with_an_error_span_are_wrong_steps(
    base: Path, asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    rows = []
    for row in asked:
        text, place, steps, labels = row["prediction 1"], 0, [], []
        for part in text.split(". "):
            end = place + len(part)
            spans = [(e["start"], e["end"]) for e in row["feedback"]["errors"]]
            if part.strip():
                steps.append(part.strip())
                labels.append(not any(a < end and b > place for a, b in spans))
            place = end + 2
        rows.append({"prompt": turn(row["question"]), "completions": steps, "labels": labels})
    right = [label for row in rows for label in row["labels"]]
    assert 0.1 < sum(right) / len(right) < 0.9
    data = write(tmp_path / "steps.jsonl", rows)
    run = trained(base, tmp_path / "run", data, step_separator="\n", num_train_epochs=3.0)
    assert run.metrics()[-1]["loss"] < run.metrics()[0]["loss"]
    named = {f.name: f for f in run.findings()}
    assert named["steps judged as labelled"].n > 0
