"""Supervised fine-tuning: what is learned, what is measured, and in which order."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tests.tiny import Tiny, run_stage
from transformers import AutoModelForCausalLM, AutoTokenizer

from heed.algorithms import sft
from heed.data.render import Renderer
from heed.models.load import load_tokenizer
from heed.runs.run import Run


def test_the_loss_is_the_mean_over_the_replys_tokens(tiny: Tiny, tmp_path: Path) -> None:
    """Against transformers alone: whole logits, labels of -100 outside the reply."""
    config = tiny.sft_config(tmp_path / "run", eval_frac=0.0, batch_size=96, num_train_epochs=1)
    found = run_stage(config).metrics()[0]["loss"]
    model = AutoModelForCausalLM.from_pretrained(tiny.fresh / "model")
    tokenizer = AutoTokenizer.from_pretrained(tiny.fresh / "model")
    total, count = 0.0, 0
    for line in (tiny.world / "demonstrations.jsonl").read_text().splitlines():
        messages = json.loads(line)["messages"]
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        start = tokenizer.apply_chat_template(
            messages[:-1], tokenize=False, add_generation_prompt=True
        )
        assert whole.startswith(start)
        tokens = tokenizer(whole, add_special_tokens=False).input_ids
        before = len(tokenizer(start, add_special_tokens=False).input_ids)
        labels = [-100] * before + tokens[before:]
        with torch.no_grad():
            mean = model(torch.tensor([tokens]), labels=torch.tensor([labels])).loss
        total += float(mean) * (len(tokens) - before)
        count += len(tokens) - before
    assert found == pytest.approx(total / count, rel=1e-5)


def test_held_out_rows_share_no_prompt_and_are_measured(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.sft_config(tmp_path / "run", eval_frac=0.25)
    run = run_stage(config)
    measured = [row for row in run.metrics() if "eval/loss" in row]
    assert [row["step"] for row in measured] == [3, 6, 7]  # and after the last step
    for row in measured:
        assert row["eval/perplexity"] == pytest.approx(math.exp(row["eval/loss"]))
    with Run.start(config.run.model_copy(update={"folder": str(tmp_path / "b")}), "sft", {}) as b:
        train, held_out = sft.load_rows(config, Renderer(load_tokenizer(config.model)), b)
    assert not {row.id for row in train} & {row.id for row in held_out}
    assert len(train) + len(held_out) == 96
    assert b.data_report()[0]["kept"] == 96


def test_the_loss_falls_and_the_rate_rises_and_falls(tiny: Tiny, tmp_path: Path) -> None:
    rows = run_stage(tiny.sft_config(tmp_path / "run", num_train_epochs=3)).metrics()
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.1
    assert rows[-1]["epoch"] == pytest.approx(3.0, abs=0.1)
    assert rows[0]["learning_rate"] < rows[4]["learning_rate"] > rows[-1]["learning_rate"]


def test_plain_text_is_pretraining_and_loses_nothing(tiny: Tiny, tmp_path: Path) -> None:
    """Texts longer than a row become several rows; every token but the first is learned once."""
    long = tmp_path / "texts.jsonl"
    long.write_text(json.dumps({"text": "The miller lives by the river. " * 30}) + "\n")
    config = tiny.sft_config(
        tmp_path / "run", data={"path": str(long), "max_length": 20}, eval_frac=0.0, batch_size=1
    )
    renderer = Renderer(load_tokenizer(config.model))
    with Run.start(config.run, "sft", {}) as run:
        rows, _ = sft.load_rows(config, renderer, run)
    assert len(rows) > 5
    assert max(len(row.tokens) for row in rows) <= 20
    learned = [t for row in rows for t, keep in zip(row.tokens, row.learn, strict=True) if keep]
    assert (
        learned == list(renderer.text_row("t", "The miller lives by the river. " * 30).tokens)[1:]
    )


def test_the_number_of_epochs_may_be_a_fraction(tiny: Tiny, tmp_path: Path) -> None:
    run = run_stage(tiny.sft_config(tmp_path / "run", num_train_epochs=0.25, eval_frac=0.0))
    assert len(run.metrics()) == 2  # 24 of 96 rows in batches of 12
