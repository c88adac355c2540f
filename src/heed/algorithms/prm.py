"""A process reward model: whether each step of a completion is right.

    for each batch of completions in steps:
        loss = mean over labelled steps of -(y log sigmoid(r) + (1 - y) log sigmoid(-r)),
            r the log-odds at the step's last token
        step

Sources: Uesato et al. 2022; Lightman et al. 2023. The columns and the names are those of TRL's
`PRMTrainer`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from heed.data.batch import Row, TokenBatch, collate, stream_of
from heed.data.datasets import load_steps, split_by_prompt
from heed.data.labels import Steps
from heed.data.order import Order
from heed.data.render import Renderer
from heed.data.report import DataReport, settle
from heed.data.rows import step_rows
from heed.errors import DataError
from heed.learners.base import LossTerms, Outputs
from heed.learners.local import LocalLearner
from heed.learners.resume import Checkpoints
from heed.losses.reward import step_correctness
from heed.models.adapters import add_lora
from heed.models.load import load_tokenizer
from heed.models.step_head import StepHead
from heed.records import Finding
from heed.runs.run import Run
from heed.runs.sinks import Sink
from heed.settings import (
    DataSettings,
    LearnerSettings,
    ModelSettings,
    OptimSettings,
    RunSettings,
    Settings,
)
from heed.stats.intervals import win_rate


class PRMConfig(Settings):
    """A process reward model trained on labelled steps."""

    run: RunSettings
    model: ModelSettings
    """The model to start from; it gets a head that judges steps."""
    data: DataSettings
    """Rows with `prompt`, `completions` (the steps) and `labels` (true or false, one a step)."""
    eval_data: DataSettings | None = None
    """Rows to judge the model on; by default a share of `data` held out by prompt."""
    eval_frac: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the prompts held out where there is no `eval_data`."""
    eval_every: int = Field(default=100, ge=1)
    """Steps between two measurements on the held-out rows."""
    num_train_epochs: float = Field(default=1.0, gt=0.0)
    """Passes over the data."""
    batch_size: int = Field(default=32, ge=1)
    """Completions of one optimiser step."""
    step_separator: str = Field(default="\n", min_length=1)
    """Put after every step; the step is judged at its last token."""
    train_on_last_step_only: bool = False
    """Learn only the last step of each completion, as an outcome reward model."""
    aggregate: Literal["min", "product", "last", "mean"] = "min"
    """How a scorer makes one number of the steps' probabilities; saved with the model."""
    optim: OptimSettings = OptimSettings(lr=1e-5)
    learner: LearnerSettings = LearnerSettings()


@dataclass(frozen=True)
class StepRow:
    """A row that learns the last token of each labelled step, with the labels of these."""

    steps: Steps
    row: Row
    labels: tuple[float, ...]


