"""How good a project's comparisons are: agreement, each person's care, and policies ranked.

The numbers are those of `heed.stats`, each with its interval and the count behind it, or the reason
why it does not exist. Alerts are for a person to read: nothing here weighs, hides or deletes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from heed.data.store import Store
from heed.data.store.kinds import Candidate, Payload
from heed.data.store.scales import SCALES
from heed.data.store.views import Judgment
from heed.errors import DataError
from heed.stats import agreement, annotators, monitoring
from heed.stats.answers import collect
from heed.stats.intervals import Measured
from heed.stats.leaderboard import leaderboard
from heed.stats.noisy_choice import noisy_choice
from heed.stats.raw_agreement import raw_agreement

OUTCOMES = ("left", "right", "tie", "both_bad")
"""What counts as an answer to the question which is better; both_bad is no tie."""
_RESAMPLES = 500
_MOST_PEOPLE = 12
"""More people give more pairs than a table shows; kappas of each two are left out then."""


@dataclass(frozen=True)
class Figure:
    """One number with its name; `help` says how to read it."""

    name: str
    value: Measured
    help: str = ""


@dataclass(frozen=True)
class PersonRow:
    """One person: answers, median seconds, and what was measured of them."""

    name: str
    answers: int
    seconds: float | None
    left: Measured
    gold: Measured | None
    same: Measured
    reliability: Measured | None
    alerts: tuple[annotators.Alert, ...]


@dataclass(frozen=True)
class Quality:
    """All that the page shows. `board` is empty, and `no_board` says why, without policies."""

    outcomes: dict[str, int]
    figures: tuple[Figure, ...]
    kappas: tuple[Figure, ...]
    people: tuple[PersonRow, ...]
    board: tuple[Any, ...]
    no_board: str


@dataclass(frozen=True)
class _Read:
    """A project's standing comparisons, with what they were about."""

    ordinary: list[Judgment]
    gold: list[Judgment]
    repeats: list[Judgment]
    repeated: dict[str, str]
    right: dict[str, dict[str, Any]]
    payloads: dict[str, Payload]
    names: dict[str, str]

    @property
    def all(self) -> list[Judgment]:
        return sorted([*self.ordinary, *self.gold, *self.repeats], key=lambda one: one.seq)


def quality_of(store: Store, project: str) -> Quality:
    """Measure a project of comparisons. The same log gives the same numbers."""
    read = _read(store, project)
    rng = np.random.default_rng(0)
    board, no_board, reliabilities = _policies(read, rng)
    return Quality(
        dict(Counter(one.outcome for one in read.ordinary)),
        _figures(read.ordinary, rng),
        _kappas(read, rng),
        _people(read, reliabilities),
        board,
        no_board,
    )


def side_of(one: Judgment) -> float | None:
    """1 where candidate 0 is better, 0 where candidate 1 is, 0.5 neutral, None not judged."""
    if one.outcome == "prefer":
        return 1.0 if one.side == 0 else 0.0
    return 0.5 if one.outcome in ("tie", "both_bad") else None


def on_screen(one: Judgment) -> float | None:
    """1 where the left of the person's screen was chosen, 0 the right, 0.5 neutral."""
    said = side_of(one)
    return said if said is None or one.shown[0] == 0 else 1 - said


def _read(store: Store, project: str) -> _Read:
    found = store.projects.get(project)
    listing = {one.id: one for one in store.items.listing(found.id)}
    by_role: dict[str, list[Judgment]] = {"normal": [], "gold": [], "repeat": []}
    for one in store.log.state(found.id).standing():
        role = listing[one.item].role
        by_role.get("normal" if role == "anchor" else role, []).append(one)
    by_role["normal"] = [one for one in by_role["normal"] if one.role == "label"]
    return _Read(
        by_role["normal"], by_role["gold"], by_role["repeat"],
        {one.id: one.repeats for one in listing.values() if one.repeats},
        {item: gold.answer for item, gold in store.items.golds(found.id).items()},
        store.items.payloads(found.id),
        {one.id: one.pseudonym for one in store.people.all()},
    )  # fmt: skip


def _word(one: Judgment) -> str | None:
    if one.outcome == "prefer":
        return OUTCOMES[one.side or 0]
    return one.outcome if one.outcome in OUTCOMES else None


def _signed(one: Judgment) -> float:
    scale = SCALES.get(one.scale or "")
    return scale.signed(one.side, one.level) if scale else 0.0


def _figures(said: Sequence[Judgment], rng: np.random.Generator) -> tuple[Figure, ...]:
    kept = [one for one in said if _word(one) is not None]
    items, people = [one.item for one in kept], [one.person for one in kept]
    words = collect(items, people, [_word(one) for one in kept], values=OUTCOMES)
    graded = [one for one in kept if one.outcome != "both_bad"]
    strengths = collect(
        [one.item for one in graded], [one.person for one in graded],
        [_signed(one) for one in graded],
    )  # fmt: skip
    told: Any = {"rng": rng, "num_resamples": _RESAMPLES}
    signs = [_signed(one) for one in kept]
    left = [place for one in kept if (place := on_screen(one)) is not None]
    return (
        Figure("Raw agreement", raw_agreement(items, people, signs, "strict", **told),
               "Two answers name the same side, or both name none."),
        Figure("Krippendorff’s alpha, strength",
               agreement.krippendorff_alpha(strengths, "ordinal", **told),
               "0 is chance, 1 is perfect; both bad left out."),
        Figure("Krippendorff’s alpha, outcome",
               agreement.krippendorff_alpha(words, "nominal", **told),
               "Left, right, tie and both bad as four answers."),
        Figure("Gwet’s AC1", agreement.gwet(words, **told), "Steady where one answer dominates."),
        Figure("Fleiss’ kappa", agreement.fleiss_kappa(words, **told),
               "Needs equally many answers on each item."),
        Figure("Left of the screen chosen", annotators.side_rate(left).rate,
               "One half without a habit."),
    )  # fmt: skip


