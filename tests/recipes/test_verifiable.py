"""A reward that a program verifies, through the command line: a policy learns sums by it."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from heed.cli import main
from heed.data.exchange import read_rows, write_rows
from heed.runs.run import Run


def sums(folder: Path) -> None:
    """Texts, demonstrations of which half are drawn at random, and prompts with their answers."""
    rng, pairs = Random(0), [(a, b) for a in range(4) for b in range(4)]
    write_rows(
        folder / "texts.jsonl",
        [{"text": f"{a} + {b} = {c}"} for a in range(4) for b in range(4) for c in range(8)],
    )
    demos = [
        {"prompt": f"{a} + {b} =", "completion": f" {a + b if i % 2 == 0 else rng.randrange(8)}"}
        for i in range(48)
        for a, b in pairs
    ]
    write_rows(folder / "demos.jsonl", demos)
    prompts = [{"prompt": f"{a} + {b} =", "answer": a + b} for a, b in pairs]
    write_rows(folder / "prompts.jsonl", prompts)


def heed(words: str) -> None:
    assert main(words.split()) == 0


@pytest.mark.parametrize(
    ("epochs", "episodes"), [(1, 128), pytest.param(20, 3840, marks=pytest.mark.slow)]
)
def test_a_policy_learns_sums_from_a_checker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, episodes: int
) -> None:
    monkeypatch.chdir(tmp_path)
    sums(tmp_path)
    size = "--vocab_size 300 --hidden_size 48 --num_layers 2 --num_heads 4 --max_positions 64"
    heed(f"init --run.folder base --data.path texts.jsonl {size}")
    heed(
        "sft --run.folder sft --model.path base --data.path demos.jsonl --batch_size 32 "
        f"--optim.lr 2e-3 --num_train_epochs {epochs}"
    )
    heed(
        "ppo --run.folder ppo --model.path sft --data.path prompts.jsonl --kl_coef 0.05 "
        r"--reward_funcs check:numeric,check:regex:pattern=[\s\d]+ --reward_weights 1.0,0.1 "
        f"--batch_size 64 --total_episodes {episodes} --sampling.max_tokens 4 --optim.lr 3e-4 "
        "--keep_rollouts true"
    )
    heed(
        "evaluate --run.folder evaluate --model.path ppo --baseline.path sft "
        "--data.path prompts.jsonl --judges.sum check:numeric --sampling.max_tokens 4 "
        "--sampling.n 8"
    )
    found = {finding.name: finding for finding in Run.open(tmp_path / "evaluate").findings()}
    assert found["sum/after"].n == 16
    _, group = next(read_rows(next((tmp_path / "ppo/rollouts").glob("*.jsonl"))))
    score = group["rollouts"][0]["score"]
    assert set(score["parts"]) == {"numeric", "regex"}
    if epochs > 1:
        gain = found["sum/gain"]
        assert found["sum/before"].estimate < 0.55
        assert gain.estimate > 0.15
        assert gain.low > 0
