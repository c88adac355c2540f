"""A reward model: the score whose differences predict which is preferred.

    for each batch of pairs:
        loss = -(p log sigmoid(r_c - r_r - margin) + (1 - p) log sigmoid(r_r - r_c + margin))
        step
    then shift and scale the score so that its mean is 0 and its deviation 1 on given completions

`loss_type` says what stands in place of the pairs: all pairs of a prompt at once, whole rankings,
or numbers by attribute. Each is an `Objective`; the loop is the same.

Sources: Ziegler et al. 2019, section 2.1 (normalisation); Stiennon et al. 2020, section 3.4 (loss,
one epoch, start from the warm-up policy); Touvron et al. 2023, section 3.2.2 (margin).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from heed.algorithms.reward_config import RewardConfig
from heed.algorithms.reward_objective import Objective
from heed.algorithms.reward_pairs import (
    PairRows,
    likelier_first,
    pair_batch,
    preference_loss,
    score_gaps,
)
from heed.algorithms.reward_sources import OBJECTIVES, load_rows
from heed.data.batch import Row, collate
from heed.data.order import Order
from heed.data.render import Renderer
from heed.learners.local import LocalLearner
from heed.learners.resume import Checkpoints
from heed.models.adapters import add_lora
from heed.models.heads import RewardHead
from heed.models.load import load_tokenizer
from heed.runs.run import Run
from heed.runs.sinks import Sink

__all__ = [
    "PairRows",
    "RewardConfig",
    "likelier_first",
    "load_rows",
    "normalise",
    "open_head",
    "pair_batch",
    "preference_loss",
    "run",
    "score_gaps",
]


def run(config: RewardConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Train, judge on held-out data, normalise, and leave the model in `RUN/model`.

    Raises:
        DataError: more rows than allowed do not fit, or none are left to hold out.
        LearnerError: the loss is not finite.
    """
    inputs = {"model": config.model.path, "data": config.data.path}
    with Run.start(config.run, "reward", config, inputs, sinks) as run:
        tokenizer = load_tokenizer(config.model)
        head = open_head(config)
        objective = OBJECTIVES[config.loss_type](config, Renderer(tokenizer), run, head)
        adapted = None
        if config.model.lora is not None:
            # The adapters go into the backbone in place; the head itself is trained whole.
            adapted = add_lora(
                head.backbone, config.model.lora, seed=config.run.seed, task="FEATURE_EXTRACTION"
            )
        order = Order(len(objective.train), config.batch_size, config.run.seed, "reward")
        total = order.steps(config.num_train_epochs)
        learner = LocalLearner(head, config.optim, total, config.learner, bad_batch=run.path("bad"))
        if config.normalise_before:
            normalise(head, learner, objective.normal, config.normalise)
        _train(config, run, learner, objective, order, total)
        learner.widen()
        findings, facts = objective.judge(learner)
        run.add_findings(findings)
        gain, bias = normalise(head, learner, objective.normal, config.normalise)
        if adapted is not None:
            head.backbone = adapted.merge_and_unload()  # type: ignore[operator]
        extra: dict[str, Any] = {"loss_type": config.loss_type}
        if objective.ties is not None:
            extra["tie_log_nu"] = objective.ties.values()
        head.save(run.path("model"), tokenizer, extra)
        run.finish({"model": run.path("model")}, facts={**facts, "gain": gain, "bias": bias})
    return run


def open_head(config: RewardConfig) -> RewardHead:
    """A score head on the model: its own if it is a reward model already, else a fresh one."""
    attributes = config.attributes or ("score",) if config.loss_type == "regression" else ()
    return RewardHead.load(
        config.model.path,
        seed=config.run.seed if config.head_seed is None else config.head_seed,
        revision=config.model.revision,
        trust_remote_code=config.model.trust_remote_code,
        attributes=attributes,
    )


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
    objective: Objective,
    order: Order,
    total: int,
) -> None:
    checkpoints = Checkpoints(run, {"reward": learner}, config.run)
    start, state = checkpoints.resume()
    ties = objective.ties
    if ties is not None and "tie_log_nu" in state:
        ties.restore(state["tie_log_nu"])
    run.stage("reward model", total)
    for step in range(start + 1, total + 1):
        began = time.monotonic()
        batch = objective.batch([objective.train[i] for i in order.batch(step - 1)])
        terms = learner.backward(batch, objective.loss, len(batch))
        lr = learner.learning_rate
        norm = learner.step()
        metrics: dict[str, float | int | None] = {
            **{name: float(values.mean()) for name, values in terms.items()},
            "grad_norm": norm,
            "learning_rate": lr,
            "epoch": order.epoch(step),
            "samples_per_second": len(batch) / (time.monotonic() - began),
        }
        if ties is not None:
            ties.step(lr / config.optim.lr)
            metrics["tie_log_nu"] = ties.values()[0]
        if step % config.eval_every == 0 or step == total:
            metrics |= objective.measure(learner)
        run.log(step, metrics, total=total)
        kept = {} if ties is None else {"tie_log_nu": ties.values()}
        checkpoints.maybe_write(step, kept, last=step == total)
