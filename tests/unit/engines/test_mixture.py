"""The geometric mixture of two models, token by token: its probabilities, its ends, its streams."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from heed.data.render import Renderer
from heed.engines.local import LocalEngine
from heed.engines.mixture import MixtureEngine
from heed.engines.opposed import OpposedEngine
from heed.errors import ConfigError, EngineError
from heed.models.load import make_model, train_tokenizer
from heed.records import PolicyRef, Prompt, Sampling

TEXTS = ["the cat sat on the mat", "a dog ran over the hill", "who let the bird fly away"] * 8
PROMPTS = [Prompt.make(text, raw=True) for text in ("the cat", "a dog ran over", "who")]
SAMPLING = Sampling(n=3, max_tokens=7, seed=5, temperature=0.8)
POLICY = PolicyRef(run="test", step=0)


@pytest.fixture(scope="module")
def models() -> tuple[PreTrainedTokenizerBase, nn.Module, nn.Module]:
    tokenizer = train_tokenizer(TEXTS, 300)
    made = [
        make_model(
            "llama", vocab_size=len(tokenizer), hidden_size=16, num_layers=layers, num_heads=2,
            max_positions=64, tokenizer=tokenizer, seed=layers,
        )
        for layers in (1, 2)
    ]  # fmt: skip
    for model in made:
        for parameter in model.parameters():
            parameter.data.mul_(3.0)  # so that the two differ
    return tokenizer, made[0], made[1]


def engine(models: tuple, coef: float, **more: object) -> MixtureEngine:
    tokenizer, policy, other = models
    return MixtureEngine(
        policy,
        other,
        Renderer(tokenizer),
        coef=coef,
        policy=POLICY,
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("coef", [0.0, 1.0])
def test_at_its_ends_it_is_one_of_the_two(models: tuple, coef: float) -> None:
    tokenizer, *both = models
    alone = LocalEngine(both[int(coef)], Renderer(tokenizer), policy=POLICY, path="torch")
    ours = engine(models, coef, max_rows=4).generate(PROMPTS, SAMPLING)
    theirs = alone.generate(PROMPTS, SAMPLING)
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine, other, strict=True):
            assert a.tokens == b.tokens
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_logprobs_are_those_of_the_normalised_mixture(models: tuple) -> None:
    """Recomputed from whole forward passes of both models, slots full and refilled."""
    coef = 0.3
    _, *both = models
    for group in engine(models, coef, max_rows=2).generate(PROMPTS, SAMPLING):
        for one in group:
            tokens = torch.tensor([[*one.prompt_tokens, *one.tokens]])
            with torch.no_grad():
                mine, other = (model(tokens).logits.log_softmax(-1) for model in both)
            mixed = ((1 - coef) * mine + coef * other) / SAMPLING.temperature
            start = len(one.prompt_tokens) - 1
            found = mixed.log_softmax(-1)[0, start:-1].gather(1, tokens[0, start + 1 :, None])
            assert one.logprobs == pytest.approx(found.flatten().tolist(), abs=1e-4)


def test_bad_input(models: tuple) -> None:
    with pytest.raises(ConfigError, match=r"coefficient is 1\.5, expected 0 to 1"):
        engine(models, 1.5)
    tokenizer, policy, _ = models
    larger = make_model(
        "llama", vocab_size=len(tokenizer) + 7, hidden_size=16, num_layers=1, num_heads=2,
        max_positions=64, tokenizer=tokenizer,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="needs one vocabulary"):
        engine((tokenizer, policy, larger), 0.5)


def test_a_policy_and_its_rival_share_the_samples(models: tuple) -> None:
    tokenizer, policy, other = models
    ours, theirs = (
        LocalEngine(model, Renderer(tokenizer), policy=POLICY, path="torch")
        for model in (policy, other)
    )
    both = OpposedEngine(ours, theirs)
    found = both.generate(PROMPTS, SAMPLING.model_copy(update={"n": 4}))
    alone = ours.generate(PROMPTS, SAMPLING.model_copy(update={"n": 2}))
    for group, own in zip(found, alone, strict=True):
        assert [c.tokens for c in group[:2]] == [c.tokens for c in own]
        assert len({c.id for c in group}) == 4
    with pytest.raises(EngineError, match="share it evenly"):
        both.generate(PROMPTS, SAMPLING)
