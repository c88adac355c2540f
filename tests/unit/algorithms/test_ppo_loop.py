"""PPO as a whole on a tiny model: what must hold in every update.

Numbers in names are those of "The N Implementation Details of RLHF with PPO".
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import Tiny, run_stage
from tests.unit.algorithms.opened import gradients, opened, sampled, shaken

from heed import kl
from heed.algorithms import advantages, updates
from heed.algorithms.online_metrics import training_metrics
from heed.data.batch import TokenBatch
from heed.learners.local import LocalLearner
from heed.losses.likelihood import nll

SAMPLINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "cooler": {"temperature": 0.6},
    "hotter": {"temperature": 1.7},
    "top-p": {"top_p": 0.7},
    "top-k": {"top_k": 9},
    "all at once": {"temperature": 0.8, "top_p": 0.9, "top_k": 20},
}


@pytest.mark.parametrize("how", SAMPLINGS)
def test_p1_what_is_recomputed_is_what_the_sampler_said(
    tiny: Tiny, tmp_path: Path, how: str
) -> None:
    """Temperature, top-k and top-p apply in scoring as in sampling, to policy and reference."""
    config = tiny.ppo_config(tmp_path / "run", sampling={"max_tokens": 10, **SAMPLINGS[how]})
    with opened(config) as (parts, run):
        batch = sampled(config, parts, run).batch
        behaviour, learn = batch.stream("behaviour_logprobs"), batch.learn
        for learner in (parts.policy, parts.reference):
            found = learner.forward(batch).logprobs
            assert found is not None
            assert float((found - behaviour)[learn].abs().max()) < 1e-5
        # It matters: without these settings the numbers are others.
        plain = parts.policy.forward(replace(batch, kept=None, temperature=1.0)).logprobs
        assert plain is not None
        differs = float((plain - behaviour)[learn].abs().max()) > 1e-2
        assert differs == (how != "as it is")


def test_the_first_minibatch_has_ratio_one(tiny: Tiny, tmp_path: Path) -> None:
    """Test 1 of the cross-cutting suite, on the learner's own log-probabilities: exactly."""
    config = tiny.ppo_config(tmp_path / "run")
    with opened(config) as (parts, run):
        seen = sampled(config, parts, run)
        own = parts.policy.forward(seen.batch).logprobs
        assert own is not None
        seen = replace(seen, batch=seen.batch.with_streams(behaviour_logprobs=own))
        batch, _, _ = advantages.credited(config, parts, seen, 0.05)
        found = training_metrics(updates.learn(config, parts, batch, 1, 0.05)[0][:1], [1.0])
    assert found["val/ratio_first_max_deviation"] < 1e-6
    assert found["val/ratio"] == pytest.approx(1.0, abs=1e-6)
    assert found["policy/approxkl_avg"] < 1e-12
    assert found["policy/clipfrac_avg"] == 0.0


def test_the_first_minibatch_of_every_update_has_ratio_one(tiny: Tiny, tmp_path: Path) -> None:
    """The same on the engine's log-probabilities, to what fp32 leaves of two kernels."""
    run = run_stage(tiny.ppo_config(tmp_path / "run", num_ppo_epochs=1, num_mini_batches=1))
    updates = run.metrics()[1:]
    assert len(updates) == 5
    for row in updates:
        assert row["val/ratio_first_max_deviation"] < 1e-5
        assert row["val/ratio"] == pytest.approx(1.0, abs=1e-6)
        assert row["policy/approxkl_avg"] < 1e-10
        assert row["policy/clipfrac_avg"] == 0.0
    assert updates[-1]["objective/kl_k3"] > 1e-4, "nothing was learned"


def test_later_minibatches_leave_ratio_one(tiny: Tiny, tmp_path: Path) -> None:
    row = run_stage(tiny.ppo_config(tmp_path / "run", total_episodes=16)).metrics()[1]
    assert row["policy/approxkl_avg"] > 1e-8
    assert row["val/ratio_first_max_deviation"] < 1e-5


