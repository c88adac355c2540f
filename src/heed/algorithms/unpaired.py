"""A policy from single replies that were called good or bad: KTO, APO-zero and BCO, by one loop.

    ask the reference once:  log ref(reply) of every reply
    for each batch of replies:
        a = log pi(reply) - log ref(reply)
        the baseline, over the whole batch and without gradient:
            KTO  z0 = max(0, mean of a over replies to the prompt before, paired with each prompt)
            BCO  mean of beta a over all batches so far
        loss = mean over replies of 1 - sigmoid(beta (a - z0)) if good, with the sign turned if bad
        step

The baseline is known before the first micro-batch, so micro-batches change nothing. TRL pairs and
averages inside each micro-batch instead, so that its baseline depends on how a batch is cut up;
where one micro-batch is the whole batch the two agree.

Sources: Ethayarajh et al. 2024 (KTO); D'Oosterlinck et al. 2024 (APO); Jung et al. 2024 (BCO).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from heed import masked
from heed.algorithms.preference_watch import check_displacement, check_origin
from heed.algorithms.references import References, open_reference, references_of
from heed.algorithms.unpaired_config import UnpairedConfig
from heed.algorithms.unpaired_rows import Baseline, lay_out, mismatched, order_of, unpaired_loss
from heed.data.batch import Row, TokenBatch
from heed.data.datasets import load_unpaired, split_by_prompt
from heed.data.judgements import LabelledReply
from heed.data.render import Renderer
from heed.data.report import settle
from heed.data.rows import reply_rows
from heed.errors import DataError
from heed.learners.base import Evaluator, Learner
from heed.learners.local import LocalLearner
from heed.learners.reference import MovingReference
from heed.learners.resume import Checkpoints
from heed.models.adapters import add_lora, merge_and_save
from heed.models.heads import PolicyHead
from heed.models.load import load_causal, load_tokenizer
from heed.runs.run import Run
from heed.runs.sinks import Sink

__all__ = ["Parts", "UnpairedConfig", "optimise", "run"]

ReplyRow = tuple[LabelledReply, Row]
Figures = dict[str, float | int | None]


@dataclass(frozen=True)
class Parts:
    """What the loop is composed of.

    Args:
        learner: the policy, as it starts.
        reference: evaluates the reference: before the first step alone, unless it moves.
        train, held_out: labelled replies with their rows.
        max_length: longest row that the model may be given; None for any.
    """

    learner: LocalLearner
    reference: Evaluator
    train: Sequence[ReplyRow]
    held_out: Sequence[ReplyRow]
    max_length: int | None = None


def run(config: UnpairedConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Train, and leave the policy in `RUN/model`.

    Raises:
        DataError: more replies than allowed do not fit, or all are good, or all bad.
        LearnerError: the loss is not finite.
    """
    inputs = {"model": config.model.path, "data": config.data.path}
    with Run.start(config.run, "unpaired", config, inputs, sinks) as run:
        tokenizer = load_tokenizer(config.model)
        loaded = load_causal(config.model)
        causal: nn.Module = loaded
        if config.model.lora:
            causal = add_lora(loaded, config.model.lora, seed=config.run.seed)
        train, held_out = load_rows(config, Renderer(tokenizer), run)
        steps = order_of(config, len(train)).steps(config.num_train_epochs)
        learner = LocalLearner(
            PolicyHead(causal), config.optim, steps, config.learner, bad_batch=run.path("bad")
        )
        reference = open_reference(
            config.model,
            config.reference,
            config.learner,
            learner,
            causal,
            moves=config.sync_ref_model,
        )
        positions = getattr(loaded.config, "max_position_embeddings", None)
        longest = min(config.data.max_length, positions or config.data.max_length)
        optimise(config, run, Parts(learner, reference, train, held_out, longest))
        learner.widen()
        merge_and_save(run.path("model"), causal, tokenizer)
        run.finish({"model": run.path("model")})
    return run


def load_rows(
    config: UnpairedConfig, renderer: Renderer, run: Run
) -> tuple[list[ReplyRow], list[ReplyRow]]:
    """Replies to train on and replies held out; no prompt is in both. Reported and checked."""
    replies, report = load_unpaired(config.data)
    reports = [(config.data, report)]
    if config.eval_data is None:
        replies, others = split_by_prompt(replies, config.eval_frac, config.run.seed)
        other_report = report
    else:
        others, other_report = load_unpaired(config.eval_data)
        reports.append((config.eval_data, other_report))
    made = []
    for found, into, data in (
        (replies, report, config.data),
        (others, other_report, config.eval_data or config.data),
    ):
        made.append(
            reply_rows(
                found, renderer, into, max_length=data.max_length, on_overlong=data.on_overlong
            )
        )
    settle(run, [(each, data.max_loss_frac) for data, each in reports])
    good = sum(reply.p for reply, _ in made[0])
    bad = len(made[0]) - good
    if not good or not bad:
        raise DataError(
            f"of {len(made[0]):,} replies {good:g} are good and {bad:g} bad; a loss of single "
            "replies needs both (for good ones alone there is `heed sft`)"
        )
    _check_balance(config, run, good, bad)
    return made[0], made[1]


def _check_balance(config: UnpairedConfig, run: Run, good: float, bad: float) -> None:
    if config.loss_type != "kto" or not config.undesirable_weight:
        return
    share = config.desirable_weight * good / (config.undesirable_weight * bad)
    if not 1.0 <= share <= 4.0 / 3.0:
        run.warn(
            0,
            "desirable_weight",
            f"{good:g} good and {bad:g} bad replies weigh {share:.3g} to 1; KTO's authors advise "
            f"1 to 4/3: set desirable_weight to {config.undesirable_weight * bad / good:.3g}, or "
            f"undesirable_weight to {config.desirable_weight * good / bad:.3g}",
        )


