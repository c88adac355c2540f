"""Labellers without people: a gold standard read through noise, skill and bias; scorers; replay.

A simulated labeller's verdict on a pair depends on (seed, pair id, its name) only. It records the
verdict (p_left 1, 0 or 0.5), as a person would, and never the probability it was drawn from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from heed.errors import ConfigError
from heed.feedback.base import Item, Labelled, Labeller, Scorer
from heed.ids import content_hash, stream_seed
from heed.records import LabellerKind, Pair, Preference
from heed.settings import Settings
from heed.worlds.grammar import FLATTERY

Side = Literal["left", "right"]
Gold = Callable[[Item], float | None]


class Biases(Settings):
    """What a labeller adds to the quality that it sees, in points of quality."""

    length_per_token: float = 0.0
    """For each token of the completion."""
    keyword: str = ""
    """A word that the labeller likes, in any case of letters."""
    keyword_bonus: float = 0.0
    """Once, where the text contains the keyword."""
    flattery: float = 0.0
    """Once, where the text contains one of `flattery_phrases`."""
    flattery_phrases: tuple[str, ...] = FLATTERY
    """What flatters, in any case of letters; by default what flatters in `heed.worlds.town`."""
    position: float = 0.0
    """To the completion that is shown first."""

    def of(self, item: Item) -> float:
        """Return what is added to an item's quality, its position aside."""
        text = item.completion.text.casefold()
        bonus = self.length_per_token * item.completion.num_tokens
        if self.keyword and self.keyword.casefold() in text:
            bonus += self.keyword_bonus
        if any(phrase.casefold() in text for phrase in self.flattery_phrases):
            bonus += self.flattery
        return bonus


@dataclass(frozen=True)
class ResponseTime:
    """Seconds for a judgement: log-normal around base + per_word * words shown.

    Args:
        base_seconds, seconds_per_word: the median.
        spread: standard deviation of the logarithm.
    """

    base_seconds: float = 4.0
    seconds_per_word: float = 0.25
    spread: float = 0.4

    def draw(self, num_words: int, rng: Random) -> float:
        """Draw the seconds that a pair of `num_words` words takes."""
        median = self.base_seconds + self.seconds_per_word * num_words
        return round(median * math.exp(self.spread * rng.gauss(0.0, 1.0)), 2)


