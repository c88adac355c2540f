"""Join what labellers said with what they saw: `pairs.jsonl` and `preferences.jsonl` to labels.

Of each labeller the newest preference that nothing replaces counts. Several labellers on one pair
give the mean of their p_left, of their ties and of their strengths. What nobody could judge is set
aside and counted, never read as 0.5; that both are bad is read as a tie only where one asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from heed.data.columns import Messages
from heed.data.exchange import read_rows
from heed.data.report import DataReport
from heed.errors import DataError
from heed.records import Completion, Message, Pair, Preference, Prompt, Record

PAIRS_FILE = "pairs.jsonl"
PREFERENCES_FILE = "preferences.jsonl"
BothBad = Literal["drop", "tie"]
_JUDGED = ("left", "right", "tie")
_Kind = TypeVar("_Kind", bound=Record)


@dataclass(frozen=True)
class LabelledPair:
    """A prompt with two replies, of which `chosen` is better with probability `p`.

    Args:
        id: of the pair.
        prompt: what both replies answer.
        chosen, rejected: one or more messages each; role `text` after a raw prompt.
        p: probability in 0..1 that chosen is better; at least 0.5 where labellers were joined.
        margin: by how much chosen should lead, or None.
        weight: of the pair in the loss, or None for 1.
        tie: share of the labels that call it a tie; None where it is not said apart from `p`.
        strength: how much better chosen is on the labeller's own scale, or None.
    """

    id: str
    prompt: Prompt
    chosen: Messages
    rejected: Messages
    p: float = 1.0
    margin: float | None = None
    weight: float | None = None
    tie: float | None = None
    strength: float | None = None

    @property
    def tie_share(self) -> float:
        """Share of the labels that call it a tie: as said, or 1 where p is one half, else 0."""
        if self.tie is not None:
            return self.tie
        return 1.0 if self.p == 0.5 else 0.0


@dataclass(frozen=True)
class LabelledReply:
    """A prompt with one reply that somebody called good or bad.

    Args:
        id: of the reply.
        prompt: what it answers.
        reply: one or more messages; role `text` after a raw prompt.
        p: probability in 0..1 that the reply is good.
        weight: of the reply in the loss, or None for 1.
    """

    id: str
    prompt: Prompt
    reply: Messages
    p: float
    weight: float | None = None


def both_sides(pair: LabelledPair) -> tuple[LabelledReply, LabelledReply]:
    """Read a pair as a good and a bad reply; a label p between gives each side its share."""
    return (
        LabelledReply(f"{pair.id}/chosen", pair.prompt, pair.chosen, pair.p, pair.weight),
        LabelledReply(f"{pair.id}/rejected", pair.prompt, pair.rejected, 1.0 - pair.p, pair.weight),
    )


def has_judgements(folder: str | Path) -> bool:
    """Whether a folder has a file of pairs or of preferences."""
    folder = Path(folder)
    return (folder / PAIRS_FILE).is_file() or (folder / PREFERENCES_FILE).is_file()


def read_judgements(
    folders: Sequence[str | Path],
    report: DataReport,
    limit: int | None = None,
    both_bad: BothBad = "drop",
) -> list[LabelledPair]:
    """Read the labelled pairs of run folders; pairs and preferences may stand in different ones.

    Args:
        folders: run folders.
        report: counts each pair.
        limit: use only the first pairs.
        both_bad: `tie` reads an outcome both_bad as a tie, `drop` as no label.

    Raises:
        DataError: no folder has pairs, or none has preferences.
    """
    pairs: dict[str, Pair] = {}
    preferences: list[Preference] = []
    for folder in map(Path, folders):
        if (folder / PAIRS_FILE).is_file():
            for pair in _records(folder / PAIRS_FILE, Pair, report):
                pairs.setdefault(pair.id, pair)
        if (folder / PREFERENCES_FILE).is_file():
            preferences += _records(folder / PREFERENCES_FILE, Preference, report)
    for name, found in ((PAIRS_FILE, pairs), (PREFERENCES_FILE, preferences)):
        if not found:
            raise DataError(
                f"no {name} with rows in {', '.join(map(str, folders))}; labelled pairs need "
                f"{PAIRS_FILE} and {PREFERENCES_FILE}. Compare the pairs first, or add the folder"
            )
    used = dict(islice(pairs.items(), limit))
    strangers = sum(preference.pair_id not in pairs for preference in preferences)
    if strangers:
        report.note(f"{strangers:,} preferences are of pairs that no folder here has")
    return _join(used, preferences, report, both_bad)


def _records(path: Path, kind: type[_Kind], report: DataReport) -> list[_Kind]:
    out = []
    for number, row in read_rows(path):
        try:
            out.append(kind.model_validate(row))
        except ValidationError as error:
            report.add_read()
            report.drop(f"{path.name}: not a valid record", f"line {number}: {error.errors()[0]}")
    return out


def standing(preferences: Iterable[Preference]) -> dict[str, dict[str, Preference]]:
    """Return pair id -> labeller -> the newest preference that no other replaces."""
    preferences = list(preferences)
    replaced = {p.replaces for p in preferences if p.replaces}
    # Sorting is stable: without a time the order of the file decides.
    in_time = sorted(preferences, key=lambda p: p.when.timestamp() if p.when else float("-inf"))
    out: dict[str, dict[str, Preference]] = {}
    for preference in in_time:
        if preference.id not in replaced:
            out.setdefault(preference.pair_id, {})[preference.labeller] = preference
    return out


def _join(
    pairs: Mapping[str, Pair],
    preferences: Sequence[Preference],
    report: DataReport,
    both_bad: BothBad,
) -> list[LabelledPair]:
    by_pair = standing(preferences)
    out = []
    num_bad = 0
    for pair in pairs.values():
        report.add_read()
        said = by_pair.get(pair.id, {})
        judged = [verdict for p in said.values() if (verdict := _verdict(p, both_bad)) is not None]
        if "error" in (pair.left.finish, pair.right.finish):
            report.drop("a completion failed", pair.id)
        elif not said:
            report.set_aside("not labelled yet", pair.id)
        elif not judged:
            outcomes = sorted({p.outcome for p in said.values()})
            report.set_aside(f"not judged: {', '.join(outcomes)}", pair.id)
        elif pair.left.text == pair.right.text:
            report.set_aside("chosen equals rejected", f"{pair.id}: {pair.left.text[-80:]}")
        else:
            num_bad += both_bad == "tie" and any(p.outcome == "both_bad" for p in said.values())
            out.append(_labelled(pair, judged))
    if num_bad:
        report.note(f"{num_bad:,} pairs are labelled both_bad by somebody, which is read as a tie")
    return out


@dataclass(frozen=True)
class _Verdict:
    p_left: float
    tie: float
    lead: float | None
    """Strength in favour of left."""


def _verdict(preference: Preference, both_bad: BothBad) -> _Verdict | None:
    """What one labeller says of a pair; None where that is nothing."""
    if preference.outcome == "both_bad" and both_bad == "tie":
        return _Verdict(0.5, 1.0, 0.0)
    if preference.outcome not in _JUDGED or preference.p_left is None:
        return None
    if preference.outcome == "tie":
        return _Verdict(preference.p_left, 1.0 if preference.p_left == 0.5 else 0.0, 0.0)
    sign = 1.0 if preference.outcome == "left" else -1.0
    lead = None if preference.strength is None else sign * preference.strength
    return _Verdict(preference.p_left, 0.0, lead)


def _labelled(pair: Pair, judged: Sequence[_Verdict]) -> LabelledPair:
    left, right = (_reply(pair.prompt, side) for side in (pair.left, pair.right))
    p_left = sum(verdict.p_left for verdict in judged) / len(judged)
    tie = sum(verdict.tie for verdict in judged) / len(judged)
    leads = [verdict.lead for verdict in judged]
    lead = None if None in leads else sum(n for n in leads if n is not None) / len(leads)
    if p_left >= 0.5:
        return LabelledPair(pair.id, pair.prompt, left, right, p_left, tie=tie, strength=lead)
    return LabelledPair(
        pair.id, pair.prompt, right, left, 1.0 - p_left, tie=tie,
        strength=None if lead is None else -lead,
    )  # fmt: skip


def _reply(prompt: Prompt, completion: Completion) -> Messages:
    role = "text" if prompt.messages[-1].role == "text" else "assistant"
    return (Message(role=role, text=completion.text),)