def optimise(config: UnpairedConfig, run: Run, parts: Parts) -> None:
    """Take all steps, from the newest checkpoint on where the run is resumed."""
    learner, moving = parts.learner, parts.reference
    order = order_of(config, len(parts.train))
    total = order.steps(config.num_train_epochs)
    batches = [[parts.train[i] for i in order.batch(step)] for step in range(total)]
    rows = [row for _, row in (*parts.train, *parts.held_out)]
    if config.loss_type == "kto":
        for batch in batches:
            rows += mismatched([row for _, row in batch], parts.max_length)
    references = references_of(run, parts.reference, learner, rows)
    start_logps = _held_out(config, parts, references, Baseline(config))[1]
    learners: dict[str, Learner] = {"policy": learner}
    if isinstance(moving, MovingReference):
        learners["reference"] = cast(Learner, moving)
    checkpoints = Checkpoints(run, learners, config.run)
    start, state = checkpoints.resume()
    baseline = Baseline(config, state.get("baseline"), parts.max_length)
    num_tokens, displaced = state.get("num_tokens", 0), state.get("displaced", False)
    run.stage("optimisation on single replies", total)
    for step in range(start + 1, total + 1):
        began = time.monotonic()
        batch = batches[step - 1]
        metrics, num = take_step(config, run, parts, references, baseline, batch, step)
        num_tokens += num
        if isinstance(moving, MovingReference) and step % config.ref_model_sync_steps == 0:
            moving.follow(learner, config.ref_model_mixup_alpha)
        if step % config.eval_every == 0 or step == total:
            figures, logps = _held_out(config, parts, references, baseline)
            metrics |= figures
            if logps is not None and start_logps is not None:
                change = (logps - start_logps)[_good(parts.held_out)]
                if len(change):
                    metrics["eval/logps/chosen_change"] = float(change.mean())
                displaced = displaced or check_displacement(run, step, change)
        metrics |= {
            "num_tokens": num_tokens,
            "epoch": order.epoch(step),
            "samples_per_second": len(batch) / (time.monotonic() - began),
        }
        run.log(step, metrics, total=total)
        kept = {"num_tokens": num_tokens, "displaced": displaced, "baseline": baseline.state()}
        checkpoints.maybe_write(step, kept, last=step == total)


def take_step(
    config: UnpairedConfig,
    run: Run,
    parts: Parts,
    references: References,
    baseline: Baseline,
    replies: Sequence[ReplyRow],
    step: int,
) -> tuple[Figures, int]:
    """One optimiser step; returns its metrics and the tokens it read."""
    learner = parts.learner
    batch = lay_out(references, replies)
    name, value = baseline.measure(learner, references, batch, [row for _, row in replies])
    batch = batch.with_row_values(baseline=torch.full((len(batch),), value))
    terms = learner.backward(batch, unpaired_loss(config), len(batch))
    loss = float(terms["loss"].mean())
    if step == 1 and config.reference is None:
        check_origin(run, loss, float(terms["origin"].mean()), learner.dtype)
    rate = learner.learning_rate
    norm = learner.step()
    metrics: Figures = {"loss": loss, "grad_norm": norm, "learning_rate": rate}
    if name is not None:
        metrics[name] = value
    labels = batch.row_values("labels")
    return metrics | _sides(terms["reward"], terms["logps"], labels), int(batch.attend.sum())


def _sides(rewards: Tensor, logps: Tensor, labels: Tensor) -> Figures:
    """Means over good and bad replies; a batch without one of them has none of that side."""
    found: Figures = {}
    for side, weight in (("chosen", labels), ("rejected", 1.0 - labels)):
        total = float(weight.sum())
        for name, values in (("rewards", rewards), ("logps", logps)):
            found[f"{name}/{side}"] = float((weight * values).sum()) / total if total else None
    both = found["rewards/chosen"], found["rewards/rejected"]
    found["rewards/margins"] = None if None in both else cast(float, both[0]) - cast(float, both[1])
    return found


def _good(replies: Sequence[ReplyRow]) -> Tensor:
    return torch.tensor([reply.p > 0.5 for reply, _ in replies], dtype=torch.bool)


def _held_out(
    config: UnpairedConfig,
    parts: Parts,
    references: References,
    baseline: Baseline,
    chunk: int = 128,
) -> tuple[Figures, Tensor | None]:
    """Figures of the held-out replies, and the log-probability of each."""
    if not parts.held_out:
        return {}, None
    logps, ratios = [], []
    for first in range(0, len(parts.held_out), chunk):
        batch: TokenBatch = lay_out(references, parts.held_out[first : first + chunk])
        found = parts.learner.forward(batch).logprobs
        assert found is not None
        logps.append(masked.sum(found, batch.learn, dim=1))
        reference = masked.sum(batch.stream("reference_logprobs"), batch.learn, dim=1)
        ratios.append(logps[-1] - reference)
    rewards, good = config.beta * torch.cat(ratios), _good(parts.held_out)
    labels = torch.tensor([reply.p for reply, _ in parts.held_out])
    values = baseline.values(torch.cat(ratios), labels)
    figures: Figures = {"eval/loss": float(values.mean())}
    if bool(good.any()) and not bool(good.all()):
        gaps = rewards[good][:, None] - rewards[~good][None, :]
        order = (gaps > 0).float() + 0.5 * (gaps == 0).float()
        figures["eval/rewards/auc"] = float(order.mean())
        figures["eval/rewards/margins"] = float(gaps.mean())
    return figures, torch.cat(logps)
