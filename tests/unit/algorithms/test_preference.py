"""Learning from pairs without sampling: every loss by command, and what the loop does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import NEEDED, Tiny, run_stage

from heed.algorithms import preference, references
from heed.algorithms.preference_loss import preference_loss
from heed.algorithms.preference_rows import ROWS
from heed.algorithms.reward import pair_batch
from heed.cli.command import main
from heed.data.render import Renderer
from heed.errors import ConfigError, DataError, LearnerError
from heed.learners.local import LocalLearner
from heed.models.load import load_causal, load_tokenizer
from heed.runs.run import Run


def rows(run: Run) -> list[dict[str, Any]]:
    return run.metrics()


def _pairs(path: Path, *p: float) -> str:
    lines = [
        {"prompt": f"Who is {i}?", "chosen": f" The miller {i}.", "rejected": " Nobody.", "p": each}
        for i, each in enumerate(p)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


QUICK = ("sigmoid", "ipo", "aot", "tdpo2", "simpo", "orpo", "cdpo")
"""Losses of each kind; the others run by `-m slow`."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in ROWS
        if name != "dpo"
    ],
)
def test_every_loss_from_the_command_line(tiny: Tiny, tmp_path: Path, name: str) -> None:
    """Two steps on the world's pairs: another model, the figures of the origin, and no surprise."""
    words = ["preference", "--model.path", str(tiny.policy), "--data.path", str(tiny.pairs)]
    words += ["--loss_type", name, "--data.limit", "40", "--batch_size", "16", "--eval_every", "9"]
    words += ["--num_train_epochs", "0.8", "--optim.lr", "1e-3", "--harden_labels"]
    words += ["--learner.precision", "fp32", "--learner.device", "cpu"]
    for setting, value in NEEDED.get(name, {}).items():
        words += [f"--{setting}", str(value)]
    assert main([*words, "--run.folder", str(tmp_path / "run")]) == 0
    run = Run.open(tmp_path / "run")
    first, last = rows(run)[0], rows(run)[-1]
    assert last["step"] == 2
    assert math.isfinite(last["eval/loss"])
    assert 0 <= last["eval/rewards/accuracies"] <= 1
    assert not [w for w in run.warnings() if w["name"] != "logps/chosen_change"]
    if ROWS[name].has_reference:
        assert first["rewards/chosen"] == pytest.approx(0.0, abs=1e-4)
        assert first["logps/chosen_change"] == pytest.approx(0.0, abs=1e-3)
        assert last["rewards/margins"] != 0
    before, after = load_causal(tiny.policy), load_causal(tmp_path / "run")
    moved = [
        not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)
    ]
    assert any(moved)