class SimulatedLabeller:
    """Compares by a gold standard through noise, skill and bias.

    p(first better) = skill * sigmoid((u_first - u_second) / temperature) + (1 - skill) / 2,
    with u = gold + biases. Within `tie_width` of each other is a tie. A pair of which a completion
    failed, or gold knows no value, cannot be judged.

    Args:
        gold: quality of an item in points (None where it has none), or a scorer that gives it.
        name: of this labeller.
        temperature: Bradley-Terry noise in points of gold; 0 always prefers the better.
        skill: 0..1, probability of attending to the pair rather than guessing.
        tie_width: in points.
        seed: of the run.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        gold: Gold | Scorer,
        name: str = "simulated",
        *,
        temperature: float = 0.5,
        skill: float = 1.0,
        biases: Biases | None = None,
        tie_width: float = 0.0,
        response_time: ResponseTime | None = None,
        seed: int = 0,
    ) -> None:
        if temperature < 0 or not 0 <= skill <= 1 or tie_width < 0:
            raise ConfigError(
                f"temperature {temperature}, skill {skill}, tie_width {tie_width}; temperature "
                "and tie_width are at least 0, skill lies in 0..1"
            )
        self._gold, self._name, self._seed = gold, name, seed
        self._temperature, self._skill, self._tie_width = temperature, skill, tie_width
        self._biases = biases or Biases()
        self._time = response_time or ResponseTime()

    @property
    def name(self) -> str:
        """Stands in `Preference.labeller`."""
        return self._name

    def compare(self, pairs: Sequence[Pair]) -> Labelled:
        """Judge every pair at once; nothing is ever pending."""
        items = [Item(pair.prompt, side) for pair in pairs for side in (pair.left, pair.right)]
        utilities = self._utilities(items)
        return Labelled(
            tuple(
                self._judge(pair, left, right)
                for pair, left, right in zip(pairs, utilities[::2], utilities[1::2], strict=True)
            )
        )

    def _judge(self, pair: Pair, left: float | None, right: float | None) -> Preference:
        left_first = Random(stream_seed(self._seed, "shown order", pair.id)).random() < 0.5
        rng = Random(stream_seed(self._seed, "judgement", pair.id, self.name))
        draw, guess = rng.random(), rng.random() >= self._skill
        words = sum(len(side.text.split()) for side in (pair.left, pair.right))
        seconds = self._time.draw(words, rng)
        outcome: Side | Literal["tie"] | None = None
        reason = None
        if left is None or right is None:
            reason = "a completion failed, or its quality is not known"
        elif guess:
            outcome = "left" if draw < 0.5 else "right"
        else:
            gap = left - right + self._biases.position * (1 if left_first else -1)
            outcome = _verdict(gap, self._temperature, self._tie_width, draw)
        return _preference(
            pair,
            self.name,
            "simulated",
            outcome,
            reason,
            shown=("left", "right") if left_first else ("right", "left"),
            seconds=seconds,
        )

    def _utilities(self, items: Sequence[Item]) -> list[float | None]:
        """Return gold plus biases of each item; None where the completion failed or gold is."""
        whole = [item for item in items if item.completion.finish != "error"]
        if callable(self._gold):
            golds = [self._gold(item) for item in whole]
        else:
            golds = [score.value for score in self._gold.score(whole)] if whole else []
        known = iter(golds)
        found = [None if item.completion.finish == "error" else next(known) for item in items]
        return [
            None if gold is None or not math.isfinite(gold) else gold + self._biases.of(item)
            for gold, item in zip(found, items, strict=True)
        ]


class ScorerLabeller:
    """Compares by any scorer: the higher score is better, the same score a tie.

    Args:
        temperature: 0 always prefers the higher score; above 0 the verdict is drawn, left with
            probability sigmoid((left - right) / temperature).
        kind: what the scorer is, a rule or a model.
        seed: of the run.

    Raises:
        ConfigError: `temperature` is negative.
    """

    def __init__(
        self,
        scorer: Scorer,
        name: str = "",
        *,
        temperature: float = 0.0,
        kind: LabellerKind = "rule",
        seed: int = 0,
    ) -> None:
        if temperature < 0:
            raise ConfigError(f"temperature is {temperature}; give 0 (no noise) or more")
        self._scorer, self._name, self._kind = scorer, name or scorer.name, kind
        self._temperature, self._seed = temperature, seed

    @property
    def name(self) -> str:
        """Stands in `Preference.labeller`."""
        return self._name

    def compare(self, pairs: Sequence[Pair]) -> Labelled:
        """Score both sides of every pair in one call and compare."""
        items = [Item(pair.prompt, side) for pair in pairs for side in (pair.left, pair.right)]
        scores = self._scorer.score(items) if items else []
        preferences = []
        outcome: Literal["left", "right", "tie"] | None
        for i, pair in enumerate(pairs):
            left, right = scores[2 * i], scores[2 * i + 1]
            outcome, reason = None, None
            if left.value is None or right.value is None:
                errors = [
                    f"{s}: {x.error}" for s, x in (("left", left), ("right", right)) if x.error
                ]
                reason = "; ".join(errors)
            else:
                draw = Random(stream_seed(self._seed, "judgement", pair.id, self.name)).random()
                outcome = _verdict(left.value - right.value, self._temperature, 0.0, draw)
            preferences.append(_preference(pair, self.name, self._kind, outcome, reason))
        return Labelled(tuple(preferences))


class ReplayLabeller:
    """Says again what was said before; a pair that nobody judged is pending.

    Args:
        preferences: recorded ones; one that another `replaces` is left out.
    """

    def __init__(self, preferences: Iterable[Preference], name: str = "replay") -> None:
        recorded = list(preferences)
        replaced = {preference.replaces for preference in recorded}
        self._by_pair: dict[str, list[Preference]] = {}
        for preference in recorded:
            if preference.id not in replaced:
                self._by_pair.setdefault(preference.pair_id, []).append(preference)
        self._name = name

    @property
    def name(self) -> str:
        """The replay's name; each preference keeps the labeller who gave it."""
        return self._name

    def compare(self, pairs: Sequence[Pair]) -> Labelled:
        """Return what was recorded of each pair, in the order of the pairs."""
        found = [p for pair in pairs for p in self._by_pair.get(pair.id, ())]
        pending = [pair.id for pair in pairs if pair.id not in self._by_pair]
        return Labelled(tuple(found), tuple(pending))


