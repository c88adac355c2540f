"""A policy from comparisons alone: DPO and its family, by one loop.

    ask the reference once:  log ref(reply) of every reply
    for each batch of pairs:
        a = log pi(reply) - log ref(reply), of both sides
        loss = mean over pairs of a row of the table, such as -log sigmoid(beta (a_w - a_l))
        step
        (the reference <- alpha pi + (1 - alpha) ref every so many steps, where it is to follow)

Source: Rafailov et al. 2023; each row of `heed.algorithms.preference_rows` names its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import nn

from heed.algorithms.preference_config import PreferenceConfig
from heed.algorithms.preference_loss import lay_out, measure, preference_loss, with_whole_batch
from heed.algorithms.preference_watch import check_displacement, check_origin
from heed.algorithms.references import References, Uniform, open_reference, references_of
from heed.algorithms.reward import PairRows, likelier_first
from heed.data.datasets import load_preferences, split_by_prompt
from heed.data.judgements import LabelledPair
from heed.data.order import Order
from heed.data.render import Renderer
from heed.data.report import DataReport, settle
from heed.data.rows import pair_rows
from heed.errors import DataError
from heed.learners.base import Evaluator, Learner
from heed.learners.local import LocalLearner
from heed.learners.reference import MovingReference
from heed.learners.resume import Checkpoints
from heed.models.adapters import add_lora, merge_and_save
from heed.models.heads import PolicyHead
from heed.models.load import load_causal, load_tokenizer
from heed.records import Finding
from heed.runs.run import Run
from heed.runs.sinks import Sink
from heed.settings import DataSettings
from heed.stats.intervals import win_rate

__all__ = ["Parts", "PreferenceConfig", "optimise", "run"]


@dataclass(frozen=True)
class Parts:
    """What the loop is composed of.

    Args:
        learner: the policy, as it starts.
        reference: evaluates the reference: before the first step alone, unless it moves or is
            asked for whole distributions. None where no loss has one.
        train, held_out: pairs with their rows.
    """

    learner: LocalLearner
    reference: Evaluator | None
    train: Sequence[PairRows]
    held_out: Sequence[PairRows]


def run(config: PreferenceConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Train, and leave the policy in `RUN/model`.

    Raises:
        DataError: more pairs than allowed do not fit, or a loss has no form for their labels.
        LearnerError: the loss is not finite.
    """
    inputs = {"model": config.model.path, "data": config.data.path}
    with Run.start(config.run, "preference", config, inputs, sinks) as run:
        tokenizer = load_tokenizer(config.model)
        loaded = load_causal(config.model)
        causal: nn.Module = loaded
        if config.model.lora:
            causal = add_lora(loaded, config.model.lora, seed=config.run.seed)
        train, held_out = load_rows(config, Renderer(tokenizer), run)
        learner = LocalLearner(
            PolicyHead(causal),
            config.optim,
            _order(config, train).steps(config.num_train_epochs),
            config.learner,
            bad_batch=run.path("bad"),
        )
        reference = None
        if config.needs_reference:
            reference = open_reference(
                config.model,
                config.reference,
                config.learner,
                learner,
                causal,
                moves=config.sync_ref_model,
                whole="log_distribution" in config.also,
            )
        optimise(config, run, Parts(learner, reference, train, held_out))
        learner.widen()
        merge_and_save(run.path("model"), causal, tokenizer)
        run.finish({"model": run.path("model")})
    return run


def load_rows(
    config: PreferenceConfig, renderer: Renderer, run: Run
) -> tuple[list[PairRows], list[PairRows]]:
    """Pairs to train on and pairs held out; no prompt is in both. Reported and checked."""
    pairs, report = load_preferences(config.data)
    reports = [(config.data, report)]
    if config.eval_data is None:
        pairs, others = split_by_prompt(pairs, config.eval_frac, config.run.seed)
        other_report = report
    else:
        others, other_report = load_preferences(config.eval_data)
        reports.append((config.eval_data, other_report))
    train = _rows(config, pairs, renderer, report, config.data)
    held_out = _rows(config, others, renderer, other_report, config.eval_data or config.data)
    settle(run, [(found, data.max_loss_frac) for data, found in reports])
    if not train:
        raise DataError("no pairs remain to train on; give more pairs, or a smaller eval_frac")
    if any(pair.margin is not None for pair in pairs):
        run.warn(0, "data", "the column margin is of reward models; these losses do not read it")
    return train, held_out


def _rows(
    config: PreferenceConfig,
    pairs: Sequence[LabelledPair],
    renderer: Renderer,
    report: DataReport,
    data: DataSettings,
) -> list[PairRows]:
    turned = [likelier_first(pair) for pair in pairs]
    if config.harden_labels:
        for pair in turned:
            if pair.p == 0.5:
                report.set_aside("a tie, and labels are hardened", pair.prompt.text[-80:])
        turned = [replace(pair, p=1.0) for pair in turned if pair.p != 0.5]
    else:
        _check_labels(config, turned)
    if any(pair.weight is not None for pair in turned):
        weights = [1.0 if pair.weight is None else pair.weight for pair in turned]
        turned = [replace(p, weight=w) for p, w in zip(turned, weights, strict=True)]
    turned = [replace(pair, margin=None) for pair in turned]
    return pair_rows(
        turned, renderer, report, max_length=data.max_length, on_overlong=data.on_overlong
    )


