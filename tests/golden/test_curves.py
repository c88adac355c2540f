"""Twenty seeded steps of every training stage, to 1e-4: a change of what is learned is a decision.

The curves hold for other builds of torch and other processors, whose last bits differ. After a
change on purpose write them anew, read the difference, and commit it with the change:

    HEED_WRITE_GOLDEN=1 python -m pytest tests/golden/test_curves.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heed.algorithms import critic_free, ppo, preference, reward, sft, unpaired
from heed.algorithms.online_config import OnlineConfig
from heed.algorithms.ppo_config import PPOConfig
from heed.algorithms.preference_config import PreferenceConfig
from heed.algorithms.reward import RewardConfig
from heed.algorithms.sft import SFTConfig
from heed.algorithms.unpaired_config import UnpairedConfig
from heed.models.load import make_model, save_model, train_tokenizer
from heed.runs.run import Run

FOLDER = Path(__file__).with_name("curves")
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal", "Ida", "Joe")
PLACES = ("by the river", "near the mill", "on the hill", "at the old gate")
LEARNER = {"precision": "fp32", "device": "cpu"}
# An eps that is not small beside the gradients keeps the last bits from growing.
OPTIM = {"lr": 2e-3, "eps": 1e-4, "warmup_frac": 0.1}

OFFLINE = (
    "loss",
    "rewards/chosen",
    "rewards/margins",
    "logps/chosen",
    "grad_norm",
    "eval/loss",
    "eval/logps/chosen_change",
)
LOGGED = {
    "dpo": OFFLINE,
    "mixture": OFFLINE,
    "aot": OFFLINE,
    "simpo": OFFLINE,
    "tdpo": OFFLINE,
    "kto": OFFLINE,
    "bco": (*OFFLINE, "delta"),
    "sft": ("loss", "grad_norm", "learning_rate", "num_tokens", "epoch", "eval/loss"),
    "reward": ("loss", "accuracy", "margin", "mean_reward", "grad_norm", "eval/loss"),
    "ppo": (
        "objective/kl",
        "objective/kl_k3",
        "objective/kl_exact",
        "objective/scores",
        "objective/rlhf_reward",
        "objective/entropy",
        "loss/policy_avg",
        "loss/value_avg",
        "loss/ptx_avg",
        "policy/grad_norm",
        "policy/approxkl_avg",
        "val/ratio",
        "kl_coef",
        "completions/mean_length",
        # Not eval/kl: between processors one watched token differs, at the edge of top-p.
        "eval/proxy",
    ),
}
_ONLINE = (
    "objective/kl",
    "objective/kl_k3",
    "objective/scores",
    "objective/rlhf_reward",
    "loss/policy_avg",
    "policy/grad_norm",
    "policy/approxkl_avg",
    "val/ratio",
    "completions/mean_length",
)
LOGGED |= {
    "grpo": (*_ONLINE, "loss/kl_avg"),
    "rloo": _ONLINE,
    "dapo": (*_ONLINE, "epoch", "sampling/groups_left_out"),
}


def _rows(path: Path, make: Callable[[str, str], dict[str, Any]]) -> dict[str, Any]:
    rows = [json.dumps(make(name, place)) for name in NAMES for place in PLACES]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return {"path": str(path), "max_length": 64}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of 40,000 weights on fixed texts; nothing of it comes from elsewhere."""
    folder = tmp_path_factory.mktemp("curves") / "base"
    texts = [f"Where does {n} live? {n} lives {p}." for n in NAMES for p in PLACES]
    tokenizer = train_tokenizer(texts, 320)
    model = make_model(
        "llama",
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        max_positions=96,
        tokenizer=tokenizer,
        seed=5,
    )
    save_model(folder, model, tokenizer)
    return folder


def _sft(base: Path, folder: Path) -> Run:
    def row(name: str, place: str) -> dict[str, str]:
        return {"prompt": f"Where does {name} live?", "completion": f" {name} lives {place}."}

    values = {
        "run": {"folder": str(folder / "sft"), "seed": 7},
        "model": {"path": str(base)},
        "data": _rows(folder / "demonstrations.jsonl", row),
        "eval_frac": 0.1,
        "eval_every": 5,
        "batch_size": 6,
        "num_train_epochs": 20 * 6 / 36,
        "optim": OPTIM,
        "learner": LEARNER,
    }
    return sft.run(SFTConfig.model_validate(values))


def _reward(base: Path, folder: Path) -> Run:
    def row(name: str, place: str) -> dict[str, Any]:
        other = PLACES[(PLACES.index(place) + 1 + len(name) % 3) % 4]
        right, wrong = f" {name} lives {place}.", f" {name} lives {other}."
        labels = {"p": 0.9 if name < "F" else 0.6, "margin": 0.1 * len(place)}
        return {"prompt": f"Where is {name}?", "chosen": right, "rejected": wrong, **labels}

    values = {
        "run": {"folder": str(folder / "reward"), "seed": 7},
        "model": {"path": str(base)},
        "data": _rows(folder / "pairs.jsonl", row),
        "eval_every": 5,
        "batch_size": 6,
        "num_train_epochs": 20 * 6 / 36,
        "label_smoothing": 0.05,
        "center_rewards_coefficient": 0.01,
        "optim": OPTIM,
        "learner": LEARNER,
    }
    return reward.run(RewardConfig.model_validate(values))


