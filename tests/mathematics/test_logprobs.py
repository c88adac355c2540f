"""The output layer in chunks equals the plain one, gradients included, and never grows to [N, V].

Derivation of the gradient that the tests confirm by finite differences: with z = (W h + b) / T,
p = softmax(z), logprob l = z_y - logsumexp(z) and entropy H = -sum p log p,
dl/dz = onehot(y) - p  and  dH/dz = -p (log p + H); both are divided by T on the way to W h + b.
Ids that are not kept have p = 0 and therefore no gradient.
"""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from heed import logprobs
from heed.errors import ConfigError, DataError

N, V, D = 7, 11, 5
TARGETS = torch.tensor([1, 0, 3, 4, 10, 6, 2])
KEPT = torch.tensor(
    [[1, 2, 9], [-1, -1, -1], [0, 3, 4], [4, -1, -1], [10, 10, 0], [-1, 6, -1], [-1, -1, -1]]
)


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(5)
    shapes = {"hidden": (N, D), "weight": (V, D), "bias": (V,)}
    return {
        name: torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        for name, shape in shapes.items()
    }


@pytest.fixture(params=[2**24, 0], ids=["saved", "recomputed"])
def memory(request, monkeypatch):
    monkeypatch.setattr(logprobs, "SAVE_LIMIT", request.param)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("kept", [None, KEPT], ids=["whole", "kept"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [1, 3, 7, 512])
@pytest.mark.usefixtures("memory")
def test_chunks_equal_the_plain_version_with_gradients(parts, with_bias, kept, temperature, chunk):
    hidden, weight = parts["hidden"], parts["weight"]
    bias = parts["bias"] if with_bias else None
    leaves = [leaf for leaf in (hidden, weight, bias) if leaf is not None]
    pull = torch.linspace(-1, 2, N, dtype=torch.float64)

    logits = hidden @ weight.t() + (bias if bias is not None else 0)
    plain = logprobs.from_logits(logits, TARGETS, temperature, kept)
    spread = logprobs.entropy(logits, temperature, kept)
    expected = torch.autograd.grad(((plain + 0.3 * spread) * pull).sum(), leaves)

    found, entropy = logprobs.token_logprobs(
        hidden, weight, bias, TARGETS, temperature, kept, chunk, with_entropy=True
    )
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(entropy, spread)
    grads = torch.autograd.grad(((found + 0.3 * entropy) * pull).sum(), leaves)
    for grad, wanted in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, wanted)