def _check_labels(config: PreferenceConfig, pairs: Sequence[LabelledPair]) -> None:
    hard = [name for name, row in config.rows.items() if not row.soft]
    soft = [pair for pair in pairs if pair.p < 1]
    if hard and soft:
        ties = sum(pair.p == 0.5 for pair in soft)
        raise DataError(
            f"{len(soft):,} of {len(pairs):,} pairs have a label that is not certain ({ties:,} of "
            f"them ties), and {', '.join(hard)} has no form for one. Set harden_labels=true to "
            "take the likelier side for better and leave ties out, or choose a loss that reads "
            "soft labels, such as sigmoid or sppo"
        )


def _order(config: PreferenceConfig, train: Sequence[PairRows]) -> Order:
    return Order(len(train), config.batch_size, config.run.seed, "preference")


def optimise(config: PreferenceConfig, run: Run, parts: Parts) -> None:
    """Take all steps, from the newest checkpoint on where the run is resumed."""
    learner, moving = parts.learner, parts.reference
    references: References = Uniform()
    if parts.reference is not None:
        both = [row for pair in (*parts.train, *parts.held_out) for row in pair[1:]]
        references = references_of(run, parts.reference, learner, both)
    start_logps = _held_out(config, parts, references)[1].get("logps/chosen")
    learners: dict[str, Learner] = {"policy": learner}
    if isinstance(moving, MovingReference):
        learners["reference"] = cast(Learner, moving)
    checkpoints = Checkpoints(run, learners, config.run)
    start, state = checkpoints.resume()
    order = _order(config, parts.train)
    total = order.steps(config.num_train_epochs)
    num_tokens, displaced = state.get("num_tokens", 0), state.get("displaced", False)
    run.stage("preference optimisation", total)
    for step in range(start + 1, total + 1):
        began = time.monotonic()
        rows = [parts.train[i] for i in order.batch(step - 1)]
        metrics, num = take_step(config, run, parts, references, rows, step)
        num_tokens += num
        if isinstance(moving, MovingReference) and step % config.ref_model_sync_steps == 0:
            moving.follow(learner, config.ref_model_mixup_alpha)
        if step % config.eval_every == 0 or step == total:
            figures, found = _held_out(config, parts, references)
            metrics |= figures
            if start_logps is not None:
                change = found["logps/chosen"] - start_logps
                metrics["eval/logps/chosen_change"] = float(change.mean())
                displaced = displaced or check_displacement(run, step, change)
        elapsed = time.monotonic() - began
        metrics |= {
            "num_tokens": num_tokens,
            "epoch": order.epoch(step),
            "samples_per_second": len(rows) / elapsed,
        }
        run.log(step, metrics, total=total)
        kept = {"num_tokens": num_tokens, "displaced": displaced}
        checkpoints.maybe_write(step, kept, last=step == total)
    run.add_findings(_order_of_held_out(config, parts, references))


def take_step(
    config: PreferenceConfig,
    run: Run,
    parts: Parts,
    references: References,
    rows: Sequence[PairRows],
    step: int,
) -> tuple[dict[str, float | int | None], int]:
    """One optimiser step; returns its metrics and the tokens it read."""
    learner = parts.learner
    batch = with_whole_batch(config, learner, lay_out(config, references, rows))
    first = step == 1 and config.needs_reference and config.reference is None
    loss = preference_loss(config, parts.reference, origin=first)
    terms = learner.backward(batch, loss, len(batch), also=config.also)
    value = float(terms.pop("loss").mean())
    if first:
        check_origin(run, value, float(terms.pop("origin").mean()), learner.dtype)
    rate = learner.learning_rate
    norm = learner.step()
    figures = {name: float(each.mean()) for name, each in terms.items()}
    metrics: dict[str, float | int | None] = {
        "loss": value,
        **figures,
        "grad_norm": norm,
        "learning_rate": rate,
    }
    num_tokens = int(batch.chosen.attend.sum() + batch.rejected.attend.sum())
    return metrics, num_tokens


def _order_of_held_out(
    config: PreferenceConfig, parts: Parts, references: References
) -> list[Finding]:
    """How many held-out pairs the implicit reward puts in the right order, with an interval."""
    judged = [pair for pair in parts.held_out if pair[0].p != 0.5]
    if not judged:
        return []
    _, found = measure(config, parts.learner, parts.reference, references, judged)
    prompts = [pair.prompt.id for pair, _, _ in judged]
    share = win_rate(found["rewards/accuracies"].numpy(), prompts)
    return [
        Finding(
            name="held-out pairs in the right order",
            estimate=share.estimate,
            low=share.low,
            high=share.high,
            n=share.n,
            unit="share of held-out pairs, ties one half",
        )
    ]


def _held_out(
    config: PreferenceConfig, parts: Parts, references: References
) -> tuple[dict[str, float | int | None], dict[str, torch.Tensor]]:
    """Figures of the held-out pairs under their names, and the numbers of each pair."""
    if not parts.held_out:
        return {}, {}
    values, found = measure(config, parts.learner, parts.reference, references, parts.held_out)
    shown = ("rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected")
    figures = {f"eval/{name}": float(found[name].mean()) for name in shown}
    return {"eval/loss": float(values.mean()), **figures}, found
