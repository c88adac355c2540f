"""Reward functions written for other libraries, called as those call them.

    word         the function, and the version in which its signature was looked up
    verl         compute_score(data_source, solution_str, ground_truth, extra_info); verl 0.10.0.dev
    verl_batch   compute_score(data_sources, solution_strs, ground_truths, extra_infos); its batch
                 reward manager
    openrlhf     reward_func(queries, prompts, labels); OpenRLHF 0.11.0
    slime        custom_rm(args, sample); slime 0.3.1
    slime_batch  custom_rm(args, samples); the same, with --group-rm
    areal        reward_fn(prompt, completions, prompt_ids, completion_ids, **columns); AReaL 1.0.4
    trlx         reward_fn(samples, prompts, outputs, **columns); trlx 0.7.0
    trl          f(prompts, completions, completion_ids, **columns); TRL 1.16.0, as without a word

Which one is meant is said by the word in front, as in `verl:rewards.py:compute_score`, and never
guessed. Each may be `async`, and may return numbers, tensors, or dicts whose other numbers become
parts. What raises, is not finite, or has the wrong length is an error of its items.

Differs: scorers have no tokenizer, so a dialogue is given as its texts with a line end between them
where the other library gives the text that its chat template makes.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from heed.errors import ConfigError
from heed.feedback.base import Item
from heed.feedback.rules import Failure, failed_completion, score_of, wait_for
from heed.records import Score

_MOST_AT_ONCE = 64


@dataclass(frozen=True)
class Columns:
    """Which columns of the data hold what a signature asks for by another name.

    Args:
        answer: ground_truth of verl, label of OpenRLHF and slime.
        source: data_source of verl.
        extra: extra_info of verl, metadata of slime.
        key: of a dict that is returned, the entry that is the score; by default the library's.
        name: stands in scores and metrics; the function's own name by default.
    """

    answer: str = "answer"
    source: str = "data_source"
    extra: str = "extra_info"
    key: str = ""
    name: str = ""


@dataclass(frozen=True)
class Signature:
    """How one library calls a reward function.

    Args:
        arguments: items -> positional and keyword arguments; of one item, or of all together.
        whole_batch: called once with all items.
        keys: entries of a dict that can be the score, the first that there is.
    """

    arguments: Callable[[Sequence[Item], Columns], tuple[list[Any], dict[str, Any]]]
    whole_batch: bool
    keys: tuple[str, ...] = ("score", "reward")


@dataclass
class Sample:
    """The fields of slime's Sample that exist once a completion is there."""

    prompt: Any
    response: str
    label: Any
    metadata: dict[str, Any]
    tokens: list[int]
    response_length: int
    index: int
    status: str = "completed"
    reward: Any = None
    extra: dict[str, Any] = field(default_factory=dict)


def _text(item: Item) -> str:
    return "\n".join(message.text for message in item.prompt.messages)


def _truth(item: Item, columns: Columns) -> Any:
    meta = item.prompt.meta
    model = meta.get("reward_model")
    if columns.answer not in meta and isinstance(model, Mapping):
        return model.get("ground_truth")  # verl's own column
    return meta.get(columns.answer)


def _verl(items: Sequence[Item], columns: Columns) -> tuple[list[Any], dict[str, Any]]:
    given, (item,) = {}, items
    given["data_source"] = item.prompt.meta.get(columns.source, "unknown")
    given["solution_str"] = item.completion.text
    given["ground_truth"] = _truth(item, columns)
    given["extra_info"] = item.prompt.meta.get(columns.extra)
    return [], given


def _verl_batch(items: Sequence[Item], columns: Columns) -> tuple[list[Any], dict[str, Any]]:
    single = [_verl([item], columns)[1] for item in items]
    plural = {"extra_info": "extra_infos"}
    return [], {plural.get(n, n + "s"): [one[n] for one in single] for n in single[0]}


