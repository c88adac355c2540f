"""The critic-free methods as a whole on a tiny model: what must hold in every update."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import Tiny, run_stage
from tests.unit.algorithms.opened import opened, sampled

import heed
from heed.algorithms.gather import gather, varies
from heed.data.order import Order
from heed.errors import ConfigError, FeedbackError
from heed.records import RolloutGroup

ONE_STEP = {"num_iterations": 1, "num_mini_batches": 1}
REWARDS = "tests.unit.algorithms.rewards"


def _groups(folder: Path, name: str) -> list[RolloutGroup]:
    lines = (folder / "rollouts" / name).read_text().splitlines()
    return [RolloutGroup.model_validate(json.loads(line)) for line in lines]


SAMPLINGS: dict[str, dict[str, Any]] = {
    "top-p": {"top_p": 0.7},
    "all at once": {"temperature": 0.8, "top_p": 0.9, "top_k": 20},
}


@pytest.mark.parametrize("how", SAMPLINGS)
@pytest.mark.parametrize("preset", ["grpo", "gspo"])
def test_on_policy_the_ratio_is_one_under_the_samplers_own_mask(
    tiny: Tiny, tmp_path: Path, preset: str, how: str
) -> None:
    """Top-p and top-k cut the distribution, and the ratio is that of the cut distributions."""
    sampling = {"max_tokens": 8, **SAMPLINGS[how]}
    run = run_stage(
        tiny.online_config(
            tmp_path / "run", preset=preset, sampling=sampling, total_episodes=48, **ONE_STEP
        )
    )
    for row in run.metrics()[1:]:
        assert row["val/ratio_first_max_deviation"] < 1e-5
        assert row["val/ratio"] == pytest.approx(1.0, abs=1e-6)
        assert row["policy/clipfrac_avg"] == 0.0
    assert run.warnings() == []


def test_a_run_leaves_what_a_reader_needs(tiny: Tiny, tmp_path: Path) -> None:
    """Looks with proxy, truth and KL; groups, lengths and clip fractions; and the whole page."""
    run = run_stage(tiny.online_config(tmp_path / "run", preset="grpo"))
    rows = run.metrics()
    assert run.status == "finished"
    assert (run.folder / "model" / "config.json").exists()
    looks = [row for row in rows if "eval/proxy" in row]
    assert [row["step"] for row in looks] == [0, 2, 4, 5]
    assert all(row["eval/true"] is not None and row["eval/kl"] is not None for row in looks)
    for row in rows[1:]:
        assert row["kl_coef"] == 0.05
        assert row["frac_reward_zero_std"] == 0.0
        assert row["num_alone"] == 0
        assert row["loss/kl_avg"] >= 0
        assert row["objective/kl_k3"] >= 0
        assert row["objective/non_score_reward"] == 0  # the KL stands in the loss
        assert {"policy/clipfrac_low", "policy/clipfrac_high"} < row.keys()
        assert row["completions/mean_length_better"] > 0
        assert not {"loss/value_avg", "value/explained_variance"} & row.keys()
    assert rows[-1]["objective/kl_k3"] > 1e-4, "nothing was learned"
    page = heed.write_report(run.folder).read_text(encoding="utf-8")
    for words in ("GRPO", "KL coefficient of 0.05", "Proxy reward", "Clip fraction"):
        assert words in page
    assert "xplained variance" not in page


@pytest.mark.parametrize("preset", ["rloo", "cispo", "maxrl", "vespo"])
def test_each_kind_of_loss_runs_and_learns(tiny: Tiny, tmp_path: Path, preset: str) -> None:
    changes = {"reward_funcs": [f"{REWARDS}:length"], "total_episodes": 48}
    run = run_stage(tiny.online_config(tmp_path / "run", preset=preset, **changes))
    assert run.metrics()[-1]["objective/kl_k3"] > 1e-5


def test_the_greedy_baseline_is_one_completion_a_prompt(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.online_config(
        tmp_path / "run", preset="remax", num_generations=1, total_episodes=32, keep_rollouts=True
    )
    run = run_stage(config)
    drawn = _groups(run.folder, "update-00000001.jsonl")
    greedy = _groups(run.folder, "update-00000001-greedy.jsonl")
    assert [g.prompt.id for g in greedy] == [g.prompt.id for g in drawn]
    assert all(g.rollouts[0].completion.sampling.temperature == 0 for g in greedy)
    assert all(len(g.rollouts) == 1 for g in greedy)


@pytest.mark.parametrize(("preset", "share"), [("raft", 0.25), ("expert_iteration", None)])
def test_a_selection_raises_the_likelihood_of_what_it_chose_alone(
    tiny: Tiny, tmp_path: Path, preset: str, share: float | None
) -> None:
    changes = {"reward_funcs": [f"{REWARDS}:rare"], "beta": 0.0, "total_episodes": 16}
    run = run_stage(
        tiny.online_config(
            tmp_path / "run", preset=preset, keep_rollouts=True, **changes, **ONE_STEP
        )
    )
    row = run.metrics()[1]
    groups = _groups(run.folder, "update-00000001.jsonl")
    scores = [[r.score.value for r in group.rollouts] for group in groups]
    good = [[bool(value) for value in group] for group in scores]
    chosen = sum(map(sum, good)) / 16 if share is None else share
    assert row["selected_frac"] == pytest.approx(chosen)
    # The loss is the mean negative log-likelihood of the chosen tokens.
    picked = [
        r.completion
        for group, marks in zip(groups, good, strict=True)
        for i, (r, mark) in enumerate(zip(group.rollouts, marks, strict=True))
        if (mark if share is None else i == (marks.index(True) if any(marks) else 0))
    ]
    total = -sum(sum(c.logprobs or ()) for c in picked)
    assert row["loss/policy_avg"] == pytest.approx(total / sum(c.num_tokens for c in picked), 1e-4)


# -- groups that do not vary --------------------------------------------------------------------


def test_equal_rewards_teach_nothing_and_are_counted(tiny: Tiny, tmp_path: Path) -> None:
    changes = {"reward_funcs": [f"{REWARDS}:constant"], "beta": 0.0, "total_episodes": 32}
    run = run_stage(tiny.online_config(tmp_path / "run", preset="grpo", **changes))
    for row in run.metrics()[1:]:
        assert row["frac_reward_zero_std"] == 1.0
        assert row["policy/grad_norm"] == 0.0
        assert row["loss/policy_avg"] == 0.0
    assert run.metrics()[-1]["objective/kl_k3"] == pytest.approx(0, abs=1e-9)


def test_dynamic_sampling_keeps_only_groups_that_vary(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.online_config(
        tmp_path / "run",
        preset="dapo",
        reward_funcs=[f"{REWARDS}:rare"],
        num_generations=2,
        refill_cap=6,
        keep_rollouts=True,
        total_episodes=48,
    )
    run = run_stage(config)
    rows = run.metrics()[1:]
    cursor = 0
    for update, row in enumerate(rows, start=1):
        names = [f"update-{update:08d}.jsonl"]
        names += [f"update-{update:08d}-refill-{i}.jsonl" for i in range(1, 7)]
        rounds = [_groups(run.folder, n) for n in names if (run.folder / "rollouts" / n).exists()]
        constant = sum(not varies(group) for groups in rounds for group in groups)
        assert row["sampling/groups_left_out"] == constant > 0
        assert row["sampling/num_refills"] == len(rounds) - 1
        assert row["frac_reward_zero_std"] == 0.0
        cursor += len(rounds)
        assert row["epoch"] == pytest.approx(cursor * 8 / 64)
    assert max(row["sampling/num_refills"] for row in rows) > 0


def test_the_cap_on_refills_ends_the_search_with_a_warning(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.online_config(
        tmp_path / "run",
        preset="dapo",
        reward_funcs=[f"{REWARDS}:constant"],
        refill_cap=2,
        total_episodes=16,
    )
    with opened(config) as (parts, run):
        order = Order(len(parts.prompts), config.num_prompts, config.run.seed, "prompts")
        found = gather(config, run, parts, order, 5, 1)
        assert (found.cursor, found.num_refills, found.num_left_out) == (8, 2, 12)
        assert len(found.seen.completions) == 16
        assert (
            "0 of 4 groups have scores that differ, after 2 refills"
            in (run.warnings()[0]["message"])
        )


# -- what a scorer may do wrong -------------------------------------------------------------------


def test_nan_from_a_reward_function_is_counted(tiny: Tiny, tmp_path: Path) -> None:
    changes = {"reward_funcs": [f"{REWARDS}:sometimes_nan"], "max_failed_frac": 0.6}
    run = run_stage(tiny.online_config(tmp_path / "run", preset="rloo", **changes))
    rows = run.metrics()[1:]
    assert sum(row["num_failed"] for row in rows) > 0
    assert all(row["objective/scores"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("nan", "nan"),
        ("raising", "RuntimeError: no luck"),
        ("short", "returned 7 values for 8 completions"),
    ],
)
def test_a_broken_reward_function_stops_the_run_and_says_why(
    tiny: Tiny, tmp_path: Path, function: str, reason: str
) -> None:
    config = tiny.online_config(tmp_path / "run", reward_funcs=[f"{REWARDS}:{function}"])
    with pytest.raises(FeedbackError) as caught:
        run_stage(config)
    assert "completions have no score, more than the allowed share" in str(caught.value)
    assert reason in str(caught.value)


def test_failures_are_bounded_in_groups_that_are_left_out_too(tiny: Tiny, tmp_path: Path) -> None:
    """Where all but one of each group fail, no group varies, and the run must not search on."""
    config = tiny.online_config(
        tmp_path / "run", preset="dapo", reward_funcs=[f"{REWARDS}:mostly_nan"]
    )
    with opened(config) as (parts, run):
        order = Order(len(parts.prompts), config.num_prompts, config.run.seed, "prompts")
        with pytest.raises(FeedbackError, match="15 of 16 completions have no score"):
            gather(config, run, parts, order, 0, 1)


# -- what teaches nothing, and weights ------------------------------------------------------------


def test_completions_that_do_not_end_may_teach_nothing(tiny: Tiny, tmp_path: Path) -> None:
    """DAPO's overlong filtering: where none ends, no step is taken, and the run goes on."""
    changes = {"mask_truncated_completions": True, "total_episodes": 32, **ONE_STEP}
    some = run_stage(tiny.online_config(tmp_path / "some", **changes))
    assert 0 < some.metrics()[1]["completions/clipped_ratio"] < 1
    assert some.metrics()[1]["policy/grad_norm"] > 0
    none = {"sampling": {"max_tokens": 2}}
    run = run_stage(tiny.online_config(tmp_path / "none", **changes, **none))
    rows = run.metrics()[1:]
    assert [row["completions/clipped_ratio"] for row in rows] == [1.0, 1.0]
    assert all("policy/grad_norm" not in row for row in rows)
    assert rows[-1]["objective/kl_k3"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("how", ["token_truncate", "sequence_mask"])
def test_importance_weights_are_one_where_sampler_and_learner_agree(
    tiny: Tiny, tmp_path: Path, how: str
) -> None:
    changes = {"importance_sampling": how, "total_episodes": 32, **ONE_STEP}
    run = run_stage(tiny.online_config(tmp_path / "run", preset="dr_grpo", **changes))
    for row in run.metrics()[1:]:
        for name in ("mean", "min", "max", "effective_frac"):
            assert row[f"importance/{name}"] == pytest.approx(1.0, abs=1e-4)
        assert row["importance/masked_frac"] == 0
        # The learner stands on both sides of the ratio, so that it is 1 to the last bits.
        assert row["val/ratio_first_max_deviation"] < 1e-6


def test_an_unknown_preset_or_scorer_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the nearest is 'grpo'"):
        heed.online(
            run={"folder": str(tmp_path / "run")},
            model={"path": "nothing"},
            data={"path": "nothing"},
            reward_funcs=["x"],
            preset="grop",
        )


def test_sampled_groups_know_their_prompt(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.online_config(tmp_path / "run")
    with opened(config) as (parts, run):
        seen = sampled(config, parts, run, num=3)
    assert seen.group.tolist() == [0] * 4 + [1] * 4 + [2] * 4
