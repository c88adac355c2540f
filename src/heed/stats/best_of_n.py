"""Best of n: how far it moves from the policy, and what it scores, without drawing n at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from heed.errors import DataError


def kl(n: int) -> float:
    """Compute KL(best of n || policy) = log n - (n - 1) / n in nats.

    Exact for continuous scores; an upper bound when scores tie.

    Args:
        n: candidates, at least 1.

    Source: Stiennon et al. 2020, appendix G.3; Gao et al. 2022, section 2.
    """
    _check(n, n)
    return float(np.log(n) - (n - 1) / n)


def weights(num_samples: int, n: int) -> NDArray:
    """Return the probability that each of N samples, ascending, is the best of n drawn of them.

    w_i = C(i - 1, n - 1) / C(N, n) for rank i = 1..N; they add up to 1.

    Args:
        num_samples: N.
        n: candidates, from 1 to N.

    Returns:
        [N].

    Source: WebGPT 2021, appendix I.
    """
    _check(n, num_samples)
    rank = np.arange(n, num_samples + 1)
    log_w = _log_choose(rank - 1, n - 1) - _log_choose(np.array([num_samples]), n)
    return np.concatenate([np.zeros(n - 1), np.exp(log_w)])


def score(proxy: ArrayLike, n: int, gold: ArrayLike | None = None) -> float:
    """Estimate without bias what the best of n by `proxy` scores on `gold`, for one prompt.

    sum_i w_i gold_(i), samples sorted by proxy; equal proxies share their weight, as if the best
    were drawn among them by lot.

    Args:
        proxy: [N] scores that choose.
        n: candidates, from 1 to N.
        gold: [N] scores that judge the same samples; None for the proxy itself.

    Raises:
        DataError: a score is missing or not finite, the lengths differ, or n is above N.
    """
    choosing = np.asarray(proxy, dtype=float)
    judging = choosing if gold is None else np.asarray(gold, dtype=float)
    if choosing.ndim != 1 or choosing.shape != judging.shape:
        raise DataError(f"found proxy {choosing.shape} and gold {judging.shape}, expected [N]")
    if not (np.isfinite(choosing).all() and np.isfinite(judging).all()):
        raise DataError("a score is not finite; leave out samples whose scoring failed")
    _, block, size = np.unique(choosing, return_inverse=True, return_counts=True)
    # Ranks of equal proxies are neighbours, so a block's weight is a run of the sorted weights.
    ends = np.concatenate([[0.0], np.cumsum(weights(len(choosing), n))])
    last = np.cumsum(size)
    shared = (ends[last] - ends[last - size]) / size
    return float(shared[block] @ judging)


def _log_choose(top: NDArray, bottom: int) -> NDArray:
    return gammaln(top + 1) - gammaln(bottom + 1) - gammaln(top - bottom + 1)


def _check(n: int, num_samples: int) -> None:
    if not 1 <= n <= num_samples:
        raise DataError(
            f"best of {n} was asked of {num_samples} samples; expected n from 1 to the number of "
            "samples, so sample more or lower n"
        )
