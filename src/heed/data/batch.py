"""Records become tensors here: rows of tokens, batches of rows, batches of pairs.

Shape letters used all over the package:

    B rows of a batch         T tokens of the longest row      N learned tokens of a batch
    V vocabulary              D hidden size                    K candidates, or ids kept
    P prompts                 G completions of one prompt      S steps of a segment

Entry t of every stream describes token t. The first token of a row is never learned, because
nothing predicts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from heed.errors import DataError, LearnerError

FILLED_BY = {
    "behaviour_logprobs": "the engine, while it samples",
    "reference_logprobs": "a forward pass of the reference policy",
    "advantages": "heed.credit, from rewards",
    "returns": "heed.credit, from rewards and values",
    "old_values": "a forward pass of the value model before the first epoch",
    "sampled_logprobs": "the engine, where the learner's own stand as behaviour_logprobs",
    "weights": "the stage that builds the batch",
    "labels": "heed.algorithms.unpaired_rows.lay_out",
    "baseline": "heed.algorithms.unpaired_rows.Baseline, over the whole batch",
    "mean_tokens": "heed.algorithms.preference_loss.lay_out, from the whole batch",
    "reference_at_rank": "heed.algorithms.preference_loss.with_whole_batch",
    "rejected_at_rank": "heed.algorithms.preference_loss.with_whole_batch",
    "chosen_at_rank": "heed.algorithms.preference_loss.with_whole_batch",
}
"""The streams a batch may carry, and what fills each."""


@dataclass(frozen=True)
class Row:
    """One sequence of tokens. `learn[t]` says whether token t enters the loss."""

    id: str
    tokens: Sequence[int]
    learn: Sequence[bool]
    kept: Sequence[Sequence[int]] | None = None
    """Per token the ids that could have been sampled; empty where all could."""

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.learn):
            raise DataError(
                f"row {self.id!r} has {len(self.tokens)} tokens and {len(self.learn)} learn marks"
            )
        if self.learn and self.learn[0]:
            raise DataError(
                f"row {self.id!r} learns its first token, which nothing predicts; "
                "begin the row with a start token or leave the first token out of the loss"
            )


@dataclass(frozen=True)
class TokenBatch:
    """Rows side by side, with per-token streams.

    Args:
        tokens: [B, T] int64 ids; any id where `attend` is false.
        attend: [B, T] bool, true on real tokens.
        learn: [B, T] bool, true on tokens that enter the loss.
        positions: [B, T] int64, counted from 0 at each row's first real token.
        rows: B ids.
        streams: name -> [B, T] float32.
        kept: [B, T, K] int64 ids that the sampler could choose from, padded with -1 (a row of
            -1 alone means all); None where nothing was cut.
        temperature: logits are divided by it before a log-probability is taken.
    """

    tokens: Tensor
    attend: Tensor
    learn: Tensor
    positions: Tensor
    rows: tuple[str, ...]
    streams: dict[str, Tensor] = field(default_factory=dict)
    kept: Tensor | None = None
    temperature: float = 1.0

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def lengths(self) -> Tensor:
        """[B] real tokens of each row."""
        return self.attend.sum(1)

    @property
    def num_learned(self) -> int:
        """Tokens that enter the loss."""
        return int(self.learn.sum())

    def stream(self, name: str) -> Tensor:
        """Return a stream [B, T].

        Raises:
            LearnerError: it is absent; the message names the stage that fills it.
        """
        if name not in self.streams:
            raise LearnerError(
                f"the loss needs the stream {name!r}, and this batch has "
                f"{sorted(self.streams) or 'none'}; it is filled by "
                f"{FILLED_BY.get(name, 'the stage that builds the batch')}"
            )
        return self.streams[name]

    def with_streams(self, **streams: Tensor) -> TokenBatch:
        """Return the batch with more streams, each [B, T]."""
        for name, values in streams.items():
            if values.shape != self.tokens.shape:
                raise LearnerError(
                    f"stream {name!r} has shape {tuple(values.shape)}; "
                    f"the batch is {tuple(self.tokens.shape)}"
                )
        return replace(self, streams={**self.streams, **streams})

    def with_row_values(self, **values: Tensor) -> TokenBatch:
        """Return the batch with streams that hold one value a row, each given as [B]."""
        shape = self.tokens.shape
        return self.with_streams(**{n: v.unsqueeze(1).expand(shape) for n, v in values.items()})

    def row_values(self, name: str) -> Tensor:
        """Return a stream of one value a row, [B].

        Raises:
            LearnerError: it is absent.
        """
        return self.stream(name)[:, 0]

    def select(self, index: Sequence[int] | Tensor) -> TokenBatch:
        """Return some rows, in the order given, cut to the longest of them.

        Rows are right-padded by `collate`, so cutting columns drops padding only.
        """
        index = torch.as_tensor(index, dtype=torch.long, device=self.tokens.device)
        attend = self.attend[index]
        used = attend.any(0).nonzero()
        width = int(used.max()) + 1 if len(used) else 1

        def cut(values: Tensor) -> Tensor:
            return values[index][:, :width]

        return replace(
            self,
            tokens=cut(self.tokens),
            attend=attend[:, :width],
            learn=cut(self.learn),
            positions=cut(self.positions),
            rows=tuple(self.rows[i] for i in index.tolist()),
            streams={name: cut(values) for name, values in self.streams.items()},
            kept=None if self.kept is None else cut(self.kept),
        )

    def to(self, device: torch.device | str) -> TokenBatch:
        """Return the batch on a device."""
        return replace(
            self,
            tokens=self.tokens.to(device),
            attend=self.attend.to(device),
            learn=self.learn.to(device),
            positions=self.positions.to(device),
            streams={name: values.to(device) for name, values in self.streams.items()},
            kept=None if self.kept is None else self.kept.to(device),
        )


@dataclass(frozen=True)
class PairBatch:
    """Two completions a row: `chosen[i]` against `rejected[i]`, the chosen better with `p[i]`.

    Args:
        chosen, rejected: B rows each.
        p: [B] float32 in 0..1, the probability that chosen is better.
        margin: [B] float32 or None, a margin by which chosen should lead.
        weights: [B] float32 or None.
        tie: [B] float32 in 0..1 or None, the share of the labels that call it a tie.
    """

    chosen: TokenBatch
    rejected: TokenBatch
    p: Tensor
    margin: Tensor | None = None
    weights: Tensor | None = None
    tie: Tensor | None = None

    def __post_init__(self) -> None:
        if not len(self.chosen) == len(self.rejected) == len(self.p):
            raise DataError(
                f"a pair batch has {len(self.chosen)} chosen rows, {len(self.rejected)} rejected "
                f"rows and {len(self.p)} probabilities; the three must be equal"
            )

    def __len__(self) -> int:
        return len(self.p)

    def select(self, index: Sequence[int]) -> PairBatch:
        """Return some pairs, in the order given."""
        at = torch.as_tensor(index, dtype=torch.long)
        return PairBatch(
            self.chosen.select(at),
            self.rejected.select(at),
            self.p[at],
            None if self.margin is None else self.margin[at],
            None if self.weights is None else self.weights[at],
            None if self.tie is None else self.tie[at],
        )


@dataclass(frozen=True)
class GroupBatch:
    """Elements of several rows each, which are learned together and never parted.

    An element is a prompt with its K completions, each row of which is evaluated once however many
    comparisons it is in; or one completion with its numbers.

    Args:
        rows: N rows, those of an element side by side.
        group: [N] int64 element of each row, from 0 to B - 1, ascending.
        targets: [N, K] float32 ranks or numbers of each row, NaN where one is missing; or None.
        edges: [M, 2] int64, the two rows of each comparison, or None.
        labels: name -> [M] float32 of the comparisons (p, tie, margin).
    """

    rows: TokenBatch
    group: Tensor
    targets: Tensor | None = None
    edges: Tensor | None = None
    labels: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num = len(self.rows)
        whole = len(self.group) == num and num > 0 and int(self.group[0]) == 0
        if not whole or not bool((self.group.diff() >= 0).all() & (self.group.diff() <= 1).all()):
            raise DataError(
                f"a group batch has {num} rows and the groups {self.group.tolist()[:20]}; give "
                "each row the number of its element, ascending from 0 without a gap"
            )

    def __len__(self) -> int:
        return int(self.group[-1]) + 1

    @property
    def sizes(self) -> Tensor:
        """[B] rows of each element."""
        return torch.bincount(self.group, minlength=len(self))

    @property
    def longest(self) -> Tensor:
        """[B] tokens of each element's longest row."""
        start = self.group.new_zeros(len(self))
        return start.scatter_reduce(0, self.group, self.rows.lengths, "amax")

    def select(self, index: Sequence[int]) -> GroupBatch:
        """Return some elements whole, in the order given."""
        rows = torch.cat([(self.group == i).nonzero().flatten() for i in index])
        place = torch.full_like(self.group, -1)
        place[rows] = torch.arange(len(rows), device=rows.device)
        sizes = self.sizes[torch.as_tensor(index, device=rows.device)]
        edges, labels = None, {}
        if self.edges is not None:
            moved = place[self.edges]
            there = (moved >= 0).all(1)
            edges = moved[there]
            labels = {name: values[there] for name, values in self.labels.items()}
        return GroupBatch(
            self.rows.select(rows),
            torch.arange(len(index), device=rows.device).repeat_interleave(sizes),
            None if self.targets is None else self.targets[rows],
            edges,
            labels,
        )

    def to(self, device: torch.device | str) -> GroupBatch:
        """Return the batch on a device."""
        return GroupBatch(
            self.rows.to(device),
            self.group.to(device),
            None if self.targets is None else self.targets.to(device),
            None if self.edges is None else self.edges.to(device),
            {name: values.to(device) for name, values in self.labels.items()},
        )


