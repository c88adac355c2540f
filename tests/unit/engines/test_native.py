"""The native loop: draws as the other path does, bits that depend on a row alone, fallbacks."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.small import POLICY, possible, raw_prompts, renderer, shaken, small
from transformers import AutoConfig, AutoModelForCausalLM

from heed.engines.local import LocalEngine
from heed.engines.native import library
from heed.engines.sampling import draw
from heed.errors import EngineError
from heed.models.adapters import add_lora
from heed.models.load import make_model
from heed.records import Completion, Prompt, Sampling
from heed.settings import LoraSettings

PROMPTS = raw_prompts([12, 3, 30, 12, 7, 21, 40])
SAMPLING = Sampling(max_tokens=40, n=3, seed=5)


@pytest.fixture
def built() -> None:
    possible("native")


def native(model: torch.nn.Module, max_rows: int = 64) -> LocalEngine:
    return LocalEngine(model, renderer(), policy=POLICY, max_rows=max_rows, path="native")


def bits(groups: list[list[Completion]]) -> list[Any]:
    return [[(c.tokens, c.logprobs, c.finish, c.kept) for c in group] for group in groups]


def native_draw(logits: np.ndarray, how: Sampling, number: float) -> tuple[int, float, list[int]]:
    """The loop's draw from one row of logits."""
    token, num_kept = (np.zeros(1, np.int32) for _ in range(2))
    logprob, kept = np.zeros(1, np.float32), np.zeros(len(logits), np.int32)
    given = library.NativeSampling(how.temperature, how.top_p, how.top_k)
    out = (array.ctypes.data for array in (token, logprob, kept, num_kept))
    library.load_library().heed_draw(
        logits.ctypes.data, len(logits), ctypes.byref(given), number, *out
    )
    return int(token[0]), float(logprob[0]), kept[: num_kept[0]].tolist()


SAMPLINGS = [
    Sampling(),
    Sampling(temperature=0),
    Sampling(temperature=0.6),
    Sampling(temperature=1.7, top_k=9),
    Sampling(top_p=0.7),
    Sampling(temperature=0.8, top_k=40, top_p=0.9),
    Sampling(top_p=0.05),
]


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("how", SAMPLINGS)
@pytest.mark.parametrize("size", [3, 128, 320, 1000])
@pytest.mark.parametrize("spread", [0.05, 3.0, 30.0])
def test_the_same_logits_and_number_give_the_same_token(
    how: Sampling, size: int, spread: float
) -> None:
    generator = np.random.default_rng(size)
    logits = (spread * generator.standard_normal((60, size))).astype(np.float32)
    numbers = generator.random(60, dtype=np.float32)
    numbers[:2] = 0.0, np.float32(1 - 2**-24)
    greedy = how.temperature == 0
    whole = draw(torch.from_numpy(logits), how, None if greedy else torch.from_numpy(numbers))
    for i, row in enumerate(logits):
        token, logprob, kept = native_draw(row, how, float(numbers[i]))
        expected = int(whole.tokens[i])
        if token != expected:
            # Only where the number falls on the border of two ids, to rounding.
            near = whole.kept[i][whole.kept[i] >= 0].tolist() if whole.kept is not None else None
            assert border(row, how, near, token, expected, float(numbers[i])) < 1e-6
            continue
        # The other path takes a sum's logarithm beside the largest logit, and rounds with it.
        rounding = 2e-6 * max(1.0, float(np.abs(row).max()))
        assert logprob == pytest.approx(float(whole.logprobs[i]), abs=rounding)
        if whole.kept is not None:
            assert kept == whole.kept[i][whole.kept[i] >= 0].tolist()


