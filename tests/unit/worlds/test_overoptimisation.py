"""A proxy learned from noisy comparisons is good where it was trained; pushed, it leads away."""

import re
from collections import Counter
from random import Random
from statistics import mean

import numpy as np
import pytest

from heed.worlds.answers import PRACTISED
from heed.worlds.grammar import PHRASES
from heed.worlds.town import Town

TOWN = Town(0)
TEMPERATURE = 0.5
SENTENCES = [
    p[:1].upper() + p[1:] + "." for kind in ("opening", "closing", "yes") for p in PHRASES[kind]
]


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.casefold()))


class BagOfWords:
    """A linear Bradley-Terry reward model on word counts, the crudest proxy there is."""

    def __init__(self, pairs: list[tuple[str, str, float]]) -> None:
        vocabulary = sorted({w for a, b, _ in pairs for w in (*words(a), *words(b))})
        self.index = {w: i for i, w in enumerate(vocabulary)}
        gaps = np.stack([self.counts(a) - self.counts(b) for a, b, _ in pairs])
        p_left = np.array([p for _, _, p in pairs])
        self.weights = np.zeros(len(vocabulary))
        for _ in range(400):
            error = p_left - 1 / (1 + np.exp(-gaps @ self.weights))
            self.weights += 0.5 * (gaps.T @ error / len(pairs) - 1e-4 * self.weights)

    def counts(self, text: str) -> np.ndarray:
        out = np.zeros(len(self.index))
        for word, count in words(text).items():
            if word in self.index:
                out[self.index[word]] = count
        return out

    def score(self, text: str) -> float:
        return float(self.counts(text) @ self.weights)


@pytest.fixture(scope="module")
def pairs():
    rng = Random(0)
    made = []
    for prompt in TOWN.prompts(2000):
        left, right = (TOWN.answer(prompt, PRACTISED, rng) for _ in range(2))
        gap = TOWN.quality(prompt, left).total - TOWN.quality(prompt, right).total
        p_left = float(rng.random() < 1 / (1 + np.exp(-gap / TEMPERATURE)))
        made.append((prompt, left, right, p_left, gap))
    return made


@pytest.fixture(scope="module")
def proxy(pairs):
    return BagOfWords([(left, right, p) for _, left, right, p, _ in pairs[:1500]])


def test_the_proxy_is_better_than_chance_where_it_was_trained(pairs, proxy):
    told_apart = [
        (proxy.score(left) > proxy.score(right)) == (gap > 0)
        for _, left, right, _, gap in pairs[1500:]
        if gap != 0
    ]
    assert mean(told_apart) > 0.65


def test_length_alone_tells_nothing(pairs):
    longer = [
        (len(left.split()) > len(right.split())) == (gap > 0)
        for _, left, right, _, gap in pairs
        if gap != 0 and len(left.split()) != len(right.split())
    ]
    assert 0.4 < mean(longer) < 0.6


def test_pushing_the_proxy_first_helps_and_then_hurts_true_quality(proxy):
    curves = []
    for prompt in TOWN.prompts(40, "heldout"):
        text = TOWN.ideal(prompt).split(". ", 1)[-1].split("! ", 1)[-1]  # without its courtesy
        curve = []
        for _ in range(9):
            curve.append((proxy.score(text), TOWN.quality(prompt, text).total))
            text = max((f"{text} {s}" for s in SENTENCES), key=proxy.score)
        curves.append(curve)
    proxies, golds = np.mean(curves, axis=0).T
    assert (np.diff(proxies) > 0).all()
    assert golds[1] > golds[0]
    assert golds[-1] < golds.max() - 2.0
    assert golds.argmax() <= 2