Batch = TokenBatch | PairBatch | GroupBatch


def collate(
    rows: Sequence[Row], *, pad_id: int = 0, side: str = "right", temperature: float = 1.0
) -> TokenBatch:
    """Lay rows side by side, padded on one side with `pad_id` (which no mask ever reads).

    Raises:
        DataError: there are no rows, or a row has no tokens.
    """
    if not rows:
        raise DataError("a batch was asked for with no rows; give at least one")
    empty = [row.id for row in rows if not len(row.tokens)]
    if empty:
        raise DataError(f"rows without tokens: {empty[:3]}; drop them before the batch is built")
    width = max(len(row.tokens) for row in rows)
    shape = (len(rows), width)
    tokens = torch.full(shape, pad_id, dtype=torch.long)
    attend = torch.zeros(shape, dtype=torch.bool)
    learn = torch.zeros(shape, dtype=torch.bool)
    positions = torch.zeros(shape, dtype=torch.long)
    spans = []
    for i, row in enumerate(rows):
        n = len(row.tokens)
        span = slice(0, n) if side == "right" else slice(width - n, width)
        spans.append(span)
        tokens[i, span] = torch.as_tensor(row.tokens, dtype=torch.long)
        attend[i, span] = True
        learn[i, span] = torch.as_tensor(row.learn, dtype=torch.bool)
        positions[i, span] = torch.arange(n)
    return TokenBatch(
        tokens,
        attend,
        learn,
        positions,
        tuple(row.id for row in rows),
        kept=_collate_kept(rows, spans, width),
        temperature=temperature,
    )


