"""Every stage with a loop, stopped twice and resumed, ends with the bits of one run through."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.labelled import prm_config, rankings, ratings, reward_config, steps
from tests.resume.same import fingerprint, resumed_from, stopped_at
from tests.tiny import Tiny, run_stage

from heed.learners.local import LocalLearner
from heed.learners.resume import Checkpoints

LORA = {"r": 2, "alpha": 4.0}
NOW = {"checkpoint_seconds": 0.0}

Make = Callable[..., Any]


def _with_lora(path: Path) -> dict[str, Any]:
    return {"path": str(path), "lora": LORA}


def _labelled(tiny: Tiny, made: Callable[[Path, Path], Path]) -> Make:
    """A reward model on labels of another kind, which are made once."""
    return partial(reward_config, tiny, data=_made(tiny, made))


def _made(tiny: Tiny, made: Callable[[Path, Path], Path]) -> Path:
    file = tiny.folder / f"{made.__name__}.jsonl"
    return file if file.exists() else made(tiny.world, file)


def few_steps(world: Path, path: Path) -> Path:
    return steps(world, path, num_prompts=24)


def tied_rankings(world: Path, path: Path) -> Path:
    return rankings(world, path, step=1.0)


def few_ratings(world: Path, path: Path) -> Path:
    return ratings(world, path, num_prompts=24)


CASES: dict[str, Callable[[Tiny], tuple[Make, dict[str, Any]]]] = {
    "sft": lambda tiny: (tiny.sft_config, {}),
    "sft with adapters": lambda tiny: (
        tiny.sft_config,
        {"model": _with_lora(tiny.fresh), "num_train_epochs": 1.5},
    ),
    "reward": lambda tiny: (tiny.reward_config, {"normalise_before": True}),
    "reward with adapters": lambda tiny: (
        tiny.reward_config,
        {"model": _with_lora(tiny.policy), "label_smoothing": 0.1},
    ),
    "preference": lambda tiny: (
        tiny.preference_config,
        {"loss_type": ("sigmoid", "aot_unpaired", "sft"), "harden_labels": True},
    ),
    "preference with a moving reference": lambda tiny: (
        tiny.preference_config,
        {"sync_ref_model": True, "ref_model_sync_steps": 2, "use_weighting": True},
    ),
    "preference with adapters": lambda tiny: (
        tiny.preference_config,
        {"model": _with_lora(tiny.policy), "loss_type": "tdpo2"},
    ),
    "kto": lambda tiny: (tiny.unpaired_config, {"batch_size": 40}),
    "bco": lambda tiny: (tiny.unpaired_config, {"batch_size": 40, "loss_type": "bco"}),
    "reward with Davidson's ties": lambda tiny: (
        partial(_labelled(tiny, tied_rankings), loss_type="k_wise"),
        {"ties": "davidson"},
    ),
    "reward from rankings": lambda tiny: (
        partial(_labelled(tiny, tied_rankings), loss_type="plackett_luce"),
        {"ties": "davidson", "center_rewards_coefficient": 0.01},
    ),
    "reward from numbers": lambda tiny: (
        partial(_labelled(tiny, few_ratings), loss_type="regression"),
        {"attributes": ["facts", "courtesy"], "attribute_weights": [2.0, 0.5]},
    ),
    "prm": lambda tiny: (
        partial(prm_config, tiny, data=_made(tiny, few_steps)),
        {"model": _with_lora(tiny.policy)},
    ),
    "ppo with a value model": lambda tiny: (tiny.ppo_config, {"whiten_rewards": True}),
    "ppo with a shared value head": lambda tiny: (tiny.ppo_config, {"value_init": "shared"}),
    "ppo with adaptive KL and ptx": lambda tiny: (
        tiny.ppo_config,
        {
            "kl_target": 0.5,
            "kl_horizon": 200.0,
            "ptx_data": {"path": str(tiny.world / "texts.jsonl"), "limit": 20},
            "ptx_batch_size": 3,
            "whiten_advantages": "minibatch",
            "num_generations": 2,
        },
    ),
    "ppo with adapters": lambda tiny: (tiny.ppo_config, {"model": _with_lora(tiny.policy)}),
    "ppo with truncated sampling": lambda tiny: (
        tiny.ppo_config,
        {"sampling": {"max_tokens": 6, "top_p": 0.8, "top_k": 50, "temperature": 0.7}},
    ),
    "online grpo": lambda tiny: (tiny.online_config, {"preset": "grpo"}),
    "online reinforce++ with truncated sampling": lambda tiny: (
        tiny.online_config,
        {
            "preset": "reinforce++",
            "sampling": {"max_tokens": 6, "top_p": 0.8, "temperature": 0.7},
            "importance_sampling": "token_mask",
        },
    ),
    "online dapo": lambda tiny: (
        tiny.online_config,
        {
            "preset": "dapo",
            "reward_funcs": ["tests.unit.algorithms.rewards:rare"],
            "kl_target": 0.5,
            "kl_gain": 0.1,
        },
    ),
    "online remax": lambda tiny: (tiny.online_config, {"preset": "remax"}),
    "online with a cost": lambda tiny: (
        tiny.online_config,
        {
            "preset": "rloo",
            "cost": {"funcs": ["tests.unit.algorithms.rewards:length"], "limit": 20.0},
        },
    ),
    "ppo with a cost": lambda tiny: (
        tiny.ppo_config,
        {"cost": {"funcs": ["tests.unit.algorithms.rewards:length"], "limit": 20.0}},
    ),
    "online_preference by a judge": lambda tiny: (
        tiny.online_preference_config,
        {"judge": "tests.unit.algorithms.judges:shorter", "labels": "sampled", "num_iterations": 2},
    ),
    "online_preference iterative": lambda tiny: (
        tiny.online_preference_config,
        {"preset": "iterative_dpo", "num_generations": 4, "num_iterations": 4},
    ),
    "online_preference xpo": lambda tiny: (
        tiny.online_preference_config,
        {"preset": "xpo", "labels": "soft", "num_iterations": 2},
    ),
    "online_preference spin": lambda tiny: (
        tiny.spin_config,
        {"num_mini_batches": 2, "num_iterations": 2, "ref_model_mixup_alpha": 0.7},
    ),
    "online_preference nash_md": lambda tiny: (
        tiny.online_preference_config,
        {"preset": "nash_md", "num_iterations": 2},
    ),
}


SLOW = (
    "preference with adapters", "kto", "ppo with a cost", "online_preference iterative",
    "online_preference xpo",
)  # fmt: skip
"""Of these the default suite has a case that shares their code."""


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.slow if case in SLOW else ()) for case in CASES],
)
def test_the_end_is_the_same(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    make, changes = CASES[case](tiny)
    # Two folders of one name: the run's name stands in the ids of its completions.
    whole, cut = tmp_path / "whole" / "run", tmp_path / "cut" / "run"
    run_stage(make(whole, **changes))
    with resumed_from(monkeypatch) as steps:
        # An online update of these has 4 steps, and 4 more where there is a value model.
        online = case.startswith(("ppo", "online"))
        with stopped_at(monkeypatch, LocalLearner, "step", 14 if online else 6):
            run_stage(make(cut, run=NOW, **changes))
        with stopped_at(monkeypatch, Checkpoints, "maybe_write", 2):
            run_stage(make(cut, run=NOW | {"resume": True}, **changes))
        run_stage(make(cut, run=NOW | {"resume": True}, **changes))
    assert steps[0] == 0 < steps[1] < steps[2]
    assert fingerprint(cut) == fingerprint(whole)


def test_another_seed_ends_elsewhere(tiny: Tiny, tmp_path: Path) -> None:
    """The comparison above can fail."""
    for make in (
        tiny.sft_config,
        tiny.reward_config,
        tiny.ppo_config,
        tiny.preference_config,
        tiny.unpaired_config,
    ):
        one, other = tmp_path / make.__name__ / "1", tmp_path / make.__name__ / "2"
        run_stage(make(one))
        run_stage(make(other, run={"seed": 2}))
        assert fingerprint(one)["model"] != fingerprint(other)["model"]