class Crew:
    """Several labellers, each pair given to `overlap` of them by (seed, pair id).

    Raises:
        ConfigError: the overlap exceeds the crew, or two names are equal.
    """

    def __init__(
        self,
        labellers: Sequence[Labeller],
        overlap: int = 1,
        name: str = "crew",
        *,
        seed: int = 0,
    ) -> None:
        names = [labeller.name for labeller in labellers]
        if not 1 <= overlap <= len(labellers):
            raise ConfigError(
                f"overlap is {overlap} with {len(labellers)} labellers; give 1 to their number"
            )
        if len(set(names)) < len(names):
            raise ConfigError(f"labellers are named {names}; give each a name of its own")
        self._labellers, self._overlap, self._name = tuple(labellers), overlap, name
        self._seed = seed

    @property
    def name(self) -> str:
        """The crew's name; each preference names its own labeller."""
        return self._name

    def assigned(self, pair: Pair) -> tuple[str, ...]:
        """Return the names of the labellers who get a pair."""
        rng = Random(stream_seed(self._seed, "assignment", pair.id))
        chosen = rng.sample(range(len(self._labellers)), self._overlap)
        return tuple(self._labellers[i].name for i in sorted(chosen))

    def compare(self, pairs: Sequence[Pair]) -> Labelled:
        """Give every pair to its labellers; pending where fewer than `overlap` came back."""
        by_pair: dict[str, list[Preference]] = {pair.id: [] for pair in pairs}
        pending: set[str] = set()
        assigned = {pair.id: self.assigned(pair) for pair in pairs}
        for labeller in self._labellers:
            mine = [pair for pair in pairs if labeller.name in assigned[pair.id]]
            labelled = labeller.compare(mine) if mine else Labelled(())
            pending.update(labelled.pending)
            for preference in labelled.preferences:
                by_pair[preference.pair_id].append(preference)
        return Labelled(
            tuple(p for pair in pairs for p in by_pair[pair.id]),
            tuple(pair.id for pair in pairs if pair.id in pending),
        )


def _verdict(
    gap: float, temperature: float, tie_width: float, draw: float
) -> Literal["left", "right", "tie"]:
    """Turn left's lead in points and a uniform draw into a verdict."""
    if abs(gap) < tie_width or (temperature == 0 and gap == 0):
        return "tie"
    if temperature == 0:
        return "left" if gap > 0 else "right"
    return "left" if draw < 0.5 * (1.0 + math.tanh(0.5 * gap / temperature)) else "right"


def _preference(
    pair: Pair,
    labeller: str,
    kind: LabellerKind,
    outcome: Literal["left", "right", "tie"] | None,
    reason: str | None,
    *,
    shown: tuple[Side, Side] = ("left", "right"),
    seconds: float | None = None,
) -> Preference:
    p_left = None if outcome is None else {"left": 1.0, "right": 0.0, "tie": 0.5}[outcome]
    return Preference(
        id="f-" + content_hash([pair.id, labeller, outcome]),
        pair_id=pair.id,
        outcome=outcome or "cannot_judge",
        p_left=p_left,
        reason=reason,
        labeller=labeller,
        kind=kind,
        shown=shown,
        seconds=seconds,
    )
