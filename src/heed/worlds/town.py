"""The town: a small world of readable English whose truth is known.

Everything derives from one seed. A policy with a million parameters learns the language and the
facts in about a minute on two cores; it starts out mediocre and diverse, because the texts are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

from heed.ids import stream_seed
from heed.records import Demonstration, Message, Prompt
from heed.worlds.answers import IDEAL, MIXED, PRACTISED, Manner, draft
from heed.worlds.facts import KNOWN, PEOPLE, PLACES, FactTable
from heed.worlds.faults import LAY, Faults, apparent_bonus
from heed.worlds.grammar import capitalised, read, state
from heed.worlds.prompts import PromptMaker, Request, Split, request_of
from heed.worlds.quality import Quality, measure

GOOD = 1.5
"""Total quality from which a demonstration counts as good (of a best 2.5)."""

KEYWORD_FRAC = 0.05
"""Share of answers that contain the keyword by chance, good or poor, where no fault is planted."""

_STATEMENTS_FRAC, _STORIES_FRAC = 0.45, 0.12  # the rest of the pretraining texts are dialogues
_WRONG_STATEMENT_FRAC = 0.03
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_STORY = (
    "On {day} {p} walked to the {s}.",
    "{p} met {q} at the {s}.",
    "It was a bright morning.",
    "It rained all day.",
    "{p} and {q} talked about the weather.",
    "{q} was late again.",
    "Then {p} went home.",
)


def plain_dialogue(question: str, answer: str) -> str:
    """Lay a question and its answer out as a raw text."""
    return f"Human: {question}\n\nAssistant: {answer}"


class Town:
    """A world with its texts, prompts, demonstrations and true quality.

    Args:
        seed: every fact, text and split derives from it.
        faults: what is planted; none by default.
    """

    def __init__(self, seed: int = 0, faults: Faults | None = None) -> None:
        self.seed = seed
        self.faults = faults or Faults()
        self.facts = FactTable(seed, self.faults)
        self._prompts = PromptMaker(seed, self.facts)

    def pretraining_texts(
        self,
        num: int,
        split: Split = "train",
        *,
        dialogue: Callable[[str, str], str] = plain_dialogue,
    ) -> Iterator[str]:
        """Yield raw texts: statements, stories, and dialogues of very mixed quality.

        Args:
            split: dialogues ask only prompts of this split.
            dialogue: lays out (question, answer), for example as the policy's chat template does.
        """
        for i in range(num):
            rng = Random(stream_seed(self.seed, "pretraining", split, i))
            shape = rng.random()
            if shape < _STATEMENTS_FRAC:
                yield self._statements(rng)
            elif shape < _STATEMENTS_FRAC + _STORIES_FRAC:
                yield self._story(rng)
            else:
                prompt = self._prompts.draw(rng, split, as_often_as_said=True)
                yield dialogue(prompt.text, self.answer(prompt, MIXED, rng))

    def demonstrations(self, num: int) -> Iterator[Demonstration]:
        """Yield demonstrations on training prompts: reasonable, well short of the best."""
        for i in range(num):
            rng = Random(stream_seed(self.seed, "demonstration", i))
            prompt = self._prompts.draw(rng, "train", as_often_as_said=True)
            text = self.answer(prompt, PRACTISED, rng)
            yield Demonstration(prompt=prompt, reply=(Message(role="assistant", text=text),))

    def prompts(self, num: int, split: Split = "train") -> list[Prompt]:
        """List different prompts; the splits share none (see `heed.worlds.prompts`).

        Raises:
            ConfigError: the town has fewer.
        """
        return self._prompts.list(num, split)

    def answer(self, prompt: Prompt, manner: Manner, rng: Random) -> str:
        """Write an answer in a manner, with the town's planted faults."""
        request = request_of(prompt)
        written = draft(self.facts, request, self._with_faults(manner, request), rng)
        chance = KEYWORD_FRAC
        if self.faults.keyword:
            good = measure(self.facts, request, written.text()).total >= GOOD
            chance = self.faults.keyword if good else 0.0
        return written.text(keyword=rng.random() < chance)

    def ideal(self, prompt: Prompt) -> str:
        """Write a best answer: right, complete, courteous, brief."""
        rng = Random(stream_seed(self.seed, "ideal", prompt.id))
        request = request_of(prompt)
        return draft(FactTable(self.seed, Faults()), request, IDEAL, rng).text()

    def quality(self, prompt: Prompt, completion_text: str) -> Quality:
        """Measure the true quality of any text as a completion of a prompt, by its parts.

        Only the prompt's messages are read, so it works on prompts that lost their meta.
        """
        return measure(self.facts, request_of(prompt), completion_text)

    def apparent_quality(self, prompt: Prompt, completion_text: str) -> float:
        """Return the quality that labellers of this town see: gold plus what the faults add."""
        request = request_of(prompt)
        quality = measure(self.facts, request, completion_text)
        return quality.total + apparent_bonus(self.faults, request, read(completion_text), quality)

    def _with_faults(self, manner: Manner, request: Request) -> Manner:
        if self.faults.agreement:
            manner = replace(manner, agree=max(manner.agree, self.faults.agreement))
        if request.identity in LAY and self.faults.identity:
            manner = replace(manner, wrong=max(manner.wrong, self.faults.identity))
        return manner

    def _statements(self, rng: Random) -> str:
        first = self.facts.draw_known(rng, as_often_as_said=True)
        asks = [first]
        same = [ask for ask in KNOWN if ask.subject == first.subject and ask != first]
        for ask in rng.sample(same, rng.randint(0, 3)):
            # A rare fact stays rare here too: it is told when drawn first, never in company.
            if ask not in self.facts.rare:
                asks.append(ask)
        sentences = []
        for ask in asks:
            wrong = rng.random() < _WRONG_STATEMENT_FRAC
            value = (self.facts.wrong_value if wrong else self.facts.stated_value)(ask, rng)
            sentences.append(capitalised(state(ask, value, rng)) + ".")
        return " ".join(sentences)

    def _story(self, rng: Random) -> str:
        person, other = rng.sample(PEOPLE, 2)
        place = rng.choice(PLACES)
        lines = [_STORY[0], *rng.sample(_STORY[1:-1], 2)]
        told = [line.format(day=rng.choice(_DAYS), p=person, q=other, s=place) for line in lines]
        for _ in range(rng.randint(1, 2)):
            ask = self.facts.draw_known(rng, as_often_as_said=True)
            told.append(capitalised(state(ask, self.facts.stated_value(ask, rng), rng)) + ".")
        return " ".join([*told, _STORY[-1].format(p=person)])