def test_p4_dropout_is_off(tiny: Tiny, tmp_path: Path) -> None:
    """A model that was saved with dropout scores alike twice, while it learns too."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tiny.other_base
    model = AutoModelForCausalLM.from_pretrained(
        base / "model", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5
    )
    model.save_pretrained(tmp_path / "with dropout")
    AutoTokenizer.from_pretrained(base / "model").save_pretrained(tmp_path / "with dropout")
    config = tiny.ppo_config(
        tmp_path / "run",
        model={"path": str(tmp_path / "with dropout")},
        total_episodes=16,
        num_ppo_epochs=1,
        num_mini_batches=1,
    )
    row = run_stage(config).metrics()[1]
    assert row["val/ratio_first_max_deviation"] < 1e-5
    assert row["objective/kl"] == pytest.approx(0.0, abs=1e-4)


def test_g5_the_rate_falls_linearly_to_zero(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.ppo_config(tmp_path / "run")
    rates = [row["learning_rate"] for row in run_stage(config).metrics()[1:]]
    expected = [1e-3 * (1 - update / 5) for update in range(5)]
    assert rates == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "rate"), [({"kl_horizon": 100.0}, 16 / 100), ({"kl_gain": 0.1}, 0.1)]
)
def test_p11_the_adaptive_coefficient_follows_the_measured_kl(
    tiny: Tiny, tmp_path: Path, options: dict[str, float], rate: float
) -> None:
    run = run_stage(tiny.ppo_config(tmp_path / "run", kl_target=0.05, **options))
    coef = 0.05
    errors = set()
    for row in run.metrics()[1:]:
        assert row["kl_coef"] == pytest.approx(coef, rel=1e-12)
        error = min(max(row["objective/kl"] / 0.05 - 1, -0.2), 0.2)
        assert row["kl_error"] == pytest.approx(error)
        coef *= 1 + rate * error
        errors.add(round(error, 6))
    assert len(errors) > 1, "the KL never left one side of its target"


def test_reward_is_score_minus_coefficient_times_kl(tiny: Tiny, tmp_path: Path) -> None:
    """The coefficient of an update is the one before its KL was known."""
    run = run_stage(tiny.ppo_config(tmp_path / "run", kl_target=0.05, kl_gain=0.5))
    for row in run.metrics()[1:]:
        penalty = -row["kl_coef"] * row["objective/kl"]
        assert row["objective/non_score_reward"] == pytest.approx(penalty, abs=1e-6)
        whole = row["objective/scores"] + row["objective/non_score_reward"]
        assert row["objective/rlhf_reward"] == pytest.approx(whole, abs=1e-5)


def test_completions_are_counted(tiny: Tiny, tmp_path: Path) -> None:
    run = run_stage(tiny.ppo_config(tmp_path / "run", total_episodes=70, keep_rollouts=True))
    rows = run.metrics()[1:]
    assert [row["episode"] for row in rows] == [16, 32, 48, 64, 80]  # the last update is full
    for update, row in enumerate(rows, start=1):
        groups = (run.folder / "rollouts" / f"update-{update:08d}.jsonl").read_text().splitlines()
        assert len(groups) == 16
        assert row["val/num_eos_tokens"] == sum('"finish": "stop"' in group for group in groups)
        assert row["completions/clipped_ratio"] == pytest.approx(1 - row["val/num_eos_tokens"] / 16)


def test_k1_averages_to_the_exact_kl(tiny: Tiny, tmp_path: Path) -> None:
    """k1 of sampled tokens, and the sum over the vocabulary at the same tokens, in expectation."""
    config = tiny.ppo_config(tmp_path / "run", num_generations=16)
    with opened(config) as (parts, run):
        assert isinstance(parts.policy, LocalLearner)
        shaken(parts.policy.head, 0.05)
        batch = sampled(config, parts, run, num=20).batch
        reference = parts.reference.forward(batch).logprobs
        assert reference is not None
        assert parts.exact_kl is not None
        exact = parts.exact_kl(batch)
        k1 = (kl.k1(batch.stream("behaviour_logprobs"), reference) * batch.learn).sum(1)
    assert len(k1) == 320
    difference = k1 - exact
    error = float(difference.std()) / len(k1) ** 0.5
    assert abs(float(difference.mean())) < 4 * error
    assert float(exact.mean()) > 10 * error, "the policies hardly differ, so nothing was compared"
    assert float(exact.std()) < float(k1.std())


def test_ptx_adds_the_gradient_of_the_likelihood(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """InstructGPT: gradient = PPO's + ptx_coef times that of the mean negative log-likelihood."""
    ptx = {"path": str(tiny.world / "texts.jsonl"), "limit": 30}
    found: dict[float, dict[str, torch.Tensor]] = {}
    text: TokenBatch | None = None
    for coef in (0.0, 2.5):
        changes = {"ptx_data": ptx, "ptx_coef": coef, "ptx_batch_size": 5}
        settings = tiny.ppo_config(
            tmp_path / f"{coef}", num_ppo_epochs=1, num_mini_batches=1, **changes
        )
        with opened(settings) as (parts, run), monkeypatch.context() as patch:
            batch, _, _ = advantages.credited(settings, parts, sampled(settings, parts, run), 0.05)
            policy = parts.policy
            assert isinstance(policy, LocalLearner)

            def step(
                learner: LocalLearner, policy: LocalLearner = policy, at: float = coef
            ) -> float:
                if learner is policy:
                    found[at] = gradients(learner.head)
                return 1.0

            patch.setattr(LocalLearner, "step", step)
            updates.learn(settings, parts, batch, 1, 0.05)
            text = updates.ptx_batch(settings, parts, 0)
    assert text is not None
    assert len(text) == 5
    for weight in policy.head.parameters():
        weight.grad = None
    logprobs = policy.head.outputs(text)["logprobs"]  # type: ignore[operator]
    (2.5 * nll(logprobs, text.learn).sum() / text.num_learned).backward()
    expected = gradients(policy.head)
    for name, with_text in found[2.5].items():
        torch.testing.assert_close(
            with_text, found[0.0][name] + expected[name], rtol=1e-4, atol=1e-6
        )


