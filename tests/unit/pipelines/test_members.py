"""Several reward models: the best of them, the mean of their weights, and their scores as one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import LEARNER, Tiny, run_stage, tiny

from heed.cli.command import main
from heed.data.batch import Row, collate
from heed.errors import ConfigError
from heed.feedback.ensemble import DISAGREEMENT
from heed.models.average import average_reward_models
from heed.models.heads import RewardHead
from heed.models.load import load_extra, load_tokenizer
from heed.pipelines.members import SelectConfig, _spread, select
from heed.report.page import write_report
from heed.runs.run import Run

__all__ = ["tiny"]
BATCH = collate(
    [Row("a", [5, 6, 7, 8], [False, True, True, True]), Row("b", [9, 4], [False, True])]
)


@pytest.fixture(scope="module")
def members(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds from one start and one head, rm-1 to rm-3; rm-1 is trained far longer."""
    folder = tmp_path_factory.mktemp("members")
    for seed in (1, 2, 3):
        changes: dict[str, Any] = {"num_train_epochs": 2 if seed == 1 else 0.3}
        config = tiny.reward_config(
            folder / f"rm-{seed}", run={"seed": seed}, head_seed=7, **changes
        )
        run_stage(config)
    return folder


def scores(head: RewardHead) -> torch.Tensor:
    with torch.no_grad():
        found = head.outputs(BATCH)["scores"]
    assert found is not None
    return found


def test_the_best_is_kept_and_judged_on_pairs_that_did_not_choose_it(
    tiny: Tiny, members: Path, tmp_path: Path
) -> None:
    words = ["select", "--run.folder", str(tmp_path / "best"), "--models", f"{members}/rm-*"]
    words += ["--data.path", str(tiny.pairs), "--learner.device", "cpu"]
    assert main([*words, "--learner.precision", "fp32"]) == 0
    run = Run.open(tmp_path / "best")
    facts = run.manifest["facts"]
    by_model = facts["accuracy_by_model"]
    assert facts["best"] == max(by_model, key=by_model.get)
    kept, chosen = RewardHead.load(run.folder), RewardHead.load(members / facts["best"])
    assert torch.equal(scores(kept), scores(chosen))
    named = {f.name: f for f in run.findings()}
    accuracy = named["reward model accuracy"]
    total = sum(1 for _ in (tiny.pairs / "pairs.jsonl").open())
    assert 0 < facts["num_choosing"] < total
    assert "Held-out accuracy, member rm-2" in write_report(run.folder).read_text()
    own = named[f"held-out accuracy, member {facts['best']}"]
    assert accuracy.estimate == own.estimate
    values = [named[f"held-out accuracy, member rm-{i}"].estimate for i in (1, 2, 3)]
    spread = named["spread over seeds, highest less lowest"].estimate
    assert spread == pytest.approx(max(values) - min(values))
    assert named["agreement of two models"].n == 3


def test_spread_and_agreement_by_hand() -> None:
    right = {"a": [1, 1, 0, 0.5], "b": [1, 0, 0, 0.5], "c": [1, 1, 1, 0.5]}
    both = {name: (np.array(own, float), np.array(own, float)) for name, own in right.items()}
    named = {f.name: f for f in _spread("c", both, ["p", "q", "r", "r"])}
    assert named["reward model accuracy"].estimate == pytest.approx(3.5 / 4)
    assert named["spread over seeds, highest less lowest"].estimate == pytest.approx(0.5)
    assert named["spread over seeds, standard deviation"].estimate == pytest.approx(0.25)
    assert named["agreement of two models"].estimate == pytest.approx((0.75 + 0.75 + 0.5) / 3)


def test_the_mean_of_weights_from_the_command_line(
    tiny: Tiny, members: Path, tmp_path: Path
) -> None:
    words = ["average", "--run.folder", str(tmp_path / "mean"), "--models", f"{members}/rm-*"]
    words += ["--data.path", str(tiny.pairs), "--learner.device", "cpu"]
    assert main([*words, "--learner.precision", "fp32"]) == 0
    run = Run.open(tmp_path / "mean")
    assert len([f for f in run.findings() if f.name.startswith("held-out accuracy")]) == 4
    assert len(load_extra(run.folder / "model")["averaged"]) == 3
    heads = [RewardHead.load(members / f"rm-{i}") for i in (1, 2, 3)]
    expected = torch.stack([h.score.weight.double() * h.gain for h in heads]).mean(0)
    torch.testing.assert_close(
        RewardHead.load(run.folder).score.weight.double(), expected, atol=1e-7, rtol=1e-6
    )


