"""The losses of pairs as rows: a pure function each, what it needs, and where its default is from.

To add a loss: its function in `heed.losses`, a row here, a page in `docs/methods`, and its line in
the tests' tables. The names are TRL's where TRL has the loss.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from heed.algorithms.preference_pairs import Pairs, Reply, present
from heed.errors import ConfigError
from heed.learners.base import Further
from heed.losses import preference, reference_free, replies

if TYPE_CHECKING:
    from heed.algorithms.preference_settings import PairLossSettings

Values = Callable[[Pairs, "PairLossSettings", float], Tensor]


@dataclass(frozen=True)
class Row:
    """One loss of pairs.

    Args:
        values: (pairs, settings, beta) -> [B], unreduced.
        reads: the settings that it reads beside `beta`.
        beta: default of the coefficient.
        reward: what its implicit reward is made of: the log-ratio to the reference, or the sum or
            mean of log-probabilities (then it has no reference).
        soft: whether a label p between 0 and 1 has a meaning.
        also: further outputs of the policy.
        whole_batch: what must be known of all pairs before the first micro-batch; from the pairs
            without gradient to name -> [B].
    """

    values: Values
    reads: tuple[str, ...] = ()
    beta: float = 0.1
    reward: Literal["ratio", "sum", "mean"] = "ratio"
    soft: bool = True
    also: tuple[Further, ...] = ()
    whole_batch: Callable[[Pairs], dict[str, Tensor]] | None = None

    @property
    def has_reference(self) -> bool:
        """Whether it compares the policy with a reference."""
        return self.reward == "ratio"

    def rewards(self, reply: Reply, beta: float) -> Tensor:
        """The implicit reward of one side, [B]."""
        of = {"ratio": lambda: reply.ratio, "sum": lambda: reply.logps, "mean": lambda: reply.mean}
        return beta * of[self.reward]()


_DIVERGENCE = ("f_divergence_type", "f_alpha_divergence_coef")


def _bent(pairs: Pairs, config: PairLossSettings) -> tuple[Tensor, Tensor]:
    kind, alpha = config.f_divergence_type, config.f_alpha_divergence_coef
    return (
        replies.bend(pairs.chosen.ratio, kind, alpha),
        replies.bend(pairs.rejected.ratio, kind, alpha),
    )


def _bent_means(pairs: Pairs, config: PairLossSettings) -> tuple[Tensor, Tensor]:
    chosen, rejected = _bent(pairs, config)
    return chosen / pairs.chosen.tokens, rejected / pairs.rejected.tokens


def _ratios(pairs: Pairs) -> tuple[Tensor, Tensor]:
    return pairs.chosen.ratio, pairs.rejected.ratio


def _of_better(pairs: Pairs, of: Callable[[Reply], Tensor]) -> Tensor:
    """A number of the side that is better, expected under the label."""
    if pairs.p is None:
        return of(pairs.chosen)
    p = pairs.p.to(pairs.chosen.total.dtype)
    return p * of(pairs.chosen) + (1.0 - p) * of(pairs.rejected)


def better_tokens(pairs: Pairs) -> Tensor:
    """Tokens of the better side, expected under the label, [B]."""
    return _of_better(pairs, lambda reply: reply.tokens)


def _token_nll(pairs: Pairs) -> Tensor:
    """Mean over the batch's better tokens once the pairs are averaged."""
    nll = _of_better(pairs, lambda reply: -reply.total)
    return nll / pairs.of_whole_batch("mean_tokens").to(nll.dtype)


def _reply_nll(pairs: Pairs) -> Tensor:
    """Mean over the better reply's own tokens."""
    return _of_better(pairs, lambda reply: -reply.total / reply.tokens)


def _dpo(pairs: Pairs, config: PairLossSettings, beta: float) -> Tensor:
    return preference.dpo(*_bent(pairs, config), beta, pairs.p)


