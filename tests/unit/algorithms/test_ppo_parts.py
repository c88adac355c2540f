"""What PPO is made of: value models, references, adapters, and scorers with other tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import Tiny, run_stage
from tests.unit.algorithms.opened import opened, sampled, shaken

from heed.algorithms import advantages, updates
from heed.algorithms.parts import Parts
from heed.errors import ConfigError
from heed.feedback.reward_model import RewardModelScorer
from heed.learners.local import LocalLearner
from heed.learners.reference import AdapterReference
from heed.models.heads import RewardHead, SharedHead, ValueHead
from heed.models.load import load_causal

LORA = {"r": 4, "alpha": 8.0}


def _values(parts: Parts, batch: Any) -> torch.Tensor:
    values = parts.value_learner.forward(batch).values
    assert values is not None
    return values[batch.learn]


@pytest.mark.parametrize("init", ["policy", "shared"])
def test_p2_a_value_head_of_the_policy_starts_at_zero(
    tiny: Tiny, tmp_path: Path, init: str
) -> None:
    config = tiny.ppo_config(tmp_path / "run", value_init=init)
    with opened(config) as (parts, run):
        assert (parts.value is None) == (init == "shared")
        batch = sampled(config, parts, run).batch
        assert bool((_values(parts, batch) == 0).all())
        made, _, _ = advantages.credited(config, parts, _second(config, parts, run), 0.05)
        updates.learn(config, parts, made, 1, 0.05)
        assert bool((_values(parts, batch) != 0).any()), "and it learns"


def _second(config: Any, parts: Parts, run: Any) -> Any:
    return sampled(config, parts, run, update=2)


@pytest.mark.parametrize("init", ["reward", "auto"])
def test_n22_the_value_model_starts_as_the_reward_model(
    tiny: Tiny, tmp_path: Path, init: str
) -> None:
    """Before each token its value is the score of the row up to there."""
    config = tiny.ppo_config(tmp_path / "run", value_init=init)
    reward = RewardHead.load(tiny.reward)
    with opened(config) as (parts, run):
        assert isinstance(parts.value, LocalLearner)
        assert isinstance(parts.value.head, ValueHead)
        batch = sampled(config, parts, run, num=3).batch
        values = parts.value.forward(batch).values
        assert values is not None
    for row in range(len(batch)):
        for at in batch.learn[row].nonzero().flatten().tolist():
            before = batch.select([row])
            cut = type(before)(
                before.tokens[:, :at],
                before.attend[:, :at],
                before.learn[:, :at],
                before.positions[:, :at],
                before.rows,
            )
            with torch.no_grad():
                score = reward.outputs(cut)["scores"]
            assert score is not None
            assert float(values[row, at]) == pytest.approx(float(score), abs=1e-5)


def test_g1_values_depend_on_the_prompt(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.ppo_config(tmp_path / "run")
    with opened(config) as (parts, run):
        batch = sampled(config, parts, run, num=2).batch
        before = _values(parts, batch)
        batch.tokens[:, 3] = (batch.tokens[:, 3] + 7) % 300
        assert float((_values(parts, batch) - before).abs().min()) > 0


def test_the_value_model_shares_no_weight_with_reward_model_or_policy(
    tiny: Tiny, tmp_path: Path
) -> None:
    config = tiny.ppo_config(tmp_path / "run")
    with opened(config) as (parts, _):
        assert isinstance(parts.value, LocalLearner)
        assert isinstance(parts.policy, LocalLearner)
        assert isinstance(parts.scorer, RewardModelScorer)
        others = [*parts.policy.head.parameters(), *parts.scorer.head.parameters()]
        places = {weight.data_ptr() for weight in others}
        assert not places & {w.data_ptr() for w in parts.value.head.parameters()}


def test_a_reward_model_with_another_tokenizer_scores_text_and_lends_no_values(
    tiny: Tiny, tmp_path: Path
) -> None:
    """The policy's completions are tokenised anew, so the score is that of their text."""
    config = tiny.ppo_config(tmp_path / "run", reward_funcs=[str(tiny.other_reward)])
    with opened(config) as (parts, run):
        seen = sampled(config, parts, run)
        assert isinstance(parts.scorer, RewardModelScorer)
        assert len(parts.scorer.renderer.tokenizer) != len(parts.renderer.tokenizer)
        assert isinstance(parts.value, LocalLearner)
        assert bool((parts.value.forward(seen.batch).values == 0).all())  # from the policy
        prompts = {prompt.id: prompt for prompt in parts.prompts}
        theirs, head = parts.scorer.renderer, parts.scorer.head
        for completion, score in zip(seen.completions, seen.scores, strict=True):
            prompt = prompts[completion.prompt_id]
            row = theirs.item_row(prompt, parts.renderer.decode(completion.tokens))
            assert list(row.tokens) != [*completion.prompt_tokens, *completion.tokens]
            tokens = torch.tensor([list(row.tokens)])
            yes = torch.ones_like(tokens, dtype=torch.bool)
            where = torch.arange(tokens.shape[1])[None]
            with torch.no_grad():
                batch = type(seen.batch)(tokens, yes, torch.zeros_like(yes), where, ("row",))
                alone = head.outputs(batch)["scores"]
            assert alone is not None
            assert float(score) == pytest.approx(float(alone), abs=1e-5)
    run = run_stage(tiny.ppo_config(tmp_path / "whole", reward_funcs=[str(tiny.other_reward)]))
    assert run.status == "finished"
    with pytest.raises(ConfigError, match=r"value_init is 'reward'.*'policy' or 'auto'"):
        run_stage(
            tiny.ppo_config(
                tmp_path / "no", reward_funcs=[str(tiny.other_reward)], value_init="reward"
            )
        )


