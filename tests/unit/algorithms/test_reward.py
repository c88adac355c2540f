"""Reward models: labels, margins, held-out pairs and the scale of the score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import Tiny, run_stage

from heed.algorithms import reward, reward_sources
from heed.algorithms.reward import likelier_first
from heed.data.datasets import load_preferences
from heed.data.render import Renderer
from heed.data.rows import pair_rows
from heed.feedback.base import Item
from heed.feedback.reward_model import open_reward_model
from heed.learners.base import Outputs
from heed.models.heads import RewardHead
from heed.models.load import load_tokenizer
from heed.pipelines import generate
from heed.pipelines.generate import GenerateConfig
from heed.records import Completion, Prompt
from heed.runs.files import read_lines
from heed.runs.run import Run
from heed.settings import DataSettings

LEARNER = {"precision": "fp32", "device": "cpu"}


def _scores(model: Path, completions: Path) -> np.ndarray:
    rows = read_lines(completions / "completions.jsonl")
    items = [
        Item(Prompt.model_validate(r["prompt"]), Completion.model_validate(r["completion"]))
        for r in rows
    ]
    return np.array([score.value for score in open_reward_model(model).score(items)], dtype=float)


def _samples(tiny: Tiny, folder: Path, seed: int, n: int) -> Path:
    values = {
        "run": {"folder": str(folder)},
        "model": {"path": str(tiny.policy)},
        "data": {"path": str(tiny.world / "prompts.jsonl")},
        "sampling": {"n": n, "max_tokens": 12, "seed": seed},
        "learner": LEARNER,
    }
    return generate.run(GenerateConfig.model_validate(values)).folder


def test_r3_the_score_of_the_initial_policy_has_mean_0_and_deviation_1(
    tiny: Tiny, tmp_path: Path
) -> None:
    """Test 8: on completions of the initial policy that normalisation did not see."""
    seen = _samples(tiny, tmp_path / "seen", seed=1, n=30)
    config = tiny.reward_config(
        tmp_path / "run", normalise_data={"path": str(seen)}, num_normalise=1920
    )
    run = run_stage(config)
    fresh = _scores(run.folder, _samples(tiny, tmp_path / "fresh", seed=2, n=30))
    # Both are samples of the same prompts, so their error is that within a prompt, twice.
    within = fresh.reshape(-1, 30).std(1).mean()
    assert abs(fresh.mean()) < 3 * within * np.sqrt(2 / len(fresh))
    assert fresh.std() == pytest.approx(1.0, abs=0.05)
    assert run.manifest["facts"]["gain"] != 1.0


@pytest.mark.parametrize(
    ("how", "mean", "deviation"),
    [("gain_and_bias", 0.0, 1.0), ("bias", 0.0, None), ("none", None, None)],
)
def test_the_scale_is_the_one_that_is_asked_for(
    tiny: Tiny, tmp_path: Path, how: str, mean: float | None, deviation: float | None
) -> None:
    seen = _samples(tiny, tmp_path / "seen", seed=1, n=4)
    config = tiny.reward_config(
        tmp_path / "run", normalise=how, normalise_data={"path": str(seen)}, num_normalise=256
    )
    run = run_stage(config)
    scores = _scores(run.folder, seen)
    # One completion is empty, and so no row to normalise on.
    assert (abs(scores.mean()) < 0.01) == (mean is not None)
    assert (abs(scores.std() - 1) < 0.01) == (deviation is not None)
    gain, bias = run.manifest["facts"]["gain"], run.manifest["facts"]["bias"]
    assert (gain == 1.0) == (deviation is None)
    assert (bias == 0.0) == (mean is None)


def test_normalisation_changes_no_order(tiny: Tiny, tmp_path: Path) -> None:
    seen = _samples(tiny, tmp_path / "seen", seed=1, n=2)
    orders = []
    for how in ("gain_and_bias", "none"):
        run = run_stage(tiny.reward_config(tmp_path / how, normalise=how))
        orders.append(np.argsort(_scores(run.folder, seen), kind="stable"))
    assert (orders[0] == orders[1]).mean() > 0.99  # ties by rounding aside


def _pairs(path: Path, **columns: Any) -> DataSettings:
    rows = []
    for i in range(24):
        row = {
            "prompt": f"Question {i}?",
            "chosen": f"Yes, {i} it is.",
            "rejected": f"No, not {i}.",
        }
        rows.append(json.dumps({**row, **columns}))
    path.write_text("\n".join(rows) + "\n")
    return DataSettings(path=str(path), max_length=80)


def test_a_label_below_one_half_is_the_turned_pair(tiny: Tiny, tmp_path: Path) -> None:
    """p of 0.2 for a pair is p of 0.8 for the pair turned round: same losses, same accuracy."""
    metrics = []
    for name, p in (("low", 0.2), ("high", 0.8)):
        data = _pairs(tmp_path / f"{name}.jsonl", p=p)
        if name == "high":
            rows = [json.loads(line) for line in Path(str(data.path)).read_text().splitlines()]
            for row in rows:
                row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
            Path(str(data.path)).write_text("\n".join(map(json.dumps, rows)))
        config = tiny.reward_config(tmp_path / name, data=data.model_dump(), batch_size=8)
        run = run_stage(config)
        (accuracy,) = [f for f in run.findings() if f.name == "reward model accuracy"]
        metrics.append((accuracy.estimate, run.metrics()[-1]))
    (low, one), (high, other) = metrics
    assert low == high
    for name in ("loss", "accuracy", "margin", "eval/loss", "eval/accuracy"):
        assert one[name] == pytest.approx(other[name], abs=1e-6), name


def test_turning_a_pair_turns_its_margin_and_keeps_its_weight(tmp_path: Path) -> None:
    pairs, _ = load_preferences(_pairs(tmp_path / "a.jsonl", p=0.25, margin=0.5, weight=2.0))
    turned = likelier_first(pairs[0])
    assert (turned.chosen, turned.rejected) == (pairs[0].rejected, pairs[0].chosen)
    assert (turned.p, turned.margin, turned.weight) == (0.75, -0.5, 2.0)
    assert likelier_first(turned) is turned


def test_margins_soft_labels_and_weights_enter_the_loss(tiny: Tiny, tmp_path: Path) -> None:
    """A fresh head gives both sides nearly the same score, so losses are known beforehand."""

    def first_loss(name: str, **columns: Any) -> float:
        data = _pairs(tmp_path / f"{name}.jsonl", **columns)
        config = tiny.reward_config(tmp_path / name, data=data.model_dump(), batch_size=20)
        head = reward.open_head(config)
        with torch.no_grad():
            head.score.weight.zero_()
        found: dict[str, torch.Tensor] = {}
        with Run.start(config.run, "reward", {}) as run:
            renderer = Renderer(load_tokenizer(config.model))
            train, _, _ = reward.load_rows(config, renderer, run)
            batch = reward.pair_batch(train)
            outputs = [head.outputs(side) for side in (batch.chosen, batch.rejected)]
            scores = [Outputs(**out) for out in outputs]
            found["loss"] = reward.preference_loss(config)(scores[0], scores[1], batch).values
        return float(found["loss"].detach().mean())

    log2 = float(np.log(2))
    assert first_loss("plain") == pytest.approx(log2)
    assert first_loss("soft", p=0.7) == pytest.approx(log2)
    assert first_loss("margin", margin=1.0) == pytest.approx(float(np.log1p(np.exp(1.0))))
    assert first_loss("weight", weight=3.0) == pytest.approx(3 * log2)


def test_prompts_held_out_are_not_trained_on(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.reward_config(tmp_path / "run")
    with Run.start(config.run, "reward", {}) as run:
        renderer = Renderer(load_tokenizer(config.model))
        train, held_out, _ = reward.load_rows(config, renderer, run)
    assert train
    assert held_out
    assert not {p.prompt.id for p, _, _ in train} & {p.prompt.id for p, _, _ in held_out}


def test_the_score_depends_on_the_prompt_and_is_read_at_the_end(tiny: Tiny) -> None:
    head = RewardHead.load(tiny.reward)
    renderer = Renderer(load_tokenizer(tiny.reward))
    pairs, report = load_preferences(DataSettings(path=str(tiny.pairs)))
    rows = pair_rows(pairs[:4], renderer, report, max_length=200)
    for _, chosen, _ in rows:
        assert chosen.tokens[-1] in renderer.end_ids
    other = [(p, a, b) for p, a, b in rows]
    batch = reward.pair_batch(other).chosen
    with torch.no_grad():
        before = head.outputs(batch)["scores"]
        batch.tokens[:, 4] = (batch.tokens[:, 4] + 11) % 300
        after = head.outputs(batch)["scores"]
    assert before is not None
    assert after is not None
    assert float((before - after).abs().min()) > 0


def test_a_reward_model_trained_further_keeps_its_head(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.reward_config(tmp_path / "run", model={"path": str(tiny.reward)})
    again, before = reward.open_head(config), RewardHead.load(tiny.reward)
    assert torch.equal(again.score.weight, before.score.weight)
    assert float(again.gain) == float(before.gain) != 1.0


def test_with_adapters_the_saved_model_scores_as_the_trained_one(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, np.ndarray] = {}
    original = reward_sources.judge_reward_model

    def judge(pairs: Any, gaps: np.ndarray, *rest: Any) -> Any:
        seen["gaps"] = gaps
        return original(pairs, gaps, *rest)

    monkeypatch.setattr(reward_sources, "judge_reward_model", judge)
    lora = {"r": 4, "alpha": 8.0}
    config = tiny.reward_config(
        tmp_path / "run",
        model={"path": str(tiny.policy), "lora": lora},
        normalise="none",
        optim={"lr": 1e-2},
    )
    run = run_stage(config)
    head = RewardHead.load(run.folder)
    base = RewardHead.load(tiny.policy, seed=1)
    moved = {
        name
        for (name, w), (_, b) in zip(head.named_parameters(), base.named_parameters(), strict=True)
        if not torch.equal(w, b)
    }
    assert "score.weight" in moved
    assert all("proj" in name for name in moved - {"score.weight"})
    assert len(moved) > 1
    with Run.start(
        config.run.model_copy(update={"folder": str(tmp_path / "b")}), "reward", {}
    ) as b:
        _, held_out, _ = reward.load_rows(config, Renderer(load_tokenizer(run.folder)), b)
    learner = reward.LocalLearner.frozen(head, config.learner)
    gaps, _ = reward.score_gaps(learner, held_out)
    np.testing.assert_allclose(gaps, seen["gaps"], atol=1e-5)
