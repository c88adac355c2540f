"""The local engine: what may not matter, what fails, and what is left as it was."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.small import PATHS, POLICY, possible, raw_prompts, renderer, small
from transformers import AutoConfig, AutoModelForCausalLM

from heed.engines import decode
from heed.engines.local import LocalEngine
from heed.errors import EngineError
from heed.models.backbone import cache_argument
from heed.models.heads import PolicyHead
from heed.models.load import make_model
from heed.records import PolicyRef, Prompt, Sampling

PROMPTS = raw_prompts([12, 3, 30, 12, 7, 21])
SAMPLING = Sampling(max_tokens=14, n=3, seed=5)
CACHE = cache_argument(small())

in_force: dict[str, Any] = {"path": "torch"}


@pytest.fixture(params=PATHS, scope="module", autouse=True)
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test here runs on both paths, and both give the tokens that torch gave below."""
    in_force["path"] = possible(request.param)
    yield request.param
    in_force["path"] = "torch"


def engine(max_rows: int = 64, model: torch.nn.Module | None = None, **how: Any) -> LocalEngine:
    return LocalEngine(
        small(sharpen=3.0) if model is None else model,
        renderer(),
        policy=POLICY,
        max_rows=max_rows,
        **{**in_force, **how},
    )


def tokens(groups: list) -> list[list[tuple[int, ...]]]:
    return [[c.tokens for c in group] for group in groups]


EXPECTED = tokens(engine().generate(PROMPTS, SAMPLING))


@pytest.mark.parametrize("max_rows", [2, 5, 18])
def test_the_number_of_rows_changes_no_token(max_rows: int) -> None:
    assert tokens(engine(max_rows).generate(PROMPTS, SAMPLING)) == EXPECTED


def test_batch_mates_and_order_change_no_token() -> None:
    order = [4, 0, 5, 2, 1, 3]
    assert tokens(engine(4).generate([PROMPTS[i] for i in order], SAMPLING)) == [
        EXPECTED[i] for i in order
    ]
    for i, prompt in enumerate(PROMPTS):
        assert tokens(engine().generate([prompt], SAMPLING)) == [EXPECTED[i]]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 20), st.integers(1, 3))
@settings(max_examples=8, deadline=None)
def test_any_choice_of_prompts_rows_and_samples_changes_no_token(
    chosen: list[int], max_rows: int, num: int
) -> None:
    sampling = SAMPLING.model_copy(update={"n": num})
    found = engine(max_rows).generate([PROMPTS[i] for i in chosen], sampling)
    assert tokens(found) == [EXPECTED[i][:num] for i in chosen]


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 0), (0.6, 8)])
def test_first_tokens_follow_the_softmax(temperature: float, top_k: int) -> None:
    num, model = 3000, small(sharpen=3.0)
    sampling = Sampling(temperature=temperature, top_k=top_k, max_tokens=1, n=num)
    (group,) = engine(num, model).generate(PROMPTS[:1], sampling)
    ids = torch.tensor([renderer().prompt_tokens(PROMPTS[0])])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, -1].double() / temperature
    if top_k:
        logits[logits < logits.topk(top_k).values[-1]] = -torch.inf
    expected = num * logits.softmax(-1).numpy()
    counts = np.bincount([c.tokens[0] for c in group], minlength=len(expected))
    assert not counts[expected == 0].any()
    # Cells of fewer than five expected counts are joined.
    often = expected >= 5
    seen = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum())
    assert stats.chisquare(seen[wanted > 0], wanted[wanted > 0]).pvalue > 0.001


def test_fewer_samples_are_the_first_of_more() -> None:
    one = engine().generate(PROMPTS, SAMPLING.model_copy(update={"n": 1}))
    assert tokens(one) == [group[:1] for group in EXPECTED]


def test_seeds_and_samples_differ() -> None:
    other = engine().generate(PROMPTS, SAMPLING.model_copy(update={"seed": 6}))
    assert all(a != b for a, b in zip(tokens(other), EXPECTED, strict=True))
    assert all(len(set(group)) == 3 for group in EXPECTED)


def test_small_prefills_change_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "PREFILL_TOKENS", 20)
    assert tokens(engine(7, path="torch").generate(PROMPTS, SAMPLING)) == EXPECTED