def test_the_reference_is_the_policy_at_the_start_and_stays(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.ppo_config(tmp_path / "run")
    with opened(config) as (parts, run):
        batch = sampled(config, parts, run).batch
        start = parts.policy.forward(batch).logprobs
        before = parts.reference.forward(batch).logprobs
        assert start is not None
        assert before is not None
        assert torch.equal(start, before)
        assert isinstance(parts.policy, LocalLearner)
        shaken(parts.policy.head, 0.1)
        after = parts.reference.forward(batch).logprobs
        assert torch.equal(after, before)
        assert not torch.equal(parts.policy.forward(batch).logprobs, start)


def test_another_reference_is_taken_where_one_is_named(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.ppo_config(tmp_path / "run", reference={"path": str(tiny.fresh)})
    row = run_stage(config).metrics()[0]
    assert row["eval/kl"] > 0.1


def test_with_adapters_the_reference_is_the_policy_without_them(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.ppo_config(tmp_path / "run", model={"path": str(tiny.policy), "lora": LORA})
    with opened(config) as (parts, run):
        assert isinstance(parts.reference, AdapterReference)
        assert isinstance(parts.policy, LocalLearner)
        batch = sampled(config, parts, run).batch
        start = parts.policy.forward(batch).logprobs
        before = parts.reference.forward(batch).logprobs
        assert torch.equal(start, before)  # adapters start as zero maps
        made, _, _ = advantages.credited(config, parts, sampled(config, parts, run, update=2), 0.05)
        for update in range(1, 4):
            updates.learn(config, parts, made, update, 0.05)
        assert torch.equal(parts.reference.forward(batch).logprobs, before)
        moved = parts.policy.forward(batch).logprobs
        assert float((moved - start).abs().max()) > 1e-3
        trained = [n for n, w in parts.policy.head.named_parameters() if w.requires_grad]
        assert trained
        assert all("lora" in name for name in trained)


def test_adapters_are_merged_into_the_model_that_is_left(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.ppo_config(tmp_path / "run", model={"path": str(tiny.policy), "lora": LORA})
    run = run_stage(config)
    assert run.metrics()[-1]["objective/kl_k3"] > 0
    before = dict(load_causal(tiny.policy).named_parameters())
    after = dict(load_causal(run.folder).named_parameters())
    assert set(after) == set(before)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved
    assert all("proj" in name for name in moved)


def test_a_shared_head_trains_the_trunk_for_both(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.ppo_config(tmp_path / "run", value_init="shared", vf_coef=0.0)
    more = tiny.ppo_config(tmp_path / "more", value_init="shared", vf_coef=10.0)
    with opened(config) as (parts, _):
        assert isinstance(parts.policy, LocalLearner)
        assert isinstance(parts.policy.head, SharedHead)
    one, other = run_stage(_again(config)), run_stage(_again(more))
    assert one.metrics()[-1]["loss/value_avg"] != other.metrics()[-1]["loss/value_avg"]
    assert not (one.folder / "model" / "value").exists()
    load_causal(one.folder)  # a plain model, without the value head


def _again(config: Any) -> Any:
    run = config.run.model_copy(update={"overwrite": True})
    return config.model_copy(update={"run": run})


def test_several_scores_are_weighed_and_reported_by_name(tiny: Tiny, tmp_path: Path) -> None:
    script = tmp_path / "rules.py"
    script.write_text(
        "def brief(completions, **columns):\n"
        "    return [-float(len(c[0]['content'])) for c in completions]\n"
    )
    config = tiny.ppo_config(
        tmp_path / "run",
        reward_funcs=[str(tiny.reward), f"{script}:brief"],
        reward_weights=[2.0, 0.1],
        missing_eos_score=None,
        total_episodes=16,
    )
    row = run_stage(config).metrics()[1]
    total = 2.0 * row["rewards/reward/mean"] + 0.1 * row["rewards/brief/mean"]
    assert row["objective/scores"] == pytest.approx(total, abs=1e-4)
    assert row["rewards/brief/mean"] < 0
