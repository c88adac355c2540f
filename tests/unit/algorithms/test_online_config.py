"""The table of methods: what each row says, and what a person may change of it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from heed.algorithms.online_config import OnlineConfig
from heed.algorithms.presets import PRESETS

PUBLISHED = {"grpo": 0.04, "rloo": 0.03}


def make(**changes: Any) -> OnlineConfig:
    values: dict[str, Any] = {
        "run": {"folder": "nowhere"},
        "model": {"path": "nothing"},
        "data": {"path": "nothing"},
        "reward_funcs": ("nothing",),
        "beta": 0.1,
    }
    values |= changes
    return OnlineConfig.model_validate({k: v for k, v in values.items() if v != "leave out"})


def test_beta_has_a_default_only_where_a_source_publishes_one() -> None:
    """Zero against a learned reward is never silent."""
    for name in PRESETS:
        if name in PUBLISHED:
            assert make(preset=name, beta="leave out").method.beta == PUBLISHED[name]
        else:
            with pytest.raises(ValidationError, match="publishes no KL coefficient"):
                make(preset=name, beta="leave out")
        assert make(preset=name, beta=0.0).method.beta == 0.0


def test_estimator_and_place_are_those_of_the_source() -> None:
    """Each row says both itself; none leaves them to a default that could change."""
    for name, row in PRESETS.items():
        assert {"kl_place", "kl_estimator"} <= set(row.columns), name
        method = make(preset=name).method
        place = ("loss", "k3") if name == "grpo" else ("reward", "k1")
        assert (method.kl_place, method.kl_estimator) == place


@pytest.mark.parametrize(
    ("preset", "columns"),
    [
        ("reinforce", {"baseline": "none", "loss_type": "plain", "average": "sum"}),
        ("remax", {"baseline": "greedy", "loss_type": "plain", "credit": "token"}),
        ("rloo", {"baseline": "leave_one_out", "ratio": "sequence", "scale_rewards": "none"}),
        ("reinforce++", {"whiten_advantages": "batch", "credit": "token", "baseline": "none"}),
        ("reinforce++-baseline", {"baseline": "group", "whiten_advantages": "batch"}),
        ("grpo", {"scale_rewards": "group", "average": "sequence", "epsilon_high": 0.2}),
        ("dr_grpo", {"scale_rewards": "none", "average": "constant"}),
        ("dapo", {"epsilon": 0.2, "epsilon_high": 0.28, "average": "token"}),
        ("gspo", {"ratio": "sequence_mean", "epsilon": 3e-4, "epsilon_high": 4e-4}),
        ("cispo", {"loss_type": "weight", "average": "token"}),
        ("gpg", {"loss_type": "plain", "scale_rewards": "varied"}),
        ("maxrl", {"scale_rewards": "mean"}),
        ("dual_clip", {"delta": 3.0}),
    ],
)
def test_a_row_does_what_its_paper_does(preset: str, columns: dict[str, Any]) -> None:
    method = make(preset=preset).method
    assert {name: getattr(method, name) for name in columns} == columns


def test_dapo_samples_until_groups_vary_and_shapes_length() -> None:
    config = make(preset="dapo", sampling={"max_tokens": 20})
    assert config.max_refills == 3
    assert config.overlong == (4, 1.0)  # 4,096 of 20,480 in its paper
    assert make(preset="grpo").max_refills == 0
    assert make(preset="grpo").overlong is None


def test_any_column_may_be_set() -> None:
    config = make(preset="grpo", scale_rewards="none", average="constant", kl_place="reward")
    assert config.method.scale_rewards == "none"
    assert config.method.average == "constant"
    assert config.method.ratio == "token"
    assert make(epsilon=0.1).method.epsilon_high == 0.1  # symmetric unless set, as in TRL
    assert make(preset="dapo", epsilon=0.1).method.epsilon_high == 0.28
    assert make(epsilon=0.1, epsilon_high=0.4).method.epsilon_high == 0.4


def test_what_is_on_record_is_the_whole_row() -> None:
    """The stored settings name every column, and read back to the same method."""
    config = make(preset="dapo", beta=0.0)
    stored = config.model_dump(mode="json")
    assert stored["epsilon_high"] == 0.28
    assert stored["title"] == "DAPO"
    assert OnlineConfig.model_validate(stored) == config
    assert OnlineConfig.model_validate(stored).method == config.method


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "grop"}, r"no preset 'grop'; the nearest is 'grpo'"),
        ({"num_generations": 1}, r"num_generations is 1.*set it to 2 or more"),
        ({"preset": "rloo", "num_generations": 1}, r"set it to 2 or more"),
        ({"num_generations": 3}, r"batch_size 128 is not a multiple of num_generations 3"),
        ({"preset": "reinforce", "dynamic_sampling": True}, r"dynamic_sampling looks at how"),
        ({"loss_type": "dapo"}, r"surrogate and an average at once; here it is --loss_type clip"),
        ({"loss_type": "clap"}, r"'clip', 'weight', 'plain', 'sapo' or 'vespo'"),
        ({"baseline": "value"}, r"'none', 'batch', 'group'"),
        ({"beta": -0.1}, r"greater than or equal to 0"),
        ({"sampling": {"temperature": 0}}, r"no policy gradient"),
        ({"gamma": 0.9}, r"gamma is read with credit token only, and credit is sequence"),
        ({"preset": "gpg", "epsilon": 0.1}, r"epsilon is read with loss_type clip only"),
        ({"preset": "cispo", "ratio": "sequence"}, r"ratio is read with loss_type clip or sapo"),
        ({"preset": "rloo", "use_bias_correction_kl": True}, r"read with kl_place loss only"),
        ({"threshold": 0.7}, r"threshold is read with baseline above only"),
        ({"refill_cap": 9}, r"refill_cap is read with dynamic_sampling true only"),
        (
            {"preset": "vespo", "importance_sampling": "token_mask"},
            r"set importance_sampling to none",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make(**changes)


def test_a_bound_of_the_preset_may_lie_idle() -> None:
    """Only what a person sets and nothing reads is refused."""
    assert make(preset="gspo", loss_type="plain").method.epsilon == 3e-4


def test_groups_of_one_are_fine_without_a_comparison() -> None:
    assert make(preset="reinforce++").group_size == 1
    assert make(preset="grpo", baseline="none", scale_rewards="none", num_generations=1)


def test_cispo_is_bounded_at_one_plus_epsilon_high() -> None:
    """The paper's bound is 1 + epsilon_high; TRL clamps at epsilon_high itself."""
    assert make(preset="cispo").method.epsilon_high == 4.0  # a largest weight of 5
    assert make(preset="cispo", epsilon_high=0.28).method.epsilon_high == 0.28
