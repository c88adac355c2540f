"""A reward model as a scorer: text in, one number out, and its attributes where it has some."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from heed.data.batch import Row, collate, micro_batches
from heed.errors import ConfigError, HeedError
from heed.feedback.base import Item
from heed.feedback.rules import failed_completion
from heed.records import Score

if TYPE_CHECKING:
    from heed.data.render import Renderer
    from heed.models.heads import RewardHead


class RewardModelScorer:
    """Scores items with a reward model.

    The completion's text is tokenised again with the reward model's own tokenizer, so the policy
    may have another. Rows go in micro-batches of like length; batch mates change nothing.
    An item that cannot be laid out, or whose score is not finite, has an error. The parts of a
    score are the attributes that it is a weighted sum of, in the unit of their labels.

    Args:
        head: the reward model; used in evaluation mode without gradients.
        renderer: with the reward model's tokenizer.
        batch_tokens: tokens, padding included, of one forward pass.
        max_length: longest row in tokens.
    """

    def __init__(
        self,
        head: RewardHead,
        renderer: Renderer,
        *,
        batch_tokens: int = 8192,
        max_length: int = 1024,
        name: str = "reward model",
    ) -> None:
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens is {batch_tokens}; give at least 1")
        self.head, self.renderer, self._name = head, renderer, name
        self._batch_tokens, self._max_length = batch_tokens, max_length

    @property
    def name(self) -> str:
        """Stands in `Score.scorer`."""
        return self._name

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Score items, in order."""
        errors: dict[int, str] = {}
        rows: dict[int, Row] = {}
        for i, item in enumerate(items):
            failed = failed_completion(item, self.name)
            if failed is not None:
                errors[i] = str(failed.error)
                continue
            try:
                rows[i] = self.renderer.item_row(
                    item.prompt, item.completion.text, self._max_length
                )
            except HeedError as error:
                errors[i] = f"the item cannot be laid out as a row: {error}"
        scores, numbers = self._forward(list(rows.values()))
        values = dict(zip(rows, scores, strict=True))
        parts: dict[int, dict[str, float | None]] = {}
        for i, found in zip(rows, numbers, strict=True):
            named = zip(self.head.attributes, found, strict=True) if found else ()
            parts[i] = {name: n if math.isfinite(n) else None for name, n in named}
        for i, value in values.items():
            if not math.isfinite(value):
                errors[i] = f"the reward model returned {value}, which is not finite"
        return [
            Score(
                item_id=item.completion.id,
                value=None if i in errors else values[i],
                error=errors.get(i),
                parts=parts.get(i, {}),
                scorer=self.name,
            )
            for i, item in enumerate(items)
        ]

    def _forward(self, rows: Sequence[Row]) -> tuple[list[float], list[list[float]]]:
        """Score rows in micro-batches: one number each, and their attributes, in their order."""
        values = [math.nan] * len(rows)  # every entry is filled below
        numbers: list[list[float]] = [[] for _ in rows]
        first: Tensor | None = next(iter(self.head.parameters()), None)
        device = first.device if first is not None else torch.device("cpu")
        was_training = self.head.training
        self.head.eval()
        try:
            with torch.inference_mode():
                for group in micro_batches([len(row.tokens) for row in rows], self._batch_tokens):
                    batch = collate([rows[i] for i in group], pad_id=self.renderer.pad_id)
                    found = self.head.outputs(batch.to(device))
                    scores, attributes = found["scores"], found.get("attributes")
                    assert scores is not None
                    for i, value in zip(group, scores.float().tolist(), strict=True):
                        values[i] = value
                    if attributes is not None:
                        for i, row in zip(group, attributes.float().tolist(), strict=True):
                            numbers[i] = row
        finally:
            self.head.train(was_training)
        return values, numbers


def open_reward_model(
    path: str | Path,
    *,
    device: str = "auto",
    batch_tokens: int = 8192,
    max_length: int = 1024,
    name: str = "",
    attribute_weights: Mapping[str, float] | None = None,
) -> RewardModelScorer:
    """Load a reward model with its own tokenizer as a scorer.

    Args:
        path: folder, run folder of `heed reward`, or hub id of a sequence classifier with one
            label.
        device: cpu, cuda, cuda:1, mps, or auto (the accelerator that there is, else the cpu).
        name: stands in scores; the folder's name by default.
        attribute_weights: attribute -> its weight, in place of those that the model was saved
            with; one that is not named weighs nothing, and gain and bias are left out.

    Raises:
        ConfigError: the model has no reward head, more labels than one without names, or not the
            attributes that are weighed.
        StoreError: nothing is there, or it is damaged.
    """
    from heed.data.render import Renderer
    from heed.models.device import choose_device
    from heed.models.heads import RewardHead
    from heed.models.load import load_tokenizer

    head = RewardHead.load(path)
    named = head.backbone.config.architectures or []
    if not any("SequenceClassification" in architecture for architecture in named):
        raise ConfigError(
            f"{path} holds {', '.join(named) or 'a model'} without a reward head, so it cannot "
            "score; train a reward model from it with heed reward, and name that run"
        )
    if attribute_weights is not None:
        strange = sorted(set(attribute_weights) - set(head.attributes))
        if strange or not head.attributes:
            raise ConfigError(
                f"{path} has the attributes {', '.join(head.attributes) or '(none)'}, and weights "
                f"are given for {', '.join(attribute_weights)}; weigh those that it has"
            )
        head.set_attributes(weights=[attribute_weights.get(n, 0.0) for n in head.attributes])
        head.set_scale(1.0, 0.0)
    head = head.to(choose_device(device)).eval().requires_grad_(False)
    return RewardModelScorer(
        head,
        Renderer(load_tokenizer(path)),
        batch_tokens=batch_tokens,
        max_length=max_length,
        name=name or Path(path).name or "reward model",
    )
