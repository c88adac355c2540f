"""What PPO does when something is wrong: planted faults, and the cause that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import Tiny, run_stage
from tests.unit.algorithms.opened import shaken

from heed.algorithms.online_run import run_online
from heed.algorithms.parts import Parts, make_parts
from heed.algorithms.ppo_config import PPOConfig
from heed.data.batch import TokenBatch, collate
from heed.engines.local import LocalEngine
from heed.errors import LearnerError
from heed.learners.base import Learner, Outputs
from heed.learners.local import LocalLearner
from heed.models.load import load_causal, load_tokenizer, save_model
from heed.records import Completion, PolicyRef, Prompt, Sampling
from heed.runs.run import Run

LONGER = {"sampling": {"max_tokens": 12}, "total_episodes": 128, "batch_size": 128}


def _told(run: Run, name: str) -> list[str]:
    return [w["message"] for w in run.warnings() if w["name"] == name]


def test_a_sound_run_raises_no_alarm(tiny: Tiny, tmp_path: Path) -> None:
    run = run_stage(tiny.ppo_config(tmp_path / "run", **LONGER))
    assert run.warnings() == []


def test_a_single_completion_has_no_error_and_raises_no_alarm(tiny: Tiny, tmp_path: Path) -> None:
    """A single k1 is below 0 half of the time; that says nothing."""
    config = tiny.ppo_config(
        tmp_path / "run", batch_size=1, total_episodes=12, num_mini_batches=1, num_samples=0
    )
    run = run_stage(config)
    rows = run.metrics()[1:]
    assert any(row["objective/kl"] < 0 for row in rows)
    assert {row["objective/kl_standard_error"] for row in rows} == {None}
    assert run.warnings() == []


class Claiming:
    """An engine that samples from one model and claims the log-probabilities of another."""

    def __init__(self, engine: LocalEngine, learner: Learner, hotter: float = 1.0) -> None:
        self.engine, self.learner, self.hotter = engine, learner, hotter

    @property
    def policy(self) -> PolicyRef:
        return self.engine.policy

    def load(self, weights: Mapping[str, Any] | None, policy: PolicyRef) -> None:
        self.engine.load(weights, policy)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        groups = self.engine.generate(prompts, sampling)
        return [[self._claim(p, c) for c in g] for p, g in zip(prompts, groups, strict=True)]

    def _claim(self, prompt: Prompt, completion: Completion) -> Completion:
        row = self.engine.renderer.completion_row(prompt, completion)
        batch = collate([row], temperature=self.hotter * completion.sampling.temperature)
        found = self.learner.forward(batch).logprobs
        assert found is not None
        return completion.model_copy(update={"logprobs": tuple(found[batch.learn].tolist())})


def _with_engine(config: PPOConfig, make: Callable[[Parts], Claiming]) -> Run:
    """Run with another engine in the parts of the loop; the looks keep theirs."""

    def changed(*given: Any) -> Parts:
        parts = make_parts(*given)
        return replace(parts, engine=make(parts))

    return run_online("ppo", config, make=changed)


def test_tokens_of_another_policy_are_named(tiny: Tiny, tmp_path: Path) -> None:
    """The tokens are drawn from the reference, so mean k1 is minus the KL the other way round."""
    moved = load_causal(tiny.policy)
    shaken(moved, 0.025)
    save_model(tmp_path / "moved", moved, load_tokenizer(tiny.policy))

    def make(parts: Parts) -> Claiming:
        reference = load_causal(tiny.policy)
        engine = LocalEngine(reference, parts.renderer, policy=parts.engine.policy)
        return Claiming(engine, parts.policy)

    names = {"model": {"path": str(tmp_path / "moved")}, "reference": {"path": str(tiny.policy)}}
    run = _with_engine(tiny.ppo_config(tmp_path / "run", **names, **LONGER), make)
    assert run.metrics()[1]["objective/kl"] < 0
    (told,) = _told(run, "objective/kl")
    assert "a KL cannot be negative" in told
    assert "tokens of another policy" in told
    assert _told(run, "val/ratio_first_max_deviation") == []


def test_a_negative_kl_from_another_temperature_is_named(tiny: Tiny, tmp_path: Path) -> None:
    """Tokens drawn at temperature 1 with the log-probabilities of temperature 2."""

    def make(parts: Parts) -> Claiming:
        assert isinstance(parts.engine, LocalEngine)
        return Claiming(parts.engine, parts.policy, hotter=2.0)

    run = _with_engine(tiny.ppo_config(tmp_path / "run", **LONGER), make)
    assert run.metrics()[1]["objective/kl"] < 0
    (told,) = _told(run, "objective/kl")
    assert "another temperature" in told
    (told,) = _told(run, "val/ratio_first_max_deviation")
    assert "another temperature" in told


def test_another_temperature_in_the_sampler_is_named(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the engine samples at 1.5 times the temperature that it is asked for, and tells."""
    original = LocalEngine.generate

    def hotter(self: Any, prompts: Any, sampling: Any) -> Any:
        changed = sampling.model_copy(update={"temperature": 1.5 * sampling.temperature})
        return original(self, prompts, changed)

    monkeypatch.setattr(LocalEngine, "generate", hotter)
    run = run_stage(tiny.ppo_config(tmp_path / "run", **LONGER))
    assert run.metrics()[1]["val/ratio_first_max_deviation"] > 0.1
    (told,) = _told(run, "val/ratio_first_max_deviation")
    assert "another temperature" in told
    assert "before the first step" in told


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_the_batch(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = LocalLearner._run, 0

    def broken(self: LocalLearner, batch: TokenBatch, *more: Any) -> Outputs:
        nonlocal calls
        found = original(self, batch, *more)
        if found.logprobs is not None and found.logprobs.requires_grad:
            calls += 1
            if calls == 3:
                return Outputs(logprobs=found.logprobs * float("nan"))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(LocalLearner, "_run", broken)
        with pytest.raises(LearnerError, match=r"the loss is nan at step 2.*saved in .*optim\.lr"):
            run_stage(tiny.ppo_config(tmp_path / "run", run={"checkpoint_seconds": 0.0}))
    run = Run.open(tmp_path / "run")
    assert run.status == "failed"
    assert "the loss is nan" in run.manifest["error"]
    (saved,) = (tmp_path / "run" / "bad").glob("*.pt")
    content = torch.load(saved)
    (batch,) = content["batches"]
    assert set(batch["streams"]) >= {"behaviour_logprobs", "advantages", "returns"}
    assert not bool(torch.isfinite(content["row_losses"]).all())
    # The weights are untouched, so the run can go on once the cause is gone.
    resumed = tiny.ppo_config(tmp_path / "run", run={"resume": True})
    assert run_stage(resumed).status == "finished"


def test_a_score_too_large_for_fp32_stops_the_run(tiny: Tiny, tmp_path: Path) -> None:
    script = tmp_path / "huge.py"
    script.write_text("def score(completions, **columns):\n    return [1e300] * len(completions)\n")
    with pytest.raises(LearnerError, match=r"loss is|not finite"):
        run_stage(tiny.ppo_config(tmp_path / "run", reward_funcs=[f"{script}:score"]))
