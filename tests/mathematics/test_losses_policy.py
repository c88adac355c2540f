"""Policy losses against golden values and gradients, finite differences, and plain identities."""

import pytest
import torch

from heed import masked
from heed.errors import ConfigError
from heed.losses import policy
from heed.losses.importance import importance_weights

NAN = float("nan")
LEARN = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]], dtype=torch.bool)


def spread(first: list[float], second: list[float], outside: float = NAN) -> torch.Tensor:
    """Two completions of 3 and 5 tokens behind a prompt token, padded to the right."""
    rows = torch.full((2, 6), outside, dtype=torch.float64)
    rows[LEARN] = torch.tensor(first + second, dtype=torch.float64)
    return rows


OLD = spread([-1.0, -2.0, -0.5], [-0.7, -1.5, -3.0, -0.2, -1.1])
NEW = spread([-0.6, -2.3, -0.5], [-0.9, -0.9, -3.4, -0.25, -1.0])
ADVANTAGES = spread([1.0] * 3, [-1.0] * 5)

GOLDEN = {
    "grpo": (
        {}, ("sequence", None), 0.059589,
        [0, -0.12347, -0.16667], [0.08187, 0.18221, 0, 0.09512, 0.11052],
    ),
    "token mean": (
        {}, ("token", None), 0.319554,
        [0, -0.09260, -0.125], [0.10234, 0.22776, 0, 0.11890, 0.13815],
    ),
    "dr_grpo": (
        {}, ("constant", 16.0), 0.159777,
        [0, -0.04630, -0.0625], [0.05117, 0.11388, 0, 0.05945, 0.06907],
    ),
    "dapo": (
        {"low": 0.2, "high": 0.28}, ("token", None), 0.309554,
        [0, -0.09260, -0.125], [0.10234, 0.22776, 0, 0.11890, 0.13815],
    ),
    "gspo": (
        {"level": "sequence_mean"}, ("sequence", None), -0.011922,
        [-0.17232] * 3, [0.10101] * 5,
    ),
    "gspo tight": (
        {"level": "sequence_mean", "low": 3e-4, "high": 4e-4}, ("sequence", None), 0.004825,
        [0] * 3, [0.10101] * 5,
    ),
    "sequence": (
        {"level": "sequence"}, ("sequence", None), -0.026950,
        [-0.55259] * 3, [0.52564] * 5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_surrogates_give_the_golden_values_and_gradients(name):
    options, (by, denominator), value, first, second = GOLDEN[name]
    new = NEW.clone().requires_grad_()
    terms = policy.clipped_surrogate(new, OLD, ADVANTAGES, LEARN, **options)
    loss = masked.reduce(terms.values, LEARN, by, denominator)
    loss.backward()
    assert loss.item() == pytest.approx(value, abs=1e-6)
    torch.testing.assert_close(new.grad, spread(first, second, 0.0), atol=1e-5, rtol=0)


def test_cispo_gives_the_golden_value_and_keeps_every_gradient():
    new = NEW.clone().requires_grad_()
    terms = policy.clipped_weight(new, OLD, ADVANTAGES, LEARN, 1.28)
    loss = masked.reduce(terms.values, LEARN, "token")
    loss.backward()
    assert loss.item() == pytest.approx(-0.317380, abs=1e-6)
    first, second = [-0.16, -0.09260, -0.125], [0.10234, 0.16, 0.08379, 0.11890, 0.13815]
    torch.testing.assert_close(new.grad, spread(first, second, 0.0), atol=1e-5, rtol=0)
    assert terms.clipped_high.sum() == 2


def test_ratio_and_clip_marks():
    """Four of eight ratios lie outside 0.2 (the golden fraction .5). The bound stops two of them:
    up with a positive advantage, down with a negative one. Those two have gradient zero."""
    terms = policy.clipped_surrogate(NEW, OLD, ADVANTAGES, LEARN)
    expected = spread([1.49182, 0.74082, 1], [0.81873, 1.82212, 0.67032, 0.95123, 1.10517], 1.0)
    torch.testing.assert_close(terms.ratio, expected, atol=1e-5, rtol=0)
    assert masked.mean(((terms.ratio - 1).abs() > 0.2).double(), LEARN).item() == 0.5
    assert terms.clipped_high.nonzero().tolist() == [[0, 1]]
    assert terms.clipped_low.nonzero().tolist() == [[1, 3]]


def test_approx_kl_gives_the_golden_value():
    found = policy.approx_kl(NEW, OLD, LEARN)
    assert masked.mean(found, LEARN).item() == pytest.approx(0.051406, abs=1e-6)
    assert policy.approx_kl(OLD, OLD, LEARN).eq(0).all()


@pytest.mark.parametrize("level", ["token", "sequence", "sequence_mean"])
@pytest.mark.parametrize("bounds", [(0.2, 0.28), (None, None), (0.1, None), (None, 0.1)])
def test_surrogates_pass_finite_differences(level, bounds):
    def run(logprobs):
        return policy.clipped_surrogate(
            logprobs, OLD, ADVANTAGES * 1.7, LEARN, *bounds, level=level
        ).values

    new = torch.nan_to_num(NEW).requires_grad_()
    assert torch.autograd.gradcheck(run, new)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_at_ratio_one_the_surrogate_is_the_plain_policy_gradient(level):
    """Ratio 1 and no bound: d loss / d logprob = -A, whatever one ratio belongs to.

    A sequence ratio is given to each of its n tokens, so their mean has that gradient.
    """
    new = OLD.clone().requires_grad_()
    advantages = spread([0.3] * 3, [-2.0] * 5)
    terms = policy.clipped_surrogate(new, OLD, advantages, LEARN, None, None, level)
    torch.testing.assert_close(terms.ratio, torch.ones_like(terms.ratio))
    assert not (terms.clipped_low | terms.clipped_high).any()
    per_row = masked.sum(terms.values, LEARN, dim=1)
    if level == "sequence":
        per_row = per_row / LEARN.sum(1)
    per_row.sum().backward()
    torch.testing.assert_close(new.grad, -torch.where(LEARN, advantages, 0.0))


def test_the_terminal_token_learns_and_forced_tokens_do_not():
    learn = LEARN.clone()
    learn[1, 3] = False  # a forced token in the middle of the completion
    new = OLD.clone().requires_grad_()
    terms = policy.clipped_surrogate(new, OLD, ADVANTAGES, learn)
    masked.reduce(terms.values, learn, "token").backward()
    assert new.grad[1, 3] == 0
    assert new.grad[0, 3] != 0
    assert new.grad[1, 5] != 0
    assert new.grad[~learn].eq(0).all()


def test_clipped_value_gives_the_golden_value():
    """v .9 clips to .7: (.7 - 1)^2 = .09 beats (.9 - 1)^2; v .1 is on its bound: .01.
    0.5 * mean(.09, .01) = 0.025."""
    values = torch.tensor([[0.9, 0.1]], dtype=torch.float64)
    old = torch.tensor([[0.5, 0.3]], dtype=torch.float64)
    returns = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    learn = torch.ones(1, 2, dtype=torch.bool)
    loss, clipped = policy.clipped_value(values, old, returns, learn, 0.2)
    assert masked.mean(loss, learn).item() == pytest.approx(0.025)
    assert clipped.tolist() == [[True, False]]
    plain, clipped = policy.clipped_value(values, old, returns, learn, None)
    torch.testing.assert_close(plain, torch.tensor([[0.005, 0.005]], dtype=torch.float64))
    assert not clipped.any()


@pytest.mark.parametrize("clip", [None, 0.2])
def test_clipped_value_passes_finite_differences_and_ignores_the_rest(clip):
    generator = torch.Generator().manual_seed(3)
    values, old, returns = torch.randn(3, 2, 6, dtype=torch.float64, generator=generator)
    old = torch.where(LEARN, old, NAN)
    returns = torch.where(LEARN, returns, NAN)
    values.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: policy.clipped_value(v, old, returns, LEARN, clip)[0], values
    )
    loss, clipped = policy.clipped_value(values, old, returns, LEARN, clip)
    (grad,) = torch.autograd.grad(loss.sum(), values)
    assert grad[~LEARN].eq(0).all()
    assert grad[clipped].eq(0).all()
    assert grad[LEARN & ~clipped].ne(0).all()


def test_explained_variance():
    returns = spread([1.0, 2.0, 3.0], [0.0, 1.0, 5.0, 2.0, 2.0])
    assert policy.explained_variance(returns, returns, LEARN) == 1
    constant = torch.full_like(returns, 0.7)
    assert policy.explained_variance(constant, returns, LEARN) == pytest.approx(0)
    assert policy.explained_variance(-returns, returns, LEARN) == pytest.approx(-3)
    assert policy.explained_variance(returns, constant, LEARN) is None
    assert policy.explained_variance(returns, returns, torch.zeros_like(LEARN)) is None


@pytest.mark.parametrize("options", [{"low": -0.1}, {"low": 1.1}, {"high": -0.1}, {"level": "row"}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError):
        policy.clipped_surrogate(NEW, OLD, ADVANTAGES, LEARN, **options)
    with pytest.raises(ConfigError):
        policy.clipped_value(NEW, OLD, OLD, LEARN, -0.1)
    with pytest.raises(ConfigError):
        policy.clipped_weight(NEW, OLD, OLD, LEARN, 0.0)


class TestOtherForms:
    """Dual clip, GSPO token by token, plain gradient, smooth gates, importance weights."""

    def test_dual_clip_bounds_the_loss_of_a_bad_completion(self):
        """Ye et al.: for A < 0 the loss is at most -c A, and its gradient ends there."""
        new = OLD + spread([0.0] * 3, [2.0, 0.1, 1.2, 0.0, -0.1], NAN)
        new.requires_grad_()
        plain = policy.clipped_surrogate(new, OLD, ADVANTAGES, LEARN)
        dual = policy.clipped_surrogate(new, OLD, ADVANTAGES, LEARN, most=3.0)
        assert plain.values[1].max().item() == pytest.approx(float(torch.tensor(2.0).exp()))
        expected = plain.values.clamp(max=3.0)
        torch.testing.assert_close(dual.values, expected)
        dual.values.sum().backward()
        assert new.grad[1].tolist()[1] == new.grad[1].tolist()[3] == 0.0
        assert dual.clipped_high.nonzero().tolist() == [[1, 1], [1, 3]]
        with pytest.raises(ConfigError, match="above 1 \\+ high"):
            policy.clipped_surrogate(new, OLD, ADVANTAGES, LEARN, most=1.1)

    def test_gspo_token_by_token_is_gspo_where_advantages_are_a_completions(self):
        found = {}
        for level in ("sequence_mean", "sequence_mean_token"):
            new = NEW.clone().requires_grad_()
            terms = policy.clipped_surrogate(new, OLD, ADVANTAGES, LEARN, level=level)
            loss = masked.reduce(terms.values, LEARN, "sequence")
            loss.backward()
            found[level] = loss.item(), new.grad
        one, other = found.values()
        assert one[0] == pytest.approx(other[0], abs=1e-12)
        torch.testing.assert_close(one[1], other[1])
        assert one[0] == pytest.approx(-0.011922, abs=1e-6)

    def test_gspo_token_gives_each_token_its_own_advantage(self):
        advantages = spread([1.0, 2.0, -1.0], [0.0, 1.0, 0.0, 0.0, 0.0])
        new = NEW.clone().requires_grad_()
        terms = policy.clipped_surrogate(
            new, OLD, advantages, LEARN, None, None, "sequence_mean_token"
        )
        masked.reduce(terms.values, LEARN, "sequence").backward()
        s = terms.ratio[0, 1].item()
        assert new.grad[0, 1:4].tolist() == pytest.approx([-s / 6, -2 * s / 6, s / 6])

    def test_the_plain_gradient_knows_no_ratio(self):
        new = NEW.clone().requires_grad_()
        terms = policy.plain_gradient(new, OLD, ADVANTAGES, LEARN)
        terms.values.sum().backward()
        torch.testing.assert_close(new.grad, torch.where(LEARN, -ADVANTAGES, 0.0))
        torch.testing.assert_close(terms.ratio[LEARN], (NEW - OLD)[LEARN].exp())

    @pytest.mark.parametrize("form", [policy.soft_gate, policy.gamma_weight])
    def test_at_ratio_one_a_gate_is_the_plain_gradient(self, form):
        new = OLD.clone().requires_grad_()
        form(new, OLD, ADVANTAGES, LEARN).values.sum().backward()
        torch.testing.assert_close(new.grad, torch.where(LEARN, -ADVANTAGES, 0.0))

    @pytest.mark.parametrize("level", ["token", "sequence", "sequence_mean"])
    def test_the_soft_gate_passes_finite_differences(self, level):
        def run(logprobs):
            return policy.soft_gate(logprobs, OLD, ADVANTAGES, LEARN, level).values

        assert torch.autograd.gradcheck(run, torch.nan_to_num(NEW).requires_grad_())

    def test_gamma_weights_follow_their_formula_and_stay_finite(self):
        new = NEW.clone().requires_grad_()
        policy.gamma_weight(new, OLD, ADVANTAGES, LEARN).values.sum().backward()
        w = torch.where(LEARN, NEW - OLD, 0.0).sum(1).exp()
        up = torch.exp(3 + 2 * w[0].log() - 3 * w[0])
        down = torch.exp(2 + 3 * w[1].log() - 2 * w[1])
        assert new.grad[0, 1].item() == pytest.approx(-up.item())
        assert new.grad[1, 1].item() == pytest.approx(down.item())
        for shift in (-400.0, 400.0):
            far = (NEW + shift).requires_grad_()
            policy.gamma_weight(far, OLD, ADVANTAGES, LEARN).values.sum().backward()
            assert bool(torch.isfinite(far.grad).all())

    def test_importance_weights_are_truncated_or_masked(self):
        own, sampled = NEW, OLD  # ratios 1.49 .74 1 | .82 1.82 .67 .95 1.11; 1.11 and 1.05 whole
        ratio = (own - sampled)[LEARN].exp()
        token = importance_weights(own, sampled, LEARN, "token", "truncate", 1.3)
        torch.testing.assert_close(token[LEARN], ratio.clamp(max=1.3))
        assert bool((token[~LEARN] == 1).all())
        masks = importance_weights(own, sampled, LEARN, "token", "mask", 1.3)
        inside = (ratio <= 1.3) & (ratio >= 1 / 1.3)
        torch.testing.assert_close(masks[LEARN], ratio * inside)
        assert int(inside.sum()) == 4
        whole = importance_weights(own, sampled, LEARN, "sequence", "truncate", 1.1)
        assert whole[0, 1:4].tolist() == pytest.approx([1.1] * 3)
        assert whole[1, 1:].tolist() == pytest.approx([1.051271] * 5, abs=1e-6)
        gone = importance_weights(own, sampled, LEARN, "sequence", "mask", 1.1)
        assert gone[0, 1:4].tolist() == [0.0] * 3
        for bad in ({"cap": 1.0}, {"how": "both"}, {"level": "row"}):
            options = {"level": "token", "how": "mask", "cap": 2.0} | bad
            with pytest.raises(ConfigError, match="expected"):
                importance_weights(own, sampled, LEARN, **options)

    def test_truncation_trades_bias_for_variance_as_it_should(self):
        """Three arms, sampler q, learner p: E_q[w r] is E_p[r] with the whole weight; truncated
        it is sum q min(p / q, cap) r exactly, and its variance is smaller."""
        p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
        q = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)
        r = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)
        learn = torch.tensor([[False, True]]).expand(3, 2)

        def row(values):
            return torch.stack([torch.zeros(3, dtype=torch.float64), values.log()], 1)

        def moments(cap):
            w = importance_weights(row(p), row(q), learn, "token", "truncate", cap)[:, 1]
            mean = (q * w * r).sum()
            return mean.item(), ((q * (w * r) ** 2).sum() - mean**2).item()

        whole, cut = moments(100.0), moments(2.0)
        assert whole[0] == pytest.approx((p * r).sum().item())
        assert cut[0] == pytest.approx((q * (p / q).clamp(max=2.0) * r).sum().item())
        assert cut[1] < whole[1]