@pytest.mark.parametrize("kept", [None, KEPT], ids=["whole", "kept"])
@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.usefixtures("memory")
def test_gradients_pass_finite_differences(parts, kept, with_entropy):
    def run(hidden, weight, bias):
        found, entropy = logprobs.token_logprobs(
            hidden, weight, bias, TARGETS, 0.8, kept, 3, with_entropy
        )
        return (found, entropy) if with_entropy else found

    assert torch.autograd.gradcheck(run, tuple(parts.values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("memory")
def test_probabilities_too_small_for_fp32_are_zero_and_change_nothing(dtype):
    """Logits 300 apart: log-probabilities stay exact, and no gradient is a subnormal number."""
    weight = torch.linspace(-150, 150, 64, dtype=torch.float64).repeat(2, 1).t().contiguous()
    weight[:, 1] = 0.5
    hidden = torch.tensor([[1.0, 0.0], [-1.0, 2.0], [0.01, 1.0], [0.3, -1.0]], dtype=torch.float64)
    targets = torch.tensor([63, 60, 5, 0])
    plain = logprobs.from_logits(hidden @ weight.t(), targets)
    leaves = [hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()]
    found, entropy = logprobs.token_logprobs(*leaves, None, targets, chunk=3, with_entropy=True)
    torch.testing.assert_close(found.double(), plain, rtol=1e-6, atol=1e-4)
    expected = logprobs.entropy(hidden @ weight.t())
    torch.testing.assert_close(entropy.double(), expected, rtol=1e-5, atol=1e-5)
    for grad in torch.autograd.grad(found.sum(), leaves):
        small = grad[(grad != 0) & (grad.abs() < torch.finfo(torch.float32).tiny)]
        assert grad.isfinite().all()
        assert not len(small)


def test_the_plain_version_is_log_softmax(parts):
    logits = (parts["hidden"] @ parts["weight"].t()).detach()
    found = logprobs.from_logits(logits.view(1, N, V), TARGETS.view(1, N))
    expected = logits.log_softmax(-1)[torch.arange(N), TARGETS]
    torch.testing.assert_close(found, expected.view(1, N))


def test_kept_ids_share_all_the_probability():
    """Two kept ids with logits 0 and log 3 have probabilities 1/4 and 3/4, whatever the rest is."""
    logits = torch.tensor([[9.0, 0.0, math.log(3), 50.0]], dtype=torch.float64)
    kept = torch.tensor([[2, 1, -1]])
    found = logprobs.from_logits(logits, torch.tensor([1]), kept=kept)
    assert found.exp().item() == pytest.approx(0.25)
    assert logprobs.entropy(logits, kept=kept).item() == pytest.approx(
        -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    )


def test_a_single_kept_id_is_certain_and_has_no_gradient(parts):
    kept = TARGETS.unsqueeze(1)
    found, entropy = logprobs.token_logprobs(
        parts["hidden"], parts["weight"], None, TARGETS, kept=kept, with_entropy=True
    )
    assert found.eq(0).all()
    assert entropy.eq(0).all()
    (grad,) = torch.autograd.grad(found.sum() + entropy.sum(), parts["hidden"])
    torch.testing.assert_close(grad, torch.zeros_like(grad))


def test_bf16_weights_lose_nothing_after_the_product(parts):
    hidden, weight = (parts[k].detach().bfloat16().requires_grad_() for k in ("hidden", "weight"))
    found, _ = logprobs.token_logprobs(hidden, weight, None, TARGETS)
    assert found.dtype == torch.float32
    wide = logprobs.from_logits(hidden.float() @ weight.float().t(), TARGETS)
    torch.testing.assert_close(found, wide, atol=1e-6, rtol=1e-6)
    found.sum().backward()
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16


def test_autocast_does_not_round_the_logits(parts):
    hidden, weight = parts["hidden"].float(), parts["weight"].float()
    expected, _ = logprobs.token_logprobs(hidden, weight, None, TARGETS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = logprobs.token_logprobs(hidden, weight, None, TARGETS)
    assert torch.equal(found, expected)


class _Largest(TorchDispatchMode):
    """Records the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for item in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(item, torch.Tensor):
                self.numel = max(self.numel, item.numel())
        return result


@pytest.mark.parametrize("kept", [None, torch.arange(3).expand(64, 3)], ids=["whole", "kept"])
def test_the_whole_matrix_of_logits_never_exists(kept, monkeypatch):
    monkeypatch.setattr(logprobs, "SAVE_LIMIT", 0)
    hidden = torch.randn(64, 2, requires_grad=True)
    weight = torch.randn(100, 2, requires_grad=True)
    with _Largest() as largest:
        found, entropy = logprobs.token_logprobs(
            hidden, weight, None, torch.zeros(64).long(), kept=kept, chunk=4, with_entropy=True
        )
        (found.sum() + entropy.sum()).backward()
    assert 4 * 100 <= largest.numel <= 4 * 101


def test_only_what_needs_a_gradient_gets_one(parts):
    hidden, weight = parts["hidden"].detach(), parts["weight"]
    found, _ = logprobs.token_logprobs(hidden, weight, None, TARGETS)
    found.sum().backward()
    assert hidden.grad is None
    assert weight.grad is not None
    with torch.no_grad():
        found, _ = logprobs.token_logprobs(hidden, weight, None, TARGETS)
    assert not found.requires_grad


def test_no_tokens_give_no_logprobs(parts):
    hidden = parts["hidden"][:0]
    found, entropy = logprobs.token_logprobs(
        hidden, parts["weight"], parts["bias"], TARGETS[:0], with_entropy=True
    )
    assert found.shape == entropy.shape == (0,)
    found.sum().backward()
    assert parts["weight"].grad.eq(0).all()


def test_the_shift_pairs_each_learned_token_with_the_state_before_it():
    hidden = torch.arange(2 * 4 * 1.0).view(2, 4, 1)
    tokens = torch.tensor([[10, 11, 12, 13], [20, 21, 22, 23]])
    learn = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]], dtype=torch.bool)
    selected, index = logprobs.shift_hidden(hidden, learn)
    assert selected.flatten().tolist() == [0, 2, 5, 6]
    assert tokens.flatten()[index].tolist() == tokens[learn].tolist() == [11, 13, 22, 23]
    back = logprobs.scatter(tokens.flatten()[index], learn)
    assert back.tolist() == [[0, 11, 0, 13], [0, 0, 22, 23]]


def test_scatter_carries_the_gradient():
    learn = torch.tensor([[0, 1, 1], [0, 0, 1]], dtype=torch.bool)
    values = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: logprobs.scatter(v, learn), values)
    with pytest.raises(DataError, match="for 3 learned tokens"):
        logprobs.scatter(values[:2], learn)


def test_a_learned_first_token_is_refused():
    learn = torch.tensor([[0, 1], [1, 1]], dtype=torch.bool)
    with pytest.raises(DataError, match=r"rows \[1\] learn their first token"):
        logprobs.shift_hidden(torch.zeros(2, 2, 3), learn)


def test_a_target_outside_its_kept_ids_is_refused(parts):
    kept = KEPT.clone()
    kept[0] = torch.tensor([2, 3, -1])
    with pytest.raises(DataError, match="1 of 7 targets"):
        logprobs.token_logprobs(parts["hidden"], parts["weight"], None, TARGETS, kept=kept)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": -1.0}, {"chunk": 0}])
def test_impossible_options_are_refused(parts, options):
    with pytest.raises(ConfigError):
        logprobs.token_logprobs(parts["hidden"], parts["weight"], None, TARGETS, **options)
