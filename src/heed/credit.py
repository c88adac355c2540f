"""Credit assignment: rewards in, advantages out. Nothing here has a gradient.

Per token, [B, T]: `place_score`, `gae`, `discounted_returns`. Per completion, [B], against the
other completions of the same prompt: `group_centred`, `leave_one_out`, `group_scaled`, and what a
scaled method divides by, `group_std`, `group_mean`; `broadcast` gives such a value to every learned
token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from heed import masked
from heed.errors import ConfigError, DataError


@torch.no_grad()
def place_score(scores: Tensor, learn: Tensor) -> Tensor:
    """Place each row's score on its last learned token, the terminal one.

    Args:
        scores: [B], one number per completion.
        learn: [B, T] bool.

    Returns:
        rewards [B, T], 0 elsewhere.

    Raises:
        DataError: a row learns nothing, so its score would be lost.
    """
    _check_rows(scores, learn)
    rewards = scores.new_zeros(learn.shape)
    return rewards.scatter(1, masked.last_index(learn).unsqueeze(1), scores.unsqueeze(1))


@torch.no_grad()
def broadcast(values: Tensor, learn: Tensor) -> Tensor:
    """Give a row's value [B] to each of its learned tokens: [B, T], 0 elsewhere."""
    _check_rows(values, learn)
    return torch.where(learn, values.unsqueeze(1), values.new_zeros(()))


