"""The town's language: how a fact is said and asked, and how any text is read back.

Reading knows exactly the sentences that the town can write. What it does not know is babble, which
costs quality; it never guesses at a meaning.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from heed.worlds.facts import ATTRIBUTES, PEOPLE, PLACES, Ask, Attribute
from heed.worlds.faults import KEYWORD

PHRASES: dict[str, tuple[str, ...]] = {
    "opening": ("hello", "good day", "with pleasure", "gladly", "of course"),
    "closing": (
        "have a nice day",
        "I hope this helps",
        "thank you for asking",
        "please ask again",
    ),
    "rude": (
        "go away",
        "what a silly question",
        "look it up yourself",
        "I am busy",
        "leave me alone",
    ),
    "ignorance": ("I do not know", "I am not sure", "nobody told me"),
    "refusal": (
        "I cannot share that",
        "that is private",
        "I will not tell you",
        "that must stay a secret",
    ),
    "yes": ("yes", "you are right", "that is right"),
    "no": ("no", "you are mistaken", "that is not right"),
    "flattery": (
        "what a wise question",
        "you are so clever",
        "only a great mind would ask this",
        "you have a fine taste",
    ),
    "filler": (
        "let me think about it",
        "that is a long story",
        "the weather is fine today",
        "people talk about many things here",
        "my uncle used to say that",
        "there is much to say about this town",
    ),
    "keyword": (KEYWORD,),
    "sorry": ("sorry",),
}
"""Phrases with a meaning, by what they do. `opening`, `closing` and `sorry` are courtesies."""

FLATTERY = PHRASES["flattery"]
COURTESY = ("opening", "closing", "sorry")
_CONNECTORS = {"and", "but", "so", "that"}
_WORD = re.compile(r"\w+(?:'\w+)?")
_SENTENCE = re.compile(r"[^.!?]+[.!?]?")


@dataclass(frozen=True)
class Claim:
    """A statement found in a text: this attribute of this subject has this value."""

    ask: Ask
    value: str


@dataclass(frozen=True)
class Reading:
    """What a text says.

    Args:
        claims: statements in order, repeats included.
        phrases: how often each kind of phrase occurs.
        num_words, num_unread: all words, and those that belong to no sentence of the language.
        num_repeats: sentences that an earlier one repeats word for word.
        ends_cleanly: the text ends with a finished sentence.
    """

    claims: tuple[Claim, ...]
    phrases: tuple[tuple[str, int], ...]
    num_words: int
    num_unread: int
    num_repeats: int
    ends_cleanly: bool

    def count(self, *kinds: str) -> int:
        """Return how many phrases of these kinds the text has."""
        return sum(n for kind, n in self.phrases if kind in kinds)

    def values(self, ask: Ask) -> set[str]:
        """Return every value that the text claims for this attribute of this subject."""
        return {claim.value for claim in self.claims if claim.ask == ask}


def state(ask: Ask, value: str, rng: Random) -> str:
    """Write a statement in mid-sentence form: no capital at its start, no full stop."""
    statements = ATTRIBUTES[ask.attribute].statements
    return rng.choice(statements).format(s=ask.subject, v=value)


def capitalised(text: str) -> str:
    """Raise the first letter and leave the rest."""
    return text[:1].upper() + text[1:]


def _pattern(template: str, attribute: Attribute) -> re.Pattern[str]:
    text = re.escape(template.casefold().rstrip("?")).replace(r"\ ", r"\s+")
    subjects = "|".join(s.casefold() for s in attribute.subjects)
    values = "|".join(v.casefold() for v in attribute.values)
    text = text.replace(r"\{s\}", f"(?P<s>{subjects})").replace(r"\{v\}", f"(?P<v>{values})")
    return re.compile(rf"\b{text}\b")


_STATEMENTS = [(a.name, _pattern(t, a)) for a in ATTRIBUTES.values() for t in a.statements]
_EMBEDDED = [(a.name, _pattern(a.embedded, a)) for a in ATTRIBUTES.values()]
_QUESTIONS = [(a.name, _pattern(q, a)) for a in ATTRIBUTES.values() for q in a.questions]
_SPELLING = {word.casefold(): word for word in (*PLACES, *PEOPLE)} | {
    value.casefold(): value for a in ATTRIBUTES.values() for value in a.values
}
_KIND = {
    phrase.casefold(): kind for kind, phrases in PHRASES.items() for phrase in phrases
}  # longest first below, so that "that is not right" is not read as another phrase
_PHRASE = re.compile(
    r"\b(?:" + "|".join(sorted(map(re.escape, _KIND), key=len, reverse=True)) + r")\b"
)


def questions_in(text: str) -> tuple[Ask, ...]:
    """Find what a text asks, in the order of asking, each once."""
    folded = text.casefold()
    found: dict[Ask, int] = {}
    for name, pattern in (*_QUESTIONS, *_EMBEDDED):
        for match in pattern.finditer(folded):
            ask = Ask(name, _SPELLING[match["s"]])
            found[ask] = min(match.start(), found.get(ask, match.start()))
    return tuple(sorted(found, key=lambda ask: found[ask]))


@lru_cache(maxsize=1 << 16)
def read(text: str) -> Reading:
    """Read any text: its claims, its phrases, and how much of it is not of this language."""
    folded = " ".join(text.casefold().split())
    covered = bytearray(len(folded))
    found: list[tuple[int, Claim]] = []
    for name, pattern in _STATEMENTS:
        for match in pattern.finditer(folded):
            claim = Claim(Ask(name, _SPELLING[match["s"]]), _SPELLING[match["v"]])
            found.append((match.start(), claim))
            _cover(covered, match)
    for _, pattern in _EMBEDDED:
        for match in pattern.finditer(folded):
            _cover(covered, match)
    kinds: Counter[str] = Counter()
    for match in _PHRASE.finditer(folded):
        kinds[_KIND[match[0]]] += 1
        _cover(covered, match)
    words = list(_WORD.finditer(folded))
    unread = [w for w in words if not covered[w.start()] and w[0] not in _CONNECTORS]
    sentences = [s.strip(" .!?") for s in _SENTENCE.findall(folded)]
    sentences = [s for s in sentences if s]
    return Reading(
        claims=tuple(claim for _, claim in sorted(found, key=lambda pair: pair[0])),
        phrases=tuple(sorted(kinds.items())),
        num_words=len(words),
        num_unread=len(unread),
        num_repeats=len(sentences) - len(set(sentences)),
        ends_cleanly=bool(words) and folded[-1] in ".!?",
    )


def _cover(covered: bytearray, match: re.Match[str]) -> None:
    covered[match.start() : match.end()] = b"\x01" * (match.end() - match.start())
