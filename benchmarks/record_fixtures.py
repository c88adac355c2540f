"""Record what TRL computes on tiny models, for tests/parity/test_trl_losses.py.

    benchmarks/setup_env.sh
    .bench/venv/bin/python -m benchmarks.record_fixtures

Everything that went in (weights, tokenizer, texts, tokens) and everything that came out is written
to tests/parity/fixtures/trl, with versions. TRL's own code runs unmodified; what lies inside
its loops is read from the running frame.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "parity" / "fixtures" / "trl"
TRL_WITH_PPO = ROOT / ".bench" / "trl-1.12"
COMMAND = ".bench/venv/bin/python -m benchmarks.record_fixtures"
NUM_WORDS = 62
PAD, EOS = "<pad>", "<eos>"
# Wide enough for log-probabilities far from uniform, so that a wrong token or shift shows.
INITIALIZER_RANGE = 0.15


def make_models() -> None:
    """Write the tokenizer and the models: policy, reference, reward, value and step model."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        LlamaForSequenceClassification,
        LlamaForTokenClassification,
        PreTrainedTokenizerFast,
    )

    words = [PAD, EOS, *(f"w{i}" for i in range(NUM_WORDS))]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=PAD))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=PAD, eos_token=EOS)
    tokenizer.save_pretrained(FOLDER / "tokenizer")
    config = {
        "vocab_size": len(words),
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
        "initializer_range": INITIALIZER_RANGE,
    }
    made = [("policy", LlamaForCausalLM, {}), ("reference", LlamaForCausalLM, {})]
    made += [
        (name, LlamaForSequenceClassification, {"num_labels": 1}) for name in ("reward", "value")
    ]
    made.append(("steps", LlamaForTokenClassification, {"num_labels": 2}))
    for seed, (name, kind, more) in enumerate(made):
        torch.manual_seed(seed)
        kind(LlamaConfig(**config, **more)).save_pretrained(FOLDER / name)


def texts(seed: int, lengths: Iterable[int]) -> list[str]:
    """Draw one text of words per length."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> str:
        ids = torch.randint(0, NUM_WORDS, (n,), generator=generator)
        return " ".join(f"w{i}" for i in ids.tolist())

    return [draw(n) for n in lengths]


def load(name: str, kind: str) -> Any:
    """Load one of the recorded models."""
    import transformers

    return getattr(transformers, kind).from_pretrained(FOLDER / name, dtype=torch.float32)


def load_tokenizer() -> Any:
    """Load the recorded tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER / "tokenizer")