def _openrlhf(items: Sequence[Item], columns: Columns) -> tuple[list[Any], dict[str, Any]]:
    prompts = [_text(item) for item in items]
    queries = [p + i.completion.text for p, i in zip(prompts, items, strict=True)]
    return [queries, prompts, [_truth(item, columns) for item in items]], {}


def _slime(items: Sequence[Item], columns: Columns) -> tuple[list[Any], dict[str, Any]]:
    args, samples = _slime_batch(items, columns)[0]
    return [args, samples[0]], {}


def _slime_batch(items: Sequence[Item], columns: Columns) -> tuple[list[Any], dict[str, Any]]:
    samples = []
    for index, item in enumerate(items):
        raw = item.prompt.messages[-1].role == "text"
        turns = [{"role": m.role, "content": m.text} for m in item.prompt.messages]
        extra = item.prompt.meta.get(columns.extra)
        samples.append(
            Sample(
                prompt=_text(item) if raw else turns,
                response=item.completion.text,
                label=_truth(item, columns),
                metadata={**item.prompt.meta, **(extra if isinstance(extra, Mapping) else {})},
                tokens=[*item.completion.prompt_tokens, *item.completion.tokens],
                response_length=item.completion.num_tokens,
                index=index,
                status="completed" if item.completion.finish == "stop" else "truncated",
            )
        )
    return [SimpleNamespace(reward_key=columns.key or None), samples], {}


def _areal(items: Sequence[Item], columns: Columns) -> tuple[list[Any], dict[str, Any]]:
    (item,) = items
    ids = list(item.completion.prompt_tokens), list(item.completion.tokens)
    return [_text(item), item.completion.text, *ids], dict(item.prompt.meta)


def _trlx(items: Sequence[Item], columns: Columns) -> tuple[list[Any], dict[str, Any]]:
    queries, prompts, _ = _openrlhf(items, columns)[0]
    names = dict.fromkeys(name for item in items for name in item.prompt.meta)
    given = {name: [item.prompt.meta.get(name) for item in items] for name in names}
    outputs = [item.completion.text for item in items]
    return [], {**given, "samples": queries, "prompts": prompts, "outputs": outputs}


SIGNATURES: dict[str, Signature] = {
    "verl": Signature(_verl, False),
    "verl_batch": Signature(_verl_batch, True),
    "openrlhf": Signature(_openrlhf, True, ("rewards", "scores")),
    "slime": Signature(_slime, False),
    "slime_batch": Signature(_slime_batch, True),
    "areal": Signature(_areal, False),
    "trlx": Signature(_trlx, True),
}
"""Word -> signature."""


