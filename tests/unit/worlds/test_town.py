"""A town's texts: the same from the same seed, readable, regular, and split by content."""

import json
import re
import subprocess
import sys
from random import Random
from statistics import mean

import pytest

from heed.errors import ConfigError
from heed.worlds import prompts as prompts_module
from heed.worlds.answers import IDEAL, MIXED, PRACTISED
from heed.worlds.facts import KNOWN, SECRET, UNKNOWN
from heed.worlds.grammar import read
from heed.worlds.prompts import KINDS, request_of
from heed.worlds.quality import BEST
from heed.worlds.town import Town


@pytest.fixture(scope="module")
def town() -> Town:
    return Town(7)


def test_the_same_seed_makes_the_same_world_and_another_seed_another():
    one, same, other = Town(3), Town(3), Town(4)
    assert list(one.pretraining_texts(40)) == list(same.pretraining_texts(40))
    assert list(one.demonstrations(40)) == list(same.demonstrations(40))
    assert one.prompts(40, "heldout") == same.prompts(40, "heldout")
    assert list(one.pretraining_texts(40)) != list(other.pretraining_texts(40))
    assert [one.facts.value(a) for a in KNOWN] != [other.facts.value(a) for a in KNOWN]


def test_a_text_depends_on_its_number_only_not_on_how_many_are_asked_for(town):
    assert list(town.pretraining_texts(30))[:10] == list(town.pretraining_texts(10))
    assert list(town.demonstrations(30))[:10] == list(town.demonstrations(10))


def test_splits_share_no_prompt_and_no_content(town):
    train, heldout = town.prompts(1500, "train"), town.prompts(600, "heldout")
    assert len({p.id for p in train}) == 1500
    assert not {p.id for p in train} & {p.id for p in heldout}

    def contents(prompts):
        return {
            (r.kind, tuple(sorted(r.asks)), r.suggested, r.identity)
            for r in map(request_of, prompts)
            if r.kind != "one"
        }

    assert not contents(train) & contents(heldout)


def test_demonstrations_and_training_dialogues_ask_no_held_out_prompt(town):
    heldout = {p.text for p in town.prompts(600, "heldout")}
    assert not heldout & {d.prompt.text for d in town.demonstrations(1500)}
    asked = {
        text.split("\n\n")[0].removeprefix("Human: ")
        for text in town.pretraining_texts(3000)
        if text.startswith("Human:")
    }
    assert not heldout & asked


def test_prompts_are_read_back_from_their_text_alone(town):
    for split in ("train", "heldout"):
        for prompt in town.prompts(800, split):
            request = request_of(prompt)
            assert request.kind == prompt.meta["kind"]
            assert len(request.asks) == (2 if request.kind == "two" else 1)
            assert (request.suggested is not None) == (request.kind == "suggestion")
            assert (request.identity is not None) == (request.kind == "identity")
            assert [town.facts.value(ask) for ask in request.asks] == prompt.meta["truth"]


def test_every_kind_of_prompt_comes_near_its_stated_share(town):
    kinds = [d.prompt.meta["kind"] for d in town.demonstrations(2000)]
    for kind, share in KINDS.items():
        # 4 standard errors of a share of 2000 draws.
        assert kinds.count(kind) / 2000 == pytest.approx(share, abs=4 * (share / 2000) ** 0.5)


def test_meta_is_json_with_the_same_columns_for_every_prompt(town):
    metas = [p.meta for p in town.prompts(200)]
    assert {tuple(m) for m in metas} == {("kind", "asks", "truth", "suggested", "identity")}
    assert json.loads(json.dumps(metas)) == metas


def test_asking_for_more_prompts_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr(prompts_module, "KINDS", {"secret": 1.0})
    with pytest.raises(ConfigError, match="ask for fewer"):
        Town(0).prompts(500)


def test_the_language_is_small_and_sentences_are_short(town):
    texts = list(town.pretraining_texts(4000))
    words = {w.casefold() for text in texts for w in re.findall(r"\w+", text)}
    assert 200 < len(words) < 400
    assert 100 <= len(KNOWN) <= 150
    assert mean(len(text.split()) for text in texts) < 30
    replies = [d.reply[0].text.split() for d in town.demonstrations(1000)]
    assert 5 <= mean(map(len, replies)) <= 16
    assert max(map(len, replies)) <= 60


def test_every_fact_is_stated_in_the_texts_and_no_secret_truth_exists(town):
    stated = {c.ask for text in town.pretraining_texts(4000) for c in read(text).claims}
    assert set(KNOWN) <= stated
    assert all(town.facts.value(ask) is None for ask in (*UNKNOWN, *SECRET))


def test_written_answers_contain_no_word_that_reading_does_not_know(town):
    rng = Random(0)
    for prompt in town.prompts(300):
        for manner in (IDEAL, PRACTISED, MIXED):
            text = town.answer(prompt, manner, rng)
            if text.endswith((".", "!")):
                assert read(text).num_unread == 0, text


def test_manners_differ_in_true_quality_and_the_best_answer_is_best(town):
    rng = Random(0)
    prompts = town.prompts(600)
    means = {
        name: mean(town.quality(p, town.answer(p, manner, rng)).total for p in prompts)
        for name, manner in {"mixed": MIXED, "practised": PRACTISED}.items()
    }
    assert -0.1 < means["mixed"] < 0.7
    assert 1.1 < means["practised"] < 1.8
    assert {town.quality(p, town.ideal(p)).total for p in prompts} == {BEST}


def test_dialogue_layout_is_the_callers(town):
    texts = town.pretraining_texts(200, dialogue=lambda q, a: f"<q>{q}<a>{a}")
    assert any(text.startswith("<q>") for text in texts)


def test_worlds_and_their_feedback_import_no_torch():
    code = (
        "import sys, heed.worlds.town, heed.worlds.tabular, heed.feedback.rules, "
        "heed.feedback.simulated; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