def _cdpo(pairs: Pairs, config: PairLossSettings, beta: float) -> Tensor:
    return preference.dpo(*_bent(pairs, config), beta, pairs.p, config.label_smoothing)


def _rpo(pairs: Pairs, config: PairLossSettings, beta: float) -> Tensor:
    return _dpo(pairs, config, beta) + config.rpo_alpha * _reply_nll(pairs)


def _rdpo(pairs: Pairs, config: PairLossSettings, beta: float) -> Tensor:
    assert config.rdpo_alpha is not None
    margin = config.rdpo_alpha * (pairs.rejected.tokens - pairs.chosen.tokens)
    return preference.dpo(*_bent(pairs, config), beta, pairs.p, margin=margin)


def _tdpo(pairs: Pairs, beta: float, alpha: float | None) -> Tensor:
    kls = present(pairs.chosen.kl, "kl"), present(pairs.rejected.kl, "kl")
    return preference.tdpo(*_ratios(pairs), *kls, beta, alpha, pairs.p)


def _aot(pairs: Pairs, config: PairLossSettings, beta: float) -> Tensor:
    spread = pairs.chosen.logps - pairs.rejected.logps
    at_rank = pairs.of_whole_batch("reference_at_rank")
    return preference.aot(spread, at_rank, beta, config.label_smoothing)


def _aot_ranks(pairs: Pairs) -> dict[str, Tensor]:
    chosen = present(pairs.chosen.reference, "reference_logprobs")
    rejected = present(pairs.rejected.reference, "reference_logprobs")
    spread = pairs.chosen.logps - pairs.rejected.logps
    return {"reference_at_rank": preference.same_rank(spread, chosen - rejected)}


def _aot_unpaired(pairs: Pairs, config: PairLossSettings, beta: float) -> Tensor:
    at_rank = pairs.of_whole_batch("rejected_at_rank"), pairs.of_whole_batch("chosen_at_rank")
    return preference.aot_unpaired(*_ratios(pairs), *at_rank, beta, config.label_smoothing)


def _aot_unpaired_ranks(pairs: Pairs) -> dict[str, Tensor]:
    chosen, rejected = _ratios(pairs)
    return {
        "rejected_at_rank": preference.same_rank(chosen, rejected),
        "chosen_at_rank": preference.same_rank(rejected, chosen),
    }


def _slic(pairs: Pairs, config: PairLossSettings, beta: float) -> Tensor:
    sides = pairs.chosen.logps, pairs.rejected.logps
    calibration = preference.hinge(*sides, 1.0, pairs.p, config.slic_delta)
    return calibration + config.slic_lambda * _of_better(pairs, lambda reply: -reply.total)


def _simpo(pairs: Pairs, config: PairLossSettings, beta: float) -> Tensor:
    gamma = 0.5 * beta if config.simpo_gamma is None else config.simpo_gamma
    return reference_free.simpo(pairs.chosen.mean, pairs.rejected.mean, beta, gamma, pairs.p)


def _alphapo(pairs: Pairs, config: PairLossSettings, beta: float) -> Tensor:
    assert config.alphapo_alpha is not None
    gamma = 0.5 * beta if config.simpo_gamma is None else config.simpo_gamma
    chosen = reference_free.alpha_reward(pairs.chosen.mean, config.alphapo_alpha)
    rejected = reference_free.alpha_reward(pairs.rejected.mean, config.alphapo_alpha)
    return reference_free.simpo(chosen, rejected, beta, gamma, pairs.p)


def _cpo(pairs: Pairs, config: PairLossSettings, beta: float) -> Tensor:
    sides = pairs.chosen.logps, pairs.rejected.logps
    values = preference.dpo(*sides, beta, pairs.p, config.label_smoothing)
    return values + config.cpo_alpha * _token_nll(pairs) if config.cpo_alpha else values


def _orpo(pairs: Pairs, config: PairLossSettings, beta: float) -> Tensor:
    odds = reference_free.odds_ratio(pairs.chosen.mean, pairs.rejected.mean, pairs.p)
    return _reply_nll(pairs) + beta * odds