def test_dpo_learns_the_pairs(tiny: Tiny, tmp_path: Path) -> None:
    data = {"path": _pairs(tmp_path / "pairs.jsonl", *[1.0] * 24)}
    config = tiny.preference_config(
        tmp_path / "run", data=data, num_train_epochs=8, eval_frac=0.25, eval_every=99
    )
    run = run_stage(config)
    found, (judged,) = rows(run), run.findings()
    assert found[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert (judged.name, judged.estimate) == ("held-out pairs in the right order", 1.0)
    assert judged.low is not None
    assert judged.low < 1.0
    assert judged.n == 6
    assert found[-1]["rewards/accuracies"] == found[-1]["eval/rewards/accuracies"] == 1.0
    assert found[-1]["rewards/margins"] > found[2]["rewards/margins"] > 0
    last = found[-1]
    assert last["rewards/margins"] == pytest.approx(
        last["rewards/chosen"] - last["rewards/rejected"], abs=1e-5
    )
    assert last["rewards/chosen"] == pytest.approx(0.1 * last["logps/chosen_change"], abs=1e-5)


def test_losses_add_up_by_their_weights(tiny: Tiny, tmp_path: Path) -> None:
    """The mixture of MPO at the origin, where two of its losses are known."""
    mixture = {"loss_type": ("sigmoid", "bco_pair", "sft"), "loss_weights": (0.8, 0.2, 1.0)}
    parts = {
        name: rows(run_stage(tiny.preference_config(tmp_path / name, **how)))[0]["loss"]
        for name, how in (("mpo", mixture), ("sft", {"loss_type": "sft"}))
    }
    assert parts["mpo"] == pytest.approx(1.2 * math.log(2) + parts["sft"], abs=1e-4)


# -- the reference --------------------------------------------------------------------------------


def test_the_reference_is_asked_once(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the second epoch, not on resuming, and again only where its file is damaged."""
    asked: list[int] = []
    original = references._ask

    def ask(run: Run, evaluator: Any, found: Any) -> Any:
        asked.append(len(found))
        return original(run, evaluator, found)

    monkeypatch.setattr(references, "_ask", ask)
    folder = tmp_path / "run"
    run_stage(tiny.preference_config(folder, num_train_epochs=2))
    assert len(asked) == 1
    (file,) = (folder / "reference").iterdir()
    again = {"resume": True, "checkpoint_seconds": 0.0}
    run_stage(tiny.preference_config(folder, run=again, num_train_epochs=2.3))
    assert len(asked) == 1
    file.write_bytes(b"not safetensors")
    longer = tiny.preference_config(folder, run=again, num_train_epochs=2.6)
    run = run_stage(longer)
    assert len(asked) == 2
    assert "reference" in [warning["name"] for warning in run.warnings()]


def test_another_model_or_cut_is_another_reference(tiny: Tiny, tmp_path: Path) -> None:
    names = set()
    for i, changes in enumerate(
        ({}, {"model": {"path": str(tiny.fresh)}}, {"learner": {"precision": "bf16"}})
    ):
        data = {"path": str(tiny.pairs), "limit": 40}
        run_stage(tiny.preference_config(tmp_path / str(i), data=data, **changes))
        names |= {path.name for path in (tmp_path / str(i) / "reference").iterdir()}
    assert len(names) == 3


def test_a_named_reference_is_compared_with(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.preference_config(tmp_path / "run", reference={"path": str(tiny.fresh)})
    run = run_stage(config)
    assert abs(rows(run)[0]["rewards/chosen"]) > 0.1
    assert "origin" not in [w["name"] for w in run.warnings()]  # nobody said that they are equal


def test_adapters_are_switched_off_for_the_reference(tiny: Tiny, tmp_path: Path) -> None:
    lora = {"path": str(tiny.policy), "lora": {"r": 4, "alpha": 8.0}}
    for name in ("sigmoid", "tdpo2"):
        data = {"path": str(tiny.pairs), "limit": 60}
        config = tiny.preference_config(
            tmp_path / name, model=lora, loss_type=name, data=data, optim={"lr": 1e-2}
        )
        found = rows(run_stage(config))
        assert found[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
        assert abs(found[-1]["rewards/chosen"]) > 1e-3


def test_a_moving_reference_follows_the_policy(tiny: Tiny, tmp_path: Path) -> None:
    """After a hard update the policy is its own reference again."""
    config = tiny.preference_config(
        tmp_path / "run",
        sync_ref_model=True,
        ref_model_mixup_alpha=1.0,
        ref_model_sync_steps=2,
        eval_frac=0.0,
    )
    found = [row["logps/chosen_change"] for row in rows(run_stage(config))]
    assert [abs(x) < 1e-3 for x in found[:5]] == [True, False, True, False, True]
    assert not (tmp_path / "run" / "reference").exists()


def test_half_precision_starts_at_the_origin_too(tiny: Tiny, tmp_path: Path) -> None:
    learner = {"precision": "bf16", "device": "cpu"}
    run = run_stage(tiny.preference_config(tmp_path / "run", learner=learner))
    assert rows(run)[0]["loss"] == pytest.approx(math.log(2), abs=5e-2)
    assert "origin" not in [w["name"] for w in run.warnings()]


# -- alarms ---------------------------------------------------------------------------------------


def test_a_reference_that_is_not_the_policy_is_noticed(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted fault: the reference's log-probabilities are those of a shifted row."""
    original = references.Fixed.fill

    def shifted(self: Any, batch: Any, found: Any) -> Any:
        filled = original(self, batch, found)
        return filled.with_streams(reference_logprobs=filled.stream("reference_logprobs").roll(1))

    monkeypatch.setattr(references.Fixed, "fill", shifted)
    run = run_stage(tiny.preference_config(tmp_path / "run"))
    (warning,) = [w for w in run.warnings() if w["name"] == "origin"]
    assert "0.693147" in warning["message"]


def test_displacement_is_told_once_and_not_without_it(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.preference_config
    down = run_stage(config(tmp_path / "down", loss_type="apo_down", optim={"lr": 3e-3}))
    up = run_stage(config(tmp_path / "up", loss_type="sft", optim={"lr": 5e-4}))
    told = [w for w in down.warnings() if w["name"] == "logps/chosen_change"]
    assert len(told) == 1
    assert "sft" in told[0]["message"]
    assert rows(down)[-1]["eval/logps/chosen_change"] < 0
    assert not [w for w in up.warnings() if w["name"] == "logps/chosen_change"]
    assert rows(up)[-1]["eval/logps/chosen_change"] > 0


# -- data and settings ----------------------------------------------------------------------------


def test_soft_labels_are_read_refused_or_hardened(tiny: Tiny, tmp_path: Path) -> None:
    data = {"path": _pairs(tmp_path / "soft.jsonl", 1.0, 0.8, 0.5, 0.3, 0.9, 1.0)}
    changes = {"data": data, "eval_frac": 0.0, "batch_size": 6}
    with pytest.raises(DataError, match=r"4 of 6 pairs .* \(1 of them ties\), and aot has no form"):
        run_stage(tiny.preference_config(tmp_path / "refused", loss_type="aot", **changes))
    hard = run_stage(
        tiny.preference_config(tmp_path / "hard", loss_type="aot", harden_labels=True, **changes)
    )
    (report,) = hard.data_report()
    assert (report["kept"], report["set_aside"]) == (5, 1)
    soft = tiny.preference_config(tmp_path / "soft", **changes)
    with Run.start(soft.run, "preference", {}) as run:
        train, _ = preference.load_rows(soft, Renderer(load_tokenizer(soft.model)), run)
    assert sorted(pair.p for pair, _, _ in train) == [0.5, 0.7, 0.8, 0.9, 1.0, 1.0]


def test_held_out_pairs_share_no_prompt(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.preference_config(tmp_path / "run", eval_frac=0.3)
    with Run.start(config.run, "preference", {}) as run:
        train, held_out = preference.load_rows(config, Renderer(load_tokenizer(config.model)), run)
    ids = [{pair.prompt.id for pair, _, _ in side} for side in (train, held_out)]
    assert ids[0]
    assert ids[1]
    assert not ids[0] & ids[1]


def test_a_pairs_weight_scales_its_loss(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "weighted.jsonl"
    lines = [
        {"prompt": f"Who is {i}?", "chosen": f" {i}.", "rejected": " No.", "weight": weight}
        for i, weight in enumerate((2.0, 0.0, 1.0, None))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = {"path": str(path)}
    config = tiny.preference_config(tmp_path / "run", data=data, eval_frac=0.0, batch_size=4)
    assert rows(run_stage(config))[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_what_nobody_reads_is_told(tiny: Tiny, tmp_path: Path) -> None:
    run = run_stage(
        tiny.preference_config(
            tmp_path / "run", label_smoothing=0.1, clamp_weighting=False, num_train_epochs=0.1
        )
    )
    told = {
        w["message"].split()[0]: w["message"] for w in run.warnings() if w["name"] == "settings"
    }
    assert "none of sigmoid reads it" in told["label_smoothing"]
    assert "clamp_weighting" in told


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss_type": "sigmod"}, "did you mean 'sigmoid'"),
        ({"loss_type": ["dpo", "simp"]}, "did you mean 'simpo'"),
        ({"loss_type": []}, "loss_type is empty"),
        ({"loss_type": ["dpo", "sft"], "loss_weights": [1.0]}, "1 loss_weights for 2 losses"),
        ({"loss_type": "exo_pair"}, "label_smoothing above 0"),
        ({"loss_type": "rdpo"}, "rdpo needs rdpo_alpha"),
        ({"loss_type": "aot", "f_divergence_type": "forward_kl"}, "aot has no form"),
        ({"loss_type": "simpo", "sync_ref_model": True}, "this loss has none"),
        ({"loss_type": "tdpo1", "reference_free": True}, "reference_free has no meaning"),
        ({"sync_ref_model": True, "model": {"path": "x", "lora": {}}}, "train without lora"),
    ],
)
def test_impossible_settings(tiny: Tiny, tmp_path: Path, changes: dict, words: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=words):
        tiny.preference_config(tmp_path / "run", **changes)


def test_an_unknown_loss_on_the_command_line(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["preference", "--model.path", "x", "--data.path", "y", "--loss_type", "sigmoyd"]
    assert main([*words, "--run.folder", str(tmp_path / "run")]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "did you mean 'sigmoid'?" in shown
    assert "Traceback" not in shown


def test_an_absent_stream_is_named_with_what_fills_it(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.preference_config(tmp_path / "run", harden_labels=True)
    with Run.start(config.run, "preference", {}) as run:
        train, _ = preference.load_rows(config, Renderer(load_tokenizer(config.model)), run)
    batch = pair_batch(train[:3])
    learner = LocalLearner(_head(tiny), config.optim, 1, config.learner)
    for name, stream, stage in (
        ("sigmoid", "reference_logprobs", "the reference's forward pass"),
        ("sft", "mean_tokens", "a pass over the whole batch"),
        ("tdpo1", "whole distributions", "log_distribution"),
    ):
        loss = preference_loss(config.model_copy(update={"loss_type": name}))
        with pytest.raises(LearnerError, match=f"{stream}.*{stage}"):
            learner.backward(batch, loss, 3)


def _head(tiny: Tiny) -> torch.nn.Module:
    from heed.models.heads import PolicyHead

    return PolicyHead(load_causal(tiny.policy))
