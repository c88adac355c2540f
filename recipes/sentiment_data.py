"""Real reviews for `sentiment.toml`: texts, starts of sentences, and two sentiment classifiers.

A classifier is a logistic regression on which words (and, for the judge, pairs of words) a text
has. It is left as `scorer.py` with its `weights.json`, so that it is a reward function by the name
`RUN/scorer.py:score`. The labelled sentences of the two classifiers are different ones.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from heed.data.exchange import write_rows
from heed.data.report import DataReport
from heed.ids import stream_seed
from heed.records import Finding
from heed.runs.files import write_json
from heed.stats.intervals import wilson

Labelled = list[tuple[str, int]]

SCORER = '''\
"""A sentiment score, higher is more positive; the weights stand beside this file."""

import json
import re
from pathlib import Path

_FILE = json.loads(Path(__file__).with_name("weights.json").read_text(encoding="utf-8"))
_WEIGHTS, _BIAS, _SCALE, _PAIRS = (_FILE[k] for k in ("weights", "bias", "scale", "pairs"))


def value(text):
    words = re.findall(r"[a-z']+", text.lower())
    found = set(words)
    if _PAIRS:
        found |= {f"{a} {b}" for a, b in zip(words, words[1:])}
    return (sum(_WEIGHTS.get(w, 0.0) for w in sorted(found)) + _BIAS) * _SCALE


def score(completions, **columns):
    return [value(text) for text in completions]
'''


def features(text: str, pairs: bool) -> set[str]:
    """The words of a text, and pairs of neighbours; as `value` in `SCORER` takes them."""
    words = re.findall(r"[a-z']+", text.lower())
    return {*words, *(f"{a} {b}" for a, b in pairwise(words) if pairs)}


def reviews(
    folder: Path,
    *,
    reviews: Path,
    num_reviews: int,
    prompt_words: int = 8,
    num_prompts: int = 4000,
    num_judge: int = 400,
    seed: int,
) -> DataReport:
    """Write texts to pretrain on, and starts of sentences to train and to judge on.

    Reviews are split whole: four fifths are texts, one tenth each gives `prompts.jsonl` and
    `judge.jsonl`, of which no start is among the texts.

    Args:
        folder: where to write.
        reviews: `movie_reviews.zip` (one tokenised sentence a line).
        num_reviews: most reviews in `texts.jsonl`.
        prompt_words: words of a start; sentences with at least six more are taken.
        num_prompts, num_judge: most starts.
        seed: which review goes where.
    """
    found = [text for texts in read_reviews(reviews).values() for text in texts]
    order = np.random.default_rng(stream_seed(seed, "reviews")).permutation(len(found))
    found = [found[i] for i in order]
    tenth = len(found) // 10
    texts = found[2 * tenth :][:num_reviews]
    report = DataReport(str(reviews))
    report.add_read(len(found))
    report.num_set_aside = len(found) - 2 * tenth - len(texts)
    write_rows(folder / "texts.jsonl", ({"text": text} for text in texts))
    known: set[str] = set()
    for name, some, most in (
        ("judge", found[:tenth], num_judge),
        ("prompts", found[tenth : 2 * tenth], num_prompts),
    ):
        starts = [s for s in starts_of(some, prompt_words) if s not in known]
        rng = np.random.default_rng(stream_seed(seed, name))
        starts = [starts[i] for i in rng.permutation(len(starts))[:most]]
        known |= set(starts)
        write_rows(folder / f"{name}.jsonl", ({"prompt": start} for start in starts))
    return report


def starts_of(texts: Sequence[str], num_words: int) -> list[str]:
    """The first words of every sentence that goes on for six words or more; each once."""
    lines = [line.split() for text in texts for line in text.splitlines()]
    starts = [" ".join(words[:num_words]) for words in lines if len(words) >= num_words + 6]
    return list(dict.fromkeys(starts))


def classifier(
    folder: Path,
    *,
    polarity: Path,
    part: str,
    reviews: Path | None = None,
    pairs: bool = False,
    penalty: float = 1.0,
    seed: int,
) -> list[Finding]:
    """Fit a classifier, measure it on held-out sentences, and leave it as a reward function.

    minimise  sum log(1 + exp(-y (w x + b))) + penalty / 2 |w|^2

    The score is w x + b divided by its standard deviation on the held-out sentences.

    Args:
        folder: where to write.
        polarity: `sentence_polarity.zip`.
        part: `proxy` or `gold`; each has its own half of the sentences.
        reviews: `movie_reviews.zip`, whose reviews are learned too, whole.
        pairs: take pairs of neighbouring words too.
        penalty: of the squared weights.
        seed: which sentence is in which half, and which are held out.
    """
    half = [row for row in read_polarity(polarity) if half_of(row[0], seed) == part]
    order = np.random.default_rng(stream_seed(seed, "held out", part)).permutation(len(half))
    held_out = [half[i] for i in order[: len(half) // 5]]
    train = [half[i] for i in order[len(half) // 5 :]]
    if reviews is not None:
        labelled = read_reviews(reviews)
        train += [(text, label) for label, texts in labelled.items() for text in texts]
    weights, bias = fit(train, pairs, penalty)
    logits = np.array([logit(text, weights, bias, pairs) for text, _ in held_out])
    labels = np.array([label for _, label in held_out])
    write_json(
        folder / "weights.json",
        {"weights": weights, "bias": bias, "scale": 1.0 / float(logits.std()), "pairs": pairs},
    )
    (folder / "scorer.py").write_text(SCORER, encoding="utf-8")
    right = float(((logits > 0) == (labels == 1)).sum())
    got, plain = wilson(right, len(labels)), max(labels.mean(), 1 - labels.mean())
    unit = f"share of held-out sentences; the larger class alone gives {plain:.3f}"
    return [
        Finding(name=f"{part} classifier accuracy", estimate=got.estimate, low=got.low,
                high=got.high, n=got.n, unit=unit)
    ]  # fmt: skip


def lexicon(folder: Path, *, lexicon: Path) -> None:
    """Leave a reward function that counts positive minus negative words of a list.

    Args:
        folder: where to write.
        lexicon: `opinion_lexicon.zip`.
    """
    weights: dict[str, float] = {}
    with zipfile.ZipFile(lexicon) as archive:
        for name in sorted(archive.namelist()):
            sign = 1.0 if "positive" in name else -1.0
            if name.endswith("-words.txt"):
                lines = archive.read(name).decode("latin-1").splitlines()
                weights |= {w.strip(): sign for w in lines if w.strip() and not w.startswith(";")}
    write_json(
        folder / "weights.json", {"weights": weights, "bias": 0.0, "scale": 1.0, "pairs": False}
    )
    (folder / "scorer.py").write_text(SCORER, encoding="utf-8")


def fit(rows: Labelled, pairs: bool, penalty: float) -> tuple[dict[str, float], float]:
    """Fit the logistic regression; a feature is used where three texts or more have it."""
    found = [features(text, pairs) for text, _ in rows]
    counts = Counter(word for words in found for word in words)
    names = sorted(word for word, count in counts.items() if count >= 3)
    place = {name: i for i, name in enumerate(names)}
    cells = [(r, place[w]) for r, words in enumerate(found) for w in sorted(words) if w in place]
    at = np.array(cells)
    x = csr_matrix((np.ones(len(at)), (at[:, 0], at[:, 1])), shape=(len(rows), len(names)))
    y = np.array([label for _, label in rows], dtype=float)

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        w, z = theta[:-1], x @ theta[:-1] + theta[-1]
        error = 1 / (1 + np.exp(-np.clip(z, -500, 500))) - y
        value = float((np.logaddexp(0, z) - y * z).sum() + penalty / 2 * (w @ w))
        return value, np.append(x.T @ error + penalty * w, error.sum())

    solved = minimize(loss, np.zeros(len(names) + 1), jac=True, method="L-BFGS-B",
                      options={"maxiter": 200})  # fmt: skip
    weights = {name: round(float(v), 5) for name, v in zip(names, solved.x[:-1], strict=True)}
    return weights, float(solved.x[-1])


def logit(text: str, weights: Mapping[str, float], bias: float, pairs: bool) -> float:
    """The log-odds that a text is positive."""
    return math.fsum(weights.get(word, 0.0) for word in features(text, pairs)) + bias


def half_of(sentence: str, seed: int) -> str:
    """The classifier that a labelled sentence belongs to, by its text."""
    return "proxy" if stream_seed(seed, "half", sentence) % 2 else "gold"


def read_polarity(path: Path) -> Labelled:
    """Labelled sentences, each once."""
    rows: dict[str, int] = {}
    with zipfile.ZipFile(path) as archive:
        for name, label in (("neg", 0), ("pos", 1)):
            text = archive.read(f"sentence_polarity/rt-polarity.{name}").decode("latin-1")
            rows |= {line.strip(): label for line in text.splitlines() if line.strip()}
    return list(rows.items())


def read_reviews(path: Path) -> dict[int, list[str]]:
    """Reviews by label, 0 or 1, in the order of their names."""
    with zipfile.ZipFile(path) as archive:
        return {
            label: [
                archive.read(name).decode("utf-8", "replace")
                for name in sorted(archive.namelist())
                if f"/{word}/" in name and name.endswith(".txt")
            ]
            for label, word in ((0, "neg"), (1, "pos"))
        }