class ForeignScorer:
    """Scores items with a reward function of another library.

    Args:
        function: synchronous or not.
        signature: one of `SIGNATURES`.
        columns: where the data hold what it asks for.

    Raises:
        ConfigError: there is no such signature, or the function cannot be called.
    """

    def __init__(
        self, function: Callable[..., Any], signature: str, columns: Columns = Columns()
    ) -> None:
        if signature not in SIGNATURES:
            known = ", ".join(SIGNATURES)
            raise ConfigError(f"there is no signature {signature!r}; there are {known}")
        if not callable(function):
            raise ConfigError(f"a reward function is needed, and {function!r} cannot be called")
        self._function, self._columns = function, columns
        self._signature = SIGNATURES[signature]
        own = getattr(function, "__name__", "") or type(function).__name__
        self._name = columns.name or own

    @property
    def name(self) -> str:
        """Stands in `Score.scorer`."""
        return self._name

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Score items, in order."""
        scores = [failed_completion(item, self.name) for item in items]
        whole = [i for i, score in enumerate(scores) if score is None]
        results = self._call([items[i] for i in whole]) if whole else []
        for i, result in zip(whole, results, strict=True):
            value, parts = self._read(result)
            scores[i] = score_of(items[i].completion.id, value, self.name, parts)
        return [score for score in scores if score is not None]

    def _call(self, items: Sequence[Item]) -> list[Any]:
        """One result, or failure, for each item."""
        if self._signature.whole_batch:
            [result] = self._calls([items])
            return self._split(result, len(items))
        return self._calls([[item] for item in items])

    def _calls(self, batches: Sequence[Sequence[Item]]) -> list[Any]:
        results: list[Any] = []
        for batch in batches:
            args, kwargs = self._signature.arguments(batch, self._columns)
            try:
                results.append(self._function(*args, **self._accepted(kwargs)))
            except Exception as error:
                results.append(_failure(error))
        if any(inspect.isawaitable(result) for result in results):
            results = wait_for(_gathered(results))
        return results

    def _accepted(self, given: dict[str, Any]) -> dict[str, Any]:
        """Leave out columns that the function does not take; what the signature has is given."""
        if self._signature.arguments is not _areal and self._signature.arguments is not _trlx:
            return given
        try:
            parameters = inspect.signature(self._function).parameters.values()
        except (TypeError, ValueError):
            return given
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return given
        named = {p.name for p in parameters}
        return {name: value for name, value in given.items() if name in named}

    def _split(self, result: Any, num: int) -> list[Any]:
        """Take the result of a whole batch apart."""
        if isinstance(result, Failure):
            return [result] * num
        if isinstance(result, Mapping):
            columns = {name: _values(values, num) for name, values in _flat(result).items()}
            known = {name: values for name, values in columns.items() if values is not None}
            return [{name: values[i] for name, values in known.items()} for i in range(num)]
        values = _values(result, num)
        if values is None:
            found = len(result) if hasattr(result, "__len__") else repr(result)[:40]
            return [Failure(f"returned {found} values for {num} completions")] * num
        return values

    def _read(self, result: Any) -> tuple[Any, dict[str, float]]:
        """The score of one result, and its other numbers."""
        if not isinstance(result, Mapping):
            return result, {}
        keys = (self._columns.key,) if self._columns.key else self._signature.keys
        key = next((key for key in keys if key in result), None)
        if key is None:
            have = ", ".join(map(str, result)) or "nothing"
            return Failure(f"returned a dict of {have}, without {' or '.join(keys)}"), {}
        parts = {name: _number(value) for name, value in result.items() if name != key}
        return result[key], {str(n): v for n, v in parts.items() if v is not None}


async def _gathered(results: Sequence[Any]) -> list[Any]:
    """Wait for those that are awaitable, some at a time; what raises is a failure."""
    gate = asyncio.Semaphore(_MOST_AT_ONCE)

    async def one(result: Any) -> Any:
        if not inspect.isawaitable(result):
            return result
        try:
            async with gate:
                return await result
        except Exception as error:
            return _failure(error)

    return list(await asyncio.gather(*map(one, results)))


def _failure(error: Exception) -> Failure:
    return Failure(f"{type(error).__name__}: {error}")


def _flat(result: Mapping[str, Any]) -> dict[str, Any]:
    """A dict of a batch with the entries of OpenRLHF's `extra_logs` beside the others."""
    logs = result.get("extra_logs")
    rest = {str(name): value for name, value in result.items() if name != "extra_logs"}
    return {**(logs if isinstance(logs, Mapping) else {}), **rest}


def _values(result: Any, num: int) -> list[Any] | None:
    """The values of a batch: a list, a tensor of one dimension or of shape [num, 1]; else None."""
    shape = getattr(result, "shape", None)
    if shape is not None and len(shape) != 1:
        if tuple(shape) != (num, 1):
            return None
        result = result.reshape(-1)
    if hasattr(result, "tolist"):
        result = result.tolist()
    if not isinstance(result, (list, tuple)) or len(result) != num:
        return None
    return list(result)


def _number(value: Any) -> float | None:
    if isinstance(value, (str, bytes)) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    return number if math.isfinite(number) else None
