"""Log-probabilities of the reference for the rows of an offline run: once, or of a moving policy.

A frozen reference says the same of a row in every epoch, so it is asked once, before the first
step, and what it says is kept in `RUN/reference` under the hash of all that it depends on: the
model's weights as they compute (their precision with them) and the tokens of the rows, cut as they
were. A second epoch, a resumed run and one that was killed while training ask nothing again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from heed.data.batch import Row, TokenBatch, collate, stream_of
from heed.ids import content_hash
from heed.learners.base import Evaluator
from heed.learners.local import LocalLearner
from heed.learners.reference import AdapterReference, MovingReference
from heed.models.heads import PolicyHead
from heed.models.load import load_causal
from heed.runs.run import Run
from heed.settings import LearnerSettings, ModelSettings

CHUNK_ROWS = 256
"""Rows that are evaluated together; the learner cuts them into micro-batches."""


def row_key(row: Row) -> str:
    """Name a row by its tokens and by which of them are learned."""
    return content_hash([list(row.tokens), [int(x) for x in row.learn]], 32)


def weights_hash(weights: Mapping[str, Any]) -> str:
    """Hash weights by name, type, shape and bytes."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        plain = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


class Fixed:
    """What a frozen reference says of known rows.

    Args:
        known: row key -> log-probabilities of the row's learned tokens, nats.
    """

    def __init__(self, known: Mapping[str, Tensor]) -> None:
        self._known = known

    def fill(self, batch: TokenBatch, rows: Sequence[Row]) -> TokenBatch:
        """Return the batch with its stream `reference_logprobs`."""
        values = [self._known[row_key(row)].tolist() for row in rows]
        return batch.with_streams(reference_logprobs=stream_of(values, batch))


class Live:
    """A reference that is asked at every step, because it moves or is needed whole."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def fill(self, batch: TokenBatch, rows: Sequence[Row]) -> TokenBatch:
        """Return the batch with its stream `reference_logprobs`."""
        found = self._evaluator.forward(batch).logprobs
        assert found is not None
        return batch.with_streams(reference_logprobs=found)


class Uniform:
    """No reference: every log-probability is 0, so that a log-ratio is the policy's own."""

    def fill(self, batch: TokenBatch, rows: Sequence[Row]) -> TokenBatch:
        """Return the batch with its stream `reference_logprobs`."""
        return batch.with_streams(reference_logprobs=torch.zeros(batch.tokens.shape))


References = Fixed | Live | Uniform


def open_reference(
    model: ModelSettings,
    reference: ModelSettings | None,
    settings: LearnerSettings,
    learner: LocalLearner,
    causal: nn.Module,
    *,
    moves: bool = False,
    whole: bool = False,
) -> Evaluator:
    """Open what evaluates the reference; a second model only where one is needed.

    Before the first step the policy is its own reference, so what is asked once is asked of it.

    Args:
        model: of the policy.
        reference: another model, or None for the policy as it starts.
        learner, causal: the policy, at its start.
        moves: whether the reference is to follow the policy.
        whole: whether it is asked for distributions while the policy learns.
    """
    if reference is None and model.lora is not None:
        return AdapterReference(learner, causal)
    if reference is None and not (moves or whole):
        return learner
    frozen = LocalLearner.frozen(PolicyHead(load_causal(reference or model)), settings)
    return MovingReference(frozen) if moves else frozen


def references_of(
    run: Run, reference: Evaluator, learner: LocalLearner, rows: Sequence[Row]
) -> References:
    """The reference's log-probabilities of all rows, or one that is asked at every step."""
    if isinstance(reference, MovingReference):
        return Live(reference)
    source = reference if isinstance(reference, LocalLearner) else learner
    return ask_once(run, reference, source.weights(), rows)


def ask_once(
    run: Run, evaluator: Evaluator, weights: Mapping[str, Any], rows: Sequence[Row]
) -> Fixed:
    """Return what the reference says of the rows, from the run's folder where it is known.

    Args:
        run: whose folder keeps the answers.
        evaluator: the reference.
        weights: of the reference, as they compute.
        rows: all that will be asked for.
    """
    unique = {row_key(row): row for row in rows}
    keys = sorted(unique)
    path = run.path("reference", f"{content_hash([weights_hash(weights), keys], 32)}.safetensors")
    counts = [sum(unique[key].learn) for key in keys]
    values = _read(run, path, sum(counts))
    if values is None:
        run.stage("reference log-probabilities", len(keys))
        values = torch.cat(_ask(run, evaluator, [unique[key] for key in keys]))
        _write(path, values)
    return Fixed(dict(zip(keys, values.split(counts), strict=True)))


def _ask(run: Run, evaluator: Evaluator, rows: Sequence[Row]) -> list[Tensor]:
    out = []
    for first in range(0, len(rows), CHUNK_ROWS):
        batch = collate(rows[first : first + CHUNK_ROWS])
        found = evaluator.forward(batch).logprobs
        assert found is not None
        out.append(found[batch.learn])
        run.progress(first + len(batch), len(rows))
    return out


def _read(run: Run, path: Path, num_values: int) -> Tensor | None:
    """The values in a file; None where it is absent, or damaged (then with a warning)."""
    if not path.is_file():
        return None
    try:
        values = load_file(path)["logprobs"]
    except (SafetensorError, OSError, KeyError, ValueError):
        values = None
    if values is None or len(values) != num_values:
        run.warn(0, "reference", f"{path.name} is damaged; the reference is asked again")
        return None
    return values


def _write(path: Path, values: Tensor) -> None:
    # Whole or absent, like a checkpoint: a kill leaves no half file under the name.
    temporary = path.with_suffix(".writing")
    save_file({"logprobs": values.contiguous()}, temporary)
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)
