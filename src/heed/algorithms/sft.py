"""Supervised fine-tuning: raise the likelihood of demonstrations (or of plain text).

    for each batch of rows:
        loss = -sum over learned tokens of log pi(token | tokens before) / number of learned tokens
        step

Plain text learns every token but the first (pretraining); demonstrations learn the reply, the end
token included. Source: Stiennon et al. 2020, section 3.3; classic pipelines use one epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from pydantic import Field
from torch import nn

from heed.data.batch import Row, TokenBatch, collate
from heed.data.datasets import PlainText, load_supervised, split_by_prompt
from heed.data.order import Order
from heed.data.render import Renderer
from heed.data.report import DataReport, settle
from heed.data.rows import supervised_rows
from heed.learners.base import Learner, LossTerms, Outputs
from heed.learners.local import LocalLearner
from heed.learners.resume import Checkpoints
from heed.losses.likelihood import nll
from heed.models.adapters import add_lora, merge_and_save
from heed.models.heads import PolicyHead
from heed.models.load import load_causal, load_tokenizer
from heed.records import Demonstration
from heed.runs.run import Run
from heed.runs.sinks import Sink
from heed.settings import (
    DataSettings,
    LearnerSettings,
    ModelSettings,
    NoEffect,
    OptimSettings,
    RunSettings,
    Settings,
)


class SFTConfig(Settings):
    """Supervised fine-tuning of a causal language model."""

    run: RunSettings
    model: ModelSettings
    data: DataSettings
    """Demonstrations (`messages`, or `prompt` and `completion`) or plain text (`text`)."""
    eval_data: DataSettings | None = None
    """Rows to measure the loss on; by default a share of `data` held out by prompt."""
    eval_frac: float = Field(default=0.02, ge=0.0, lt=1.0)
    """Share of the prompts held out where there is no `eval_data`."""
    eval_every: int = Field(default=200, ge=1)
    """Steps between two measurements on the held-out rows."""
    num_train_epochs: float = Field(default=1.0, gt=0.0)
    """Passes over the data."""
    batch_size: int = Field(default=32, ge=1)
    """Rows of one optimiser step."""
    optim: OptimSettings = OptimSettings()
    learner: LearnerSettings = LearnerSettings()

    def without_effect(self) -> tuple[NoEffect, ...]:
        """See `Settings.without_effect`."""
        nothing_held_out = self.eval_data is None and self.eval_frac == 0
        return (
            NoEffect(self.eval_data is not None, ("eval_frac",), "eval_data is held out"),
            NoEffect(nothing_held_out, ("eval_every",), "eval_frac is 0, so nothing is held out"),
        )


def likelihood_loss(outputs: Outputs, batch: TokenBatch) -> LossTerms:
    """Negative log-likelihood of the learned tokens, unreduced [B, T]."""
    assert outputs.logprobs is not None
    return LossTerms(nll(outputs.logprobs, batch.learn))


def held_out_loss(learner: Learner, rows: Sequence[Row], batch_size: int = 64) -> float:
    """Mean negative log-likelihood in nats per learned token of all rows."""
    total, count = 0.0, 0
    for first in range(0, len(rows), batch_size):
        batch = collate(rows[first : first + batch_size])
        outputs = learner.forward(batch)
        assert outputs.logprobs is not None
        total -= float(outputs.logprobs.double().sum())
        count += batch.num_learned
    return total / count


def run(config: SFTConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Fine-tune, and leave the model in `RUN/model`.

    Raises:
        DataError: more rows than allowed do not fit or teach nothing.
        LearnerError: the loss is not finite.
    """
    inputs = {"model": config.model.path, "data": config.data.path}
    with Run.start(config.run, "sft", config, inputs, sinks) as run:
        tokenizer = load_tokenizer(config.model)
        loaded = load_causal(config.model)
        causal: nn.Module = loaded
        if config.model.lora:
            causal = add_lora(loaded, config.model.lora, seed=config.run.seed)
        train, held_out = load_rows(config, Renderer(tokenizer), run)
        order = Order(len(train), config.batch_size, config.run.seed, "sft")
        total = order.steps(config.num_train_epochs)
        learner = LocalLearner(
            PolicyHead(causal), config.optim, total, config.learner, bad_batch=run.path("bad")
        )
        _train(config, run, learner, train, held_out, order, total)
        learner.widen()
        merge_and_save(run.path("model"), causal, tokenizer)
        run.finish({"model": run.path("model")})
    return run


def load_rows(config: SFTConfig, renderer: Renderer, run: Run) -> tuple[list[Row], list[Row]]:
    """Rows to train on and rows to measure on; no prompt is in both. Reported and checked."""
    found, report = load_supervised(config.data)
    records: list[Demonstration | PlainText] = list(found)
    others: list[Demonstration | PlainText]
    if config.eval_data is None:
        records, others = split_by_prompt(records, config.eval_frac, config.run.seed)
        reports = [(config.data, report)]
        other_report = report
    else:
        found, other_report = load_supervised(config.eval_data)
        others = list(found)
        reports = [(config.data, report), (config.eval_data, other_report)]
    train = _rows(records, renderer, report, config.data)
    held_out = _rows(others, renderer, other_report, config.eval_data or config.data)
    settle(run, [(each, data.max_loss_frac) for data, each in reports])
    return train, held_out


def _rows(
    records: Sequence[Demonstration | PlainText],
    renderer: Renderer,
    report: DataReport,
    data: DataSettings,
) -> list[Row]:
    return supervised_rows(
        records, renderer, report, max_length=data.max_length, on_overlong=data.on_overlong
    )


def _train(
    config: SFTConfig,
    run: Run,
    learner: LocalLearner,
    train: Sequence[Row],
    held_out: Sequence[Row],
    order: Order,
    total: int,
) -> None:
    checkpoints = Checkpoints(run, {"policy": learner}, config.run)
    start, state = checkpoints.resume()
    num_tokens = state.get("num_tokens", 0)
    run.stage("supervised fine-tuning", total)
    for step in range(start + 1, total + 1):
        began = time.monotonic()
        batch = collate([train[i] for i in order.batch(step - 1)])
        terms = learner.backward(batch, likelihood_loss, batch.num_learned)
        lr = learner.learning_rate
        norm = learner.step()
        num_tokens += int(batch.attend.sum())
        metrics: dict[str, float | int | None] = {
            "loss": float(terms["loss"].sum()) / batch.num_learned,
            "grad_norm": norm,
            "learning_rate": lr,
            "num_tokens": num_tokens,
            "epoch": order.epoch(step),
            "tokens_per_second": int(batch.attend.sum()) / (time.monotonic() - began),
        }
        if held_out and (step % config.eval_every == 0 or step == total):
            eval_loss = held_out_loss(learner, held_out)
            metrics["eval/loss"] = eval_loss
            metrics["eval/perplexity"] = math.exp(min(eval_loss, 50.0))
        run.log(step, metrics, total=total)
        checkpoints.maybe_write(step, {"num_tokens": num_tokens}, last=step == total)
