"""Record what TRL's preference trainers compute, for tests/parity/test_trl_preferences.py.

    benchmarks/setup_env.sh
    .bench/venv/bin/python -m benchmarks.record_preferences

The models and the tokenizer are those of `benchmarks.record_fixtures`. TRL's own code runs
unmodified on texts drawn here; the losses, the norm of the gradient and the gradient of one weight
are written to tests/parity/fixtures/trl_preferences.json, with versions. BCO, which TRL 1.16 has
no more, is recorded with 1.12.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import torch

from benchmarks.record_fixtures import (
    FOLDER,
    ROOT,
    TRL_WITH_PPO,
    load,
    load_tokenizer,
    texts,
    training_arguments,
)

FILE = FOLDER.parent / "trl_preferences.json"
COMMAND = ".bench/venv/bin/python -m benchmarks.record_preferences"
WEIGHT = "model.norm.weight"

PAIRS: dict[str, dict[str, Any]] = {
    **{
        name: {"loss_type": [name]}
        for name in (
            "sigmoid", "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
            "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
        )
    },
    "robust": {"loss_type": ["robust"], "label_smoothing": 0.1},
    "exo_pair": {"loss_type": ["exo_pair"], "label_smoothing": 1e-3},
    "aot smoothed": {"loss_type": ["aot"], "label_smoothing": 0.1},
    "forward_kl": {"loss_type": ["sigmoid"], "f_divergence_type": "forward_kl"},
    "js_divergence": {"loss_type": ["sigmoid"], "f_divergence_type": "js_divergence"},
    "alpha_divergence": {"loss_type": ["sigmoid"], "f_divergence_type": "alpha_divergence"},
    "ipo js": {"loss_type": ["ipo"], "f_divergence_type": "js_divergence"},
    "wpo": {"loss_type": ["sigmoid"], "use_weighting": True},
    "ld": {"loss_type": ["sigmoid"], "ld_alpha": 0.3},
    "mpo": {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
}  # fmt: skip
CPO: dict[str, dict[str, Any]] = {
    "cpo": {"loss_type": "sigmoid", "cpo_alpha": 1.0},
    "cpo smoothed": {"loss_type": "sigmoid", "cpo_alpha": 0.0, "label_smoothing": 0.1},
    "simpo": {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0, "simpo_gamma": 1.0},
    "simpo smoothed": {
        "loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0, "simpo_gamma": 1.0,
        "label_smoothing": 0.1,
    },
    "alphapo": {
        "loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0, "simpo_gamma": 1.0, "alpha": 0.1,
    },
}  # fmt: skip


def pair_rows() -> list[dict[str, str]]:
    prompts = texts(11, (5, 8, 3, 6, 2, 4))
    sides = texts(12, (4, 5, 6, 3, 5, 6)), texts(13, (5, 4, 6, 4, 3, 5))
    return [
        {"prompt": p, "chosen": " " + c, "rejected": " " + r}
        for p, c, r in zip(prompts, *sides, strict=True)
    ]


def reply_rows() -> list[dict[str, Any]]:
    prompts, replies = texts(14, (5, 8, 3, 6, 2, 4)), texts(15, (7, 2, 9, 4, 5, 3))
    labels = (True, False, True, True, False, False)
    return [
        {"prompt": p, "completion": " " + c, "label": label}
        for p, c, label in zip(prompts, replies, labels, strict=True)
    ]


def reached(trainer: Any, batches: Iterable[Any]) -> dict[str, Any]:
    """Losses of micro-batches, and the gradient of their mean."""
    batches = list(batches)
    losses = []
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, dict(batch))
        (loss / len(batches)).backward()
        losses.append(float(loss.detach()))
    params = dict(trainer.model.named_parameters())
    squares = sum(p.grad.double().square().sum() for p in params.values() if p.grad is not None)
    return {
        "losses": losses,
        "gradient": params[WEIGHT].grad.tolist(),
        "grad_norm": float(squares.sqrt()),
    }


def record_dpo() -> dict[str, Any]:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows, out = pair_rows(), {}
    for name, options in PAIRS.items():
        trainer = DPOTrainer(
            load("policy", "LlamaForCausalLM"),
            ref_model=load("reference", "LlamaForCausalLM"),
            args=DPOConfig(max_length=48, **options, **training_arguments(len(rows))),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(),
        )
        out[name] = {"options": options, **reached(trainer, trainer.get_train_dataloader())}
    return out


def record_cpo() -> dict[str, Any]:
    from datasets import Dataset
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    rows, out = pair_rows(), {}
    cases: list[tuple[str, dict[str, Any], Any, Any]] = [
        *((name, options, CPOConfig, CPOTrainer) for name, options in CPO.items()),
        ("orpo", {"beta": 0.1}, ORPOConfig, ORPOTrainer),
    ]
    for name, options, config, kind in cases:
        trainer = kind(
            load("policy", "LlamaForCausalLM"),
            args=config(max_length=48, **options, **training_arguments(len(rows))),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(),
        )
        batches = list(trainer.get_train_dataloader())
        out[name] = {"options": options, **reached(trainer, batches)}
        _, metrics = trainer.get_batch_loss_metrics(trainer.model, dict(batches[0]))
        for key in ("nll_loss", "log_odds_ratio"):
            if key in metrics:
                out[name][key] = float(metrics[key])
    return out


def record_kto() -> dict[str, Any]:
    """KTO whole and in two micro-batches, in the order of the rows, with its baselines."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    rows, out = reply_rows(), {}
    for name, size, loss_type in (
        ("kto", 6, "kto"),
        ("kto halves", 3, "kto"),
        ("apo_zero_unpaired", 6, "apo_zero_unpaired"),
    ):
        trainer = KTOTrainer(
            load("policy", "LlamaForCausalLM"),
            ref_model=load("reference", "LlamaForCausalLM"),
            args=KTOConfig(
                max_length=48, loss_type=loss_type, desirable_weight=1.2, beta=0.1,
                **training_arguments(size),
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(),
        )  # fmt: skip
        found = reached(trainer, trainer.get_train_dataloader())
        out[name] = {**found, "kl": trainer._metrics["eval"]["kl"]}
    return out


def record_bco() -> dict[str, Any]:
    from datasets import Dataset
    from trl.experimental.bco import BCOConfig, BCOTrainer

    rows = reply_rows()
    trainer = BCOTrainer(
        load("policy", "LlamaForCausalLM"),
        ref_model=load("reference", "LlamaForCausalLM"),
        args=BCOConfig(max_length=48, beta=0.1, **training_arguments(len(rows))),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(),
    )
    found = reached(trainer, trainer.get_train_dataloader())
    return {"bco": {**found, "delta": float(trainer.running.mean)}}


PARTS = {"dpo": record_dpo, "cpo": record_cpo, "kto": record_kto, "bco": record_bco}


def main() -> None:
    """Record each part in its own process, and join what they print."""
    if len(sys.argv) > 1:
        import transformers
        import trl

        versions = {
            "trl": trl.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        found = PARTS[sys.argv[1]]()
        print("RECORDED " + json.dumps({"versions": versions, "cases": found}))
        return
    out: dict[str, Any] = {"command": COMMAND, "pairs": pair_rows(), "replies": reply_rows()}
    for part in PARTS:
        before = [str(TRL_WITH_PPO)] if part == "bco" else []
        path = os.pathsep.join([*before, str(ROOT)])
        environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "benchmarks.record_preferences", part]
        done = subprocess.run(
            command, check=True, env=environment, stdout=subprocess.PIPE, text=True
        )
        (line,) = [x for x in done.stdout.splitlines() if x.startswith("RECORDED ")]
        out[part] = json.loads(line.removeprefix("RECORDED "))
    FILE.write_text(json.dumps(out, indent=1, sort_keys=True) + "\n")
    print(f"{FILE.relative_to(ROOT)}: {FILE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