def _collate_kept(rows: Sequence[Row], spans: Sequence[slice], width: int) -> Tensor | None:
    largest = max((len(k) for row in rows for k in row.kept or ()), default=0)
    if not largest:
        return None
    kept = torch.full((len(rows), width, largest), -1, dtype=torch.long)
    for i, (row, span) in enumerate(zip(rows, spans, strict=True)):
        for t, ids in enumerate(row.kept or ()):
            if len(ids):
                kept[i, span.start + t, : len(ids)] = torch.as_tensor(ids, dtype=torch.long)
    return kept


def stream_of(values: Iterable[Sequence[float]], batch: TokenBatch) -> Tensor:
    """Lay per-learned-token values (one sequence a row) out as a stream [B, T], 0 elsewhere."""
    out = torch.zeros(batch.tokens.shape, dtype=torch.float32)
    for i, row in enumerate(values):
        at = batch.learn[i].nonzero().flatten()
        if len(at) != len(row):
            raise DataError(
                f"row {batch.rows[i]!r} learns {len(at)} tokens and was given {len(row)} values"
            )
        out[i, at] = torch.as_tensor(row, dtype=torch.float32)
    return out


def micro_batches(
    lengths: Sequence[int], max_tokens: int, *, full_tokens: int = 1024, slack: float = 0.8
) -> Iterator[list[int]]:
    """Split rows into groups of like length whose padded size is at most `max_tokens`.

    A group that is large enough to keep the processor busy takes no row that would be mostly
    padding. Longest first, so that the largest allocation comes first; a row longer than the
    budget stands alone. Yields row numbers; every row comes exactly once.

    Args:
        lengths: tokens of each row.
        max_tokens: most tokens of a group, padding included.
        full_tokens: from this padded size on a group is closed when rows get shorter.
        slack: a row shorter than this share of its group's longest opens a new group.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    group: list[int] = []
    for i in order:
        if group:
            longest = lengths[group[0]]
            too_big = (len(group) + 1) * longest > max_tokens
            wasteful = len(group) * longest >= full_tokens and lengths[i] < slack * longest
            if too_big or wasteful:
                yield group
                group = []
        group.append(i)
    if group:
        yield group
