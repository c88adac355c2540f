"""From a word on the command line to a scorer: checker, callable, truth, model, or ensemble."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import PurePath

from heed.errors import ConfigError
from heed.feedback.base import Item, Scorer
from heed.feedback.checkers.base import CheckerScorer
from heed.feedback.checkers.words import PREFIX, load_checker, read_settings, split_word
from heed.feedback.ensemble import Ensemble, read_word
from heed.feedback.foreign import SIGNATURES, Columns, ForeignScorer
from heed.feedback.rules import CallableScorer, WeightedSum, failed_completion, load_callable
from heed.records import Score
from heed.worlds.saved import is_world, load_world
from heed.worlds.town import Town

_CALLABLE = re.compile(r"^(.+\.py|[A-Za-z_][\w.]*):[A-Za-z_]\w*$")


class WorldScorer:
    """The quality that a world knows of any completion.

    Args:
        world: who knows.
        apparent: the quality that the world's labellers see, planted faults included, instead of
            the true one.
    """

    def __init__(self, world: Town, *, apparent: bool = False) -> None:
        self._world = world
        self._apparent = apparent
        self.name = "apparent" if apparent else "true"

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Judge items against the truth; parts are those of the world's quality."""
        out = []
        for item in items:
            failed = failed_completion(item, self.name)
            if failed is not None:
                out.append(failed)
                continue
            text = item.completion.text
            quality = self._world.quality(item.prompt, text)
            value = quality.total
            if self._apparent:
                value = self._world.apparent_quality(item.prompt, text)
            out.append(
                Score(
                    item_id=item.completion.id,
                    value=value,
                    parts=dict(quality.parts),
                    scorer=self.name,
                )
            )
        return out


def load_scorer(
    word: str, *, device: str = "auto", apparent: bool = False, name: str = ""
) -> Scorer:
    """Turn one word into a scorer.

    Args:
        apparent: of a world, take the quality that its labellers see.
        device: where a reward model runs.
        name: of the scorer, where its own does not tell it apart.
        word: a checker such as `check:numeric:relative=0.01`, `module:function` or
            `file.py:function` (a callable with TRL's reward signature), the same behind the name of
            another library (`verl:file.py:function`), a world's run folder, a reward model or
            process reward model (folder, run folder, or hub id), or an ensemble of such words:
            `mean(A, B)`, `min(A, B)`, `mean-1std(A, B)`.

    Raises:
        ConfigError: nothing of these kinds is found there.
    """
    ensemble = read_word(word)
    if ensemble is not None:
        how, k, words = ensemble
        members = [
            load_scorer(one, device=device, apparent=apparent, name=own)
            for one, own in zip(words, _names(words), strict=True)
        ]
        return Ensemble(members, how, k, name or word.partition("(")[0])
    if word.startswith(PREFIX):
        return CheckerScorer(load_checker(word))
    signature, _, rest = word.partition(":")
    if signature in SIGNATURES and _CALLABLE.match(split_word(rest)[0]):
        return _foreign(word, signature, rest)
    if signature == "trl" and _CALLABLE.match(rest):
        return CallableScorer(load_callable(rest), name)
    if _CALLABLE.match(word):
        return CallableScorer(load_callable(word), name)
    if word.endswith(".py"):
        raise ConfigError(
            f"{word} names a file and no function in it; write {word}:FUNCTION, a function with "
            "TRL's reward signature"
        )
    if is_world(word):
        return WorldScorer(load_world(word), apparent=apparent)
    from heed.feedback.process_reward import open_process_reward_model
    from heed.feedback.reward_model import open_reward_model
    from heed.models.load import resolve_path
    from heed.models.step_head import is_step_model

    if is_step_model(resolve_path(word)):
        return open_process_reward_model(word, device=device, name=name)
    return open_reward_model(word, device=device, name=name)


def _names(words: Sequence[str]) -> list[str]:
    """Names for members: the last part of each path, and more of it until all differ."""
    parts = [PurePath(word).parts for word in words]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["-".join(own[-depth:]).replace("/", "") for own in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} {i}" for i, name in enumerate(names, start=1)]


def _foreign(word: str, signature: str, rest: str) -> ForeignScorer:
    target, pairs = split_word(rest)
    known = tuple(field.name for field in fields(Columns))
    columns = Columns(**read_settings(word, pairs, known))
    return ForeignScorer(load_callable(target), signature, columns)


def load_scorers(
    words: Sequence[str],
    weights: Sequence[float] | None = None,
    *,
    device: str = "auto",
    apparent: bool = False,
) -> Scorer:
    """Turn words into one scorer: themselves, or their weighted sum.

    Raises:
        ConfigError: no words, or another number of weights than words.
    """
    if not words:
        raise ConfigError("no scorer was named; name at least one")
    if weights is not None and len(weights) != len(words):
        raise ConfigError(f"{len(weights)} weights for {len(words)} scorers; give one for each")
    scorers = [load_scorer(word, device=device, apparent=apparent) for word in words]
    if len(scorers) == 1 and (weights is None or weights[0] == 1.0):
        return scorers[0]
    return WeightedSum(scorers, list(weights or [1.0] * len(scorers)))
