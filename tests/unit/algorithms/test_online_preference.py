"""Learning online from comparisons on a small world: every preset, every comparer, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests.tiny import Tiny

from heed.algorithms.comparison_presets import COMPARISONS
from heed.algorithms.online_pairs import label
from heed.algorithms.online_preference import run
from heed.errors import FeedbackError
from heed.losses.preference import exploration_bonus

JUDGES = "tests.unit.algorithms.judges:"


def ran(config: Any) -> list[dict[str, Any]]:
    return run(config).metrics()


def make(tiny: Tiny, preset: str, folder: Path, **changes: Any) -> Any:
    if preset == "spin":
        return tiny.spin_config(folder, **changes)
    return tiny.online_preference_config(folder, preset=preset, **changes)


@pytest.mark.parametrize("preset", COMPARISONS)
def test_every_preset_runs_and_moves_the_policy(tiny: Tiny, tmp_path: Path, preset: str) -> None:
    done = run(make(tiny, preset, tmp_path / "run", total_episodes=48))
    rows = done.metrics()
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert rows[1]["objective/kl"] == pytest.approx(0.0, abs=1e-3)  # the policy is the reference
    assert (tmp_path / "run" / "model" / "config.json").is_file()
    if preset == "nash_md":
        assert 0.0 <= rows[1]["objective/scores"] <= 1.0
        assert rows[3]["val/ratio_first_max_deviation"] < 1e-3
    else:
        assert sum(row["pairs/num"] for row in rows[1:]) > 0
        first = next(row for row in rows[1:] if row["pairs/num"])
        if first["step"] == 1:
            assert first["rewards/margins"] != 0.0  # the second minibatch sees the first one's step
    assert not [w for w in done.warnings() if w["name"] == "val/ratio_first_max_deviation"]


def test_online_dpo_learns_what_the_judge_prefers(tiny: Tiny, tmp_path: Path) -> None:
    how = {"total_episodes": 32 * 12, "batch_size": 32, "eval_every": 12, "optim": {"lr": 3e-3}}
    how |= {"sampling": {"max_tokens": 12}, "num_eval_prompts": 24}
    rows = ran(make(tiny, "online_dpo", tmp_path / "run", judge=JUDGES + "shorter", **how))
    wins = [row["objective/scores"] for row in rows[1:]]
    assert all(win == pytest.approx(0.5) for win in wins)  # against itself
    assert rows[-1]["eval/proxy"] > rows[0]["eval/proxy"]  # against the policy that it began as
    assert rows[-1]["eval/proxy"] > 0.7


def test_a_judge_of_trl_says_the_same_as_one_of_heeds(tiny: Tiny, tmp_path: Path) -> None:
    """Both prefer the shorter one; where TRL's cannot say, heed's calls a tie."""
    how = {"total_episodes": 32, "max_failed_frac": 1.0}
    ours = ran(make(tiny, "online_dpo", tmp_path / "a", judge=JUDGES + "shorter", **how))
    trls = f"trl:{JUDGES}ShorterJudge"
    theirs = ran(make(tiny, "online_dpo", tmp_path / "b", judge=trls, **how))
    for a, b in zip(ours, theirs, strict=True):
        assert a.get("pairs/num") == b.get("pairs/num")
        assert a.get("loss") == b.get("loss")


def test_a_judge_who_prefers_a_place_prefers_no_policy(tiny: Tiny, tmp_path: Path) -> None:
    rows = ran(make(tiny, "xpo", tmp_path / "run", judge=JUDGES + "first", total_episodes=128))
    shares = [row["pairs/rival_chosen_frac"] for row in rows[1:]]
    assert 0.25 < sum(shares) / len(shares) < 0.75


@pytest.mark.parametrize(
    ("judge", "reason"),
    [
        ("silent", "could not say"),
        ("raises", "the judge is out"),
        ("too_few", "returned 7 values for 8 pairs"),
        ("beyond", "expected a probability"),
    ],
)
def test_a_broken_judge_stops_the_run_and_says_why(
    tiny: Tiny, tmp_path: Path, judge: str, reason: str
) -> None:
    config = make(tiny, "online_dpo", tmp_path / "run", judge=JUDGES + judge)
    with pytest.raises(FeedbackError, match=reason):
        run(config)


def test_any_row_of_the_table_is_a_loss(tiny: Tiny, tmp_path: Path) -> None:
    """A loss that sorts the batch, one of whole distributions, and a sum."""
    for i, how in enumerate(
        (
            {"loss_type": "aot"},
            {"loss_type": "tdpo2"},
            {"loss_type": ("sigmoid", "sft"), "loss_weights": (1.0, 0.2)},
            {"loss_type": "simpo", "labels": "soft"},
        )
    ):
        rows = ran(make(tiny, "online_dpo", tmp_path / str(i), total_episodes=16, **how))
        assert rows[1]["pairs/num"] > 0
        assert rows[1]["policy/grad_norm"] > 0


def test_spins_reference_follows_the_policy(tiny: Tiny, tmp_path: Path) -> None:
    """At the beginning of every round the policy is its reference: the loss is that of 0."""
    still = {"total_episodes": 64, "optim": {"lr": 3e-3}}
    follows = ran(make(tiny, "spin", tmp_path / "a", **still))
    stays = ran(make(tiny, "spin", tmp_path / "b", sync_ref_model=False, **still))
    for row in follows[1:]:
        assert row["loss"] == pytest.approx(0.6931, abs=2e-3)
        assert row["pairs/rival_chosen_frac"] == 1.0
    assert abs(stays[-1]["loss"] - 0.6931) > 0.1


@pytest.mark.parametrize(
    ("preset", "coef"), [("nash_md", 0.5), pytest.param("xpo", 1.0, marks=pytest.mark.slow)]
)
def test_adapters_serve_as_their_own_reference(
    tiny: Tiny, tmp_path: Path, preset: str, coef: float
) -> None:
    lora = {"path": str(tiny.policy), "lora": {"r": 2, "alpha": 4.0}}
    rows = ran(make(tiny, preset, tmp_path / "run", model=lora, total_episodes=32))
    assert rows[1]["objective/kl"] == pytest.approx(0.0, abs=1e-3)
    assert rows[2]["policy/grad_norm"] > 0


def test_labels_are_hard_soft_or_drawn() -> None:
    assert label(0.5, "hard", 0) is None
    assert [label(p, "hard", 0) for p in (0.51, 0.2)] == [1.0, 0.0]
    assert label(0.3, "soft", 0) == 0.3
    drawn = [label(0.3, "sampled", 0, str(i)) for i in range(2000)]
    assert sum(drawn) / 2000 == pytest.approx(0.3, abs=0.04)  # type: ignore[arg-type]
    assert drawn == [label(0.3, "sampled", 0, str(i)) for i in range(2000)]


def test_xpos_bonus_is_a_weight_on_the_rivals_likelihood() -> None:
    logps = torch.tensor([-3.0, -5.0], dtype=torch.float64, requires_grad=True)
    values = exploration_bonus(logps, 0.2)
    values.sum().backward()
    assert values.tolist() == pytest.approx([-0.6, -1.0])
    assert logps.grad.tolist() == [0.2, 0.2]  # type: ignore[union-attr]


BAD = {
    "no preset of the name": ({"preset": "online_dop"}, "nearest is 'online_dpo'"),
    "nobody compares": ({"reward_funcs": ()}, "neither of reward_funcs and judge"),
    "two compare": ({"judge": "a:b", "reward_funcs": ("x",)}, "both of reward_funcs and judge"),
    "a group of one": ({"num_generations": 1}, "another even number"),
    "a group of three": ({"num_generations": 3, "batch_size": 15}, "another even number"),
    "no loss of the name": ({"loss_type": "sigmiod"}, "did you mean 'sigmoid'"),
    "soft labels of a hard loss": ({"loss_type": "aot", "labels": "soft"}, "aot has no form"),
    "a bonus without a rival": ({"xpo_alpha": 0.1}, "no other sampler"),
    "a target for no penalty": ({"kl_target": 1.0, "kl_gain": 0.1}, "a loss of pairs has none"),
    "best against worst of rivals": ({"preset": "xpo", "pairing": "best_worst"}, "halves"),
    "a cost": ({"cost": {"funcs": ["x"], "limit": 0.0}}, "use ppo or online"),
    "a penalty on a judge": (
        {"judge": "a:b", "missing_eos_penalty": 1.0}, "changes a score"),
    "soft labels of a tournament": (
        {"judge": "a:b", "pairing": "best_worst", "num_generations": 4, "labels": "soft"},
        "no probability of that pair"),
    "a judge of demonstrations": ({"preset": "spin", "judge": "a:b"}, "leave judge out"),
    "a reference that cannot follow": (
        {"preset": "spin", "reward_funcs": (), "model": {"path": "m", "lora": {}}},
        "needs a reference of its own"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_say_what_to_do(tiny: Tiny, tmp_path: Path, case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(ValidationError, match=message):
        tiny.online_preference_config(tmp_path / "run", **changes)


def test_settings_that_do_nothing_are_named(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.online_preference_config(
        tmp_path / "run", mixture_coef=0.2, label_temperature=2.0, ref_model_sync_updates=3
    )
    text = " ".join(config.ignored())
    for name in ("mixture_coef", "label_temperature", "ref_model_sync_updates"):
        assert name in text
    nash = tiny.online_preference_config(tmp_path / "run", preset="nash_md", loss_type="ipo")
    assert "loss_type" in " ".join(nash.ignored())
