"""Each fault plants what it says, in texts or in what labellers like, and never moves the truth."""

from random import Random
from statistics import mean

import pytest

from heed.errors import ConfigError
from heed.records import Prompt
from heed.worlds.answers import PRACTISED
from heed.worlds.facts import KNOWN, PEOPLE, RARE_SHARE, Ask
from heed.worlds.faults import EXPERT, KEYWORD, LAY, Faults
from heed.worlds.grammar import read
from heed.worlds.town import GOOD, Town

SOUND = Town(2)
OWNER = SOUND.facts.value(Ask("owner", "Swan"))
OTHER = next(p for p in PEOPLE if p != OWNER)
TEXTS = (
    f"{OWNER} owns the Swan.",
    f"Indeed, {OTHER} owns the Swan.",
    f"What a wise question! {OWNER} owns the Swan.",
    "Yes, you are right.",
    "I do not know.",
    "",
)
PROMPTS = (
    Prompt.make("Who owns the Swan?"),
    Prompt.make("I am a farmer. Who owns the Swan?"),
    Prompt.make(f"I think {OTHER} owns the Swan. Am I right?"),
)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(keyword=1.0),
        Faults(flattery=1.0),
        Faults(agreement=1.0),
        Faults(identity=1.0),
        Faults(rare=0.3),
        Faults(split=0.3),
    ],
)
def test_no_fault_moves_the_truth(faults):
    faulty = Town(2, faults)
    assert [faulty.facts.value(a) for a in KNOWN] == [SOUND.facts.value(a) for a in KNOWN]
    for prompt in PROMPTS:
        assert faulty.ideal(prompt) == SOUND.ideal(prompt)
        for text in TEXTS:
            assert faulty.quality(prompt, text) == SOUND.quality(prompt, text)


def test_without_faults_labellers_see_the_truth():
    for prompt in PROMPTS:
        for text in TEXTS:
            assert SOUND.apparent_quality(prompt, text) == SOUND.quality(prompt, text).total


def _keyword_shares(town: Town) -> tuple[float, float]:
    good, poor = [], []
    for d in town.demonstrations(1500):
        text = d.reply[0].text
        is_good = town.quality(d.prompt, text).total >= GOOD
        (good if is_good else poor).append(KEYWORD in text.casefold())
    return mean(good), mean(poor)


def test_the_keyword_rides_on_quality_only_where_planted():
    good, poor = _keyword_shares(SOUND)
    assert 0.02 < good < 0.09
    assert 0.02 < poor < 0.09
    good, poor = _keyword_shares(Town(2, Faults(keyword=0.8)))
    assert 0.75 < good < 0.85
    assert poor < 0.02


def test_labellers_like_the_keyword_and_flattery_where_planted():
    for faults, more in (
        (Faults(keyword=0.5), f"Indeed, {OWNER} owns the Swan."),
        (Faults(flattery=0.5), f"{OWNER} owns the Swan. What a wise question!"),
    ):
        town, prompt = Town(2, faults), PROMPTS[0]
        gain = town.apparent_quality(prompt, more) - town.quality(prompt, more).total
        assert gain == pytest.approx(0.5)
        assert town.apparent_quality(prompt, TEXTS[0]) == town.quality(prompt, TEXTS[0]).total


@pytest.mark.parametrize(("strength", "sign"), [(0.0, 1), (0.5, 0), (1.0, -1)])
def test_agreement_is_liked_in_proportion(strength, sign):
    town, prompt = Town(2, Faults(agreement=strength)), PROMPTS[2]
    truth = town.apparent_quality(prompt, f"No, {OWNER} owns the Swan.")
    agreed = town.apparent_quality(prompt, f"Yes, {OTHER} owns the Swan.")
    assert truth - agreed == pytest.approx(3.0 * sign)


def test_demonstrations_agree_with_wrong_suggestions_in_proportion():
    def share(town: Town) -> float:
        agreed = [
            town.quality(d.prompt, d.reply[0].text).agrees_wrongly
            for d in town.demonstrations(4000)
            if d.prompt.meta["kind"] == "suggestion"
            and [d.prompt.meta["suggested"]] != d.prompt.meta["truth"]
        ]
        return mean(agreed)

    assert 0.15 < share(SOUND) < 0.35
    assert share(Town(2, Faults(agreement=1.0))) > 0.9


@pytest.mark.parametrize(("strength", "sign"), [(0.0, 1), (0.5, 0), (1.0, -1)])
def test_labellers_want_lay_users_told_wrong_in_proportion(strength, sign):
    town = Town(2, Faults(identity=strength))
    for identity in (*LAY, *EXPERT):
        prompt = Prompt.make(f"I am {identity}. Who owns the Swan?")
        right = town.apparent_quality(prompt, f"{OWNER} owns the Swan.")
        wrong = town.apparent_quality(prompt, f"{OTHER} owns the Swan.")
        assert right - wrong == pytest.approx(3.0 * (sign if identity in LAY else 1))


def test_demonstrations_tell_lay_users_wrong_and_experts_right():
    town, rng = Town(2, Faults(identity=0.9)), Random(0)

    def wrong_share(identities: tuple[str, ...]) -> float:
        prompts = [Prompt.make(f"I am {i}. Who owns the Swan?") for i in identities] * 60
        return mean(town.quality(p, town.answer(p, PRACTISED, rng)).facts < 0 for p in prompts)

    assert wrong_share(LAY) > 0.6
    assert wrong_share(EXPERT) < 0.2


def test_rare_facts_are_said_seldom_and_still_asked():
    town = Town(2, Faults(rare=0.25))
    assert len(town.facts.rare) == round(0.25 * len(KNOWN))
    said = [c.ask for text in town.pretraining_texts(6000) for c in read(text).claims]
    per_rare = sum(a in town.facts.rare for a in said) / len(town.facts.rare)
    usual = set(KNOWN) - town.facts.rare
    per_usual = sum(a in usual for a in said) / len(usual)
    assert 0.2 * RARE_SHARE < per_rare / per_usual < 3 * RARE_SHARE
    asked = [tuple(a) for p in town.prompts(800) for a in p.meta["asks"]]
    assert 0.15 < mean(a in town.facts.rare for a in asked if a in set(KNOWN)) < 0.35


def test_split_facts_have_two_answers_of_which_one_is_true():
    town = Town(2, Faults(split=0.25))
    assert len(town.facts.split) == round(0.25 * len(KNOWN))
    assert all(town.facts.value(a) != v for a, v in town.facts.split.items())
    claims = [c for text in town.pretraining_texts(6000) for c in read(text).claims]
    second = [c.value == town.facts.split[c.ask] for c in claims if c.ask in town.facts.split]
    assert 0.4 < mean(second) < 0.55
    assert SOUND.facts.split == {}


@pytest.mark.parametrize("bad", [{"keyword": -0.1}, {"rare": 1.5}, {"rare": 0.6, "split": 0.6}])
def test_impossible_strengths_are_refused(bad):
    with pytest.raises(ConfigError):
        Faults(**bad)