def run(config: PRMConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Train, judge on held-out steps, and leave the model in `RUN/model`.

    Raises:
        DataError: more rows than allowed do not fit, none are left to hold out, or all labels are
            equal.
        LearnerError: the loss is not finite.
    """
    inputs = {"model": config.model.path, "data": config.data.path}
    with Run.start(config.run, "prm", config, inputs, sinks) as run:
        tokenizer = load_tokenizer(config.model)
        train, held_out = load_step_rows(config, Renderer(tokenizer), run)
        head = StepHead.load(
            config.model.path,
            seed=config.run.seed,
            revision=config.model.revision,
            trust_remote_code=config.model.trust_remote_code,
        )
        adapted = None
        if config.model.lora is not None:
            adapted = add_lora(
                head.backbone, config.model.lora, seed=config.run.seed, task="FEATURE_EXTRACTION"
            )
        order = Order(len(train), config.batch_size, config.run.seed, "prm")
        total = order.steps(config.num_train_epochs)
        learner = LocalLearner(head, config.optim, total, config.learner, bad_batch=run.path("bad"))
        _train(config, run, learner, train, held_out, order, total)
        learner.widen()
        run.add_findings(judge_steps(held_out, step_values(learner, held_out)))
        if adapted is not None:
            head.backbone = adapted.merge_and_unload()  # type: ignore[operator]
        extra = {"step_separator": config.step_separator, "aggregate": config.aggregate}
        head.save(run.path("model"), tokenizer, extra)
        run.finish({"model": run.path("model")}, facts={"num_train": len(train)})
    return run


def step_loss(outputs: Outputs, batch: TokenBatch) -> LossTerms:
    """Log-loss at the ends of labelled steps; unreduced [b, t]."""
    assert outputs.values is not None
    labels = batch.stream("labels")
    values = step_correctness(outputs.values, labels, batch.learn)
    right = ((outputs.values.detach() > 0) == (labels > 0.5)) & batch.learn
    return LossTerms(values, {"accuracy": right.float()})


def load_step_rows(
    config: PRMConfig, renderer: Renderer, run: Run
) -> tuple[list[StepRow], list[StepRow]]:
    """Rows to train on and rows held out; no prompt is in both.

    Raises:
        DataError: too few rows are left, or all training labels are equal.
    """
    records, report = load_steps(config.data)
    reports = [(config.data, report)]
    if config.eval_data is None:
        records, others = split_by_prompt(records, config.eval_frac, config.run.seed)
        other_report, other_data = report, config.data
    else:
        others, other_report = load_steps(config.eval_data)
        other_data = config.eval_data
        reports.append((other_data, other_report))
    train = _laid_out(records, config, renderer, report, config.data, training=True)
    held_out = _laid_out(others, config, renderer, other_report, other_data, training=False)
    settle(run, [(found, data.max_loss_frac) for data, found in reports])
    if not train or not held_out:
        raise DataError(
            f"{len(train)} completions to train on and {len(held_out)} held out remain; give more "
            "with different prompts, or eval_data"
        )
    labels = {label for row in train for label in row.labels}
    if len(labels) == 1:
        raise DataError(
            f"all training labels of steps are {labels.pop():g}, so there is nothing to learn; "
            "give steps that are right and steps that are wrong"
        )
    return train, held_out


def _laid_out(
    records: Sequence[Steps],
    config: PRMConfig,
    renderer: Renderer,
    report: DataReport,
    data: DataSettings,
    *,
    training: bool,
) -> list[StepRow]:
    if training and config.train_on_last_step_only:
        records = [
            replace(record, labels=(None,) * (len(record.labels) - 1) + record.labels[-1:])
            for record in records
        ]
    known = []
    for record in records:
        if all(label is None for label in record.labels):
            report.unsupervised("the last step has no label", record.steps[-1])
        else:
            known.append(record)
    rows = step_rows(
        known,
        renderer,
        report,
        config.step_separator,
        max_length=data.max_length,
        on_overlong=data.on_overlong,
    )
    return [_labelled(record, row) for record, row in rows]


def _labelled(record: Steps, row: Row) -> StepRow:
    """Keep the learn marks of the steps that have a label."""
    ends = [t for t, end in enumerate(row.learn) if end]
    learn = [False] * len(row.tokens)
    for t, label in zip(ends, record.labels, strict=True):
        learn[t] = label is not None
    known = tuple(label for label in record.labels if label is not None)
    return StepRow(record, replace(row, learn=learn), known)


def step_batch(rows: Sequence[StepRow]) -> TokenBatch:
    """Lay rows out with the stream `labels`."""
    batch = collate([row.row for row in rows])
    return batch.with_streams(labels=stream_of([row.labels for row in rows], batch))


def step_values(
    learner: LocalLearner, rows: Sequence[StepRow], batch_size: int = 64
) -> list[NDArray]:
    """Log-odds of each labelled step, an array a row."""
    out = []
    for first in range(0, len(rows), batch_size):
        batch = step_batch(rows[first : first + batch_size])
        values = learner.forward(batch).values
        assert values is not None
        out += [values[i][batch.learn[i]].double().numpy() for i in range(len(batch))]
    return out


def judge_steps(rows: Sequence[StepRow], values: Sequence[NDArray]) -> list[Finding]:
    """Accuracy of steps beside the commoner label, and whether first errors are found.

    Raises:
        DataError: there are no rows.
    """
    if not rows:
        raise DataError("there are no held-out steps; give more rows")
    labels = [np.array(row.labels) > 0.5 for row in rows]
    right = [(own > 0) == label for own, label in zip(values, labels, strict=True)]
    whose = [row.steps.prompt.id for row in rows for _ in row.labels]
    every = np.concatenate(labels)
    commoner = every if every.mean() >= 0.5 else ~every
    shares: list[tuple[str, Any, list[str], str]] = [
        ("steps judged as labelled", np.concatenate(right), whose, "share of held-out steps"),
        ("always-the-commoner-label share", commoner, whose, "share of held-out steps"),
    ]
    for wrong, name in ((True, "first wrong step found"), (False, "sound completions passed")):
        at = [i for i, label in enumerate(labels) if (not label.all()) == wrong]
        found = [bool(_first(values[i] > 0) == _first(labels[i])) for i in at]
        prompts = [rows[i].steps.prompt.id for i in at]
        shares.append((name, np.array(found), prompts, "share of held-out completions"))
    out = []
    for name, hits, prompts, unit in shares:
        if not len(hits):
            reason = "the held-out rows have none"
            out.append(Finding(name=name, estimate=None, n=0, unit=unit, reason=reason))
            continue
        found_share = win_rate(hits.astype(float), prompts)
        out.append(
            Finding(
                name=name,
                estimate=found_share.estimate,
                low=found_share.low,
                high=found_share.high,
                n=found_share.n,
                unit=unit,
            )
        )
    return out


def _first(passes: NDArray) -> int:
    """Place of the first step that does not pass; -1 where all do."""
    wrong = np.flatnonzero(~passes)
    return int(wrong[0]) if len(wrong) else -1


def _train(
    config: PRMConfig,
    run: Run,
    learner: LocalLearner,
    train: Sequence[StepRow],
    held_out: Sequence[StepRow],
    order: Order,
    total: int,
) -> None:
    checkpoints = Checkpoints(run, {"prm": learner}, config.run)
    start, _ = checkpoints.resume()
    run.stage("process reward model", total)
    for step in range(start + 1, total + 1):
        began = time.monotonic()
        batch = step_batch([train[i] for i in order.batch(step - 1)])
        terms = learner.backward(batch, step_loss, batch.num_learned)
        lr = learner.learning_rate
        norm = learner.step()
        metrics: dict[str, float | int | None] = {
            "loss": float(terms["loss"].sum()) / batch.num_learned,
            "step_accuracy": float(terms["accuracy"].sum()) / batch.num_learned,
            "grad_norm": norm,
            "learning_rate": lr,
            "epoch": order.epoch(step),
            "samples_per_second": len(batch) / (time.monotonic() - began),
        }
        if step % config.eval_every == 0 or step == total:
            metrics |= _measures(held_out, step_values(learner, held_out))
        run.log(step, metrics, total=total)
        checkpoints.maybe_write(step, {}, last=step == total)


def _measures(rows: Sequence[StepRow], values: Sequence[NDArray]) -> dict[str, float | None]:
    logits = torch.from_numpy(np.concatenate(values))[None]
    labels = torch.tensor([[label for row in rows for label in row.labels]], dtype=torch.float64)
    losses = step_correctness(logits, labels, torch.ones_like(logits, dtype=torch.bool))
    right = (logits > 0) == (labels > 0.5)
    return {"eval/loss": float(losses.mean()), "eval/step_accuracy": float(right.double().mean())}
