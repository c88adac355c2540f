"""One update's optimiser steps: minibatches, and the losses of policy, values and text.

The columns loss_type, ratio, bounds, average and the KL in the loss are read here.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from heed import kl, masked
from heed.algorithms.advantages import ESTIMATORS
from heed.algorithms.method import Average, Method
from heed.algorithms.online_settings import OnlineSettings
from heed.algorithms.parts import Parts
from heed.data.batch import TokenBatch, collate
from heed.data.order import Order
from heed.ids import stream_seed
from heed.lagrange import Multiplier
from heed.learners.base import LossTerms, Outputs, TokenLoss
from heed.losses import policy as surrogates
from heed.losses.likelihood import nll
from heed.losses.policy import SurrogateTerms, clipped_value

Steps = tuple[list[tuple[TokenBatch, dict[str, Tensor]]], list[float]]
"""Each minibatch with its metrics, and gradient norms."""


def learn(
    config: OnlineSettings, parts: Parts, batch: TokenBatch, update: int, kl_coef: float
) -> Steps:
    """All epochs of one update; a minibatch without a learned token is passed over."""
    method = config.method
    of_policy, of_value = policy_loss(method, kl_coef), value_loss(method)
    seen, norms = [], []
    for index, rows in enumerate(minibatches(config, len(batch), update)):
        mini = batch.select(rows)
        if mini.num_learned == 0:
            continue
        if method.whiten_advantages == "minibatch":
            whitened = masked.whiten(mini.stream("advantages"), mini.learn)
            mini = mini.with_streams(advantages=whitened)
        size = denominator(mini.learn, method.average, config.sampling.max_tokens)
        if not method.has_values:
            terms = parts.policy.backward(mini, of_policy, size)
        elif parts.value is None:
            terms = parts.policy.backward(mini, _both(of_policy, of_value), size)
        else:
            terms = parts.policy.backward(mini, of_policy, size)
            terms = terms | parts.value.backward(mini, of_value, size)
            parts.value.step()
        if parts.ptx_rows:
            step = (update - 1) * config.steps_per_update + index
            text = ptx_batch(config, parts, step)
            of_text = parts.policy.backward(text, _ptx_loss(config.ptx_coef), text.num_learned)
            terms["ptx_loss"] = of_text["nll"] / text.num_learned
        norms.append(parts.policy.step())
        seen.append((mini, terms))
    return seen, norms


def minibatches(config: OnlineSettings, num_rows: int, update: int) -> list[list[int]]:
    """Row numbers of every minibatch of every epoch; each epoch is shuffled anew."""
    out = []
    for epoch in range(config.num_epochs):
        generator = torch.Generator().manual_seed(
            stream_seed(config.run.seed, "minibatches", update, epoch)
        )
        order = torch.randperm(num_rows, generator=generator).tolist()
        # Sizes differ by one at most, so that every step counts alike and none is missing.
        count = min(config.num_mini_batches, num_rows)
        bounds = [part * num_rows // count for part in range(count + 1)]
        out += [order[first:last] for first, last in pairwise(bounds)]
    return out


def ptx_batch(config: OnlineSettings, parts: Parts, step: int) -> TokenBatch:
    """The pretraining rows that are mixed into optimiser step `step`."""
    order = Order(len(parts.ptx_rows), config.ptx_batch_size, config.run.seed, "ptx")
    rows = [parts.ptx_rows[i] for i in order.batch(step)]
    return collate(rows, pad_id=parts.renderer.pad_id)


# -- averaging ------------------------------------------------------------------------------------


def denominator(learn: Tensor, average: Average, longest: int) -> float:
    """Return what the summed loss of a minibatch is divided by.

    token:          its learned tokens
    sequence, sum:  its completions
    constant:       its completions times the longest length

    Args:
        learn: [B, T] bool; a completion without a learned token does not count.
        longest: tokens of the longest completion allowed.
    """
    if average == "token":
        return int(learn.sum())
    completions = int(learn.any(1).sum())
    return completions * longest if average == "constant" else completions


def weighted(values: Tensor, learn: Tensor, average: Average) -> Tensor:
    """Weigh per-token losses [b, T] so that their sum over the denominator is the average."""
    if average != "sequence":
        return values
    return values / learn.sum(1, keepdim=True).clamp(min=1)


# -- losses ---------------------------------------------------------------------------------------


def _clip(method: Method, logprobs: Tensor, batch: TokenBatch) -> SurrogateTerms:
    return surrogates.clipped_surrogate(
        logprobs,
        batch.stream("behaviour_logprobs"),
        batch.stream("advantages"),
        batch.learn,
        low=method.epsilon if method.epsilon < 1 else None,
        high=method.epsilon_high,
        level=method.ratio,
        most=method.delta,
    )


def _weight(method: Method, logprobs: Tensor, batch: TokenBatch) -> SurrogateTerms:
    return surrogates.clipped_weight(*_streams(logprobs, batch), 1.0 + method.epsilon_high)


def _plain(method: Method, logprobs: Tensor, batch: TokenBatch) -> SurrogateTerms:
    return surrogates.plain_gradient(*_streams(logprobs, batch))


def _sapo(method: Method, logprobs: Tensor, batch: TokenBatch) -> SurrogateTerms:
    return surrogates.soft_gate(*_streams(logprobs, batch), level=method.ratio)


def _vespo(method: Method, logprobs: Tensor, batch: TokenBatch) -> SurrogateTerms:
    return surrogates.gamma_weight(*_streams(logprobs, batch))


def _streams(logprobs: Tensor, batch: TokenBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    behaviour, advantages = batch.stream("behaviour_logprobs"), batch.stream("advantages")
    return logprobs, behaviour, advantages, batch.learn


SURROGATES: dict[str, Callable[[Method, Tensor, TokenBatch], SurrogateTerms]] = {
    "clip": _clip,
    "weight": _weight,
    "plain": _plain,
    "sapo": _sapo,
    "vespo": _vespo,
}
"""loss_type -> surrogate of the policy's log-probabilities, unreduced [b, T]."""