@torch.no_grad()
def gae(
    rewards: Tensor, values: Tensor, learn: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Estimate advantages by generalised advantage estimation over the learned tokens.

    delta_t = r_t + gamma V_next - V_t;  A_t = delta_t + gamma lam A_next;  return_t = A_t + V_t

    `next` is the next learned token of the row; after the last one V and A are 0. Tokens that are
    not learned take no time: they are skipped, wherever they stand.

    Args:
        rewards: [B, T], 0 where not learned.
        values: [B, T], entry t = value of the state before token t.
        learn: [B, T] bool.
        gamma: discount per learned token, in [0, 1].
        lam: in [0, 1]; 0 trusts the values, 1 the rewards.

    Returns:
        advantages and returns, [B, T], 0 where not learned; not whitened.

    Raises:
        ConfigError: gamma or lam is out of range.
        DataError: a reward stands on a token that is not learned, where it would be lost.

    Source: Schulman et al. 2016, equation 16.
    """
    for name, number in (("gamma", gamma), ("lam", lam)):
        if not 0 <= number <= 1:
            raise ConfigError(f"{name} is {number}, expected between 0 and 1")
    stray = torch.where(learn, torch.zeros_like(rewards), rewards)
    if bool((stray != 0).any()):
        raise DataError(
            f"{int((stray != 0).sum())} rewards stand on tokens that are not learned; "
            "move each to the learned token that earned it"
        )
    values = torch.where(learn, values, torch.zeros_like(values))
    advantages = torch.zeros_like(values)
    next_value = values.new_zeros(values.shape[0])
    next_advantage = torch.zeros_like(next_value)
    for t in reversed(range(values.shape[1])):
        here = learn[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        next_advantage = torch.where(here, advantage, next_advantage)
        next_value = torch.where(here, values[:, t], next_value)
        advantages[:, t] = torch.where(here, advantage, torch.zeros_like(advantage))
    return advantages, advantages + values


@torch.no_grad()
def discounted_returns(rewards: Tensor, learn: Tensor, gamma: float = 1.0) -> Tensor:
    """Sum the rewards from each learned token on: G_t = r_t + gamma G_next. [B, T], 0 elsewhere.

    Arguments as in `gae`.
    """
    return gae(rewards, torch.zeros_like(rewards), learn, gamma, 1.0)[0]


@torch.no_grad()
def group_centred(scores: Tensor, group: Tensor) -> Tensor:
    """Subtract the group's mean: A_i = R_i - mean(R). A group of one has advantage 0.

    Args:
        scores: [B].
        group: [B] int64, equal for completions of the same prompt, in any order.

    Returns:
        advantages [B].

    Source: Dr. GRPO (Liu et al. 2025).
    """
    return _centre(scores, group)[0]


@torch.no_grad()
def leave_one_out(scores: Tensor, group: Tensor) -> Tensor:
    """Subtract the mean of the others: A_i = R_i - mean_{j != i}(R_j) = k/(k-1) (R_i - mean(R)).

    Args and return as in `group_centred`.

    Raises:
        DataError: a group has one completion only.

    Source: RLOO (Ahmadian et al. 2024), equation 6.
    """
    centred, size, _ = _centre(scores, group)
    _check_groups(size)
    return centred * size / (size - 1)


@torch.no_grad()
def group_scaled(scores: Tensor, group: Tensor, eps: float = 1e-4, unbiased: bool = True) -> Tensor:
    """Centre by the group's mean and divide by its standard deviation: (R - mean) / (std + eps).

    Args:
        scores, group: as in `group_centred`.
        eps: added to the standard deviation.
        unbiased: std over N - 1 (the usual code) rather than N.

    Returns:
        advantages [B]; exactly 0 where all scores of a group are equal.

    Raises:
        DataError: a group has one completion only.

    Source: GRPO (Shao et al. 2024), section 4.1.
    """
    centred, size, _ = _centre(scores, group)
    _check_groups(size)
    return centred / (group_std(scores, group, unbiased) + eps)


@torch.no_grad()
def group_std(scores: Tensor, group: Tensor, unbiased: bool = True) -> Tensor:
    """Return [B] the standard deviation of each completion's group, over N - 1 or N.

    Raises:
        DataError: a group has one completion only.
    """
    centred, size, index = _centre(scores, group)
    _check_groups(size)
    squares = centred.new_zeros(int(index.max()) + 1).index_add(0, index, centred.square())[index]
    return (squares / (size - int(unbiased))).sqrt()


@torch.no_grad()
def group_mean(scores: Tensor, group: Tensor) -> Tensor:
    """Return [B] the mean of each completion's group."""
    return scores - _centre(scores, group)[0]


@torch.no_grad()
def group_size(group: Tensor) -> Tensor:
    """Return [B] int64 how many completions each one's group has, itself counted."""
    _, index, counts = torch.unique(group, return_inverse=True, return_counts=True)
    return counts[index]


@torch.no_grad()
def overlong_penalty(lengths: Tensor, longest: int, last: int) -> Tensor:
    """Penalise length near the limit: 0 up to longest - last, then linearly down to -1 at longest.

    Args:
        lengths: [B] tokens, the terminal token included.
        longest: most tokens of a completion.
        last: tokens before it in which the penalty grows, from 1 to `longest`.

    Returns:
        [B], from -1 to 0.

    Raises:
        ConfigError: `last` is out of range.

    Source: DAPO (Yu et al. 2025), equation 13.
    """
    if not 0 < last <= longest:
        raise ConfigError(f"last is {last}, expected from 1 to the longest length, {longest}")
    return -((lengths - (longest - last)) / last).clamp(0.0, 1.0)


@torch.no_grad()
def best_of_group(scores: Tensor, group: Tensor) -> Tensor:
    """Weigh the best completion of each group 1 and the others 0; of equals the first counts.

    Args and return as in `group_centred`; the weights of a group add up to 1.

    Source: RAFT (Dong et al. 2023), algorithm 1.
    """
    best = _centre(scores, group)[0]
    _, index = torch.unique(group, return_inverse=True)
    top = torch.full_like(scores[: int(index.max()) + 1], float("-inf"))
    top = top.scatter_reduce(0, index, best, "amax")
    leads = best == top[index]
    place = torch.where(leads, torch.arange(len(scores), device=scores.device), len(scores))
    first = torch.full_like(index[: len(top)], len(scores))
    first = first.scatter_reduce(0, index, place, "amin")
    return (place == first[index]).to(scores.dtype)


@torch.no_grad()
def softmax_of_group(scores: Tensor, group: Tensor, temperature: float) -> Tensor:
    """Weigh completions by exp(score / temperature), the weights of a group adding up to its size.

    Self-normalised importance weights from the policy to policy * exp(score / temperature) / Z.

    Args:
        scores, group: as in `group_centred`.
        temperature: in score, above 0; small ones leave the best alone.

    Raises:
        ConfigError: the temperature is not above 0.

    Source: reward-weighted regression (Peters and Schaal 2007), equation 10, over one prompt.
    """
    if not temperature > 0:
        raise ConfigError(f"the temperature of the weights is {temperature}, expected above 0")
    above, size, index = _centre(scores, group)
    top = torch.full_like(scores[: int(index.max()) + 1], float("-inf"))
    top = top.scatter_reduce(0, index, above, "amax")
    raw = ((above - top[index]) / temperature).exp()
    total = torch.zeros_like(top).index_add(0, index, raw)
    return raw / total[index] * size


@torch.no_grad()
def constant_group_frac(scores: Tensor, group: Tensor) -> float:
    """Return the share of groups whose scores are all equal: they teach nothing. In [0, 1]."""
    centred, _, index = _centre(scores, group)
    varied = torch.zeros(int(index.max()) + 1, dtype=torch.int64, device=scores.device)
    varied = varied.index_add(0, index, (centred != 0).long())
    return float((varied == 0).double().mean())


def _centre(scores: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if scores.dim() != 1 or scores.shape != group.shape or scores.shape[0] == 0:
        raise DataError(
            f"scores have shape {tuple(scores.shape)} and group {tuple(group.shape)}; "
            "expected both [B] with B above 0"
        )
    if not bool(torch.isfinite(scores).all()):
        raise DataError("a score is not finite; leave out completions whose scoring failed")
    _, index = torch.unique(group, return_inverse=True)
    num_groups = int(index.max()) + 1
    size = scores.new_zeros(num_groups).index_add(0, index, torch.ones_like(scores))
    # Measured from the group's smallest score, so that equal scores centre to exactly 0.
    floor = torch.full_like(size, float("inf")).scatter_reduce(0, index, scores, "amin")
    above = scores - floor[index]
    mean = torch.zeros_like(size).index_add(0, index, above) / size
    return above - mean[index], size[index], index


def _check_groups(size: Tensor) -> None:
    if bool((size < 2).any()):
        raise DataError(
            f"{int((size < 2).sum())} groups have one completion, expected at least two of each "
            "prompt; leave them out, or sample more completions"
        )


def _check_rows(values: Tensor, learn: Tensor) -> None:
    if values.dim() != 1 or learn.dim() != 2 or values.shape[0] != learn.shape[0]:
        raise DataError(
            f"found values of shape {tuple(values.shape)} and learn {tuple(learn.shape)}; "
            "expected [B] and [B, T]"
        )
