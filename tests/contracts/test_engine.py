"""What every engine keeps, whatever it samples with."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
from tests.small import POLICY, possible, raw_prompts, renderer, small

from heed.engines.base import Engine
from heed.engines.local import LocalEngine, Path
from heed.engines.mixture import MixtureEngine
from heed.engines.scripted import ScriptedEngine
from heed.records import Completion, PolicyRef, Prompt, Sampling

PROMPTS = [*raw_prompts([4, 19, 11, 4, 26]), Prompt.make("Who sells bread?")]
SAMPLING = Sampling(max_tokens=9, n=3, seed=2)
TOO_LONG = Prompt.make("much too long", raw=True)


def said(prompt: Prompt, index: int) -> str:
    if prompt == TOO_LONG:
        raise LookupError("nothing to say")
    return " ".join(["The miller lives behind the bridge."] * (1 + index))


class LongPrompt:
    """The shared renderer, for which one prompt has too many tokens."""

    def __init__(self) -> None:
        inner = renderer()
        self.end_ids, self.decode, self.item_row = inner.end_ids, inner.decode, inner.item_row

    def prompt_tokens(self, prompt: Prompt) -> list[int]:
        return renderer().prompt_tokens(prompt) * (40 if prompt == TOO_LONG else 1)


def local(path: Path) -> LocalEngine:
    model = small(sharpen=3.0)
    return LocalEngine(
        model, LongPrompt(), policy=POLICY, max_rows=4, path=cast(Path, possible(path))
    )


def mixture() -> MixtureEngine:
    models = small(sharpen=3.0), small(sharpen=2.0)
    return MixtureEngine(*models, LongPrompt(), coef=0.4, policy=POLICY, max_rows=4)  # type: ignore[arg-type]


ENGINES: dict[str, Callable[[], Engine]] = {
    "torch": lambda: local("torch"),
    "native": lambda: local("native"),
    "mixture": lambda: mixture(),
    "scripted": lambda: ScriptedEngine(said, LongPrompt(), POLICY),
}


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]()


def flat(groups: list[list[Completion]]) -> list[Completion]:
    return [completion for group in groups for completion in group]


def test_completions_come_per_prompt_in_order(engine: Engine) -> None:
    groups = engine.generate(PROMPTS, SAMPLING)
    assert [len(group) for group in groups] == [3] * len(PROMPTS)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            assert completion.prompt_id == prompt.id
            assert completion.prompt_tokens == tuple(renderer().prompt_tokens(prompt))


def test_no_prompts_give_no_completions(engine: Engine) -> None:
    assert engine.generate([], SAMPLING) == []


def test_ids_are_unique(engine: Engine) -> None:
    first = engine.generate(PROMPTS, SAMPLING)
    engine.load(None, PolicyRef(run="test", step=4))
    second = engine.generate(PROMPTS, SAMPLING)
    ids = [c.id for c in flat(first) + flat(second)]
    assert len(set(ids)) == len(ids)


def test_completions_are_whole(engine: Engine) -> None:
    finishes = set()
    for completion in flat(engine.generate(PROMPTS, SAMPLING.model_copy(update={"n": 8}))):
        assert 1 <= completion.num_tokens <= SAMPLING.max_tokens
        assert completion.error is None
        assert completion.text == renderer().decode(completion.tokens)
        ended = completion.tokens[-1] in renderer().end_ids
        assert completion.finish == ("stop" if ended else "length")
        if completion.logprobs is not None:
            assert all(value <= 0 for value in completion.logprobs)
        assert Completion.model_validate_json(completion.model_dump_json()) == completion
        finishes.add(completion.finish)
    assert "length" in finishes


def test_the_same_call_gives_the_same_completions(engine: Engine) -> None:
    assert engine.generate(PROMPTS, SAMPLING) == engine.generate(PROMPTS, SAMPLING)


def test_samples_do_not_depend_on_their_batch_mates(engine: Engine) -> None:
    whole = engine.generate(PROMPTS, SAMPLING)
    for i, prompt in enumerate(PROMPTS):
        (alone,) = engine.generate([prompt], SAMPLING.model_copy(update={"n": 2}))
        assert [c.tokens for c in alone] == [c.tokens for c in whole[i][:2]]


def test_the_policy_is_stamped_and_replaced(engine: Engine) -> None:
    assert engine.policy == POLICY
    newer = PolicyRef(run="test", step=9)
    engine.load(None, newer)
    assert engine.policy == newer
    for completion in flat(engine.generate(PROMPTS, SAMPLING)):
        assert completion.oldest == completion.newest == newer
        assert completion.sampling == SAMPLING


def test_stop_texts_end_and_stay(engine: Engine) -> None:
    text = engine.generate(PROMPTS, SAMPLING)[0][2].text
    stop = text[3:5]
    sampling = SAMPLING.model_copy(update={"stop": (stop,)})
    completion = engine.generate(PROMPTS, sampling)[0][2]
    assert completion.finish == "stop"
    assert completion.text == text[: len(completion.text)]
    assert stop in completion.text
    assert stop not in renderer().decode(completion.tokens[:-1])


def test_a_sample_that_fails_is_data(engine: Engine) -> None:
    groups = engine.generate([*PROMPTS, TOO_LONG], SAMPLING)
    for completion in groups[-1]:
        assert (completion.finish, completion.tokens) == ("error", ())
        assert completion.error
    assert groups[:-1] == engine.generate(PROMPTS, SAMPLING)