def test_heads_on_one_trunk_average_to_the_mean_score(tiny: Tiny, tmp_path: Path) -> None:
    """Where only heads differ the score is linear in the weights, whatever gain and bias."""
    heads = []
    for seed in (1, 2):
        head = RewardHead.load(tiny.policy, seed=seed)
        head.set_scale(0.5 * seed, 0.3 - seed)
        head.save(tmp_path / str(seed), load_tokenizer(tiny.policy))
        heads.append(head)
    paths = [tmp_path / "1", tmp_path / "2"]
    mean = average_reward_models(paths, check_start=False)
    one, other = (scores(head) for head in heads)
    torch.testing.assert_close(scores(mean), (one + other) / 2, atol=1e-5, rtol=1e-5)
    weighted = average_reward_models(paths, [3.0, 1.0], check_start=False)
    torch.testing.assert_close(scores(weighted), 0.75 * one + 0.25 * other, atol=1e-5, rtol=1e-5)


def test_attributes_average_too(tiny: Tiny, tmp_path: Path) -> None:
    """Each in the unit of its labels, whatever scale its model was trained on."""
    expected = []
    for seed in (1, 2):
        head = RewardHead.load(tiny.policy, seed=seed, attributes=("facts", "courtesy"))
        head.set_attributes(centre=[seed, -2.0], spread=[1.0, 3.0 * seed], weights=[2.0, 1.0])
        head.set_scale(1.0, 0.25)
        head.save(tmp_path / str(seed), load_tokenizer(tiny.policy))
        expected.append(head.outputs(BATCH))
    mean = average_reward_models([tmp_path / "1", tmp_path / "2"], check_start=False)
    for name in ("attributes", "scores"):
        both = torch.stack([found[name] for found in expected]).mean(0)  # type: ignore[misc]
        torch.testing.assert_close(mean.outputs(BATCH)[name], both, atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="different attributes"):
        average_reward_models([tmp_path / "1", tiny.reward], check_start=False)


def test_models_of_one_and_the_same_average_to_themselves(members: Path) -> None:
    one = RewardHead.load(members / "rm-2")
    mean = average_reward_models([members / "rm-2"] * 3)
    torch.testing.assert_close(scores(mean), scores(one), atol=1e-5, rtol=1e-5)


def test_what_has_no_mean_is_refused(tiny: Tiny, members: Path, tmp_path: Path) -> None:
    one = members / "rm-1"
    with pytest.raises(ConfigError, match="two or more"):
        average_reward_models([one])
    with pytest.raises(ConfigError, match="one above 0"):
        average_reward_models([one, one], [1.0, 0.0])
    with pytest.raises(ConfigError, match="different weights"):
        average_reward_models([tiny.reward, tiny.other_reward])
    with pytest.raises(ConfigError, match="different architectures"):
        average_reward_models([tiny.reward, tiny.other_reward], check_start=False)
    few = {"head_seed": 8, "num_train_epochs": 0.2}
    other = run_stage(tiny.reward_config(tmp_path / "seed", **few)).folder
    with pytest.raises(ConfigError, match=r"different score heads.*one head_seed"):
        average_reward_models([one, other])
    shutil.copytree(one / "model", tmp_path / "bare")
    with pytest.raises(ConfigError, match="nothing says what"):
        average_reward_models([one, tmp_path / "bare"])


def test_too_few_models_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    values = {
        "run": {"folder": str(tmp_path / "run")},
        "models": [f"{tmp_path}/none-*"],
        "data": {"path": str(tiny.pairs)},
        "learner": LEARNER,
    }
    with pytest.raises(ConfigError, match="takes two or more"):
        select(SelectConfig.model_validate(values))


def test_ppo_is_optimised_against_an_ensemble_and_logs_the_disagreement(
    tiny: Tiny, members: Path, tmp_path: Path
) -> None:
    word = f"mean-0.5std({members}/rm-*)"
    run = run_stage(
        tiny.ppo_config(
            tmp_path / "ppo",
            reward_funcs=[word],
            total_episodes=32,
            gold=None,
            missing_eos_score=None,
        )
    )
    rows = run.metrics()
    for row in rows[1:]:
        parts = [row[f"rewards/rm-{i}/mean"] for i in (1, 2, 3)]
        spread = row[f"rewards/{DISAGREEMENT}/mean"]
        assert spread > 0
        expected = sum(parts) / 3 - 0.5 * spread
        assert row["objective/scores"] == pytest.approx(expected, abs=1e-4)
    described = run.manifest["inputs"]["reward 0"]
    assert [Path(path).name for path in described["path"]] == ["rm-1", "rm-2", "rm-3"]
    assert described["hash"]
    assert json.dumps(rows)