def policy_loss(method: Method, kl_coef: float) -> TokenLoss:
    """The surrogate, with importance weights and the KL of the loss, ready to be summed [b, T]."""

    def loss(outputs: Outputs, batch: TokenBatch) -> LossTerms:
        assert outputs.logprobs is not None
        terms = SURROGATES[method.loss_type](method, outputs.logprobs, batch)
        values = terms.values
        if method.importance_sampling != "none":
            values = values * batch.stream("weights")
        metrics = {
            "ratio": terms.ratio.detach(),
            "clipped_low": terms.clipped_low.float(),
            "clipped_high": terms.clipped_high.float(),
            "new_logprobs": outputs.logprobs.detach(),
        }
        if method.kl_place == "loss":
            reference = batch.stream("reference_logprobs")
            per_token = ESTIMATORS[method.kl_estimator](outputs.logprobs, reference)
            if method.use_bias_correction_kl:
                gap = outputs.logprobs - batch.stream("behaviour_logprobs")
                per_token = per_token * torch.where(batch.learn, gap, 0.0).exp()
            penalty = torch.where(batch.learn, per_token, torch.zeros_like(per_token))
            metrics["kl_loss"] = penalty.detach()
            values = values + kl_coef * penalty
        values = weighted(values, batch.learn, method.average)
        return LossTerms(values, metrics | {"policy_loss": values.detach()})

    return loss


def value_loss(method: Method) -> TokenLoss:
    """The clipped value loss times `vf_coef`, unreduced [b, T]."""

    def loss(outputs: Outputs, batch: TokenBatch) -> LossTerms:
        assert outputs.values is not None
        values, clipped = clipped_value(
            outputs.values,
            batch.stream("old_values"),
            batch.stream("returns"),
            batch.learn,
            clip=method.value_clip,
        )
        metrics = {"value_clipped": clipped.float(), "value_loss": values.detach()}
        return LossTerms(method.vf_coef * values, metrics)

    return loss


def _both(first: TokenLoss, second: TokenLoss) -> TokenLoss:
    """The sum of two losses of one model (a value head on the policy's own trunk)."""

    def loss(outputs: Outputs, batch: TokenBatch) -> LossTerms:
        a, b = first(outputs, batch), second(outputs, batch)
        return LossTerms(a.values + b.values, {**a.metrics, **b.metrics})

    return loss


def _ptx_loss(coef: float) -> TokenLoss:
    """Negative log-likelihood of pretraining text times `ptx_coef` (InstructGPT), [b, T]."""

    def loss(outputs: Outputs, batch: TokenBatch) -> LossTerms:
        assert outputs.logprobs is not None
        values = nll(outputs.logprobs, batch.learn)
        return LossTerms(coef * values, {"nll": values.detach()})

    return loss


class Steering:
    """What moves between updates beside weights: the KL's coefficient and the price of a cost.

    Args:
        config: of the run.
    """

    def __init__(self, config: OnlineSettings) -> None:
        self.kl = controller(config)
        self.cost: Multiplier | None = None
        self._moves = config.kl_target is not None
        if config.cost is not None:
            of = config.cost
            self.cost = Multiplier(of.multiplier, of.limit, of.multiplier_lr, of.multiplier_max)

    @property
    def multiplier(self) -> float:
        """Score taken off for a unit of cost; 0 without a cost."""
        return 0.0 if self.cost is None else self.cost.coef

    def priced(self, costs: Tensor | None) -> dict[str, float | int | None]:
        """Move the price after an update's costs [B]; returns metrics, the price as it was used."""
        if self.cost is None or costs is None:
            return {}
        used = self.cost.coef
        mean = float(costs.mean())
        excess = self.cost.update(mean)
        return {"cost/mean": mean, "cost/excess": excess, "cost/multiplier": used}

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs, JSON-able."""
        priced = {} if self.cost is None else {"cost": self.cost.state()}
        return self.kl.state() | priced

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state()`; a fixed KL coefficient is that of the settings."""
        if self._moves:
            self.kl.load_state(state)
        if self.cost is not None:
            self.cost.load_state(state["cost"])


def controller(config: OnlineSettings) -> kl.FixedController | kl.AdaptiveController:
    """The KL coefficient's controller: adaptive where a target is set, fixed otherwise."""
    coef = config.method.beta
    if config.kl_target is None:
        return kl.FixedController(coef)
    return kl.AdaptiveController(
        coef, config.kl_target, horizon=config.kl_horizon, gain=config.kl_gain
    )
