"""One reward model whose weights are the mean of several (WARM).

    weight = sum_i a_i weight_i,  sum_i a_i = 1

Models that were trained from one start, with different orders of the data, lie in one basin, so the
mean of their weights is a good model: it agrees with their mean score about where they agree, needs
one forward pass, and forgets what only one of them memorised. From different starts the mean is
noise; so starts are compared.

Source: Ramé et al. 2024, WARM, equation 3. Differs: gain and bias are folded into the head first,
so that members weigh by their scores on one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heed.errors import ConfigError
from heed.models.heads import RewardHead
from heed.models.load import load_tokenizer, same_tokens
from heed.runs.files import read_json


def average_reward_models(
    paths: Sequence[str | Path],
    weights: Sequence[float] | None = None,
    *,
    check_start: bool = True,
) -> RewardHead:
    """Average the weights of reward models.

    Args:
        paths: two or more run folders of `heed reward`.
        weights: of each model, above 0; scaled to a sum of 1. Equal ones by default.
        check_start: make sure that all began at the same weights and the same score head.

    Raises:
        ConfigError: there are fewer than two; architectures, attributes or tokenizers differ; or
            they began at different weights or heads, or nothing says where.
    """
    if len(paths) < 2:
        raise ConfigError(f"an average of {len(paths)} models; give two or more")
    shares = [1.0] * len(paths) if weights is None else [float(w) for w in weights]
    if len(shares) != len(paths) or not all(0 < w < float("inf") for w in shares):
        raise ConfigError(
            f"the weights are {shares} for {len(paths)} models; give one above 0 for each"
        )
    if check_start:
        _check_starts(paths)
    tokenizer = load_tokenizer(paths[0])
    first = _on_one_scale(RewardHead.load(paths[0]))
    total = sum(shares)
    sums = {name: w.double() * (shares[0] / total) for name, w in first.state_dict().items()}
    for path, share in zip(paths[1:], shares[1:], strict=True):
        other = _on_one_scale(RewardHead.load(path))
        _check_same(paths[0], first, path, other)
        if not same_tokens(tokenizer, load_tokenizer(path)):
            raise ConfigError(
                f"{paths[0]} and {path} have different tokenizers, so their weights read different "
                "tokens; average models that were trained from one start"
            )
        for name, weight in other.state_dict().items():
            sums[name] += weight.double() * (share / total)
    state = first.state_dict()
    first.load_state_dict({name: sums[name].to(state[name].dtype) for name in state})
    return first


def _on_one_scale(head: RewardHead) -> RewardHead:
    """Fold gain (and each attribute's spread) into the head; the scores stay what they are."""
    with torch.no_grad():
        if head.attributes:
            head.score.weight.mul_(head.spread[:, None])
            head.set_attributes(spread=[1.0] * len(head.attributes))
        else:
            head.score.weight.mul_(head.gain)
            head.set_scale(1.0, float(head.bias))
    return head


def _check_same(one: str | Path, first: RewardHead, two: str | Path, other: RewardHead) -> None:
    def differ(what: str, a: Any, b: Any) -> ConfigError:
        return ConfigError(
            f"{one} and {two} have different {what} ({a} and {b}), so their weights have no mean; "
            "average models that were trained from one start"
        )

    kinds = [type(head.backbone).__name__ for head in (first, other)]
    if kinds[0] != kinds[1]:
        raise differ("architectures", *kinds)
    if first.attributes != other.attributes:
        raise differ("attributes", first.attributes, other.attributes)
    shapes = [_shapes(head.state_dict()) for head in (first, other)]
    for name in sorted(set(shapes[0]) | set(shapes[1])):
        if shapes[0].get(name) != shapes[1].get(name):
            raise differ(f"shapes of {name}", shapes[0].get(name), shapes[1].get(name))
    if first.attributes and not torch.equal(first.weights, other.weights):
        raise differ("attribute weights", first.weights.tolist(), other.weights.tolist())


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in state.items()}


def _check_starts(paths: Sequence[str | Path]) -> None:
    starts = {str(path): _start(path) for path in paths}
    unknown = [path for path, start in starts.items() if start is None]
    if unknown:
        raise ConfigError(
            f"nothing says what {', '.join(unknown)} was trained from; give run folders of heed "
            "reward, or set check_start to false if you know that all have one start"
        )
    known = {path: start for path, start in starts.items() if start is not None}
    if len({start[0] for start in known.values()}) > 1:
        shown = "; ".join(f"{path}: {start[0]}" for path, start in known.items())
        raise ConfigError(f"the models began at different weights ({shown}); train all from one")
    if len({start[1] for start in known.values()}) > 1:
        shown = "; ".join(f"{path}: head seed {start[1]}" for path, start in known.items())
        raise ConfigError(
            f"the models began with different score heads ({shown}); train all with one head_seed "
            "and seeds of their own"
        )


def _start(path: str | Path) -> tuple[str, int | None] | None:
    """What a run began with: the hash (or name) of its model, and the seed of a fresh head."""
    folder = Path(path)
    file = next(
        (f for f in (folder / "manifest.json", folder.parent / "manifest.json") if f.is_file()),
        None,
    )
    manifest = read_json(file) if file else {}
    model = (manifest.get("inputs") or {}).get("model")
    if manifest.get("kind") != "reward" or not model:
        return None
    config = manifest.get("config") or {}
    seed = config.get("head_seed")
    seed = manifest.get("seed") if seed is None else seed
    return str(model.get("hash") or model.get("path")), seed