def _kappas(read: _Read, rng: np.random.Generator) -> tuple[Figure, ...]:
    kept = [one for one in read.ordinary if _word(one) is not None]
    people = [read.names[one.person] for one in kept]
    if len(set(people)) > _MOST_PEOPLE:
        return ()
    answers = collect([one.item for one in kept], people, [_word(one) for one in kept], OUTCOMES)
    found = agreement.cohen_matrix(answers, rng=rng, num_resamples=_RESAMPLES)
    return tuple(Figure(f"{a} and {b}", value) for (a, b), value in found.items())


def _people(read: _Read, reliabilities: dict[Any, Measured]) -> tuple[PersonRow, ...]:
    fast = _fast(read)
    rows = []
    for person in sorted({one.person for one in read.all}, key=lambda name: read.names[name]):
        own = [one for one in read.all if one.person == person]
        screen = [place for one in own if (place := on_screen(one)) is not None]
        sides = annotators.side_rate(screen)
        gold = _gold(read, person)
        same = annotators.self_consistency(*_again(read, person))
        found = annotators.quality_alerts(
            gold=gold, sides=sides, consistency=same, order=annotators.runs_test(screen)
        )
        hurried = monitoring.time_alert(fast.get(person, []))
        seconds = [one.seconds for one in own if one.seconds is not None]
        rows.append(
            PersonRow(
                read.names[person], len(own), median(seconds) if seconds else None, sides.rate,
                None if gold is None else gold.accuracy, same.same, reliabilities.get(person),
                (*found, *([hurried] if hurried else [])),
            )
        )  # fmt: skip
    return tuple(rows)


def _gold(read: _Read, person: str) -> annotators.GoldRecord | None:
    right, count = 0.0, 0
    for one in read.gold:
        said = side_of(one)
        known = read.right.get(one.item)
        if one.person != person or known is None or said is None:
            continue
        wanted = {0: 1.0, 1: 0.0}.get(known.get("side", -1), 0.5)
        right, count = right + 1 - abs(said - wanted), count + 1
    return annotators.gold_record(right, count) if count else None


def _again(read: _Read, person: str) -> tuple[list[float], list[float]]:
    """A person's answers to pairs that came again: the first, and the second."""
    before = {one.item: side_of(one) for one in read.ordinary if one.person == person}
    both = [
        (before.get(read.repeated.get(one.item, "")), side_of(one))
        for one in read.repeats
        if one.person == person
    ]
    kept = [(first, again) for first, again in both if first is not None and again is not None]
    return [first for first, _ in kept], [again for _, again in kept]


def _fast(read: _Read) -> dict[str, list[bool]]:
    """Of each person, whether each answer came fast for the length of its item."""
    timed = [one for one in read.ordinary if one.seconds is not None and one.seconds > 0]
    if not timed:
        return {}
    words = [
        sum(len((c.text or "").split()) for c in read.payloads[one.item].candidates)
        for one in timed
    ]
    flags = monitoring.answer_times(
        [one.seconds or 0.0 for one in timed], [one.person for one in timed], words
    ).fast_for_project
    out: dict[str, list[bool]] = {}
    for one, flag in zip(timed, flags, strict=True):
        out.setdefault(one.person, []).append(bool(flag))
    return out


def _policy(candidate: Candidate) -> str | None:
    """Which policy wrote a candidate, as its record says."""
    newest = candidate.source.get("newest")
    if isinstance(newest, dict) and "run" in newest:
        return f"{newest['run']} at step {newest.get('step', 0)}"
    name = candidate.source.get("model") or candidate.source.get("policy")
    return str(name) if name else None


def _policies(
    read: _Read, rng: np.random.Generator
) -> tuple[tuple[Any, ...], str, dict[Any, Measured]]:
    """Standings of the policies that met, and how reliably each person tells them apart."""
    rows = []
    for one in read.ordinary:
        names = [_policy(candidate) for candidate in read.payloads[one.item].candidates]
        said = side_of(one)
        if said is not None and None not in names and names[0] != names[1]:
            rows.append((one, names, said))
    if not rows:
        return (), "No answer compares two policies whose names the items hold.", {}
    try:
        board = leaderboard(
            [names[0] for _, names, _ in rows], [names[1] for _, names, _ in rows],
            [said for _, _, said in rows], rng=rng, num_resamples=_RESAMPLES,
            prompts=[one.item for one, _, _ in rows], people=[one.person for one, _, _ in rows],
        )  # fmt: skip
        fit = noisy_choice(
            [names[one.shown[0]] for one, names, _ in rows],
            [names[one.shown[1]] for one, names, _ in rows],
            [one.person for one, _, _ in rows],
            [said if one.shown[0] == 0 else 1 - said for one, _, said in rows],
        )
    except DataError as error:
        return (), f"The policies cannot be ranked: {error}.", {}
    return board.standings, "", {name: person.reliability for name, person in fit.people.items()}
