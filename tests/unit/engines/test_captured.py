"""Decoding in steps of a few fixed sizes draws the tokens of decoding as it comes.

Capturing needs a CUDA device (`tests/gpu`); rounding up rows and keys, slots that stay, and what
makes a captured step stale do not, so a step is repeated here by running it again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.small import POLICY, raw_prompts, renderer, small
from torch import Tensor, nn

from heed.engines.captured import EAGER_STEPS, CapturedSteps, round_keys, round_rows
from heed.engines.forward import Forward
from heed.engines.local import LocalEngine
from heed.records import Completion, Sampling

PROMPTS = raw_prompts([12, 3, 30, 12, 7, 21])
SAMPLING = Sampling(max_tokens=14, n=3, seed=5)


class Memory:
    """Stands for graphs: a step is repeated by running it again, over the same tensors.

    As on a device, the steps that one of these captured share memory, which is gone with the last.
    """

    def __init__(self) -> None:
        self._captured: list[weakref.ref[Any]] = []

    def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if self._captured and not any(ref() for ref in self._captured):
            raise RuntimeError("the memory that the steps shared is gone")

        def repeat() -> Tensor:
            return step()

        self._captured.append(weakref.ref(repeat))
        return repeat


class FixedSizes(LocalEngine):
    """The engine as it decodes on a CUDA device, but for the capturing itself."""

    def __init__(self, model: nn.Module, max_rows: int = 64) -> None:
        super().__init__(model, renderer(), policy=POLICY, max_rows=max_rows, path="torch")
        self.steps = CapturedSteps(self._forward, Memory)

    def _steps(self) -> CapturedSteps:
        return self.steps


def plain(model: nn.Module, max_rows: int = 64) -> LocalEngine:
    return LocalEngine(model, renderer(), policy=POLICY, max_rows=max_rows, path="torch")


def same(found: list[list[Completion]], expected: list[list[Completion]]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert [c.tokens for c in one] == [c.tokens for c in other]
        for a, b in zip(one, other, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True),
    st.integers(1, 20),
    st.integers(1, 3),
    st.sampled_from(["llama", "qwen3", "gpt2"]),
    st.sampled_from([0, 6]),
)
@settings(max_examples=15, deadline=None)
def test_any_rows_prompts_and_samples_draw_the_same_tokens(
    chosen: list[int], max_rows: int, num: int, architecture: str, top_k: int
) -> None:
    model = small(architecture, sharpen=3.0)
    prompts = [PROMPTS[i] for i in chosen]
    sampling = SAMPLING.model_copy(update={"n": num, "top_k": top_k})
    mine = FixedSizes(model, max_rows)
    expected = plain(model, max_rows).generate(prompts, sampling)
    same(mine.generate(prompts, sampling), expected)
    same(mine.generate(prompts, sampling), expected)  # over slots that hold the first call's keys


def test_a_step_is_captured_when_its_size_comes_again() -> None:
    mine = FixedSizes(small(sharpen=3.0))
    sampling = Sampling(max_tokens=EAGER_STEPS + 1, n=3, ignore_end=True)
    mine.generate(PROMPTS, sampling)
    assert mine.steps.num_captured == 0  # the first token comes from the prompts' own pass
    mine.generate(PROMPTS, sampling)
    assert mine.steps.num_captured == 1


def test_larger_calls_and_moved_weights_make_new_slots() -> None:
    model = small(sharpen=3.0)
    mine = FixedSizes(model)
    few = SAMPLING.model_copy(update={"n": 1})
    mine.generate(PROMPTS[:2], few)
    cache = mine.steps.open(2, 30)
    assert mine.steps.open(1, 20) is cache
    same(mine.generate(PROMPTS, SAMPLING), plain(model).generate(PROMPTS, SAMPLING))
    larger = mine.steps.open(2, 30)
    assert larger is not cache
    assert larger.place.num_rows >= len(PROMPTS) * SAMPLING.n
    assert mine.steps.num_captured > 0
    assert mine.steps.why_eager == ""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data * 0.5
    assert mine.steps.open(2, 30) is not larger
    assert mine.steps.num_captured == 0
    same(mine.generate(PROMPTS, SAMPLING), plain(model).generate(PROMPTS, SAMPLING))


def test_weights_that_change_in_place_are_read_anew() -> None:
    model = small(sharpen=3.0)
    mine = FixedSizes(model)
    mine.generate(PROMPTS, SAMPLING)
    captured = mine.steps.num_captured
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.7)
    same(mine.generate(PROMPTS, SAMPLING), plain(model).generate(PROMPTS, SAMPLING))
    assert mine.steps.num_captured >= captured > 0


def test_a_model_with_hooks_is_never_captured() -> None:
    model = small(sharpen=3.0)
    handle = model.get_input_embeddings().register_forward_hook(lambda *_: None)
    mine = FixedSizes(model)
    mine.generate(PROMPTS, SAMPLING)
    assert mine.steps.num_captured == 0
    handle.remove()
    mine.generate(PROMPTS, SAMPLING)
    assert mine.steps.num_captured > 0


def test_a_step_that_cannot_be_captured_is_run_as_it_comes() -> None:
    def refuses(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    model = small(sharpen=3.0)
    mine = FixedSizes(model)
    mine.steps = CapturedSteps(Forward(model), lambda: refuses)
    with pytest.warns(UserWarning, match="not captured.*not permitted"):
        found = mine.generate(PROMPTS, SAMPLING)
    same(found, plain(model).generate(PROMPTS, SAMPLING))
    assert mine.steps.num_captured == 0


@given(st.integers(1, 5000))
def test_sizes_are_few_and_large_enough(num: int) -> None:
    assert num <= round_rows(num) <= max(4, 2 * num - 1)
    assert num <= round_keys(num) <= max(128, 1.25 * num + 64)
    assert len({round_keys(n) for n in range(1, 5001)}) < 30
