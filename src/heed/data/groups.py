"""A prompt with its K completions and every comparison between them, as one element of training.

Made of a ranking (K (K - 1) / 2 comparisons) or of all labelled pairs of a prompt. Each completion
is evaluated once, however many comparisons it is in, and an element is never parted: pairs of one
completion that are spread over steps overfit within an epoch.

Source: InstructGPT 2022, section 3.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch

from heed.data.batch import GroupBatch, Row, collate
from heed.data.judgements import LabelledPair
from heed.data.report import DataReport
from heed.data.transcripts import Messages
from heed.errors import DataError
from heed.records import Prompt, Ranking


@dataclass(frozen=True)
class Group:
    """Completions of one prompt and what is known of them.

    Args:
        id: of the element.
        prompt: what all replies answer.
        replies: K of them.
        pairs: M comparisons with their labels.
        at: [M] the places of chosen and rejected among the replies.
        ranks: [K], 1 is best; None where there are only comparisons.
    """

    id: str
    prompt: Prompt
    replies: tuple[Messages, ...]
    pairs: tuple[LabelledPair, ...]
    at: tuple[tuple[int, int], ...]
    ranks: tuple[int, ...] | None = None


GroupRows = tuple[Group, tuple[Row, ...]]


def group_of(ranking: Ranking) -> Group:
    """Make an element of a ranking; completions of equal rank are a pair with p = 0.5."""
    pairs, at = [], []
    for i, j in combinations(range(len(ranking.replies)), 2):
        if ranking.ranks[j] < ranking.ranks[i]:
            i, j = j, i
        tie = ranking.ranks[i] == ranking.ranks[j]
        pairs.append(
            LabelledPair(
                f"{ranking.id}/{i}-{j}",
                ranking.prompt,
                ranking.replies[i],
                ranking.replies[j],
                0.5 if tie else 1.0,
                tie=float(tie),
            )
        )
        at.append((i, j))
    return Group(
        ranking.id, ranking.prompt, ranking.replies, tuple(pairs), tuple(at), ranking.ranks
    )


def groups_of(pairs: Iterable[LabelledPair]) -> list[Group]:
    """Gather the pairs of each prompt; equal replies of a prompt become one."""
    by_prompt: dict[str, list[LabelledPair]] = {}
    for pair in pairs:
        by_prompt.setdefault(pair.prompt.id, []).append(pair)
    out = []
    for name, found in by_prompt.items():
        place: dict[Messages, int] = {}
        at = [
            (
                place.setdefault(pair.chosen, len(place)),
                place.setdefault(pair.rejected, len(place)),
            )
            for pair in found
        ]
        out.append(Group(name, found[0].prompt, tuple(place), tuple(found), tuple(at)))
    return out


def without_ties(group: Group) -> Group:
    """Leave the comparisons out that call it a tie; the ranks stay."""
    kept = [i for i, pair in enumerate(group.pairs) if pair.p != 0.5]
    return replace(
        group,
        pairs=tuple(group.pairs[i] for i in kept),
        at=tuple(group.at[i] for i in kept),
    )


def that_order(groups: Sequence[Group], report: DataReport, drop_ties: bool) -> list[Group]:
    """Keep the elements that teach something, and count the others.

    Args:
        groups: elements.
        report: an element that orders nothing is set aside in it.
        drop_ties: leave tied comparisons out.
    """
    out = []
    for group in groups:
        if drop_ties:
            group = without_ties(group)
        if group.pairs:
            out.append(group)
        else:
            report.set_aside("all completions tie, so they order nothing", group.id)
    return out


def group_batch(elements: Sequence[GroupRows]) -> GroupBatch:
    """Lay elements out as a batch; a margin or weight is used where every one has it.

    Raises:
        DataError: there are none.
    """
    if not elements:
        raise DataError("a batch was asked for with no rankings; give at least one")
    rows: list[Row] = []
    sizes, edges, first = [], [], 0
    for group, own in elements:
        rows += own
        sizes.append(len(own))
        edges += [(first + i, first + j) for i, j in group.at]
        first += len(own)
    pairs = [pair for group, _ in elements for pair in group.pairs]
    labels = {
        "p": torch.tensor([pair.p for pair in pairs]),
        "tie": torch.tensor([pair.tie_share for pair in pairs]),
    }
    for name in ("margin", "weight"):
        values = [getattr(pair, name) for pair in pairs]
        if None not in values:
            labels[name] = torch.tensor(values)
    ranks = [rank for group, own in elements for rank in group.ranks or (float("nan"),) * len(own)]
    return GroupBatch(
        collate(rows),
        torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        torch.tensor(ranks, dtype=torch.float32)[:, None],
        torch.tensor(edges, dtype=torch.long).reshape(-1, 2),
        labels,
    )
