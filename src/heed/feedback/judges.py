"""Pairwise judges: any Python callable that says which of two completions is better.

    def concise(prompts, completions, **columns) -> list[float | None]:
        return [1.0 if len(a) < len(b) else 0.0 for a, b in completions]

The callable gets one prompt and one pair of completions for each comparison, in the forms of a
reward function (`heed.feedback.rules`), with one list for every column of the data set that it
names, and returns the probability that the first of the two is better; None where it cannot say.
Which of the two is shown first is drawn for each pair, so that a judge who prefers a place prefers
no policy.

`trl:` in front of the name stands for a judge of TRL (`BasePairwiseJudge`, removed there): a
function, a class with a method `judge`, or an instance of one, called with prompts and pairs as
texts; it returns the place of the better completion, 0 or 1, or -1 where it cannot say.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from heed.errors import ConfigError
from heed.feedback.base import Item, Labelled
from heed.feedback.callables import load_callable
from heed.feedback.rules import completion_argument, prompt_argument, wait_for
from heed.ids import content_hash, stream_seed
from heed.records import LabellerKind, Pair, Preference

JudgeFunction = Callable[..., Any]
TRL = "trl:"


class JudgeLabeller:
    """Compares by a callable of the module's form.

    A value that is missing, not a number or out of range becomes a pair that cannot be judged; a
    call that raises, or returns another number of values, makes all of its pairs so. How many are
    too many is decided by whoever asked. Failed completions are not shown.

    Args:
        function: the callable.
        name: of the judge; the function's own by default.
        ranks: TRL's form: texts in, 0, 1 or -1 out.
        kind: what the judge is.
        seed: of the order in which the two are shown.
    """

    def __init__(
        self,
        function: JudgeFunction,
        name: str = "",
        *,
        ranks: bool = False,
        kind: LabellerKind = "model",
        seed: int = 0,
    ) -> None:
        self._function, self._ranks, self._kind, self._seed = function, ranks, kind, seed
        self._name = name or getattr(function, "__name__", "") or type(function).__name__

    @property
    def name(self) -> str:
        """Stands in `Preference.labeller`."""
        return self._name

    def compare(self, pairs: Sequence[Pair]) -> Labelled:
        """Judge every pair in one call; nothing is ever pending."""
        whole = [p for p in pairs if "error" not in (p.left.finish, p.right.finish)]
        left_first = [
            Random(stream_seed(self._seed, "shown order", pair.id)).random() < 0.5 for pair in whole
        ]
        found = dict(zip((pair.id for pair in whole), self._asked(whole, left_first), strict=True))
        shown = dict(zip((pair.id for pair in whole), left_first, strict=True))
        return Labelled(
            tuple(
                self._said(
                    pair, found.get(pair.id, "a completion failed"), shown.get(pair.id, True)
                )
                for pair in pairs
            )
        )

    def _asked(self, pairs: Sequence[Pair], left_first: Sequence[bool]) -> list[float | str]:
        """Probability that left is better, or why there is none."""
        if not pairs:
            return []
        try:
            result = self._function(**self._arguments(pairs, left_first))
            values = list(wait_for(result) if inspect.isawaitable(result) else result)
        except Exception as error:
            return [f"the judge raised {type(error).__name__}: {error}"] * len(pairs)
        if len(values) != len(pairs):
            return [f"the judge returned {len(values)} values for {len(pairs)} pairs"] * len(pairs)
        first = [self._probability(value) for value in values]
        return [
            p if isinstance(p, str) or in_order else 1.0 - p
            for p, in_order in zip(first, left_first, strict=True)
        ]

    def _arguments(self, pairs: Sequence[Pair], left_first: Sequence[bool]) -> dict[str, Any]:
        items = [
            [Item(pair.prompt, side) for side in ((pair.left, pair.right) if in_order else
                                                  (pair.right, pair.left))]
            for pair, in_order in zip(pairs, left_first, strict=True)
        ]  # fmt: skip
        if self._ranks:
            return {
                "prompts": ["\n".join(m.text for m in pair.prompt.messages) for pair in pairs],
                "completions": [[item.completion.text for item in two] for two in items],
            }
        arguments: dict[str, Any] = {
            "prompts": [prompt_argument(pair.prompt) for pair in pairs],
            "completions": [tuple(completion_argument(item) for item in two) for two in items],
        }
        columns = dict.fromkeys(name for pair in pairs for name in pair.prompt.meta)
        more = {name: [pair.prompt.meta.get(name) for pair in pairs] for name in columns}
        named = inspect.signature(self._function).parameters.values()
        takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in named)
        names = {p.name for p in named}
        return arguments | {n: v for n, v in more.items() if takes_all or n in names}

    def _probability(self, value: Any) -> float | str:
        if value is None:
            return "the judge could not say"
        try:
            number = float(value)
        except (TypeError, ValueError):
            return f"the judge returned {value!r}, expected a number"
        if self._ranks:
            if number == -1:
                return "the judge could not say"
            return 1.0 - number if number in (0, 1) else f"the judge returned {value!r}, not 0 or 1"
        if not (math.isfinite(number) and 0.0 <= number <= 1.0):
            return f"the judge returned {value!r}, expected a probability of 0 to 1"
        return number

    def _said(self, pair: Pair, found: float | str, left_first: bool) -> Preference:
        known = not isinstance(found, str)
        outcome = "cannot_judge" if isinstance(found, str) else verdict(found)
        return Preference(
            id="f-" + content_hash([pair.id, self.name, found]),
            pair_id=pair.id,
            outcome=outcome,
            p_left=found if known else None,
            reason=None if known else str(found),
            labeller=self.name,
            kind=self._kind,
            shown=("left", "right") if left_first else ("right", "left"),
        )


def verdict(p_left: float) -> str:
    """Name what a probability says: left, right or tie."""
    return "tie" if p_left == 0.5 else "left" if p_left > 0.5 else "right"


def load_judge(word: str, seed: int = 0) -> JudgeLabeller:
    """Turn `module:function`, `file.py:function`, or either after `trl:`, into a judge.

    Raises:
        ConfigError: it is not there, or is nothing to call.
    """
    ranks = word.startswith(TRL)
    target = word.removeprefix(TRL)
    found: Any = load_callable(target)
    if ranks and inspect.isclass(found):
        found = found()
    function = found.judge if ranks and hasattr(found, "judge") else found
    if inspect.isclass(function):
        raise ConfigError(f"{word} is a class; name a function, or write {TRL}{target}")
    return JudgeLabeller(function, target.rpartition(":")[2], ranks=ranks, seed=seed)