@pytest.mark.parametrize("max_rows", [2, 64])
def test_a_prompt_is_run_once_for_all_its_samples(max_rows: int) -> None:
    mine = engine(max_rows, path="torch")
    seen: list[int] = []
    real = mine._forward.prefill
    mine._forward.prefill = lambda prompts: seen.append(len(prompts)) or real(prompts)
    assert tokens(mine.generate(PROMPTS, SAMPLING)) == EXPECTED
    assert sum(seen) == len(PROMPTS)


def test_a_completion_tells_how_it_was_made() -> None:
    for prompt, group in zip(PROMPTS, engine().generate(PROMPTS, SAMPLING), strict=True):
        for completion in group:
            assert completion.prompt_tokens == tuple(renderer().prompt_tokens(prompt))
            assert completion.oldest == completion.newest == POLICY
            assert completion.sampling == SAMPLING
            assert completion.text == renderer().decode(completion.tokens)
            assert (completion.tokens[-1] in renderer().end_ids) == (completion.finish == "stop")
            assert not set(completion.tokens[:-1]) & set(renderer().end_ids)
            assert completion.finish == "stop" or completion.num_tokens == SAMPLING.max_tokens


def test_stop_texts_end_a_completion_and_stay_in_it() -> None:
    free = engine().generate(PROMPTS, SAMPLING)
    text = next(c.text for group in free for c in group if c.num_tokens == SAMPLING.max_tokens)
    stop = text[4:7]
    stopped = engine().generate(PROMPTS, SAMPLING.model_copy(update={"stop": (stop, "zzzz")}))
    seen = 0
    for before, after in zip(free, stopped, strict=True):
        for old, new in zip(before, after, strict=True):
            assert new.tokens == old.tokens[: new.num_tokens]
            assert (new.num_tokens == old.num_tokens) or new.finish == "stop"
            if stop in old.text:
                seen += 1
                assert new.finish == "stop"
                assert stop in new.text
                assert stop not in renderer().decode(new.tokens[:-1])
            else:
                assert new.tokens == old.tokens
    assert seen


def test_cutting_nothing_keeps_all() -> None:
    found = engine().generate(PROMPTS, SAMPLING.model_copy(update={"top_k": 100_000}))
    assert tokens(found) == EXPECTED
    assert all(c.kept is None for group in found for c in group)


def test_a_fixed_length_on_request() -> None:
    sampling = SAMPLING.model_copy(update={"stop": ("e", "a")})
    ended = engine().generate(PROMPTS, sampling)
    assert any(c.finish == "stop" for group in ended for c in group)
    fixed = engine(5).generate(PROMPTS, sampling.model_copy(update={"ignore_end": True}))
    for before, after in zip(EXPECTED, fixed, strict=True):
        for drawn, completion in zip(before, after, strict=True):
            assert completion.num_tokens == SAMPLING.max_tokens
            assert completion.finish == "length"
            assert completion.tokens[: len(drawn)] == drawn


def test_one_token_and_no_prompt() -> None:
    assert engine().generate([], SAMPLING) == []
    short = SAMPLING.model_copy(update={"max_tokens": 1})
    assert tokens(engine(4).generate(PROMPTS, short)) == [
        [t[:1] for t in group] for group in EXPECTED
    ]


def test_a_prompt_that_is_too_long_fails_alone() -> None:
    mine = engine(max_length=24)
    found = mine.generate(PROMPTS, SAMPLING)
    lengths = [len(renderer().prompt_tokens(p)) for p in PROMPTS]
    too_long = [n + SAMPLING.max_tokens > 24 for n in lengths]
    assert any(too_long)
    assert not all(too_long)
    for i, group in enumerate(found):
        if not too_long[i]:
            assert tokens([group]) == [EXPECTED[i]]
            continue
        for completion in group:
            assert (completion.finish, completion.tokens) == ("error", ())
            assert f"{lengths[i]} tokens" in completion.error
            assert "lower max_tokens" in completion.error
    assert mine.num_errors == 3 * sum(too_long)


def test_settings_that_fit_no_prompt_are_refused() -> None:
    for sampling in (SAMPLING.model_copy(update={"max_tokens": 96}), SAMPLING):
        mine = engine(max_length=96 if sampling.max_tokens == 96 else 14)
        with pytest.raises(EngineError, match=r"no prompt can be completed.*lower max_tokens"):
            mine.generate(PROMPTS, sampling)
    with pytest.raises(EngineError, match="expected at least 1"):
        engine(0)