def _ppo(base: Path, folder: Path) -> Run:
    script = folder / "rule.py"
    script.write_text(
        "def vowels(completions, **columns):\n"
        "    return [sum(map(text.count, 'aeiou')) - 0.1 * len(text) for text in completions]\n"
    )
    texts = _rows(folder / "texts.jsonl", lambda name, place: {"text": f"{name} lives {place}."})
    values = {
        "run": {"folder": str(folder / "ppo"), "seed": 7},
        "model": {"path": str(base)},
        "data": _rows(folder / "prompts.jsonl", lambda n, p: {"prompt": f"Is {n} {p}?"}),
        "num_eval_prompts": 8,
        "eval_every": 5,
        "reward_funcs": [f"{script}:vowels"],
        "kl_coef": 0.1,
        "kl_target": 0.5,
        "kl_gain": 0.1,
        "total_episodes": 20 * 12,
        "batch_size": 12,
        "num_generations": 2,
        "num_ppo_epochs": 2,
        "num_mini_batches": 2,
        "whiten_rewards": True,
        "missing_eos_score": -1.0,
        "exact_kl_rows": 12,
        "ptx_data": texts,
        "ptx_coef": 0.5,
        "ptx_batch_size": 4,
        "sampling": {"max_tokens": 8, "temperature": 0.9, "top_p": 0.95},
        "optim": OPTIM,
        "learner": LEARNER,
    }
    return ppo.run(PPOConfig.model_validate(values))


def _online(preset: str, **changes: Any) -> Callable[[Path, Path], Run]:
    def run(base: Path, folder: Path) -> Run:
        script = folder / "rule.py"
        script.write_text(
            "def vowels(completions, **columns):\n"
            "    return [float(sum(map(text.count, 'aeiou')) // 2) for text in completions]\n"
        )
        values = {
            "run": {"folder": str(folder / preset), "seed": 7},
            "model": {"path": str(base)},
            "data": _rows(folder / "prompts.jsonl", lambda n, p: {"prompt": f"Is {n} {p}?"}),
            "num_eval_prompts": 4,
            "eval_every": 20,
            "reward_funcs": [f"{script}:vowels"],
            "preset": preset,
            "total_episodes": 20 * 12,
            "batch_size": 12,
            "num_generations": 3,
            "num_iterations": 2,
            "num_mini_batches": 2,
            "exact_kl_rows": 0,
            "sampling": {"max_tokens": 8},
            "optim": OPTIM,
            "learner": LEARNER,
        }
        return critic_free.run(OnlineConfig.model_validate(values | changes))

    return run


def _offline(verb: str, **changes: Any) -> Callable[[Path, Path], Run]:
    def make(base: Path, folder: Path) -> Run:
        def row(name: str, place: str) -> dict[str, Any]:
            other = PLACES[(PLACES.index(place) + 1 + len(name) % 3) % 4]
            right, wrong = f" {name} lives {place}.", f" {name} lives {other}, it is said."
            return {"prompt": f"Where is {name}?", "chosen": right, "rejected": wrong}

        values = {
            "run": {"folder": str(folder / verb), "seed": 7},
            "model": {"path": str(base)},
            "data": _rows(folder / "pairs.jsonl", row),
            "eval_every": 5,
            "batch_size": 6,
            "num_train_epochs": (20 if verb == "preference" else 10) * 6 / 36,
            "optim": OPTIM,
            "learner": LEARNER,
            **changes,
        }
        if verb == "preference":
            return preference.run(PreferenceConfig.model_validate(values))
        return unpaired.run(UnpairedConfig.model_validate(values))

    return make


MIXTURE = ("cdpo", "bco_pair", "sft")
STAGES: dict[str, Callable[[Path, Path], Run]] = {
    "sft": _sft,
    "reward": _reward,
    "ppo": _ppo,
    "dpo": _offline("preference"),
    "mixture": _offline(
        "preference",
        loss_type=MIXTURE,
        loss_weights=(0.8, 0.2, 1.0),
        label_smoothing=0.1,
        sync_ref_model=True,
        ref_model_sync_steps=6,
        use_weighting=True,
    ),
    "aot": _offline("preference", loss_type="aot", ld_alpha=0.5),
    "simpo": _offline("preference", loss_type="simpo"),
    "tdpo": _offline("preference", loss_type="tdpo2"),
    "kto": _offline("unpaired"),
    "bco": _offline("unpaired", loss_type="bco"),
    "grpo": _online("grpo"),
    "rloo": _online("rloo"),
    "dapo": _online("dapo", beta=0.02),
}


def curves(run: Run, names: tuple[str, ...]) -> dict[str, list[float | None]]:
    """Metric -> its value at each step."""
    rows = [row for row in run.metrics() if row["step"] > 0]
    assert len(rows) == 20
    return {name: [row.get(name) for row in rows] for name in names}


SLOW = ("aot", "simpo", "bco")
"""Curves of losses that differ from a quick one in their formula alone."""


@pytest.mark.parametrize(
    "stage",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in STAGES],
)
def test_the_curve_is_as_agreed(stage: str, base: Path, tmp_path: Path) -> None:
    now = curves(STAGES[stage](base, tmp_path), LOGGED[stage])
    file = FOLDER / f"{stage}.json"
    if os.environ.get("HEED_WRITE_GOLDEN"):
        lines = [f" {json.dumps(name)}: {json.dumps(values)}" for name, values in now.items()]
        file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    agreed = json.loads(file.read_text(encoding="utf-8"))
    assert set(now) == set(agreed)
    for name, values in agreed.items():
        known = [value for value in values if value is not None]
        assert len(set(known)) > 1, f"{name} never moves"
        for step, (found, expected) in enumerate(zip(now[name], values, strict=True), start=1):
            if expected is None:
                assert found is None, (name, step)
                continue
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5), (name, step)