def test_ptx_visits_every_text_and_reports_its_likelihood(tiny: Tiny, tmp_path: Path) -> None:
    ptx = {"path": str(tiny.world / "texts.jsonl"), "limit": 20}
    config = tiny.ppo_config(tmp_path / "run", ptx_data=ptx, ptx_batch_size=4, ptx_coef=1e-9)
    with opened(config) as (parts, _):
        assert len(parts.ptx_rows) == 20
        batches = [updates.ptx_batch(config, parts, step) for step in range(5)]
        assert len({row for batch in batches for row in batch.rows}) == 20
        first = parts.policy.forward(batches[0]).logprobs
        assert first is not None
        loss = -float(first.sum()) / batches[0].num_learned
    rows = run_stage(tiny.ppo_config(tmp_path / "other", **_of(config))).metrics()[1:]
    # Per token and without its weight, so that it compares with that of pretraining.
    assert rows[0]["loss/ptx_avg"] == pytest.approx(loss, rel=0.2)


def _of(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("ptx_data", "ptx_batch_size", "ptx_coef")}


def test_the_same_prompts_are_watched_at_every_look(tiny: Tiny, tmp_path: Path) -> None:
    run = run_stage(tiny.ppo_config(tmp_path / "run"))
    looks: dict[int, list[str]] = {}
    for row in run.samples():
        looks.setdefault(row["step"], []).append(row["prompt_id"])
        assert set(row["scores"]) == {"proxy", "true"}
    assert sorted(looks) == [0, 2, 4, 5]
    assert len({tuple(ids) for ids in looks.values()}) == 1
    for row in run.metrics():
        assert ("eval/true" in row) == (row["step"] in looks)
    assert run.metrics()[0]["eval/kl"] == pytest.approx(0.0, abs=1e-4)


def test_without_a_gold_score_the_truth_is_unknown_and_not_zero(tiny: Tiny, tmp_path: Path) -> None:
    run = run_stage(tiny.ppo_config(tmp_path / "run", gold=None, total_episodes=16))
    assert [row["eval/true"] for row in run.metrics()] == [None, None]
    assert all(row["scores"]["true"] is None for row in run.samples())