def border(
    row: np.ndarray, how: Sampling, kept: list[int] | None, a: int, b: int, number: float
) -> float:
    """How far the number is from the border between two neighbouring ids, in probability."""
    ids = kept if kept is not None else list(range(len(row)))
    scores = row[ids].astype(np.float64) / how.temperature
    masses = np.exp(scores - scores.max())
    cumulative = np.cumsum(masses) / masses.sum()
    first = min(ids.index(a), ids.index(b))
    return abs(cumulative[first] - number)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("how", SAMPLINGS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_give_no_logprob(how: Sampling, bad: float) -> None:
    for at in (0, 17, 36):
        row = np.zeros(37, np.float32)
        row[at] = bad
        assert np.isnan(native_draw(row, how, 0.5)[1])
    row = np.full(37, -np.inf, np.float32)
    row[7] = 1.0
    assert native_draw(row, how, 0.99)[:2] == (7, 0.0)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("built", "threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "how", [SAMPLING, SAMPLING.model_copy(update={"temperature": 0.7, "top_p": 0.9})]
)
def test_no_bit_depends_on_threads(dtype: torch.dtype, how: Sampling) -> None:
    model = shaken("llama", num_layers=1).to(dtype)
    found = []
    for num in (1, 3):
        torch.set_num_threads(num)
        found.append(bits(native(model, 9).generate(PROMPTS, how)))
    assert found[0] == found[1]


WHOLE: dict[str, Any] = {}


@pytest.mark.usefixtures("built")
@given(st.lists(st.integers(0, 6), min_size=1, max_size=7), st.integers(1, 30), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_no_bit_depends_on_batch_mates_or_refill(chosen: list[int], rows: int, num: int) -> None:
    if not WHOLE:
        WHOLE["model"] = shaken("qwen3")
        WHOLE["bits"] = bits(native(WHOLE["model"]).generate(PROMPTS, SAMPLING))
    how = SAMPLING.model_copy(update={"n": num})
    found = native(WHOLE["model"], rows).generate([PROMPTS[i] for i in chosen], how)
    assert bits(found) == [WHOLE["bits"][i][:num] for i in chosen]


@pytest.mark.usefixtures("built")
def test_prompts_longer_than_one_pass() -> None:
    """A prompt that is run in parts, beside rows that are being decoded, is the same prompt."""
    model = shaken("llama", max_positions=1200)
    long = Prompt.make("".join(p.text for p in PROMPTS) * 6, raw=True)
    assert len(renderer().prompt_tokens(long)) > 300
    how = Sampling(max_tokens=5, n=2)
    (one, two), theirs = (
        LocalEngine(model, renderer(), policy=POLICY, max_rows=3, path=path).generate(
            [PROMPTS[0], long], how
        )
        for path in ("native", "torch")
    )
    for mine, other in zip((one, two), theirs, strict=True):
        for a, b in zip(mine, other, strict=True):
            assert a.tokens == b.tokens
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(
    ("heads", "kv_heads", "size", "layers"), [(6, 3, 48, 1), (8, 1, 64, 2), (4, 4, 120, 1)]
)
def test_sizes_that_fill_no_panel(heads: int, kv_heads: int, size: int, layers: int) -> None:
    model = shaken("llama", num_heads=heads, num_kv_heads=kv_heads, hidden_size=size,
                   num_layers=layers, intermediate_size=size + 22)  # fmt: skip
    how = Sampling(max_tokens=12, n=2)
    mine = native(model, 5).generate(PROMPTS, how)
    theirs = LocalEngine(model, renderer(), policy=POLICY, path="torch").generate(PROMPTS, how)
    assert [[c.tokens for c in g] for g in mine] == [[c.tokens for c in g] for g in theirs]


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_scaled_rotary_positions(kind: str) -> None:
    scaling = {"rope_type": kind, "factor": 4.0, "rope_theta": 100.0}
    if kind == "llama3":
        scaling |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
        scaling |= {"original_max_position_embeddings": 16}
    config = small().config.to_dict() | {"rope_parameters": scaling}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0 if parameter.dim() > 1 else 1.0)
    how = Sampling(temperature=0, max_tokens=20)
    mine = native(model).generate(PROMPTS, how)
    theirs = LocalEngine(model, renderer(), policy=POLICY, path="torch").generate(PROMPTS, how)
    assert [g[0].tokens for g in mine] == [g[0].tokens for g in theirs]


def wide(architecture: str, **changes: Any) -> torch.nn.Module:
    sizes = {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 96,
    }  # fmt: skip
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes | changes))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: wide("gemma2"), "Gemma2ForCausalLM is not among GPT2LMHeadModel, Llama"),
        (lambda: wide("mistral", sliding_window=5), "attends to the last 5 positions alone, of 96"),
        (lambda: wide("llama", hidden_act="gelu"), "its activation is 'gelu', expected silu"),
        (
            lambda: wide("llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0,
                                                   "rope_theta": 1e4}),
            "rotary positions are of kind 'dynamic'",
        ),
        (lambda: small("llama").double(), "float64"),
        (lambda: add_lora(small("llama"), LoraSettings(r=2)), "the model has adapters"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_decoded_through_torch(model: Any, reason: str) -> None:
    made = model()
    engine = LocalEngine(made, renderer(), policy=POLICY)
    assert engine.path == "torch"
    assert reason in engine.why_torch
    assert not engine.build_failed
    assert engine.generate(PROMPTS[:1], Sampling(max_tokens=2))[0][0].num_tokens == 2
    with pytest.raises(EngineError, match=r"engine\.path is native, and .*set it to auto or torch"):
        LocalEngine(made, renderer(), policy=POLICY, path="native")


@pytest.mark.usefixtures("built")
def test_a_hook_or_a_mixture_of_types_is_decoded_through_torch() -> None:
    model = small("llama", 3.0)
    engine = LocalEngine(model, renderer(), policy=POLICY)
    plain = bits(engine.generate(PROMPTS, SAMPLING))
    assert engine.path == "native"
    layer = model.model.layers[0].mlp.down_proj
    handle = layer.register_forward_hook(lambda module, args, output: output * 0)
    hooked = engine.generate(PROMPTS, SAMPLING)
    assert engine.path == "torch"
    assert "a hook may change what a Linear does" in engine.why_torch
    through_torch = LocalEngine(model, renderer(), policy=POLICY, path="torch")
    assert bits(hooked) == bits(through_torch.generate(PROMPTS, SAMPLING))
    handle.remove()
    assert bits(engine.generate(PROMPTS, SAMPLING)) == plain
    assert engine.path == "native"


@pytest.mark.usefixtures("built")
def test_weights_that_change_in_place_are_seen_and_types_too() -> None:
    model = small("llama", 3.0)
    engine = native(model)
    before = bits(engine.generate(PROMPTS, SAMPLING))
    for parameter in model.parameters():
        parameter.data *= 1.01
    after = bits(engine.generate(PROMPTS, SAMPLING))
    assert after != before
    assert after == bits(native(model).generate(PROMPTS, SAMPLING))
    model.to(torch.bfloat16)
    half = bits(engine.generate(PROMPTS, SAMPLING))
    assert half == bits(native(model).generate(PROMPTS, SAMPLING))
    model.float()
    assert bits(engine.generate(PROMPTS, SAMPLING)) == bits(
        native(model).generate(PROMPTS, SAMPLING)
    )


@pytest.mark.usefixtures("built")
def test_a_tokenizer_of_another_model_is_an_error() -> None:
    model = make_model("llama", vocab_size=64, hidden_size=32, num_layers=1, num_heads=2)
    with pytest.raises(EngineError, match=r"token ids .* and the model knows 0 to 63"):
        native(model).generate(PROMPTS, SAMPLING)
