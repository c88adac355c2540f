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


def davidson(
    chosen: Tensor,
    rejected: Tensor,
    log_nu: Tensor,
    p: Tensor | None = None,
    tie: Tensor | None = None,
    margin: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Fit the difference of two scores to wins and ties together.

    z = chosen - rejected - margin;  a = exp(z / 2);  Z = a + 1 / a + nu
    P(chosen) = a / Z,  P(tie) = nu / Z,  P(rejected) = 1 / (a Z)
    loss = log Z - (2 q - 1) z / 2 - t log nu,  q = p (1 - e) + (1 - p) e

    With nu -> 0 and no ties it is `bradley_terry`. At z = 0 a tie has probability nu / (2 + nu).

    Args:
        chosen, rejected: [B] scores in nats.
        log_nu: a scalar, the logarithm of the tie parameter.
        p: [B] P(chosen better) + P(tie) / 2, in [0, 1]; None for 1.
        tie: [B] share t of the labels that call it a tie, at most 2 min(p, 1 - p); None for 1
            where p is 0.5 and 0 elsewhere.
        margin: [B] by how much chosen should lead; None for 0.
        label_smoothing: e in [0, 0.5), the share of labels whose sides are taken to be flipped.

    Returns:
        [B] nats, unreduced.

    Raises:
        ConfigError: label_smoothing is out of range.
        DataError: shapes differ, or p and tie are no probabilities together.

    Source: Davidson 1970; the parameters are those of `heed.stats.choice.davidson`.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ConfigError(f"label_smoothing is {label_smoothing}, expected in [0, 0.5)")
    _check_same(chosen=chosen, rejected=rejected, p=p, tie=tie, margin=margin)
    gap = chosen - rejected
    if margin is not None:
        gap = gap - margin
    p = torch.ones_like(gap) if p is None else p.to(gap.dtype)
    tie = (p == 0.5).to(gap.dtype) if tie is None else tie.to(gap.dtype)
    # A little room for the rounding of means of several labels.
    fits = (tie >= 0) & (tie / 2 <= torch.minimum(p, 1 - p) + 1e-6)
    if not bool(fits.all()):
        raise DataError(
            "p and tie are no probabilities together; expected 0 <= tie <= 2 min(p, 1 - p)"
        )
    half, log_nu = gap / 2, log_nu.to(gap.dtype)
    log_z = torch.logaddexp(torch.logaddexp(half, -half), log_nu)
    return log_z - (2 * p - 1) * (1 - 2 * label_smoothing) * half - tie * log_nu


def group_mean(values: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Average values within groups, such as the pairs of one prompt. [M], [M] int64 -> [P].

    A group without a value gives 0.

    Source: InstructGPT 2022, equation 1, for pairs.
    """
    total = values.new_zeros(num_groups).index_add(0, group, values)
    return total / torch.bincount(group, minlength=num_groups).clamp(min=1)


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
    return group_mean(losses, index[better], num_prompts)


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


def attribute_regression(scores: Tensor, targets: Tensor) -> Tensor:
    """Fit several scores of a completion to the numbers that it was given.

    mean over the attributes k that are known of (score_k - target_k)^2

    Args:
        scores: [B, K].
        targets: [B, K], NaN where an attribute is not known; it then enters nothing.

    Returns:
        [B] squared units of the labels, unreduced; 0 for a row of which nothing is known.

    Raises:
        DataError: shapes differ, or a target is infinite.

    Source: HelpSteer 2 (Wang et al. 2024), the regression reward model.
    """
    if scores.dim() != 2 or scores.shape != targets.shape:
        raise DataError(
            f"scores have shape {tuple(scores.shape)} and targets {tuple(targets.shape)}; "
            "expected the same [B, K]"
        )
    if bool(torch.isinf(targets).any()):
        raise DataError("a target is infinite; give a number, or NaN where it is not known")
    known = ~torch.isnan(targets)
    # The target is replaced before it is subtracted: NaN times 0 would stay NaN in the gradient.
    errors = (scores - torch.where(known, targets.to(scores.dtype), scores)).square()
    return errors.sum(1) / known.sum(1).clamp(min=1)


def step_correctness(logits: Tensor, labels: Tensor, learn: Tensor) -> Tensor:
    """Fit the logit at each step's end to whether the step is right.

    -(y log sigmoid(logit) + (1 - y) log sigmoid(-logit)) at step ends, 0 elsewhere

    Args:
        logits: [B, T], read at the last token of each step.
        labels: [B, T] in [0, 1]: 1 right, 0 wrong, or a probability.
        learn: [B, T] bool, true at the ends of labelled steps.

    Returns:
        [B, T] nats, unreduced. The two-class softmax of token classifiers is the same with
        logit = logit_1 - logit_0.

    Raises:
        DataError: a label is outside [0, 1].

    Source: Lightman et al. 2023; Uesato et al. 2022.
    """
    y = torch.where(learn, labels.to(logits.dtype), 0.5)
    if not bool(((y >= 0) & (y <= 1)).all()):
        raise DataError("labels hold a number outside [0, 1]; expected a probability per step")
    logits = torch.where(learn, logits, 0.0)
    values = -(y * F.logsigmoid(logits) + (1 - y) * F.logsigmoid(-logits))
    return torch.where(learn, values, 0.0)


def _check_same(**tensors: Tensor | None) -> None:
    shapes = {name: tuple(t.shape) for name, t in tensors.items() if t is not None}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise DataError(f"found shapes {shapes}, expected the same [B] for all")
