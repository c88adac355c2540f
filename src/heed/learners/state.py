"""What a learner leaves on disk: its weights and optimiser state, and batches that broke a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from heed.data.batch import Batch, GroupBatch, PairBatch, TokenBatch
from heed.errors import StoreError
from heed.learners.base import Outputs
from heed.learners.micro import present
from heed.runs.files import read_json, write_json

WEIGHTS, OPTIMIZER, SCALARS = "weights.safetensors", "optimizer.safetensors", "learner.json"


def save(
    folder: Path,
    weights: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer | None,
    counts: Mapping[str, int],
) -> None:
    """Write weights, the optimiser's tensors of the trained ones, and counts.

    Args:
        weights: trained weights and buffers by name.
        trained: the weights that the optimiser holds, by name.
        counts: steps and updates.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: _plain(w) for name, w in weights.items()}, folder / WEIGHTS)
    moments = {
        f"{name}/{key}": _plain(value)
        for name, weight in trained.items()
        for key, value in (optimizer.state[weight] if optimizer else {}).items()
    }
    save_file(moments, folder / OPTIMIZER)
    write_json(folder / SCALARS, {"schema": 1, **counts})


def load(
    folder: Path,
    weights: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer | None,
) -> dict[str, int]:
    """Read what `save` wrote into the tensors; returns the counts.

    Raises:
        StoreError: names or shapes are not those of these weights.
    """
    found = load_file(folder / WEIGHTS)
    _check_names(folder, found, weights)
    moments = load_file(folder / OPTIMIZER)
    counts = read_json(folder / SCALARS)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(found[name])
    if optimizer is not None:
        optimizer.state.clear()
        for key, value in moments.items():
            name, _, entry = key.rpartition("/")
            # The fused kernels keep the step count beside the weight.
            optimizer.state[trained[name]][entry] = value.to(trained[name].device)
    return {"steps": int(counts["steps"]), "updates": int(counts["updates"])}


def save_bad_batch(
    folder: Path | None,
    step: int,
    batches: Sequence[Batch],
    found: Sequence[Outputs] = (),
    row_losses: Tensor | None = None,
) -> Path | None:
    """Write batches that broke a step as plain tensors; returns the file, or None if not asked.

    `torch.load(file)` gives {"step", "batches", "outputs", "row_losses"}.
    """
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bad-batch-step-{step:08d}.pt"
    content = {
        "step": step,
        "batches": [_tensors(batch) for batch in batches],
        "outputs": [{n: v.detach().cpu() for n, v in present(out).items()} for out in found],
        "row_losses": None if row_losses is None else row_losses.cpu(),
    }
    torch.save(content, path)
    return path


def explain_bad_loss(step: int, part: Batch, row_losses: Tensor, path: Path | None) -> str:
    """Say which rows made a loss that is not finite, and what to do."""
    at = (~torch.isfinite(row_losses)).nonzero().flatten().tolist()
    shown = [_names(part)[i] for i in at[:5]]
    value = float(row_losses[at[0]])
    return (
        f"the loss is {value} at step {step} in {len(at)} of {len(part)} rows of a micro-batch: "
        f"{shown}. {_where(path)} Look at those rows' log-probabilities and streams; where the "
        "rows are sound, lower optim.lr, or compute in fp32 (learner.precision)."
    )


def explain_bad_gradient(step: int, norm: float, names: Sequence[str], path: Path | None) -> str:
    """Say which weights have a gradient that is not finite, and what to do."""
    which = f"in {len(names)} weights, first {list(names)[:3]}" if names else "in its norm"
    return (
        f"the gradient is not finite (norm {norm}) at step {step}, {which}; the weights are as "
        f"before. {_where(path)} Lower optim.lr, or compute in fp32 (learner.precision)."
    )


def _names(part: Batch) -> list[str]:
    """Name what a loss has one value for: a row, a pair, or an element of several rows."""
    if isinstance(part, GroupBatch):
        firsts = (part.sizes.cumsum(0) - part.sizes).tolist()
        return [part.rows.rows[i] for i in firsts]
    return list(part.chosen.rows if isinstance(part, PairBatch) else part.rows)


def _where(path: Path | None) -> str:
    return f"The batch is saved in {path} (torch.load)." if path else "The batch was not saved."


def _tensors(batch: Batch) -> dict[str, Any]:
    kinds = {PairBatch: "pairs", GroupBatch: "groups", TokenBatch: "tokens"}
    out: dict[str, Any] = {"kind": kinds[type(batch)]}
    for entry in fields(batch):
        value = getattr(batch, entry.name)
        if isinstance(value, TokenBatch):
            value = _tensors(value)
        elif isinstance(value, Tensor):
            value = value.detach().cpu()
        elif isinstance(value, dict):
            value = {name: stream.detach().cpu() for name, stream in value.items()}
        elif isinstance(value, tuple):
            value = list(value)
        out[entry.name] = value
    return out


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous()


def _check_names(folder: Path, found: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    absent = sorted(set(weights) - set(found))
    extra = sorted(set(found) - set(weights))
    shapes = [
        f"{name} {tuple(found[name].shape)} for {tuple(w.shape)}"
        for name, w in weights.items()
        if name in found and found[name].shape != w.shape
    ]
    if absent or extra or shapes:
        raise StoreError(
            f"the checkpoint in {folder} was written for another model: it lacks {absent[:3]}, "
            f"has {extra[:3]} beyond the model, and shapes differ in {shapes[:3]}; resume with "
            "the model, head and adapter settings that the run began with"
        )
