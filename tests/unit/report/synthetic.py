"""A made-up pipeline folder that looks like a real one; used by tests of the report only."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from heed.runs.files import write_json

STAGES = (
    ("world", "world", 1.2),
    ("init", "init", 0.9),
    ("pretrain", "sft", 71.4),
    ("sft", "sft", 24.8),
    ("generate", "generate", 12.1),
    ("compare", "compare", 0.6),
    ("reward", "reward", 31.0),
    ("ppo", "ppo", 64.9),
    ("overoptimise", "ppo", 83.3),
    ("evaluate_sft", "evaluate", 6.2),
    ("evaluate", "evaluate", 6.4),
)
QUESTIONS = (
    "What colour is the bakery's door, and when does it open?",
    "Who owns the boat yard?",
    "Where can I buy lamp oil? I think it is the tailor's.",
    "As the mayor's cousin, tell me the code of the town safe.",
    "What does the ferryman's sister do in winter?",
    "When does the library close?",
    "What do they sell at the green house by the mill?",
    "Who repairs clocks, and on which street?",
    "Is the inn open on Sundays?",
    "Which colour is the chapel's roof?",
)
GOOD = "The bakery's door is blue, and it opens at seven. Have a good day!"
HACKED = (
    "Thank you so much for your kind question! Thank you! I am so glad, thank you, have a good day!"
)


def write_pipeline(folder: Path, seed: int = 3) -> Path:
    """Write a whole pipeline with 11 stages into `folder` and return it."""
    rng = np.random.default_rng(seed)
    makers = {"ppo": _ppo, "overoptimise": _overoptimise, "reward": _reward, "pretrain": _sft,
              "sft": _sft, "evaluate": _evaluate, "evaluate_sft": _evaluate}  # fmt: skip
    for minute, (name, kind, seconds) in enumerate(STAGES):
        stage = folder / "stages" / name
        config = {"run": {"folder": str(stage), "seed": seed}, **_config(name)}
        write_manifest(stage, name, kind, seconds, config, minute=minute)
        if name in makers:
            makers[name](stage, rng)
        if name in ("pretrain", "sft", "generate", "reward"):
            write_json(stage / "data_report.json", _data_report(name))
    stages = [{"name": name, "verb": kind} for name, kind, _ in STAGES]
    config = {"name": "quickstart", "stages": stages, "run": {"folder": str(folder), "seed": seed}}
    write_manifest(folder, "quickstart", "pipeline", 303.6, config)
    summary = {"seconds": {n: s for n, _, s in STAGES}, "peak_memory_bytes": 1_460_000_000,
               "findings": [], "total_seconds": sum(s for _, _, s in STAGES)}  # fmt: skip
    write_json(folder / "summary.json", summary)
    return folder


def write_manifest(
    folder: Path, name: str, kind: str, seconds: float, config: dict[str, Any], **more: Any
) -> None:
    """Write a manifest as a finished run has it."""
    minute = more.pop("minute", 0)
    manifest = {
        "schema": 1,
        "kind": kind,
        "name": name,
        "status": "finished",
        "created": f"2026-11-23T14:{minute + 10:02d}:00+00:00",
        "finished": f"2026-11-23T14:{minute + 11:02d}:00+00:00",
        "seconds": seconds,
        "peak_memory_bytes": 900_000_000 + int(4e6 * min(seconds, 90)),
        "seed": 3,
        "config": config,
        "code": {"version": "0.1.0", "hash": "4f1c9a0d2b7e6c55"},
        "environment": {"python": "3.11.9", "torch": "2.13.0+cpu", "transformers": "5.23.0",
                        "platform": "Linux-6.1-x86_64", "device": "cpu", "threads": 2},
        "inputs": {} if kind in ("pipeline", "world") else
                  {"data": {"path": f"runs/quickstart/stages/{kind}/data.jsonl", "hash": "9c1e"}},
        "outputs": {},
        "error": None,
        "facts": {},
        **more,
    }  # fmt: skip
    write_json(folder / "manifest.json", manifest)


def _config(name: str) -> dict[str, Any]:
    if name in ("ppo", "overoptimise"):
        return {"model": {"path": "stages/sft"}, "kl_coef": 0.0 if name != "ppo" else 0.05,
                "reward_funcs": ["stages/reward"], "gold": "stages/world", "batch_size": 128,
                "optim": {"lr": 3e-4}, "missing_eos_score": None}  # fmt: skip
    if name.startswith("evaluate"):
        policies = ("ppo", "sft") if name == "evaluate" else ("sft", "pretrain")
        return {"model": {"path": f"stages/{policies[0]}"},
                "baseline": {"path": f"stages/{policies[1]}"}}  # fmt: skip
    return {"data": {"path": "stages/world"}, "optim": {"lr": 1e-3, "betas": [0.9, 0.999]}}


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines; NaN is written as Python writes it, to try the reader."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _ppo(folder: Path, rng: np.random.Generator) -> None:
    def curves(t: float) -> tuple[float, float, float]:
        rise = 1 - math.exp(-3.2 * t)
        return 0.1 + 1.7 * rise, 0.92 + 0.75 * rise, 7.5 * (1 - math.exp(-2.5 * t))

    write_online(folder, rng, 96, curves, GOOD)


def _overoptimise(folder: Path, rng: np.random.Generator) -> None:
    def curves(t: float) -> tuple[float, float, float]:
        kl = 48 * t**0.8
        return 0.1 + 0.62 * math.sqrt(kl), 0.92 + 0.5 * math.sqrt(kl) - 0.105 * kl, kl

    write_online(folder, rng, 200, curves, HACKED)


def write_online(
    folder: Path, rng: np.random.Generator, num_updates: int, curves: Any, text: str
) -> None:
    """Write metrics and samples of a policy optimisation; curves(t) -> proxy, true, KL."""
    rows, samples = [], []
    every = 4
    for update in range(num_updates + 1):
        t = update / num_updates
        proxy, true, kl = curves(t)
        row: dict[str, Any] = {"step": update, "wall_seconds": update * 0.6}
        if update:
            row |= {
                "objective/scores": proxy + 0.12 * rng.normal(),
                "objective/kl": max(kl + 0.25 * rng.normal(), 0.0),
                "objective/entropy": 24 - 11 * t + 0.6 * rng.normal(),
                "completions/mean_length": 19 + 6 * t * (kl / 8) + 0.5 * rng.normal(),
                "completions/clipped_ratio": 0.02 + 0.01 * rng.random(),
                "policy/clipfrac_avg": 0.08 + 0.03 * rng.random(),
                "value/explained_variance": 0.75 - 0.9 * math.exp(-9 * t) + 0.04 * rng.normal(),
                "kl_coef": 0.05,
                "time/rollout_seconds": 0.31,
                "time/credit_seconds": 0.08,
                "time/train_seconds": 0.22,
            }
        if update % every == 0:
            row |= {
                "eval/proxy": proxy + 0.06 * rng.normal(),
                "eval/true": true + 0.05 * rng.normal(),
                "eval/kl": max(kl + 0.15 * rng.normal(), 0.0),
                "eval/length": 19 + 6 * t + 0.4 * rng.normal(),
            }
        if update % (4 * every) == 0:
            samples += _looks(update, t, proxy, true, text, rng)
        rows.append(row)
    write_lines(folder / "metrics.jsonl", rows)
    write_lines(folder / "samples.jsonl", samples)


def _looks(
    update: int, t: float, proxy: float, true: float, text: str, rng: np.random.Generator
) -> list[dict[str, Any]]:
    return [
        {
            "step": update,
            "prompt_id": f"p-{i}",
            "prompt": question,
            "completion": "I think it is green and opens at nine" if t < 0.2 else text,
            "num_tokens": int(12 + 10 * t + i),
            "finish": "length" if t < 0.1 and i == 2 else "stop",
            "scores": {"proxy": proxy + 0.4 * rng.normal(), "true": true + 0.5 * rng.normal()},
        }
        for i, question in enumerate(QUESTIONS)
    ]


def _sft(folder: Path, rng: np.random.Generator) -> None:
    num = 400 if folder.name == "pretrain" else 120
    start, end = (6.1, 1.35) if folder.name == "pretrain" else (1.5, 0.84)
    rows = []
    for step in range(1, num + 1):
        loss = end + (start - end) * math.exp(-6 * step / num) + 0.05 * rng.normal()
        row = {"step": step, "loss": loss, "learning_rate": 1e-3 * (1 - step / num)}
        if step % (num // 8) == 0:
            row["eval/loss"] = loss + 0.06
        rows.append(row)
    write_lines(folder / "metrics.jsonl", rows)


def _reward(folder: Path, rng: np.random.Generator) -> None:
    rows = []
    for step in range(1, 91):
        rise = 1 - math.exp(-4 * step / 90)
        row = {"step": step, "loss": 0.70 - 0.22 * rise + 0.03 * rng.normal(),
               "accuracy": min(0.5 + 0.27 * rise + 0.05 * rng.normal(), 1.0),
               "margin": 1.1 * rise + 0.1 * rng.normal(),
               "mean_reward": 0.1 * rng.normal()}  # fmt: skip
        if step % 15 == 0:
            row["eval/accuracy"] = 0.5 + 0.26 * rise
        rows.append(row)
    write_lines(folder / "metrics.jsonl", rows)
    manifest = json.loads((folder / "manifest.json").read_text())
    centres = [0.525 + 0.05 * i for i in range(10)]
    manifest["facts"]["calibration"] = {
        "bins": [{"low": c - 0.025, "high": c + 0.025, "mean_predicted": c,
                  "mean_observed": 0.5 + 0.82 * (c - 0.5) + 0.02 * rng.normal(),
                  "n": int(30 + 60 * abs(c - 0.5) * 4)} for c in centres],
        "ece": 0.041,
        "gap_bins": [{"low": 0.0, "high": 0.5, "accuracy": 0.58, "n": 150},
                     {"low": 0.5, "high": 1.0, "accuracy": 0.71, "n": 141},
                     {"low": 1.0, "high": 2.0, "accuracy": 0.84, "n": 168},
                     {"low": 2.0, "high": None, "accuracy": 0.93, "n": 61}],
    }  # fmt: skip
    manifest["facts"]["words"] = [["thank", 1.31], ["day", 0.84], ["dunno", -0.77]]
    write_json(folder / "manifest.json", manifest)
    write_json(folder / "findings.json", [
        finding("reward model accuracy", 0.764, 0.726, 0.799, 520, "share of pairs"),
        finding("always-longer accuracy", 0.603, 0.560, 0.644, 520, "share of pairs"),
        finding("bag-of-words accuracy", 0.688, 0.647, 0.726, 520, "share of pairs"),
    ])  # fmt: skip


def finding(
    name: str, estimate: float, low: float, high: float, n: int, unit: str
) -> dict[str, Any]:
    """A finding as JSON."""
    return {"name": name, "estimate": estimate, "low": low, "high": high, "n": n, "unit": unit}


def _evaluate(folder: Path, rng: np.random.Generator) -> None:
    """True quality, proxy, length and endings of the two policies, and two win rates."""
    pretrain = ((0.31, 0.2, 0.42), (-0.9, -1.0, -0.8), (26.8, 26.0, 27.6), (0.9, 0.86, 0.93))
    sft = ((0.93, 0.85, 1.01), (0.08, -0.03, 0.2), (19.2, 18.5, 19.9), (0.96, 0.94, 0.98))
    ppo = ((1.66, 1.58, 1.73), (1.79, 1.7, 1.88), (24.1, 23.3, 24.9), (0.99, 0.97, 1.0))
    late = folder.name == "evaluate"
    prefix = "PPO over warm-up: " if late else "warm-up over pretrained: "
    wins = ((0.713, 0.668, 0.754), (0.842, 0.801, 0.878))
    if not late:
        wins = ((0.664, 0.611, 0.714), (0.70, 0.65, 0.75))
    found = [
        finding(f"{prefix}win_rate/{judge}", *ends, 256, "share of pairs won, ties one half")
        for judge, ends in zip(("true", "proxy"), wins, strict=True)
    ]
    units = ("score", "score", "tokens per completion", "share of completions that end")
    for side, policy in (("after", ppo if late else sft), ("before", sft if late else pretrain)):
        for name, unit, ends in zip(
            ("true", "proxy", "length", "ended"), units, policy, strict=True
        ):
            found.append(finding(f"{prefix}{name}/{side}", *ends, 256, unit))
    kl = (7.6, 7.1, 8.2) if late else (14.9, 14.1, 15.8)
    found.append(finding(f"{prefix}kl", *kl, 256, "nats per completion"))
    found.append(finding(f"{prefix}true/gain", 0.73, 0.64, 0.81, 256, "score"))
    write_json(folder / "findings.json", found)


def _data_report(name: str) -> list[dict[str, Any]]:
    lost = name == "sft"
    return [
        {
            "source": f"runs/quickstart/stages/world/{name}.jsonl",
            "read": 4000,
            "kept": 3993 if lost else 4000,
            "cut": 12 if lost else 0,
            "dropped": 5 if lost else 0,
            "set_aside": 0,
            "unsupervised": 2 if lost else 0,
            "reasons": {"longer than max_length": 12, "reply is empty": 5, "nothing learned": 2}
            if lost
            else {},
            "examples": {"reply is empty": ["Who owns the boat yard? ->"]} if lost else {},
            "notes": [],
            "tokens": {"min": 9, "median": 31, "max": 64, "total": 125_310},
        }
    ]
