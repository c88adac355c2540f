"""Rankings, numbers and steps made from the gold of a small world, for tests of reward models."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from tests.tiny import LEARNER, Tiny

from heed.algorithms.prm import PRMConfig
from heed.algorithms.reward import RewardConfig
from heed.worlds.answers import IDEAL, MIXED, PRACTISED, Manner
from heed.worlds.saved import load_world

POOR = Manner(wrong=0.8, omit=0.5, rude=0.4, ramble=0.6)
ATTRIBUTES = ("facts", "courtesy", "brevity")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers(world: Path, num_prompts: int = 48, k: int = 4) -> list[tuple[Any, list[str]]]:
    """Prompts, each with up to K different answers from ideal to poor."""
    town, out = load_world(world), []
    for prompt in town.prompts(num_prompts):
        rng = Random(prompt.id)
        manners = [IDEAL, PRACTISED, MIXED, POOR][:k]
        texts = dict.fromkeys(town.answer(prompt, manner, rng) for manner in manners)
        if len(texts) > 1:
            out.append((prompt, list(texts)))
    return out


def rankings(world: Path, path: Path, *, step: float = 0.0, **more: Any) -> Path:
    """Rankings by true quality; qualities that round to the same multiple of `step` tie."""
    town, rows = load_world(world), []
    for prompt, texts in answers(world, **more):
        gold = [town.quality(prompt, text).total for text in texts]
        levels = [round(g / step) if step else g for g in gold]
        order = sorted(set(levels), reverse=True)
        ranks = [order.index(level) + 1 for level in levels]
        rows.append({"prompt": turns(prompt.text), "completions": texts, "ranks": ranks})
    for row in rows:
        row["completions"] = [[{"role": "assistant", "content": t}] for t in row["completions"]]
    return write(path, rows)


def ratings(world: Path, path: Path, *, missing: bool = True, num_prompts: int = 48) -> Path:
    """Parts of true quality as numbers; every third courtesy is missing."""
    town, rows = load_world(world), []
    for prompt, texts in answers(world, num_prompts):
        for text in texts:
            parts = town.quality(prompt, text)
            row = {name: getattr(parts, name) for name in ATTRIBUTES}
            if missing and len(rows) % 3 == 0:
                row["courtesy"] = None
            row["score"] = parts.total
            reply = [{"role": "assistant", "content": text}]
            rows.append({"prompt": turns(prompt.text), "completion": reply, **row})
    return write(path, rows)


def steps(world: Path, path: Path, num_prompts: int = 48) -> Path:
    """The sentences of answers, right where they add no wrong fact to what stands before them."""
    town, rows = load_world(world), []
    for prompt, texts in answers(world, num_prompts):
        for text in texts:
            parts = [part.strip() + "." for part in text.split(".") if part.strip()]
            labels = []
            for i in range(len(parts)):
                quality = town.quality(prompt, " ".join(parts[: i + 1]))
                labels.append(quality.facts >= 0 and quality.courtesy >= 0)
            rows.append({"prompt": turns(prompt.text), "completions": parts, "labels": labels})
    return write(path, rows)


def turns(text: str) -> list[dict[str, str]]:
    """A user's turn."""
    return [{"role": "user", "content": text}]


def reward_config(tiny: Tiny, folder: Path, data: Path, **changes: Any) -> RewardConfig:
    """A few steps on labelled data."""
    run = {"folder": str(folder), "seed": 1, **changes.pop("run", {})}
    values: dict[str, Any] = {
        "run": run,
        "model": {"path": str(tiny.policy)},
        "data": {"path": str(data)},
        "eval_every": 2,
        "batch_size": 8,
        "num_train_epochs": 2,
        "optim": {"lr": 3e-3},
        "learner": LEARNER,
    }
    return RewardConfig.model_validate(values | changes)


def prm_config(tiny: Tiny, folder: Path, data: Path, **changes: Any) -> PRMConfig:
    """A few steps on labelled steps."""
    values: dict[str, Any] = {
        "run": {"folder": str(folder), "seed": 1, **changes.pop("run", {})},
        "model": {"path": str(tiny.policy)},
        "data": {"path": str(data)},
        "eval_every": 2,
        "batch_size": 12,
        "num_train_epochs": 2,
        "optim": {"lr": 3e-3},
        "learner": LEARNER,
    }
    return PRMConfig.model_validate(values | changes)
