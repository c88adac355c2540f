"""What the examples of the documents stand on: small files under the names that the pages use.

An example runs as it is written, but with sizes cut down, so that it takes a second and not an
hour. What is cut is a matter of size only; every other setting is the page's own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydantic import BaseModel

import heed
from heed.data.exchange import write_rows
from heed.pipelines.verbs import Verb
from heed.worlds.answers import MIXED
from heed.worlds.town import Town

FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"# ([\w-]+\.(?:py|toml))\n")

MOST: dict[str, int | float] = {
    "batch_size": 4,
    "total_episodes": 8,
    "num_generations": 2,
    "num_ppo_epochs": 2,
    "num_mini_batches": 2,
    "num_eval_prompts": 4,
    "num_samples": 2,
    "ptx_batch_size": 4,
    "exact_kl_rows": 2,
    "num_train_epochs": 0.25,
    "num_resamples": 200,
    "num_normalise": 16,
    "max_tokens": 6,
    "max_rows": 16,
    "truncate_min_tokens": 2,
    "hidden_size": 16,
    "num_layers": 1,
    "vocab_size": 400,
}


def shrunk(config: BaseModel) -> BaseModel:
    """A configuration with its sizes cut down, sections included."""
    changes: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            changes[name] = shrunk(value)
        elif name in MOST and isinstance(value, int | float) and value > MOST[name]:
            changes[name] = MOST[name]
    return config.model_copy(update=changes)


def run_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every stage cut its sizes down, however it is called."""
    found = Verb.function

    def small(verb: Verb) -> Callable[[Any, Sequence[Any]], Any]:
        run = found(verb)
        return lambda config, sinks: run(shrunk(config), sinks)

    monkeypatch.setattr(Verb, "function", small)


def make_files(folder: Path) -> None:
    """Write data/, models/ and rewards.py under the names that the pages use."""
    town, rng = Town(0), Random(0)
    texts = list(town.pretraining_texts(40))
    write_rows(folder / "data/texts.jsonl", [{"text": text} for text in texts])
    demos = [*town.demonstrations(24)]
    write_rows(
        folder / "data/demos.jsonl",
        [
            {"messages": [*_turns(demo.prompt.messages), *_turns(demo.reply)]}
            for demo in demos
        ],
    )  # fmt: skip
    for name, split in (("prompts", "train"), ("held_out", "heldout")):
        prompts = town.prompts(12, split)  # type: ignore[arg-type]
        rows = [{"prompt": _turns(p.messages), "truth": "Anna"} for p in prompts]
        write_rows(folder / f"data/{name}.jsonl", rows)
    for name, start in (("pairs", 0), ("more_pairs", 40), ("eval_pairs", 60)):
        pairs = [
            {
                "prompt": _turns(prompt.messages),
                "chosen": [{"role": "assistant", "content": town.ideal(prompt)}],
                "rejected": [
                    {"role": "assistant", "content": town.answer(prompt, MIXED, rng) + " Well."}
                ],
            }
            for prompt in town.prompts(start + 24)[start:]
        ]
        write_rows(folder / f"data/{name}.jsonl", pairs)
    _make_foreign(folder)
    _make_labels(folder, town, rng)
    (folder / "rewards.py").write_text(
        "def concise(completions, **columns):\n"
        "    return [-0.01 * len(str(completion)) for completion in completions]\n"
        "def solved(completions, **columns):\n"
        "    return [float('Anna' in str(completion)) for completion in completions]\n"
    )
    for name, size in (("base", 360), ("other", 420)):
        shutil.copytree(_init(folder, name, size) / "model", folder / "models" / name)


def _make_foreign(folder: Path) -> None:
    """Data whose answers can be verified, and data of other projects."""
    sums = [{"prompt": f"{a} + {a} =", "answer": 2 * a} for a in range(12)]
    write_rows(folder / "data/sums.jsonl", sums)
    maths = [{"question": row["prompt"], "answer": f"#### {row['answer']}"} for row in sums]
    write_rows(folder / "data/gsm8k.jsonl", maths)
    scored = [
        {"response": f"It is {n}.", "overall_score": n, "fine-grained_score": n / 2}
        for n in (3, 9, 5)
    ]
    rows = [{"instruction": row["prompt"], "completions": scored} for row in sums]
    write_rows(folder / "data/ultrafeedback.jsonl", rows)


def _make_labels(folder: Path, town: Town, rng: Random) -> None:
    """Rankings, numbers and steps of answers, by their true quality."""
    rankings, ratings, steps = [], [], []
    for i, prompt in enumerate(town.prompts(24)):
        texts = [town.ideal(prompt), town.answer(prompt, MIXED, rng) + " Well.", "Go away. Now."]
        asked = _turns(prompt.messages)
        replies = [[{"role": "assistant", "content": text}] for text in texts]
        ranks = [1, 2, 2] if i % 2 else [1, 2, 3]
        rankings.append({"prompt": asked, "completions": replies, "ranks": ranks})
        for text, reply in zip(texts, replies, strict=True):
            parts = town.quality(prompt, text)
            numbers = {"correctness": parts.facts, "courtesy": parts.courtesy + 0.01 * i}
            ratings.append({"prompt": asked, "completion": reply, **numbers})
            sentences = [part.strip() + "." for part in text.split(".") if part.strip()]
            labels = [parts.total > 0] * len(sentences)
            steps.append({"prompt": asked, "completions": sentences, "labels": labels})
    for name, rows in (("rankings", rankings), ("ratings", ratings), ("steps", steps)):
        write_rows(folder / f"data/{name}.jsonl", rows)


def _init(folder: Path, name: str, vocab_size: int) -> Path:
    from heed.pipelines.init import InitConfig, run

    config = InitConfig.model_validate(
        {
            "run": {"folder": str(folder / "made" / name)},
            "data": {"path": str(folder / "data/texts.jsonl")},
            "vocab_size": vocab_size,
            "hidden_size": 16,
            "num_layers": 1,
            "num_heads": 2,
            "max_positions": 512,
        }
    )
    return run(config).folder


def _turns(messages: Sequence[heed.Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.text} for message in messages]


def make_runs(folder: Path) -> None:
    """Make the runs that pages begin from: runs/sft, reward, gold, ppo and generate."""
    data = {name: {"path": f"data/{name}.jsonl"} for name in ("demos", "pairs", "prompts")}
    sft = {"path": "runs/sft"}
    heed.sft(run={"folder": "runs/sft"}, model={"path": "models/base"}, data=data["demos"])
    for name, seed in (("reward", 0), ("gold", 1)):
        place = {"folder": f"runs/{name}", "seed": seed}
        heed.reward(run=place, model=sft, data=data["pairs"])
    heed.generate(run={"folder": "runs/generate"}, model=sft, data=data["prompts"],
                  sampling={"n": 2})  # fmt: skip
    heed.ppo(run={"folder": "runs/ppo"}, model=sft, data=data["prompts"],
             reward_funcs=["runs/reward"], kl_coef=0.1)  # fmt: skip


def made_by(text: str) -> set[str]:
    """Run folders that a page's own examples make."""
    return set(re.findall(r"(?:--run\.folder |\"folder\": \"|folder=\")(runs/[\w-]+)", text))
