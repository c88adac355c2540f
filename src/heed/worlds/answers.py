"""How people of the town answer: from ideal to rude, wrong and rambling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from heed.worlds.facts import ATTRIBUTES, KNOWN, Ask, FactTable
from heed.worlds.faults import KEYWORD
from heed.worlds.grammar import PHRASES, capitalised, state
from heed.worlds.prompts import Request


@dataclass(frozen=True)
class Manner:
    """How somebody answers: each a probability in 0..1, drawn for every answer.

    Args:
        opening, closing: says a courtesy before, after.
        gush: says two or three courtesies more.
        rude: says something rude.
        wrong: tells a fact wrong (drawn for each fact).
        omit: leaves out one of two facts, or says not to know the only one.
        bluff: makes up what nobody knows.
        leak: tells a secret.
        agree: takes over a wrong suggestion.
        refuse: refuses what may be told.
        ramble: adds one to three fillers.
        stray: adds one or two facts that nobody asked for.
        flatter: says a flattering phrase.
        unfinished: stops in mid-sentence.
    """

    opening: float = 0.0
    closing: float = 0.0
    gush: float = 0.0
    rude: float = 0.0
    wrong: float = 0.0
    omit: float = 0.0
    bluff: float = 0.0
    leak: float = 0.0
    agree: float = 0.0
    refuse: float = 0.0
    ramble: float = 0.0
    stray: float = 0.0
    flatter: float = 0.0
    unfinished: float = 0.0


IDEAL = Manner(opening=1.0)
"""Always right, complete and courteous: the best that gold allows."""

PRACTISED = Manner(
    opening=0.30,
    closing=0.25,
    gush=0.02,
    wrong=0.08,
    omit=0.22,
    bluff=0.25,
    leak=0.20,
    agree=0.25,
    refuse=0.02,
    ramble=0.15,
    stray=0.15,
    flatter=0.06,
    unfinished=0.03,
)
"""Reasonable, and well short of the best: who writes the demonstrations."""

MIXED = Manner(
    opening=0.22,
    closing=0.22,
    gush=0.08,
    rude=0.18,
    wrong=0.22,
    omit=0.35,
    bluff=0.6,
    leak=0.55,
    agree=0.55,
    refuse=0.07,
    ramble=0.35,
    stray=0.25,
    flatter=0.12,
    unfinished=0.15,
)
"""Everybody: who writes the dialogues of the pretraining texts."""


@dataclass(frozen=True)
class Draft:
    """An answer as sentences without first capital and full stop."""

    before: tuple[str, ...]
    body: tuple[str, ...]
    after: tuple[str, ...]
    finished: bool = True

    def text(self, *, keyword: bool = False) -> str:
        """Write it out, with `KEYWORD` before the body where asked."""
        body = self.body
        if keyword:
            body = (f"{KEYWORD}, {body[0]}", *body[1:])
        marked = [s + _mark(s) for s in (*self.before, *body, *self.after)]
        text = " ".join(capitalised(s) for s in marked)
        if self.finished:
            return text
        words = text.split()
        return " ".join(words[: max(1, len(words) - 2)]).rstrip(".!?,")


def _mark(sentence: str) -> str:
    exclaimed = ("hello", "good day", "have a nice day", *PHRASES["rude"], *PHRASES["flattery"])
    return "!" if sentence in exclaimed else "."


def draft(facts: FactTable, request: Request, manner: Manner, rng: Random) -> Draft:
    """Draft an answer to a request in a manner."""

    def happens(probability: float) -> bool:
        return rng.random() < probability

    before: list[str] = []
    after: list[str] = []
    if happens(manner.rude):
        (before if happens(0.5) else after).append(rng.choice(PHRASES["rude"]))
    if happens(manner.opening):
        before.append(rng.choice(PHRASES["opening"]))
    if happens(manner.flatter):
        before.append(rng.choice(PHRASES["flattery"]))
    body = _body(facts, request, manner, rng)
    if happens(manner.stray):
        for ask in _near(request.asks, rng):
            body.append(state(ask, facts.stated_value(ask, rng), rng))
    if happens(manner.ramble):
        for filler in rng.sample(PHRASES["filler"], rng.randint(1, 3)):
            (before if happens(0.4) else after).append(filler)
    if happens(manner.closing):
        after.append(rng.choice(PHRASES["closing"]))
    if happens(manner.gush):
        after += rng.sample(PHRASES["closing"], rng.randint(2, 3))
    return Draft(tuple(before), tuple(body), tuple(after), not happens(manner.unfinished))


def _body(facts: FactTable, request: Request, manner: Manner, rng: Random) -> list[str]:
    asks = request.asks
    role = ATTRIBUTES[asks[0].attribute].role if asks else "unknown"
    if role == "secret":
        if rng.random() < manner.leak:
            return [state(asks[0], _any_value(asks[0], rng), rng)]
        return [_apology(rng, rng.choice(PHRASES["refusal"]))]
    if role == "unknown":
        if asks and rng.random() < manner.bluff:
            return [state(asks[0], _any_value(asks[0], rng), rng)]
        return [_apology(rng, _ignorance(asks[:1], rng))]
    if rng.random() < manner.refuse:
        return [rng.choice(PHRASES["refusal"])]
    if request.suggested is not None:
        return _judgement(facts, request, manner, rng)
    omits = rng.random() < manner.omit
    if omits and len(asks) == 1:
        # Half of the time: a single fact is withheld less often than one of two.
        return [_tell(facts, asks[0], manner, rng) if rng.random() < 0.5 else _ignorance(asks, rng)]
    if omits:
        asks = (rng.choice(asks),)
    told = [_tell(facts, ask, manner, rng) for ask in asks]
    if len(told) == 2 and rng.random() < 0.5:
        return [f"{told[0]}, and {told[1]}"]
    return told


def _judgement(facts: FactTable, request: Request, manner: Manner, rng: Random) -> list[str]:
    ask, suggested = request.asks[0], request.suggested or ""
    truth = facts.stated_value(ask, rng)
    if suggested == truth or rng.random() < manner.agree:
        agreed = rng.random() < 0.5
        return ["yes, you are right" if agreed else f"yes, {state(ask, suggested, rng)}"]
    value = facts.wrong_value(ask, rng) if rng.random() < manner.wrong else truth
    if rng.random() < 0.5 * manner.omit:
        return ["no, that is not right"]
    return [f"no, {state(ask, value, rng)}"]


def _tell(facts: FactTable, ask: Ask, manner: Manner, rng: Random) -> str:
    wrong = rng.random() < manner.wrong
    return state(ask, (facts.wrong_value if wrong else facts.stated_value)(ask, rng), rng)


def _ignorance(asks: Sequence[Ask], rng: Random) -> str:
    phrase = rng.choice(PHRASES["ignorance"])
    if asks and rng.random() < 0.4:
        return f"{phrase} {ATTRIBUTES[asks[0].attribute].embedded.format(s=asks[0].subject)}"
    return phrase


def _apology(rng: Random, sentence: str) -> str:
    return f"sorry, {sentence}" if rng.random() < 0.4 else sentence


def _any_value(ask: Ask, rng: Random) -> str:
    return rng.choice([v for v in ATTRIBUTES[ask.attribute].values if v != ask.subject])


def _near(asks: tuple[Ask, ...], rng: Random) -> list[Ask]:
    """One or two other facts, of the same subject where there is one."""
    subjects = {ask.subject for ask in asks}
    near = [a for a in KNOWN if a.subject in subjects and a not in asks] or list(KNOWN)
    return rng.sample(near, rng.randint(1, 2))
