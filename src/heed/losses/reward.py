"""Losses that fit scores to what people prefer. One value per pair, prompt or item; unreduced."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from heed.errors import ConfigError, DataError


def bradley_terry(
    chosen: Tensor,
    rejected: Tensor,
    p: Tensor | None = None,
    margin: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Fit the difference of two scores to the probability that the first is better.

    z = chosen - rejected - margin;  q = p (1 - e) + (1 - p) e
    loss = -q log sigmoid(z) - (1 - q) log sigmoid(-z), smallest at z = log(q / (1 - q))

    Args:
        chosen, rejected: [B] scores in nats (a difference of 1 is a probability of 0.731).
        p: [B] probability that chosen is better, in [0, 1]; None for 1. A tie is 0.5.
        margin: [B] by how much chosen should lead, in the scores' unit; None for 0.
        label_smoothing: e in [0, 0.5), the share of labels taken to be flipped.

    Returns:
        [B] nats, unreduced.

    Raises:
        ConfigError: label_smoothing is out of range.
        DataError: shapes differ, or p is outside [0, 1].

    Source: Stiennon et al. 2020, section 3.4; soft labels WebGPT 2021; margin Llama 2, equation 2.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ConfigError(f"label_smoothing is {label_smoothing}, expected in [0, 0.5)")
    _check_same(chosen=chosen, rejected=rejected, p=p, margin=margin)
    gap = chosen - rejected
    if margin is not None:
        gap = gap - margin
    if p is None:
        q = torch.full_like(gap, 1.0 - label_smoothing)
    else:
        if not bool(((p >= 0) & (p <= 1)).all()):
            raise DataError("p holds a number outside [0, 1]; expected a probability per pair")
        q = (p * (1 - 2 * label_smoothing) + label_smoothing).to(gap.dtype)
    return -(q * F.logsigmoid(gap) + (1 - q) * F.logsigmoid(-gap))


def centring(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Pull the scores of a pair towards a sum of 0, which preferences leave free.

    (chosen + rejected)^2

    Returns:
        [B], unreduced; multiply by a small coefficient (0.01).

    Source: Eisenstein et al. 2023, appendix A.
    """
    return (chosen + rejected).square()


def k_wise(scores: Tensor, ranks: Tensor, group: Tensor) -> Tensor:
    """Fit the scores of one prompt's ranked completions, all pairs at once.

    loss of a prompt = mean over its ordered pairs of -log sigmoid(better - worse)

    Args:
        scores: [N], one forward pass per completion.
        ranks: [N], smaller is better; equal ranks form no pair.
        group: [N] int64, equal for completions of the same prompt, in any order.

    Returns:
        [P] nats, one per prompt in the order of ascending group id, unreduced.

    Raises:
        DataError: shapes differ, or a prompt has no two completions of different rank.

    Source: InstructGPT 2022, equation 1.
    """
    _check_same(scores=scores, ranks=ranks, group=group)
    _, index = torch.unique(group, return_inverse=True)
    num_prompts = int(index.max()) + 1 if index.numel() else 0
    pairs = (index.unsqueeze(1) == index) & (ranks.unsqueeze(1) < ranks)
    better, worse = torch.nonzero(pairs, as_tuple=True)
    num_pairs = torch.bincount(index[better], minlength=num_prompts)
    if bool((num_pairs == 0).any()):
        raise DataError(
            f"{int((num_pairs == 0).sum())} of {num_prompts} prompts have no two completions of "
            "different rank, so they order nothing; leave them out before the batch is built"
        )
    losses = -F.logsigmoid(scores[better] - scores[worse])
    return losses.new_zeros(num_prompts).index_add(0, index[better], losses) / num_pairs


def best_of_k(scores: Tensor, choice: Tensor) -> Tensor:
    """Fit scores to which of K completions was called the best.

    -log( exp(score of the choice) / sum_k exp(score_k) )

    Args:
        scores: [B, K].
        choice: [B] int64, below K.

    Returns:
        [B] nats, unreduced.

    Source: Ziegler et al. 2019, equation 1 (K = 4).
    """
    if scores.dim() != 2 or choice.shape != scores.shape[:1]:
        raise DataError(
            f"scores have shape {tuple(scores.shape)} and choice {tuple(choice.shape)}; "
            "expected [B, K] and [B]"
        )
    return F.cross_entropy(scores, choice, reduction="none")


def regression(scores: Tensor, targets: Tensor) -> Tensor:
    """Fit scores to numbers given by a labeller: (score - target)^2. [B], unreduced.

    Source: lm-human-preferences, `ScalarRating`.
    """
    _check_same(scores=scores, targets=targets)
    return (scores - targets).square()


def _check_same(**tensors: Tensor | None) -> None:
    shapes = {name: tuple(t.shape) for name, t in tensors.items() if t is not None}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise DataError(f"found shapes {shapes}, expected the same [B] for all")
