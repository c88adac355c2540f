"""The learner protocol; every implementation passes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from heed.data.batch import PairBatch, Row, TokenBatch, collate
from heed.errors import LearnerError
from heed.learners.base import Learner, LossTerms, Outputs
from heed.learners.local import LocalLearner
from heed.models.fresh import make_model
from heed.models.heads import PolicyHead
from heed.settings import LearnerSettings, OptimSettings

Make = Callable[[int], Learner]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors here are so small that a second thread only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _local(**how: object) -> Make:
    def make(seed: int) -> Learner:
        causal = make_model(
            "llama", vocab_size=50, hidden_size=16, num_layers=2, num_heads=2, seed=seed
        )
        optim = OptimSettings(lr=1e-2, schedule="constant")
        settings = LearnerSettings(**{"device": "cpu", "precision": "fp32", **how})  # type: ignore[arg-type]
        return LocalLearner(PolicyHead(causal), optim, 100, settings)

    return make


IMPLEMENTATIONS: dict[str, Make] = {
    "local": _local(),
    "local in small micro-batches": _local(micro_batch_tokens=16),
    "local packed": _local(layout="packed"),
    "local bf16": _local(precision="bf16"),
    "local recomputing": _local(gradient_checkpointing=True),
}


@pytest.fixture(params=IMPLEMENTATIONS)
def make(request: pytest.FixtureRequest) -> Make:
    return IMPLEMENTATIONS[request.param]


def batch(num: int = 6, seed: int = 0) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(num):
        length = int(torch.randint(3, 12, (), generator=generator))
        tokens = torch.randint(1, 50, (length,), generator=generator).tolist()
        rows.append(Row(f"r{i}", tokens, [False] * 2 + [True] * (length - 2)))
    return collate(rows)


def likelihood(outputs: Outputs, part: TokenBatch) -> LossTerms:
    assert outputs.logprobs is not None
    return LossTerms(-outputs.logprobs * part.learn, {"logprobs": outputs.logprobs.detach()})


def preference(chosen: Outputs, rejected: Outputs, pairs: PairBatch) -> LossTerms:
    assert chosen.logprobs is not None
    assert rejected.logprobs is not None
    gap = chosen.logprobs.sum(1) - rejected.logprobs.sum(1)
    return LossTerms(-torch.nn.functional.logsigmoid(gap), {"gap": gap.detach()})


def test_forward_is_fp32_in_the_batchs_layout_and_without_a_graph(make: Make) -> None:
    learner, given = make(0), batch()
    outputs = learner.forward(given, entropy=True)
    for values in (outputs.logprobs, outputs.entropy):
        assert values is not None
        assert values.dtype == torch.float32
        assert values.shape == given.tokens.shape
        assert not values.requires_grad
        assert bool((values[~given.learn] == 0).all())
        assert bool((values[given.learn] != 0).all())
    assert outputs.scores is None
    assert learner.forward(given).entropy is None


def test_forward_of_a_row_does_not_depend_on_its_batch(make: Make) -> None:
    learner, given = make(0), batch()
    whole = learner.forward(given).logprobs
    assert whole is not None
    for i in range(len(given)):
        row = given.select([i])
        alone = learner.forward(row).logprobs
        assert alone is not None
        tolerance = 2e-2 if getattr(learner, "dtype", None) == torch.bfloat16 else 1e-5
        torch.testing.assert_close(
            whole[i, : alone.shape[1]], alone[0], atol=tolerance, rtol=tolerance
        )


def test_backward_returns_every_metric_for_the_whole_batch(make: Make) -> None:
    learner, given = make(0), batch()
    expected = learner.forward(given).logprobs
    metrics = learner.backward(given, likelihood, given.num_learned)
    assert expected is not None
    assert metrics["logprobs"].shape == given.tokens.shape
    assert metrics["loss"].shape == (len(given),)
    torch.testing.assert_close(metrics["logprobs"], expected)
    torch.testing.assert_close(metrics["loss"], -expected.sum(1))


def test_backward_takes_pairs(make: Make) -> None:
    learner = make(0)
    pairs = PairBatch(batch(5, 1), batch(5, 2), torch.ones(5))
    first = learner.backward(pairs, preference, 5.0)["gap"]
    learner.step()
    second = learner.backward(pairs, preference, 5.0)["gap"]
    assert first.shape == (5,)
    assert float(second.mean()) > float(first.mean())


def test_steps_lower_the_loss_and_return_the_gradients_norm(make: Make) -> None:
    learner, given = make(0), batch()
    losses, norms = [], []
    for _ in range(25):
        metrics = learner.backward(given, likelihood, given.num_learned)
        losses.append(float(metrics["loss"].sum()) / given.num_learned)
        norms.append(learner.step())
    assert losses[-1] < 0.7 * losses[0]
    assert all(norm > 0 for norm in norms)


def test_the_denominator_divides_the_gradient(make: Make) -> None:
    one, other = make(0), make(0)
    one.backward(batch(), likelihood, 10.0)
    other.backward(batch(), likelihood, 40.0)
    assert one.step() == pytest.approx(4 * other.step(), rel=1e-5)


def test_a_step_clears_the_gradient(make: Make) -> None:
    learner, given = make(0), batch()
    learner.backward(given, likelihood, 10.0)
    first = learner.step()
    learner.backward(given, likelihood, 10.0)
    assert 0 < learner.step() < 1.5 * first
    with pytest.raises(LearnerError):
        learner.step()


def test_save_and_load_go_on_to_the_bit(make: Make, tmp_path: Path) -> None:
    def steps(learner: Learner, first: int, last: int) -> list[float]:
        norms = []
        for seed in range(first, last):
            learner.backward(batch(4, seed), likelihood, 9.0)
            norms.append(learner.step())
        return norms

    whole, begun, resumed = make(0), make(0), make(1)
    norms = steps(whole, 0, 6)
    steps(begun, 0, 3)
    begun.save(tmp_path / "learner")
    resumed.load(tmp_path / "learner")
    assert steps(resumed, 3, 6) == norms[3:]
    for name, weight in whole.weights().items():
        assert torch.equal(weight, resumed.weights()[name]), name


def test_a_loss_that_is_not_finite_leaves_the_weights_alone(make: Make) -> None:
    learner, given = make(0), batch()
    before = {name: w.clone() for name, w in learner.weights().items()}
    with pytest.raises(LearnerError, match="is nan"):
        learner.backward(given, lambda o, b: LossTerms(likelihood(o, b).values * float("nan")), 1.0)
    for name, weight in learner.weights().items():
        assert torch.equal(before[name], weight)
    learner.backward(given, likelihood, 1.0)
    assert learner.step() > 0


def test_what_is_asked_for_also_is_there_and_true(make: Make) -> None:
    """Against whole distributions; the collision is that of the distribution, not of the token."""
    learner, given = make(0), batch()
    asked = learner.forward(given, also=("log_collision",))
    whole = learner.log_distribution(given).double()
    assert asked.log_collision is not None
    assert asked.logprobs is not None
    rounded = getattr(learner, "dtype", None) == torch.bfloat16
    near = {"atol": 5e-2 if rounded else 1e-5, "rtol": 0.0}
    expected = (2 * whole).logsumexp(1)
    torch.testing.assert_close(asked.log_collision[given.learn].double(), expected, **near)
    assert bool((asked.log_collision[~given.learn] == 0).all())
    assert learner.forward(given).log_collision is None


def test_distributions_in_a_loss_of_pairs_belong_to_their_side(make: Make) -> None:
    """A loss made of them alone has the gradient of the one made of log-probabilities."""
    pairs = PairBatch(batch(5, 1), batch(5, 2), torch.ones(5))

    def summed(outputs: Outputs, part: TokenBatch, whole: bool) -> torch.Tensor:
        assert outputs.logprobs is not None
        if not whole:
            return outputs.logprobs.sum(1)
        assert outputs.log_distribution is not None
        picked = outputs.log_distribution.gather(1, part.tokens[part.learn][:, None])[:, 0]
        return torch.zeros_like(outputs.logprobs).masked_scatter(part.learn, picked).sum(1)

    def loss(whole: bool) -> Callable[..., LossTerms]:
        def found(chosen: Outputs, rejected: Outputs, part: PairBatch) -> LossTerms:
            gap = summed(chosen, part.chosen, whole) - 2 * summed(rejected, part.rejected, whole)
            return LossTerms(gap.square(), {"gap": gap.detach()})

        return found

    plain, other = make(0), make(0)
    first = plain.backward(pairs, loss(False), 5.0)["gap"]
    second = other.backward(pairs, loss(True), 5.0, also=("log_distribution",))["gap"]
    near = 2e-2 if getattr(plain, "dtype", None) == torch.bfloat16 else 1e-4
    torch.testing.assert_close(first, second, atol=near, rtol=near)
    assert plain.step() == pytest.approx(other.step(), rel=near)
