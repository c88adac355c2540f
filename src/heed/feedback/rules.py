"""Rules as scorers: any Python callable with TRL's `reward_funcs` signature, and weighted sums.

    def concise(completions, **columns) -> list[float | None]:
        return [-0.01 * len(text) for text in completions]

A callable is called with the keywords prompts, completions, completion_ids, one list for every
column of the data set (`Prompt.meta`), and, where it names them, trainer_state, log_extra and
log_metric. Prompts and completions are strings where the prompt is raw text (role `text`), and
lists of {"role", "content"} where it is a dialogue. None means "does not apply to this item".
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from heed.errors import ConfigError
from heed.feedback.base import Item, Scorer
from heed.feedback.callables import load_callable
from heed.records import Prompt, Score

__all__ = [
    "DECLINED",
    "DOES_NOT_APPLY",
    "CallableScorer",
    "Failure",
    "RewardFunction",
    "WeightedSum",
    "completion_argument",
    "failed_completion",
    "load_callable",
    "prompt_argument",
    "score_of",
    "wait_for",
]

DECLINED = "does not apply: "
"""How the error of a score begins that a rule declined to give; a weighted sum leaves it out."""
DOES_NOT_APPLY = DECLINED + "the reward function returned None"
"""Error of a score for which a reward function returned None."""

RewardFunction = Callable[..., Any]
_OPTIONAL = ("trainer_state", "log_extra", "log_metric")


class CallableScorer:
    """Scores items with a callable of TRL's signature, synchronous or not.

    A number that is missing, not finite, or not a number becomes an error of its item. A call that
    raises, or returns the wrong number of values, gives every item of the call that error. Items
    whose completion failed are not shown to the callable. How many errors are too many is decided
    by whoever called.

    Args:
        function: the callable.
        name: stands in scores and metrics; the function's own name by default.
    """

    def __init__(self, function: RewardFunction, name: str = "") -> None:
        if not callable(function):
            raise ConfigError(f"a reward function is needed, and {function!r} cannot be called")
        self._function = function
        self._name = name or getattr(function, "__name__", "") or type(function).__name__
        self._parameters = _parameters(function)
        self.trainer_state: Any = None
        """Passed on to functions that name it; set by the loop that trains."""
        self._metrics: dict[str, list[float]] = {}
        self._extra: dict[str, list[Any]] = {}

    @property
    def name(self) -> str:
        """Stands in `Score.scorer`."""
        return self._name

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Score items, in order.

        Raises:
            ConfigError: the callable requires a column that no item has.
        """
        scores: list[Score | None] = [failed_completion(item, self.name) for item in items]
        whole = [i for i, score in enumerate(scores) if score is None]
        if whole:
            arguments = self._arguments([items[i] for i in whole])
            values = self._call(arguments, len(whole))
            for i, value in zip(whole, values, strict=True):
                scores[i] = score_of(items[i].completion.id, value, self.name)
        return [score for score in scores if score is not None]

    def take_logs(self) -> tuple[dict[str, float], dict[str, list[Any]]]:
        """Return and forget what the callable logged: means of metrics, and extra columns."""
        metrics = {name: sum(values) / len(values) for name, values in self._metrics.items()}
        extra, self._extra, self._metrics = self._extra, {}, {}
        return metrics, extra

    def _arguments(self, items: Sequence[Item]) -> dict[str, Any]:
        columns = dict.fromkeys(name for item in items for name in item.prompt.meta)
        arguments: dict[str, Any] = {
            name: [item.prompt.meta.get(name) for item in items] for name in columns
        }
        arguments |= {
            "prompts": [prompt_argument(item.prompt) for item in items],
            "completions": [completion_argument(item) for item in items],
            "completion_ids": [list(item.completion.tokens) for item in items],
        }
        optional = (self.trainer_state, self._log_extra, self._log_metric)
        arguments |= dict(zip(_OPTIONAL, optional, strict=True))
        if self._parameters is None:
            return arguments
        named, required, takes_all = self._parameters
        missing = sorted(required - arguments.keys())
        if missing:
            raise ConfigError(
                f"the reward function {self.name!r} needs {missing}, and the data set has the "
                f"columns {sorted(columns) or 'none'}; add the column or give it a default"
            )
        return {n: v for n, v in arguments.items() if takes_all or n in named}

    def _call(self, arguments: dict[str, Any], num: int) -> list[Any]:
        try:
            result = self._function(**arguments)
            values = list(wait_for(result) if inspect.isawaitable(result) else result)
        except Exception as error:
            return [Failure(f"{type(error).__name__}: {error}")] * num
        if len(values) != num:
            return [Failure(f"returned {len(values)} values for {num} completions")] * num
        return values

    def _log_extra(self, column: str, values: Sequence[Any]) -> None:
        self._extra.setdefault(column, []).extend(values)

    def _log_metric(self, name: str, value: float) -> None:
        self._metrics.setdefault(name, []).append(float(value))