def training_arguments(batch_size: int) -> dict[str, Any]:
    """Return the arguments that all trainers share: fp32, CPU, no reporting."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": batch_size,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "disable_tqdm": True,
        "seed": 0,
    }


def gradients(model: torch.nn.Module, *names: str) -> dict[str, Tensor]:
    """Return the gradients of some parameters and the norm of all of them (float64)."""
    params = dict(model.named_parameters())
    squares = sum(p.grad.double().square().sum() for p in params.values() if p.grad is not None)
    out = {f"grad:{name}": params[name].grad.clone() for name in names}
    return {**out, "grad_norm": squares.sqrt()}


def write(name: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write one recording: tensors, and facts with the versions that made them."""
    import accelerate
    import transformers
    import trl

    versions = {
        "trl": trl.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    facts = {"command": COMMAND, "versions": versions, **facts}
    plain = {key: value.detach().contiguous().clone() for key, value in tensors.items()}
    save_file(plain, FOLDER / f"{name}.safetensors")
    (FOLDER / f"{name}.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


def record_sft() -> None:
    """Record the supervised loss: mean over the completions' tokens of -log p."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    prompts = texts(1, (5, 9, 3, 12, 7, 1))
    completions = [" " + text for text in texts(2, (7, 2, 11, 4, 1, 9))]
    rows = [{"prompt": p, "completion": c} for p, c in zip(prompts, completions, strict=True)]
    trainer = SFTTrainer(
        load("policy", "LlamaForCausalLM"),
        args=SFTConfig(max_length=32, **training_arguments(len(rows))),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = {key: value.clone() for key, value in batch.items() if isinstance(value, Tensor)}
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    logprobs = trainer.model(**inputs, fused_lm_head=True, use_cache=False).log_probs
    tensors = {"loss": loss, "logprobs": logprobs, **inputs}
    names = ("model.norm.weight", "model.embed_tokens.weight", "lm_head.weight")
    tensors.update(gradients(trainer.model, *names))
    write("sft", tensors, {"rows": rows, "source": "SFTTrainer.compute_loss, loss_type='nll'"})


def record_reward() -> None:
    """Record the reward model's loss: Bradley-Terry alone, with margins, with centring."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    prompts = texts(3, (5, 8, 3, 6, 2))
    chosen = [" " + text for text in texts(4, (7, 2, 9, 4, 5))]
    rejected = [" " + text for text in texts(5, (3, 6, 9, 1, 8))]
    margins = [0.5, 0.0, 1.25, 2.0, 0.1]
    rows = [
        {"chosen": p + c, "rejected": p + r}
        for p, c, r in zip(prompts, chosen, rejected, strict=True)
    ]
    with_margin = [{**row, "margin": m} for row, m in zip(rows, margins, strict=True)]
    cases: dict[str, tuple[list[dict[str, Any]], dict[str, float]]] = {
        "plain": (rows, {}),
        "margin": (with_margin, {}),
        "centred": (rows, {"center_rewards_coefficient": 0.01}),
    }
    tensors: dict[str, Tensor] = {}
    for name, (data, options) in cases.items():
        trainer = RewardTrainer(
            load("reward", "LlamaForSequenceClassification"),
            args=RewardConfig(max_length=32, **options, **training_arguments(len(data))),
            train_dataset=Dataset.from_list(data),
            processing_class=load_tokenizer(),
        )
        batch = next(iter(trainer.get_train_dataloader()))
        inputs = {key: value.clone() for key, value in batch.items() if isinstance(value, Tensor)}
        loss, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
        loss.backward()
        found = {"loss": loss, "scores": outputs.logits.squeeze(-1), **inputs}
        found.update(gradients(trainer.model, "score.weight", "model.norm.weight"))
        tensors.update({f"{name}:{key}": value for key, value in found.items()})
    facts = {"rows": with_margin, "center_rewards_coefficient": 0.01, "prompts": prompts}
    write("reward", tensors, {**facts, "source": "RewardTrainer.compute_loss"})


def record_prm() -> None:
    """Record the process reward model's loss; by the TRL that still has its trainer."""
    from datasets import Dataset
    from trl.experimental.prm import PRMConfig, PRMTrainer

    prompts, counts = texts(7, (4, 6, 3, 5)), (3, 1, 2, 4)
    steps = [texts(8 + i, range(2, 2 + n)) for i, n in enumerate(counts)]
    rows = [
        {"prompt": p, "completions": s, "labels": [(i + len(s)) % 3 != 0 for i in range(len(s))]}
        for p, s in zip(prompts, steps, strict=True)
    ]
    separator = "w7"
    trainer = PRMTrainer(
        load("steps", "LlamaForTokenClassification").eval(),
        args=PRMConfig(
            max_length=64, step_separator=separator, disable_dropout=True,
            **training_arguments(len(rows)),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(),
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = {key: value.clone() for key, value in batch.items() if isinstance(value, Tensor)}
    loss, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
    loss.backward()
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs.logits
    found = {"loss": loss, "logits": logits, **inputs}
    found.update(gradients(trainer.model, "score.weight", "model.norm.weight"))
    facts = {"rows": rows, "step_separator": separator}
    write("prm", found, {**facts, "source": "PRMTrainer.compute_loss"})


def main() -> None:
    """Record everything; each part in its own process, PPO with the TRL that still has it."""
    parts = {"sft": record_sft, "reward": record_reward, "prm": record_prm}
    if len(sys.argv) > 1:
        part = sys.argv[1]
        if part == "ppo":
            from benchmarks.record_ppo import record_ppo

            record_ppo()
        elif part == "online":
            from benchmarks.record_online import record_online

            record_online()
        else:
            parts[part]()
        return
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    FOLDER.mkdir(parents=True)
    make_models()
    for part in ("sft", "reward", "online", "ppo", "prm"):
        before = [str(TRL_WITH_PPO)] if part in ("ppo", "prm") else []
        path = os.pathsep.join([*before, str(ROOT)])
        environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "benchmarks.record_fixtures", part]
        subprocess.run(command, check=True, env=environment)
    for file in FOLDER.rglob("*.safetensors"):
        file.chmod(0o644)
    size = sum(f.stat().st_size for f in FOLDER.rglob("*") if f.is_file())
    print(f"{FOLDER.relative_to(ROOT)}: {size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
