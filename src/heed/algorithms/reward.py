"""A reward model from comparisons: the score whose differences predict which is preferred.

    for each batch of pairs:
        loss = -(p log sigmoid(r_c - r_r - margin) + (1 - p) log sigmoid(r_r - r_c + margin))
        step
    then shift and scale the score so that its mean is 0 and its deviation 1 on given completions

Sources: Ziegler et al. 2019, section 2.1 (normalisation); Stiennon et al. 2020, section 3.4 (loss,
one epoch, start from the warm-up policy); Touvron et al. 2023, section 3.2.2 (margin).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from heed.algorithms.reward_quality import judge_reward_model
from heed.data.batch import PairBatch, Row, collate
from heed.data.datasets import load_demonstrations, load_preferences, split_by_prompt
from heed.data.judgements import LabelledPair
from heed.data.order import Order
from heed.data.render import Renderer
from heed.data.report import DataReport, settle
from heed.data.rows import pair_rows, supervised_rows
from heed.errors import DataError
from heed.ids import stream_seed
from heed.learners.base import LossTerms, Outputs, PairLoss
from heed.learners.local import LocalLearner
from heed.learners.resume import Checkpoints
from heed.losses.reward import bradley_terry, centring
from heed.models.adapters import add_lora
from heed.models.heads import RewardHead
from heed.models.load import load_tokenizer
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

PairRows = tuple[LabelledPair, Row, Row]


class RewardConfig(Settings):
    """A reward model trained on comparisons."""

    run: RunSettings
    model: ModelSettings
    """The model to start from, usually the warmed-up policy; it gets a score head."""
    data: DataSettings
    """Comparisons: `chosen` and `rejected` with or without `prompt`, or a run of `heed compare`."""
    eval_data: DataSettings | None = None
    """Comparisons to judge the model on; by default a share of `data` held out by prompt."""
    eval_frac: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the prompts held out where there is no `eval_data`."""
    eval_every: int = Field(default=100, ge=1)
    """Steps between two measurements on the held-out comparisons."""
    num_train_epochs: float = Field(default=1.0, gt=0.0)
    """Passes over the data; more than one overfits quickly."""
    batch_size: int = Field(default=64, ge=1)
    """Pairs of one optimiser step."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Labels are taken to be wrong with this probability."""
    center_rewards_coefficient: float | None = Field(default=None, ge=0.0)
    """Weight of (r_c + r_r)^2, which keeps scores near 0."""
    normalise: Literal["gain_and_bias", "bias", "none"] = "gain_and_bias"
    """After training: mean 0 and deviation 1 (Ziegler), or only mean 0 (Stiennon)."""
    normalise_before: bool = False
    """Normalise before training too (Ziegler)."""
    normalise_data: DataSettings | None = None
    """Completions or demonstrations to normalise on; by default both sides of the pairs."""
    num_normalise: int = Field(default=256, ge=2)
    """How many of them."""
    optim: OptimSettings = OptimSettings(lr=1e-5)
    learner: LearnerSettings = LearnerSettings()

    def without_effect(self) -> tuple[NoEffect, ...]:
        """See `Settings.without_effect`."""
        return (
            NoEffect(self.eval_data is not None, ("eval_frac",), "eval_data is held out"),
            NoEffect(
                self.normalise == "none",
                ("normalise_before", "normalise_data", "num_normalise"),
                "normalise is none",
            ),
        )


def preference_loss(config: RewardConfig) -> PairLoss:
    """Bradley-Terry with soft labels and margins, plus centring; unreduced [b]."""

    def loss(chosen: Outputs, rejected: Outputs, batch: PairBatch) -> LossTerms:
        assert chosen.scores is not None
        assert rejected.scores is not None
        values = bradley_terry(
            chosen.scores,
            rejected.scores,
            p=batch.p,
            margin=batch.margin,
            label_smoothing=config.label_smoothing,
        )
        if config.center_rewards_coefficient:
            values = values + config.center_rewards_coefficient * centring(
                chosen.scores, rejected.scores
            )
        if batch.weights is not None:
            values = values * batch.weights
        margin = (chosen.scores - rejected.scores).detach()
        metrics = {
            "margin": margin,
            "correct": (margin > 0).float() + 0.5 * (margin == 0).float(),
            "mean_reward": 0.5 * (chosen.scores + rejected.scores).detach(),
        }
        return LossTerms(values, metrics)

    return loss