def test_logits_that_are_not_finite_fail_their_row_alone() -> None:
    """The poisoned token's row fails, and rows that use its slot later are sound."""
    model = small(sharpen=3.0, tie_embeddings=False)
    sampling = Sampling(max_tokens=14, n=2)
    clean = tokens(engine(model=model).generate(PROMPTS, sampling))
    drawn = [t for group in clean for row in group for t in row[3:8]]
    poison = max(set(drawn), key=drawn.count)
    with torch.no_grad():
        model.get_input_embeddings().weight[poison] = torch.inf
    for max_rows in (2, 64):
        found = engine(max_rows, model).generate(PROMPTS, sampling)
        failed = 0
        for group, before, prompt in zip(found, clean, PROMPTS, strict=True):
            in_prompt = poison in renderer().prompt_tokens(prompt)
            for completion, row in zip(group, before, strict=True):
                if in_prompt or poison in row[:-1]:
                    failed += 1
                    end = 0 if in_prompt else row.index(poison) + 1
                    assert completion.finish == "error"
                    assert completion.tokens == row[:end]
                    assert "not finite" in completion.error
                else:
                    assert completion.tokens == row
        assert 0 < failed < 2 * len(PROMPTS)


def test_it_samples_from_the_module_that_is_trained() -> None:
    model = small(sharpen=3.0)
    mine = engine(model=model)
    assert tokens(mine.generate(PROMPTS, SAMPLING)) == EXPECTED
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(-1)
    newer = PolicyRef(run="test", step=4)
    mine.load(None, newer)
    found = mine.generate(PROMPTS, SAMPLING)
    assert tokens(found) != EXPECTED
    assert mine.policy == found[0][0].newest == newer


def test_weights_can_be_loaded() -> None:
    mine = engine(model=small(sharpen=3.0, seed=9))
    assert tokens(mine.generate(PROMPTS, SAMPLING)) != EXPECTED
    mine.load(small(sharpen=3.0).state_dict(), POLICY)
    assert tokens(mine.generate(PROMPTS, SAMPLING)) == EXPECTED
    with pytest.raises(EngineError, match="same architecture"):
        mine.load({"nothing": torch.zeros(1)}, POLICY)


def test_training_goes_on_after_sampling() -> None:
    model = small(sharpen=3.0).train()
    PolicyHead(model).gradient_checkpointing_enable()
    assert tokens(engine(model=model).generate(PROMPTS, SAMPLING)) == EXPECTED
    assert model.training
    batch = torch.arange(8)[None]
    model(input_ids=batch, labels=batch, use_cache=False).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_bf16_weights_sample() -> None:
    found = engine(model=small(sharpen=3.0).to(torch.bfloat16)).generate(PROMPTS, SAMPLING)
    same = [
        a == b
        for g, e in zip(tokens(found), EXPECTED, strict=True)
        for a, b in zip(g, e, strict=True)
    ]
    assert all(c.finish != "error" for group in found for c in group)
    assert any(same)


def test_one_large_logit_in_bf16_is_no_fault_of_the_cache() -> None:
    model = small(sharpen=1.0, tie_embeddings=False, vocab_size=4096)
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] = 1.0
        output = model.get_output_embeddings().weight
        output *= 0.1
        output[5] = 0.0
        output[5, 0] = -12.0
    engine(model=model.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("architecture", "sizes", "text"),
    [
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}, "linear_attention"),
        ("bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 2}, "takes no position_ids"),
    ],
)
def test_architectures_that_cannot_be_decoded_say_why(
    architecture: str, sizes: dict[str, int], text: str
) -> None:
    config = AutoConfig.for_model(architecture, vocab_size=320, **sizes)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(EngineError, match=text):
        engine(model=model)


def test_a_model_whose_steps_differ_from_its_whole_pass_is_refused() -> None:
    model = make_model("llama", vocab_size=64, hidden_size=32, num_layers=1, num_heads=2)
    model.model.rotary_emb.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {"position_ids": kwargs["position_ids"] * 0}),
        with_kwargs=True,
    )
    engine(model=model, path="torch")  # without positions at all, both ways agree
    model.model.layers[0].self_attn.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, CACHE: None}), with_kwargs=True
    )
    with pytest.raises(EngineError, match=r"differs from its forward pass|cache interface"):
        engine(model=model, path="auto")


def test_dialogues_are_prompts_too() -> None:
    prompt = Prompt.make("Who sells bread?")
    (group,) = engine().generate([prompt], SAMPLING)
    assert group[0].prompt_tokens == tuple(renderer().prompt_tokens(prompt))


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2"])
def test_transformers_has_nothing_to_warn_of(architecture: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine(model=small(architecture)).generate(PROMPTS[:2], SAMPLING)