class WeightedSum:
    """Adds scorers: value = sum of weight * part.

    A part that does not apply to an item is left out of its sum, as in TRL. Any other error of a
    part with a weight makes the sum an error; parts of weight 0 are recorded only.

    Args:
        scorers: with different names.
        weights: one each; 1 by default.

    Raises:
        ConfigError: numbers of scorers and weights differ, or two names are equal.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        weights: Sequence[float] | None = None,
        name: str = "weighted sum",
    ) -> None:
        weights = [1.0] * len(scorers) if weights is None else [float(w) for w in weights]
        if not scorers or len(weights) != len(scorers):
            raise ConfigError(
                f"{len(scorers)} scorers and {len(weights)} weights; give one weight each"
            )
        if not all(math.isfinite(weight) for weight in weights):
            raise ConfigError(f"the weights are {weights}; give finite numbers")
        names = [scorer.name for scorer in scorers]
        if len(set(names)) < len(names):
            raise ConfigError(f"scorers are named {names}; give each a name of its own")
        self._scorers, self._weights, self._name = tuple(scorers), tuple(weights), name

    @property
    def name(self) -> str:
        """Stands in `Score.scorer`."""
        return self._name

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Score items with every scorer and add up; parts hold each scorer's own value."""
        columns = [scorer.score(items) for scorer in self._scorers]
        return [self._sum(item, [column[i] for column in columns]) for i, item in enumerate(items)]

    def _sum(self, item: Item, scores: Sequence[Score]) -> Score:
        total, applied, errors = 0.0, False, []
        for score, weight in zip(scores, self._weights, strict=True):
            if score.value is not None:
                total, applied = total + weight * score.value, applied or weight != 0
            elif weight != 0 and not (score.error or "").startswith(DECLINED):
                errors.append(f"{score.scorer}: {score.error}")
        if not errors and not applied:
            errors = [DOES_NOT_APPLY]
        return Score(
            item_id=item.completion.id,
            value=None if errors else total,
            error="; ".join(errors) or None,
            parts={
                scorer.name: score.value
                for scorer, score in zip(self._scorers, scores, strict=True)
            },
            scorer=self.name,
        )


def failed_completion(item: Item, scorer: str) -> Score | None:
    """Return the error score of an item whose completion failed, or None where it is whole."""
    completion = item.completion
    if completion.finish != "error":
        return None
    error = f"the completion failed: {completion.error}"
    return Score(item_id=completion.id, value=None, error=error, scorer=scorer)


class Failure:
    """Why a call gave no value."""

    def __init__(self, error: str) -> None:
        self.error = error


def score_of(
    item_id: str, value: Any, scorer: str, parts: Mapping[str, float] | None = None
) -> Score:
    """Turn what a reward function returned for one item into its score.

    Args:
        item_id: of the item.
        value: anything that `float` takes but text, None (does not apply), or a failure.
        scorer: its name.
        parts: further numbers by name.
    """

    def failed(error: str) -> Score:
        return Score(item_id=item_id, value=None, error=error, scorer=scorer)

    if isinstance(value, Failure):
        return failed(value.error)
    if value is None:
        return failed(DOES_NOT_APPLY)
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        return failed(f"returned {value!r}, which is not a number")
    if not math.isfinite(number):
        return failed(f"returned {number}, which is not finite")
    return Score(item_id=item_id, value=number, parts=dict(parts or {}), scorer=scorer)


def _parameters(function: RewardFunction) -> tuple[set[str], set[str], bool] | None:
    """Return parameters by name, those without default, and whether any keyword is taken."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = {name: p for name, p in parameters.items() if p.kind in kinds}
    positional = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_ONLY]
    if positional:
        raise ConfigError(
            f"a reward function is called by keyword, and {positional} can only be positional; "
            "remove the '/' from its signature"
        )
    required = {name for name, p in named.items() if p.default is p.empty}
    return set(named), required, any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def prompt_argument(prompt: Prompt) -> str | list[dict[str, str]]:
    """Return a prompt as callables get it: raw text, or a dialogue's messages."""
    if prompt.messages[-1].role == "text":
        return "".join(message.text for message in prompt.messages)
    return [{"role": message.role, "content": message.text} for message in prompt.messages]


def completion_argument(item: Item) -> str | list[Mapping[str, str]]:
    """Return a completion as callables get it, in the form of its prompt."""
    if item.prompt.messages[-1].role == "text":
        return item.completion.text
    return [{"role": "assistant", "content": item.completion.text}]


def wait_for(result: Awaitable[Any]) -> Any:
    """Wait for an awaitable, also where a loop runs in this thread."""

    async def finish() -> Any:
        return await result

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(finish())
    # A notebook already runs a loop in this thread, so another thread runs ours.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, finish()).result()
