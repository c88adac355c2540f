"""A process reward model as a scorer: the steps of a completion, each judged, and one number.

    p_i = sigmoid(log-odds at the end of step i)
    min: the weakest step   product: that all are right   last: the whole so far   mean

Sources: Lightman et al. 2023 (product and minimum); Uesato et al. 2022 (last).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch

from heed.data.batch import Row, collate, micro_batches
from heed.errors import ConfigError, HeedError
from heed.feedback.base import Item
from heed.feedback.rules import failed_completion
from heed.records import Score

if TYPE_CHECKING:
    from heed.data.render import Renderer
    from heed.models.step_head import StepHead

Aggregate = Literal["min", "product", "last", "mean"]


class ProcessRewardScorer:
    """Scores items by the steps of their completions.

    A completion is parted at the separator that the model was trained with; empty parts are no
    steps. The parts of a score are all four aggregates and the number of steps. An item that has
    no step, or cannot be laid out, has an error.

    Args:
        head: the process reward model; used in evaluation mode without gradients.
        renderer: with its tokenizer.
        separator: what stands between steps.
        aggregate: which of the four is the score.
        batch_tokens: tokens, padding included, of one forward pass.
        max_length: longest row in tokens.
    """

    def __init__(
        self,
        head: StepHead,
        renderer: Renderer,
        *,
        separator: str = "\n",
        aggregate: Aggregate = "min",
        batch_tokens: int = 8192,
        max_length: int = 1024,
        name: str = "process reward model",
    ) -> None:
        if aggregate not in get_args(Aggregate):
            raise ConfigError(f"aggregate is {aggregate!r}, expected min, product, last or mean")
        if not separator:
            raise ConfigError("the separator is empty; give what stands between steps")
        self.head, self.renderer, self._name = head, renderer, name
        self._separator, self._aggregate = separator, aggregate
        self._batch_tokens, self._max_length = batch_tokens, max_length

    @property
    def name(self) -> str:
        """Stands in `Score.scorer`."""
        return self._name

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Score items, in order."""
        out = []
        for item, found in zip(items, self._judge(items), strict=True):
            values: dict[str, float | None] = {}
            error = found if isinstance(found, str) else None
            if not isinstance(found, str):
                values = {**aggregates(found), "num_steps": float(len(found))}
            out.append(
                Score(
                    item_id=item.completion.id,
                    value=None if error else values[self._aggregate],
                    error=error,
                    parts=values,
                    scorer=self.name,
                )
            )
        return out

    def steps(self, items: Sequence[Item]) -> list[list[tuple[str, float]] | None]:
        """Say of each step how probable it is that it is right; None where an item fails."""
        return [
            None
            if isinstance(found, str)
            else list(zip(split_steps(item.completion.text, self._separator), found, strict=True))
            for item, found in zip(items, self._judge(items), strict=True)
        ]

    def _judge(self, items: Sequence[Item]) -> list[list[float] | str]:
        """Probabilities of each item's steps, or why there are none."""
        out: list[list[float] | str] = ["" for _ in items]
        rows: dict[int, Row] = {}
        for i, item in enumerate(items):
            failed = failed_completion(item, self.name)
            steps = split_steps(item.completion.text, self._separator)
            if failed is not None:
                out[i] = str(failed.error)
            elif not steps:
                out[i] = "the completion has no step to judge"
            else:
                try:
                    rows[i] = self.renderer.steps_row(
                        item.prompt, steps, self._separator, self._max_length
                    )
                except HeedError as error:
                    out[i] = f"the item cannot be laid out as a row: {error}"
        for i, found in zip(rows, self._forward(list(rows.values())), strict=True):
            finite = all(map(math.isfinite, found))
            out[i] = found if finite else f"the model returned {found}, which are not finite"
        return out

    def _forward(self, rows: Sequence[Row]) -> list[list[float]]:
        found: list[list[float]] = [[] for _ in rows]
        device = next(self.head.parameters()).device
        self.head.eval()
        with torch.inference_mode():
            for group in micro_batches([len(row.tokens) for row in rows], self._batch_tokens):
                batch = collate([rows[i] for i in group], pad_id=self.renderer.pad_id).to(device)
                values = self.head.outputs(batch)["values"]
                assert values is not None
                for place, i in enumerate(group):
                    own = values[place][batch.learn[place]]
                    found[i] = own.double().sigmoid().tolist()
        return found


def split_steps(text: str, separator: str) -> list[str]:
    """Part a completion into its steps; parts of white space are none."""
    return [part for part in text.split(separator) if part.strip()]


def aggregates(probabilities: Sequence[float]) -> dict[str, float]:
    """All ways of making one number of the steps' probabilities."""
    return {
        "min": min(probabilities),
        "product": math.prod(probabilities),
        "last": probabilities[-1],
        "mean": sum(probabilities) / len(probabilities),
    }


def open_process_reward_model(
    path: str | Path,
    *,
    device: str = "auto",
    aggregate: Aggregate | None = None,
    batch_tokens: int = 8192,
    max_length: int = 1024,
    name: str = "",
) -> ProcessRewardScorer:
    """Load a process reward model with its own tokenizer as a scorer.

    Args:
        path: folder, run folder of `heed prm`, or hub id of a token classifier with two labels.
        aggregate: in place of the one that it was saved with (min by default).

    Raises:
        ConfigError: the model is no token classifier of two labels.
        StoreError: nothing is there, or it is damaged.
    """
    from heed.data.render import Renderer
    from heed.models.device import choose_device
    from heed.models.load import load_extra, load_tokenizer, resolve_path
    from heed.models.step_head import StepHead, is_step_model

    where = resolve_path(path)
    if not is_step_model(where):
        raise ConfigError(
            f"{path} holds no token classifier, so it cannot judge steps; train one with heed prm"
        )
    extra = load_extra(where)
    head = StepHead.load(path).to(choose_device(device)).eval().requires_grad_(False)
    return ProcessRewardScorer(
        head,
        Renderer(load_tokenizer(path)),
        separator=extra.get("step_separator", "\n"),
        aggregate=aggregate or extra.get("aggregate", "min"),
        batch_tokens=batch_tokens,
        max_length=max_length,
        name=name or Path(path).name or "process reward model",
    )
