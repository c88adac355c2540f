"""The recipes on real data, in their quick form: every stage runs, and the evidence is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heed.ids import content_hash
from heed.pipelines.chain import run_pipeline
from heed.pipelines.recipe import read_pipeline
from heed.runs.files import read_lines
from heed.runs.run import Run
from heed.settings import RunSettings

RECIPES = Path(__file__).parents[2] / "recipes"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def quick(recipe: str, folder: Path, **arguments: Path) -> tuple[Run, dict[str, Any]]:
    """Run a recipe with `--quick`; returns the run, and its findings by name."""
    given = {name: str(path) for name, path in arguments.items()}
    pipeline = read_pipeline(RECIPES / recipe).given(given, quick=True)
    run = run_pipeline(pipeline, RunSettings(folder=str(folder), seed=1), say=lambda line: None)
    summary = json.loads((run.folder / "summary.json").read_text())
    assert (run.folder / "report.html").stat().st_size > 10_000
    return run, {finding["name"]: finding for finding in summary["findings"]}


def held_out_loss(run: Run, stage: str) -> float:
    """Nats per token on held-out rows at the end of a supervised stage."""
    rows = read_lines(run.folder / "stages" / stage / "metrics.jsonl")
    return float(rows[-1]["eval/loss"])


def assert_judged(findings: dict[str, Any], prefix: str, judges: tuple[str, ...]) -> None:
    for judge in judges:
        found = findings[f"{prefix}win_rate/{judge}"]
        assert found["n"] > 20
        assert 0.0 <= found["low"] < found["estimate"] < found["high"] <= 1.0
    assert findings[f"{prefix}kl"]["estimate"] > 0.0


def test_hh_runs_from_books_to_a_judged_policy(shared_data: Path, tmp_path: Path) -> None:
    run, findings = quick(
        "hh.toml",
        tmp_path / "hh",
        books=shared_data / "classic-books",
        dialogues=shared_data / "sgd-dialogues",
        comparisons=shared_data / "hh-rlhf",
    )
    _, compared = quick("methods_hh.toml", tmp_path / "methods", hh=run.folder)
    for method in ("best of n", "RLOO", "DPO", "warm-up"):
        assert any(name.startswith(f"{method}, ") for name in compared)
    assert_judged(findings, "PPO over warm-up: ", ("gold", "proxy"))
    assert_judged(findings, "warm-up over pretrained: ", ("gold", "proxy"))
    for stage in ("proxy", "gold"):
        for name in ("reward model", "always-longer", "bag-of-words"):
            assert 0.0 < findings[f"{stage}: {name} accuracy"]["estimate"] < 1.0
    assert held_out_loss(run, "pretrain") < 6.5  # nats; equal chances for 2,048 tokens give 7.62
    data = run.folder / "stages" / "comparisons"
    prompts = {
        name: {content_hash(row["prompt"]) for row in read_lines(data / f"{name}.jsonl")}
        for name in ("proxy", "gold", "prompts", "judge")
    }
    assert all(not prompts[a] & prompts[b] for a in prompts for b in prompts if a != b), (
        "a prompt stands on two sides of the split"
    )


def test_methods_runs_from_a_world_to_its_table_and_figure(tmp_path: Path) -> None:
    run, findings = quick("methods.toml", tmp_path / "methods")
    methods = ("best of n", "PPO", "GRPO", "DPO", "KTO")
    for method in methods:
        found = findings[f"{method}, best within no limit"]
        assert found["low"] < found["estimate"] < found["high"]
    table = (run.folder / "frontier.md").read_text(encoding="utf-8")
    assert all(f"| {method} |" in table for method in (*methods, "warm-up"))
    assert "GRPO" in (run.folder / "frontier.svg").read_text(encoding="utf-8")
    said: list[str] = []
    pipeline = read_pipeline(RECIPES / "methods.toml").given({}, quick=True)
    settings = RunSettings(folder=str(run.folder), seed=1)
    run_pipeline(pipeline, settings, say=said.append)
    assert len(said) > 20
    assert all(line.endswith(": unchanged") for line in said)


def test_sentiment_runs_from_books_to_a_judged_policy(shared_data: Path, tmp_path: Path) -> None:
    run, findings = quick(
        "sentiment.toml",
        tmp_path / "sentiment",
        books=shared_data / "classic-books",
        sentiment=shared_data / "sentiment-nltk",
    )
    assert_judged(findings, "PPO over pretrained: ", ("gold", "lexicon", "proxy"))
    for part in ("proxy", "gold"):
        found = findings[f"{part} classifier accuracy"]
        assert found["low"] > 0.6, "the classifier is hardly better than the larger class"
    assert held_out_loss(run, "pretrain") < 6.0
    updates = read_lines(run.folder / "stages" / "ppo" / "metrics.jsonl")[1:]
    coefs = [row["kl_coef"] for row in updates]
    kls = [row["objective/kl"] for row in updates]
    assert coefs[0] == 0.15
    for before, after, kl in zip(coefs, coefs[1:], kls, strict=False):
        # Ziegler's controller: at most 2 % a batch, towards 6 nats.
        error = max(-0.2, min(0.2, kl / 6.0 - 1.0))
        assert after == pytest.approx(before * (1.0 + 0.1 * error))
