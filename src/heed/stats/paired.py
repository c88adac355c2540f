"""Maximum likelihood of paired outcomes, solved by Newton's method on many tables at once.

Tables are counts [R, M, M]: `won[r, i, j]` how often i beat j, `tied` symmetric. Both likelihoods
are concave, so halving a step that overshoots is all the care that Newton's method needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit

Model = Literal["bradley_terry", "davidson"]
_Derivatives = Callable[[NDArray], tuple[NDArray, NDArray, NDArray]]


def fit(won: NDArray, tied: NDArray, model: Model) -> tuple[NDArray, NDArray]:
    """Fit every table; each must have a finite fit (`exists`).

    Returns:
        parameters [R, M] (strengths, mean 0), or [R, M + 1] with log nu last for "davidson";
        and log-likelihoods [R], nats.
    """
    num_items = won.shape[-1]
    if model == "bradley_terry":
        halves = won + tied / 2
        return _newton(np.zeros((len(won), num_items)), lambda s: _binary(s, halves))
    return _newton(np.zeros((len(won), num_items + 1)), lambda s: _ternary(s, won, tied))


def _binary(s: NDArray, won: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Log-likelihood, gradient and information of Bradley-Terry."""
    gap = s[:, :, None] - s[:, None, :]
    total = won + won.swapaxes(1, 2)
    p = np.exp(log_expit(gap))
    likelihood = (won * log_expit(gap)).sum((1, 2))
    return likelihood, (won - total * p).sum(2), _laplacian(total * p * (1 - p))


def _ternary(x: NDArray, won: NDArray, tied: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Log-likelihood, gradient and information of Davidson; an exponential family, so the
    information is the covariance of (half the signed outcome, whether it is a tie)."""
    s, log_nu = x[:, :-1], x[:, -1][:, None, None]
    half = (s[:, :, None] - s[:, None, :]) / 2
    log_z = np.logaddexp(np.logaddexp(half, -half), log_nu)
    win, tie = np.exp(half - log_z), np.exp(log_nu - log_z)
    lose = win.swapaxes(1, 2)
    total = won + won.swapaxes(1, 2) + tied
    likelihood = (won * (half - log_z)).sum((1, 2)) + (tied * (log_nu - log_z)).sum((1, 2)) / 2
    lead = (win - lose) / 2
    by_item = ((won - won.swapaxes(1, 2)) / 2 - total * lead).sum(2)
    by_tie = (tied - total * tie).sum((1, 2)) / 2
    information = np.zeros((*x.shape, x.shape[1]))
    information[:, :-1, :-1] = _laplacian(total * ((win + lose) / 4 - lead**2))
    information[:, :-1, -1] = information[:, -1, :-1] = -(total * lead * tie).sum(2)
    information[:, -1, -1] = (total * tie * (1 - tie)).sum((1, 2)) / 2
    return likelihood, np.concatenate([by_item, by_tie[:, None]], 1), information


def _laplacian(weight: NDArray) -> NDArray:
    # The constant added to every entry fixes the mean of the strengths, which no outcome shows.
    size = weight.shape[-1]
    off = weight * (1 - np.eye(size))
    return np.eye(size) * off.sum(2)[:, :, None] - off + 1.0 / size


def _newton(x: NDArray, derivatives: _Derivatives) -> tuple[NDArray, NDArray]:
    likelihood, gradient, information = derivatives(x)
    for _ in range(100):
        step = np.linalg.solve(information, gradient[..., None])[..., 0]
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
        for _ in range(40):
            new = derivatives(x + step)
            worse = new[0] < likelihood - 1e-9 * np.abs(likelihood)
            if not worse.any():
                break
            step[worse] /= 2
        x = x + step
        likelihood, gradient, information = new
    return x, likelihood


def exists(won: NDArray, tied: NDArray, model: Model) -> NDArray:
    """Say whether each table has a finite fit: every item reaches every other along wins.

    A tie counts as half a win for both in "bradley_terry". "davidson" needs the wins alone and
    at least one tie, which is sufficient.

    Returns:
        [R] bool.
    """
    edges = won + tied > 0 if model == "bradley_terry" else won > 0
    connected = np.asarray(reach(edges).all(axis=(1, 2)))
    return connected & (tied.sum((1, 2)) > 0) if model == "davidson" else connected


def reach(edges: NDArray) -> NDArray:
    """Say which item reaches which along directed edges, any number of steps. [R, M, M] bool."""
    reach = (edges | np.eye(edges.shape[-1], dtype=bool)).astype(np.float32)
    for _ in range(max(1, int(np.ceil(np.log2(edges.shape[-1]))))):
        reach = np.minimum(reach @ reach, 1.0)
    return reach > 0
