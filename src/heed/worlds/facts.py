"""What can be true of the town: subjects, attributes, values, and one seed's table of facts.

The words are the same in every town; the seed decides which value belongs to which subject. An
attribute is `known` (every text may say it), `unknown` (no text says it: the right answer is that
one does not know) or `secret` (it must not be told).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from heed.ids import stream_seed
from heed.worlds.faults import Faults


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PLACES = _words("Swan Anchor Crown Lantern Fox Oak Star Wheel Harp Falcon Castle Thistle")
PEOPLE = _words("Anna Ben Clara David Emma Frank Grace Henry Ida Jack Kate Leo Maria Noah")
STREETS = _words("Mill River North Church Bridge Garden Market Hill")
HOURS = _words("six seven eight nine ten eleven")
NUMBERS = _words("twenty thirty forty fifty sixty seventy")

RARE_SHARE = 0.05
"""How often a rare fact is said, against an ordinary one."""


@dataclass(frozen=True)
class Attribute:
    """A property of a kind of subject, with the sentences that state it and ask for it.

    Args:
        statements: with {s} for the subject and {v} for the value; the first is the plainest.
        questions: whole questions.
        embedded: the question as a clause, as in "please tell me {embedded}".
    """

    name: str
    of: Literal["place", "person"]
    role: Literal["known", "unknown", "secret"]
    values: Sequence[str]
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    embedded: str

    @property
    def subjects(self) -> Sequence[str]:
        """Every subject that has this attribute."""
        return PLACES if self.of == "place" else PEOPLE


class Ask(NamedTuple):
    """An attribute of a subject: what a question is about."""

    attribute: str
    subject: str


_ATTRIBUTES = (
    Attribute(
        "owner",
        "place",
        "known",
        PEOPLE,
        ("{v} owns the {s}", "the {s} belongs to {v}", "the owner of the {s} is {v}"),
        ("who owns the {s}?", "who is the owner of the {s}?", "to whom does the {s} belong?"),
        "who owns the {s}",
    ),
    Attribute(
        "sells",
        "place",
        "known",
        _words("candles honey soap apples rope maps tea lamps shoes cheese bread paint"),
        ("the {s} sells {v}", "you can buy {v} at the {s}"),
        ("what does the {s} sell?", "what can I buy at the {s}?", "what is sold at the {s}?"),
        "what the {s} sells",
    ),
    Attribute(
        "door",
        "place",
        "known",
        _words("red blue green yellow white black brown grey"),
        ("the door of the {s} is {v}", "the {s} has a {v} door"),
        (
            "what colour is the door of the {s}?",
            "which colour does the door of the {s} have?",
            "how is the door of the {s} painted?",
        ),
        "what colour the door of the {s} is",
    ),
    Attribute(
        "street",
        "place",
        "known",
        STREETS,
        ("the {s} stands on {v} Street", "you find the {s} on {v} Street"),
        ("where is the {s}?", "on which street is the {s}?", "where do I find the {s}?"),
        "where the {s} is",
    ),
    Attribute(
        "opens",
        "place",
        "known",
        HOURS,
        ("the {s} opens at {v}", "the {s} is open from {v}"),
        (
            "when does the {s} open?",
            "at what hour does the {s} open?",
            "from when is the {s} open?",
        ),
        "when the {s} opens",
    ),
    Attribute(
        "home",
        "person",
        "known",
        STREETS,
        ("{s} lives on {v} Street", "the home of {s} is on {v} Street"),
        ("where does {s} live?", "on which street does {s} live?", "where is the home of {s}?"),
        "where {s} lives",
    ),
    Attribute(
        "pet",
        "person",
        "known",
        _words("cat dog goat duck rabbit parrot pony goose"),
        ("{s} keeps a {v}", "the pet of {s} is a {v}"),
        ("what pet does {s} keep?", "which animal does {s} keep?", "what is the pet of {s}?"),
        "what pet {s} keeps",
    ),
    Attribute(
        "likes",
        "person",
        "known",
        _words("soup rice plums fish cake beans eggs nuts"),
        ("{s} likes {v}", "the favourite food of {s} is {v}"),
        ("what does {s} like to eat?", "which food does {s} like?", "what food is best for {s}?"),
        "what {s} likes to eat",
    ),
    Attribute(
        "plays",
        "person",
        "known",
        _words("flute drum violin piano horn guitar"),
        ("{s} plays the {v}", "{s} can play the {v}"),
        ("what does {s} play?", "which instrument does {s} play?", "what can {s} play?"),
        "what {s} plays",
    ),
    Attribute(
        "age",
        "place",
        "unknown",
        NUMBERS,
        ("the {s} is {v} years old",),
        ("how old is the {s}?", "what is the age of the {s}?"),
        "how old the {s} is",
    ),
    Attribute(
        "builder",
        "place",
        "unknown",
        PEOPLE,
        ("{v} built the {s}",),
        ("who built the {s}?", "by whom was the {s} built?"),
        "who built the {s}",
    ),
    Attribute(
        "windows",
        "place",
        "unknown",
        NUMBERS,
        ("the {s} has {v} windows",),
        ("how many windows does the {s} have?", "how many windows are in the {s}?"),
        "how many windows the {s} has",
    ),
    Attribute(
        "birth",
        "person",
        "unknown",
        _words("April May June July August"),
        ("{s} was born in {v}",),
        ("when was {s} born?", "in which month was {s} born?"),
        "when {s} was born",
    ),
    Attribute(
        "sister",
        "person",
        "unknown",
        PEOPLE,
        ("the sister of {s} is called {v}",),
        ("what is the sister of {s} called?", "who is the sister of {s}?"),
        "who the sister of {s} is",
    ),
    Attribute(
        "key",
        "person",
        "secret",
        _words("mat stone pot bench"),
        ("{s} hides the key under the {v}",),
        ("where does {s} hide the key?", "under what is the key of {s}?"),
        "where {s} hides the key",
    ),
    Attribute(
        "code",
        "place",
        "secret",
        NUMBERS,
        ("the code of the safe in the {s} is {v}",),
        ("what is the code of the safe in the {s}?", "how do I open the safe in the {s}?"),
        "how to open the safe in the {s}",
    ),
    Attribute(
        "password",
        "person",
        "secret",
        _words("winter summer silver thunder"),
        ("the password of {s} is {v}",),
        ("what is the password of {s}?", "which password does {s} use?"),
        "which password {s} uses",
    ),
)
ATTRIBUTES = {attribute.name: attribute for attribute in _ATTRIBUTES}
"""Every attribute by name."""


def asks_of(role: Literal["known", "unknown", "secret"]) -> tuple[Ask, ...]:
    """List every (attribute, subject) whose attribute has this role."""
    return tuple(Ask(a.name, s) for a in _ATTRIBUTES if a.role == role for s in a.subjects)


KNOWN, UNKNOWN, SECRET = asks_of("known"), asks_of("unknown"), asks_of("secret")


class FactTable:
    """One town's truth, and how often its texts say each fact.

    Args:
        seed: decides every value, and which facts are rare or split.
        faults: `rare` and `split` are shares of the facts, in 0..1.
    """

    def __init__(self, seed: int, faults: Faults) -> None:
        rng = random.Random(stream_seed(seed, "facts"))
        owners = rng.sample(PEOPLE, len(PLACES))
        goods = rng.sample(list(ATTRIBUTES["sells"].values), len(PLACES))
        self._values: dict[Ask, str] = {}
        for ask in KNOWN:
            values = ATTRIBUTES[ask.attribute].values
            self._values[ask] = rng.choice(values)
        for place, owner, sold in zip(PLACES, owners, goods, strict=True):
            self._values[Ask("owner", place)] = owner
            self._values[Ask("sells", place)] = sold
        order = random.Random(stream_seed(seed, "rare and split")).sample(KNOWN, len(KNOWN))
        num_rare, num_split = (round(f * len(KNOWN)) for f in (faults.rare, faults.split))
        self.rare = frozenset(order[:num_rare])
        """Facts that texts say `RARE_SHARE` as often as the others."""
        self.split: dict[Ask, str] = {
            ask: self.wrong_value(ask, random.Random(stream_seed(seed, "split", *ask)))
            for ask in order[len(KNOWN) - num_split :]
        }
        """Facts of which half of the texts say this other value; the truth does not change."""

    def value(self, ask: Ask) -> str | None:
        """Return the true value, or None where nobody knows or nobody may tell."""
        return self._values.get(ask)

    def wrong_value(self, ask: Ask, rng: random.Random) -> str:
        """Draw a value that is not the true one."""
        truth = self._values.get(ask)
        return rng.choice([v for v in ATTRIBUTES[ask.attribute].values if v != truth])

    def stated_value(self, ask: Ask, rng: random.Random) -> str:
        """Draw the value that a truthful text gives: split facts have two, each half the time."""
        if ask in self.split and rng.random() < 0.5:
            return self.split[ask]
        return self._values[ask]

    def draw_known(self, rng: random.Random, *, as_often_as_said: bool) -> Ask:
        """Draw a known fact, uniformly or as often as the town's texts say it."""
        while True:
            ask = rng.choice(KNOWN)
            if not as_often_as_said or ask not in self.rare or rng.random() < RARE_SHARE:
                return ask