_SMOOTHED = ("label_smoothing", *_DIVERGENCE)
_SIGMOID = Row(_dpo, _DIVERGENCE)

ROWS: Mapping[str, Row] = MappingProxyType({
    "sigmoid": _SIGMOID,
    "dpo": _SIGMOID,
    "cdpo": Row(_cdpo, _SMOOTHED),
    "robust": Row(lambda x, c, b: preference.robust(*_bent(x, c), b, c.label_smoothing, x.p),
                  _SMOOTHED),
    "hinge": Row(lambda x, c, b: preference.hinge(*_bent(x, c), b, x.p), _DIVERGENCE),
    "ipo": Row(lambda x, c, b: preference.ipo(*_bent_means(x, c), b, x.p), _DIVERGENCE),
    "ipo_sum": Row(lambda x, c, b: preference.ipo(*_bent(x, c), b, x.p), _DIVERGENCE),
    "exo_pair": Row(lambda x, c, b: preference.exo(*_bent(x, c), b, c.label_smoothing, x.p),
                    _SMOOTHED),
    "nca_pair": Row(lambda x, c, b: preference.nca(*_ratios(x), b, x.p)),
    "bco_pair": Row(lambda x, c, b: preference.bco_pair(*_ratios(x), b, x.p)),
    "sppo_hard": Row(lambda x, c, b: preference.sppo(*_ratios(x), b), soft=False),
    "sppo": Row(lambda x, c, b: preference.sppo(*_ratios(x), b, x.p), beta=1e-3),
    "aot": Row(_aot, ("label_smoothing",), soft=False, whole_batch=_aot_ranks),
    "aot_unpaired": Row(_aot_unpaired, ("label_smoothing",), soft=False,
                        whole_batch=_aot_unpaired_ranks),
    "apo_zero": Row(lambda x, c, b: preference.apo_zero(*_ratios(x), b, x.p)),
    "apo_down": Row(lambda x, c, b: preference.apo_down(*_ratios(x), b, x.p)),
    "discopop": Row(lambda x, c, b: preference.discopop(*_bent(x, c), b, c.discopop_tau, x.p),
                    ("discopop_tau", *_DIVERGENCE)),
    "sigmoid_norm": Row(lambda x, c, b: preference.dpo(*_bent_means(x, c), b, x.p), _DIVERGENCE),
    "rpo": Row(_rpo, ("rpo_alpha", *_DIVERGENCE)),
    "rdpo": Row(_rdpo, ("rdpo_alpha", *_DIVERGENCE)),
    "tdpo1": Row(lambda x, c, b: _tdpo(x, b, None), also=("log_distribution",)),
    "tdpo2": Row(lambda x, c, b: _tdpo(x, b, c.tdpo_alpha), ("tdpo_alpha",),
                 also=("log_distribution",)),
    "slic": Row(_slic, ("slic_delta", "slic_lambda"), reward="sum"),
    "cpo": Row(_cpo, ("label_smoothing", "cpo_alpha"), reward="sum"),
    "simpo": Row(_simpo, ("simpo_gamma",), beta=2.0, reward="mean"),
    "alphapo": Row(_alphapo, ("simpo_gamma", "alphapo_alpha"), beta=2.0, reward="mean"),
    "orpo": Row(_orpo, reward="mean"),
    "sft": Row(lambda x, c, b: _token_nll(x), reward="sum"),
})  # fmt: skip
"""Name -> loss."""

BENDS = tuple(name for name, row in ROWS.items() if set(_DIVERGENCE) <= set(row.reads))
"""Losses of which other divergences than the reverse KL have a form."""


def row_of(name: str) -> Row:
    """Find a loss.

    Raises:
        ConfigError: there is none of that name; the nearest is named.
    """
    if name in ROWS:
        return ROWS[name]
    near = difflib.get_close_matches(name, ROWS, n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"there is no loss_type {name!r}{hint} Known are {', '.join(ROWS)}")