def run(config: RewardConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Train, judge on held-out pairs, normalise, and leave the model in `RUN/model`.

    Raises:
        DataError: more pairs than allowed do not fit, or none are left to hold out.
        LearnerError: the loss is not finite.
    """
    inputs = {"model": config.model.path, "data": config.data.path}
    with Run.start(config.run, "reward", config, inputs, sinks) as run:
        tokenizer = load_tokenizer(config.model)
        renderer = Renderer(tokenizer)
        train, held_out, normal = load_rows(config, renderer, run)
        head = open_head(config)
        adapted = None
        if config.model.lora is not None:
            # The adapters go into the backbone in place; the head itself is trained whole.
            adapted = add_lora(
                head.backbone, config.model.lora, seed=config.run.seed, task="FEATURE_EXTRACTION"
            )
        order = Order(len(train), config.batch_size, config.run.seed, "reward")
        total = order.steps(config.num_train_epochs)
        learner = LocalLearner(head, config.optim, total, config.learner, bad_batch=run.path("bad"))
        if config.normalise_before:
            normalise(head, learner, normal, config.normalise)
        _train(config, run, learner, train, held_out, order, total)
        gaps, lengths = score_gaps(learner, held_out)
        findings, facts = judge_reward_model(
            [pair for pair, _, _ in held_out], gaps, lengths, [pair for pair, _, _ in train]
        )
        run.add_findings(findings)
        gain, bias = normalise(head, learner, normal, config.normalise)
        learner.widen()
        if adapted is not None:
            head.backbone = adapted.merge_and_unload()  # type: ignore[operator]
        head.save(run.path("model"), tokenizer)
        run.finish({"model": run.path("model")}, facts={**facts, "gain": gain, "bias": bias})
    return run


def open_head(config: RewardConfig) -> RewardHead:
    """A score head on the model: its own if it is a reward model already, else a fresh one."""
    return RewardHead.load(
        config.model.path,
        seed=config.run.seed,
        revision=config.model.revision,
        trust_remote_code=config.model.trust_remote_code,
    )


def load_rows(
    config: RewardConfig, renderer: Renderer, run: Run
) -> tuple[list[PairRows], list[PairRows], list[Row]]:
    """Pairs to train on, pairs held out (no prompt in both), and rows to normalise on."""
    pairs, report = load_preferences(config.data)
    reports = [(config.data, report)]
    if config.eval_data is None:
        pairs, others = split_by_prompt(pairs, config.eval_frac, config.run.seed)
        other_report = report
    else:
        others, other_report = load_preferences(config.eval_data)
        reports.append((config.eval_data, other_report))
    train = _pair_rows(pairs, renderer, report, config.data)
    held_out = _pair_rows(others, renderer, other_report, config.eval_data or config.data)
    normal = [row for _, chosen, rejected in train for row in (chosen, rejected)]
    if config.normalise_data is not None:
        completions, third = load_demonstrations(config.normalise_data)
        data = config.normalise_data
        normal = supervised_rows(
            completions, renderer, third, max_length=data.max_length, on_overlong=data.on_overlong
        )
        reports.append((data, third))
    settle(run, [(found, data.max_loss_frac) for data, found in reports])
    if not train or not held_out:
        raise DataError(
            f"{len(train)} pairs to train on and {len(held_out)} held out remain; give more pairs "
            "with different prompts, or eval_data"
        )
    rng = np.random.default_rng(stream_seed(config.run.seed, "normalise"))
    picked = rng.permutation(len(normal))[: config.num_normalise]
    return train, held_out, [normal[i] for i in picked]


def _pair_rows(
    pairs: Sequence[LabelledPair], renderer: Renderer, report: DataReport, data: DataSettings
) -> list[PairRows]:
    return pair_rows(
        [likelier_first(pair) for pair in pairs],
        renderer,
        report,
        max_length=data.max_length,
        on_overlong=data.on_overlong,
    )


def likelier_first(pair: LabelledPair) -> LabelledPair:
    """Turn a pair round whose label says that `rejected` is the likelier better one.

    The loss is the same either way; accuracies then count what the label says.
    """
    if pair.p >= 0.5:
        return pair
    margin = None if pair.margin is None else -pair.margin
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen, p=1.0 - pair.p, margin=margin)


def pair_batch(rows: Sequence[PairRows]) -> PairBatch:
    """Lay pairs out as a batch; a margin or weight is used where every pair has one."""
    pairs = [pair for pair, _, _ in rows]
    margins = [pair.margin for pair in pairs]
    weights = [pair.weight for pair in pairs]
    return PairBatch(
        chosen=collate([chosen for _, chosen, _ in rows]),
        rejected=collate([rejected for _, _, rejected in rows]),
        p=torch.tensor([pair.p for pair in pairs]),
        margin=None if None in margins else torch.tensor(margins),
        weights=None if None in weights else torch.tensor(weights),
    )


def score_gaps(
    learner: LocalLearner, rows: Sequence[PairRows], batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Score of chosen minus score of rejected [N], and the tokens of both [N, 2]."""
    gaps: list[float] = []
    for first in range(0, len(rows), batch_size):
        batch = pair_batch(rows[first : first + batch_size])
        chosen = learner.forward(batch.chosen).scores
        rejected = learner.forward(batch.rejected).scores
        assert chosen is not None
        assert rejected is not None
        gaps += (chosen - rejected).tolist()
    lengths = [(sum(chosen.learn), sum(rejected.learn)) for _, chosen, rejected in rows]
    return np.array(gaps), np.array(lengths)


def held_out_loss(config: RewardConfig, rows: Sequence[PairRows], gaps: np.ndarray) -> float:
    """Mean Bradley-Terry loss in nats per pair, with the pairs' labels and margins."""
    chosen = torch.from_numpy(gaps)
    pairs = [pair for pair, _, _ in rows]
    values = bradley_terry(
        chosen,
        torch.zeros_like(chosen),
        p=chosen.new_tensor([pair.p for pair in pairs]),
        margin=chosen.new_tensor([pair.margin or 0.0 for pair in pairs]),
        label_smoothing=config.label_smoothing,
    )
    return float(values.mean())


def normalise(
    head: RewardHead,
    learner: LocalLearner,
    rows: Sequence[Row],
    how: Literal["gain_and_bias", "bias", "none"],
    batch_size: int = 128,
) -> tuple[float, float]:
    """Set gain and bias so that the rows' scores have mean 0 (and deviation 1); returns both.

    Source: Ziegler et al. 2019, code: gain = sd_target / sd, bias = mean_target - gain * mean.
    """
    if how == "none":
        return float(head.gain), float(head.bias)
    scores: list[float] = []
    for first in range(0, len(rows), batch_size):
        found = learner.forward(collate(rows[first : first + batch_size])).scores
        assert found is not None
        scores += found.tolist()
    mean, deviation = float(np.mean(scores)), float(np.std(scores))
    scale = 1.0 / deviation if how == "gain_and_bias" and deviation > 0 else 1.0
    head.set_scale(float(head.gain) * scale, (float(head.bias) - mean) * scale)
    return float(head.gain), float(head.bias)


def _train(
    config: RewardConfig,
    run: Run,
    learner: LocalLearner,
    train: Sequence[PairRows],
    held_out: Sequence[PairRows],
    order: Order,
    total: int,
) -> None:
    checkpoints = Checkpoints(run, {"reward": learner}, config.run)
    start, _ = checkpoints.resume()
    loss = preference_loss(config)
    run.stage("reward model", total)
    for step in range(start + 1, total + 1):
        began = time.monotonic()
        batch = pair_batch([train[i] for i in order.batch(step - 1)])
        terms = learner.backward(batch, loss, len(batch))
        lr = learner.learning_rate
        norm = learner.step()
        metrics: dict[str, float | int | None] = {
            "loss": float(terms["loss"].mean()),
            "accuracy": float(terms["correct"].mean()),
            "margin": float(terms["margin"].mean()),
            "mean_reward": float(terms["mean_reward"].mean()),
            "grad_norm": norm,
            "learning_rate": lr,
            "epoch": order.epoch(step),
            "samples_per_second": len(batch) / (time.monotonic() - began),
        }
        if step % config.eval_every == 0 or step == total:
            gaps, _ = score_gaps(learner, held_out)
            metrics["eval/accuracy"] = float(((gaps > 0) + 0.5 * (gaps == 0)).mean())
            metrics["eval/loss"] = held_out_loss(config, held_out, gaps)
        run.log(step, metrics, total=total)
        checkpoints.maybe_write(step, {}, last=step == total)
