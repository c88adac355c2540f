"""Drawing tokens: the right distribution, the right tokens cut, the right number on each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from heed.engines.sampling import candidates, draw, uniform_numbers
from heed.records import Sampling

NUM_IDS = 12
LOGITS = torch.randn(NUM_IDS, generator=torch.Generator().manual_seed(5))


def brute_force(logits: torch.Tensor, sampling: Sampling) -> np.ndarray:
    """The truncated, tempered distribution, in float64 and by hand."""
    z = logits.double().numpy() / sampling.temperature
    order = sorted(range(len(z)), key=lambda i: (-z[i], i))
    kept = order[: sampling.top_k or len(z)]
    p = np.zeros(len(z))
    p[kept] = np.exp(z[kept] - z.max())
    p /= p.sum()
    if sampling.top_p < 1:
        mass, nucleus = 0.0, []
        for i in kept:
            if mass >= sampling.top_p:
                break
            nucleus.append(i)
            mass += p[i]
        p[[i for i in range(len(z)) if i not in nucleus]] = 0
        p /= p.sum()
    return p


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (4, 1.0), (0, 0.7), (6, 0.8)])
def test_frequencies_are_those_of_the_softmax(temperature: float, top_k: int, top_p: float) -> None:
    num = 20_000
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    uniforms = torch.from_numpy(uniform_numbers(1, "frequencies", 0, num))
    drawn = draw(LOGITS.expand(num, -1), sampling, uniforms)
    counts = np.bincount(drawn.tokens.numpy(), minlength=NUM_IDS)
    expected = brute_force(LOGITS, sampling)
    assert not counts[expected == 0].any()
    possible = expected > 0
    if possible.sum() > 1:
        test = stats.chisquare(counts[possible], num * expected[possible])
        assert test.pvalue > 0.001
    exact = np.log(expected[drawn.tokens.numpy()])
    assert np.abs(drawn.logprobs.numpy() - exact).max() < 1e-5
    if sampling.truncates:
        assert set(drawn.kept[0].tolist()) - {-1} == set(np.flatnonzero(possible))


@given(
    st.integers(0, 10**6),
    st.floats(0.2, 5.0),
    st.integers(0, 14),
    st.floats(0.01, 1.0),
    st.floats(0.0, 1.0, exclude_max=True, width=32),
)
@settings(max_examples=200, deadline=None)
def test_only_kept_tokens_are_drawn(
    seed: int, temperature: float, top_k: int, top_p: float, uniform: float
) -> None:
    logits = torch.randn(3, NUM_IDS, generator=torch.Generator().manual_seed(seed)) * 3
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    drawn = draw(logits, sampling, torch.full((3,), uniform))
    for row in range(3):
        p = brute_force(logits[row], sampling)
        token = int(drawn.tokens[row])
        # Rounding may move the edge of the nucleus by one token of equal cumulative mass.
        assert p[token] > 0 or sampling.top_p < 1
        if drawn.kept is not None:
            kept = [i for i in drawn.kept[row].tolist() if i >= 0]
            assert token in kept
            assert len(kept) == len(set(kept)) >= 1
            z = logits[row].double() / temperature
            normaliser = z[kept].logsumexp(0)
            assert float(drawn.logprobs[row]) == pytest.approx(
                float(z[token] - normaliser), abs=1e-4
            )


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_the_ends_of_the_unit_interval_pick_no_impossible_token(uniform: float) -> None:
    logits = torch.tensor([[-torch.inf, -200.0, 1.0, 0.5, -torch.inf, -300.0]])
    for scale in (1.0, 3.7):
        drawn = draw(logits * scale, Sampling(), torch.tensor([uniform], dtype=torch.float32))
        assert int(drawn.tokens) in (2, 3)
        assert torch.isfinite(drawn.logprobs).all()


def test_nothing_cut_keeps_all() -> None:
    logits = LOGITS[None]
    for sampling in (Sampling(), Sampling(top_k=NUM_IDS), Sampling(top_k=99)):
        assert draw(logits, sampling, torch.tensor([0.3])).kept is None
    scores, ids = candidates(logits, 0, 1.0)
    assert scores is logits
    assert ids is None


def test_equal_logits_are_cut_to_exactly_k() -> None:
    scores, ids = candidates(torch.zeros(1, 6), 3, 1.0)
    assert ids.shape == (1, 3)
    assert torch.isfinite(scores).all()


def test_greedy_takes_the_likeliest_and_needs_no_number() -> None:
    drawn = draw(LOGITS[None], Sampling(temperature=0, top_k=2), None)
    assert int(drawn.tokens) == int(LOGITS.argmax())
    assert float(drawn.logprobs) == pytest.approx(float(LOGITS.log_softmax(-1).max()), abs=1e-6)
    assert drawn.kept is None
    with pytest.raises(ValueError, match="one uniform number a row"):
        draw(LOGITS[None], Sampling(), None)


def test_a_row_draws_the_same_beside_any_other() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 50, generator=generator)
    uniforms = torch.rand(7, generator=generator)
    sampling = Sampling(top_k=20, top_p=0.9, temperature=0.8)
    together = draw(logits, sampling, uniforms)
    for row in range(7):
        alone = draw(logits[row : row + 1], sampling, uniforms[row : row + 1])
        assert torch.equal(alone.tokens[0], together.tokens[row])
        assert torch.equal(alone.logprobs[0], together.logprobs[row])


def test_streams_depend_on_their_name_alone() -> None:
    long = uniform_numbers(1, "p-1", 0, 64)
    assert np.array_equal(uniform_numbers(1, "p-1", 0, 10), long[:10])
    for other in ((2, "p-1", 0), (1, "p-2", 0), (1, "p-1", 1)):
        assert abs(np.corrcoef(uniform_numbers(*other, 64), long)[0, 1]) < 0.4
    many = np.concatenate([uniform_numbers(1, f"p-{i}", 0, 50) for i in range(400)])
    assert stats.kstest(many, "uniform").pvalue > 0.001
    assert many.max() < 1.0
    assert many.dtype == np.float32
