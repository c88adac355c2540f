from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heed.data.batch import PairBatch, Row, TokenBatch, collate
from heed.errors import LearnerError
from heed.learners.base import LossTerms, Outputs
from heed.learners.local import LocalLearner
from heed.models.heads import PolicyHead, RewardHead, ValueHead
from heed.settings import LearnerSettings, OptimSettings

from .conftest import (
    VOCABULARY,
    causal,
    gradient,
    largest_difference,
    make_batch,
    make_pairs,
    make_rows,
    pair_loss,
    token_loss,
)

OPTIM = OptimSettings(lr=1e-2, schedule="constant", max_grad_norm=0.0)


def learner(head: torch.nn.Module, **how: object) -> LocalLearner:
    given_settings = {"precision": "fp32", "device": "cpu", **how}
    return LocalLearner(head, OPTIM, 10, LearnerSettings(**given_settings))  # type: ignore[arg-type]


def plain_gradient(head: torch.nn.Module, batch: TokenBatch, denominator: float) -> dict:
    """The gradient by definition: one row at a time, without padding."""
    head.zero_grad()
    for i in range(len(batch)):
        row = batch.select([i])
        found = head.outputs(row)
        terms = token_loss(Outputs(logprobs=found["logprobs"]), row)
        (terms.values.sum() / denominator).backward()
    return gradient(head)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num=st.integers(1, 9),
    budget=st.sampled_from([1, 20, 45, 10**6]),
    side=st.sampled_from(["right", "left"]),
    layout=st.sampled_from(["padded", "packed"]),
)
def test_splitting_padding_and_packing_change_no_loss_and_no_gradient(
    seed: int, num: int, budget: int, side: str, layout: str
) -> None:
    head = PolicyHead(causal().double())
    expected = plain_gradient(head, make_batch(num, seed), 13.0)
    head.zero_grad()
    batch = make_batch(num, seed, side=side, pad_id=5)
    metrics = learner(head, micro_batch_tokens=budget, layout=layout).backward(
        batch, token_loss, 13.0
    )
    assert largest_difference(expected, gradient(head)) < 1e-10
    for i in range(num):
        row = batch.select([i])
        alone = (
            token_loss(Outputs(logprobs=head.outputs(row)["logprobs"]), row).values.sum().detach()
        )
        assert float(metrics["loss"][i]) == pytest.approx(float(alone), rel=1e-10)


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_in_fp32_the_gradient_is_that_of_single_rows_to_rounding(
    layout: str, checkpointing: bool
) -> None:
    batch = make_batch(9, 3)
    expected = plain_gradient(PolicyHead(causal()), batch, 20.0)
    head = PolicyHead(causal())
    trained = learner(
        head, micro_batch_tokens=40, layout=layout, gradient_checkpointing=checkpointing
    )
    trained.backward(batch, token_loss, 20.0)
    assert largest_difference(expected, gradient(head)) < 1e-5
    assert not head.training


def test_checkpointing_really_recomputes() -> None:
    calls = []
    head = PolicyHead(causal())
    block = head.causal.model.layers[0].mlp
    block.register_forward_pre_hook(lambda *_: calls.append(1))
    trained = learner(head, gradient_checkpointing=True)
    calls.clear()
    trained.backward(make_batch(3), token_loss, 1.0)
    assert len(calls) == 2
    calls.clear()
    trained.forward(make_batch(3))
    assert len(calls) == 1


@pytest.mark.parametrize("budget", [1, 60, 10**6])
@pytest.mark.parametrize("side", ["right", "left"])
def test_pairs_stay_together_and_splitting_them_changes_nothing(budget: int, side: str) -> None:
    head = RewardHead(causal().double().base_model)
    plain = make_pairs(6, 4)
    total = torch.zeros((), dtype=torch.float64)
    gaps = []
    for i in range(6):
        row = plain.select([i])
        found = [Outputs(scores=head.outputs(s)["scores"]) for s in (row.chosen, row.rejected)]
        terms = pair_loss(*found, row)
        gaps.append(float(terms.metrics["gap"]))
        total = total + terms.values.sum()
    (total / 6).backward()
    expected = gradient(head)
    head.zero_grad()
    seen = []

    def watched(chosen: Outputs, rejected: Outputs, pairs: PairBatch) -> LossTerms:
        assert [r[1:] for r in pairs.chosen.rows] == [r[1:] for r in pairs.rejected.rows]
        seen.append(len(pairs))
        return pair_loss(chosen, rejected, pairs)

    metrics = learner(head, micro_batch_tokens=budget).backward(
        make_pairs(6, 4, side), watched, 6.0
    )
    assert largest_difference(expected, gradient(head)) < 1e-10
    assert metrics["gap"].tolist() == pytest.approx(gaps, rel=1e-6)
    assert sum(seen) == 6
    assert len(seen) == {1: 6, 10**6: 1}.get(budget, len(seen))


def test_pairs_of_log_probabilities_come_back_in_each_sides_width() -> None:
    pairs = make_pairs(4, 8)
    head = PolicyHead(causal())

    def loss(chosen: Outputs, rejected: Outputs, part: PairBatch) -> LossTerms:
        assert chosen.logprobs is not None
        assert rejected.logprobs is not None
        assert chosen.logprobs.shape == part.chosen.tokens.shape
        assert rejected.logprobs.shape == part.rejected.tokens.shape
        sums = chosen.logprobs.sum(1) - rejected.logprobs.sum(1)
        return LossTerms(-sums, {"chosen": chosen.logprobs.detach().sum(1)})

    trained = learner(head, micro_batch_tokens=60)
    metrics = trained.backward(pairs, loss, 4.0)
    ours = trained.forward(pairs.chosen).logprobs
    theirs = trained.forward(pairs.rejected).logprobs
    assert ours is not None
    assert theirs is not None
    torch.testing.assert_close(metrics["chosen"], ours.sum(1))
    torch.testing.assert_close(metrics["loss"], theirs.sum(1) - ours.sum(1))


@pytest.mark.parametrize("side", ["right", "left"])
def test_metrics_come_back_in_the_batchs_order_and_layout(side: str) -> None:
    batch = make_batch(8, 1, side=side)
    trained = learner(PolicyHead(causal()), micro_batch_tokens=30)
    whole = trained.forward(batch, entropy=True)
    assert whole.logprobs is not None
    assert whole.entropy is not None
    assert whole.logprobs.shape == whole.entropy.shape == batch.tokens.shape
    assert bool((whole.logprobs[batch.learn] < 0).all())
    assert bool((whole.logprobs[~batch.learn] == 0).all())
    metrics = trained.backward(batch, token_loss, 1.0)
    torch.testing.assert_close(metrics["seen"], whole.logprobs)
    assert metrics["first"].shape == metrics["loss"].shape == (8,)
    assert not metrics["seen"].requires_grad


def count_rows(head: torch.nn.Module) -> list[int]:
    """Rows of each forward pass through the head, from now on."""
    seen: list[int] = []
    inner = head.outputs

    def counted(batch: TokenBatch, **how: object) -> dict:
        seen.append(len(batch))
        return inner(batch, **how)

    head.outputs = counted  # type: ignore[method-assign]
    return seen


def test_rows_without_a_learned_token_skip_the_forward_pass() -> None:
    rows = make_rows(4)
    idle = Row("idle", [3, 4, 5], [False, False, False])
    batch = collate([rows[0], idle, *rows[1:], idle])
    trained = learner(PolicyHead(causal()))
    trained.forward(batch)
    seen = count_rows(trained.head)
    out = trained.forward(batch)
    metrics = trained.backward(
        batch, lambda o, b: LossTerms(-o.logprobs * b.learn), batch.num_learned
    )
    assert seen == [4, 4]
    assert out.logprobs is not None
    assert float(out.logprobs[1].abs().sum()) == 0
    assert float(metrics["loss"][1]) == float(metrics["loss"][5]) == 0
    assert float(metrics["loss"][2]) > 0


def test_rows_that_are_scored_whole_are_never_skipped() -> None:
    rows = [Row("a", [3, 4, 5], [False] * 3), Row("b", [3, 7], [False, True])]
    head = RewardHead(causal().base_model)
    scores = learner(head).forward(collate(rows)).scores
    alone = head.outputs(collate(rows[:1]))["scores"]
    assert scores is not None
    assert float(scores[0]) == pytest.approx(float(alone[0].detach()))
    assert float(scores[0]) != 0


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_micro_batches_hold_no_more_than_their_budget(layout: str) -> None:
    batch = make_batch(20, 5)
    trained = learner(PolicyHead(causal()), micro_batch_tokens=32, layout=layout)
    sizes = []

    def loss(outputs: Outputs, part: TokenBatch) -> LossTerms:
        sizes.append(part.tokens.numel() if layout == "padded" else int(part.attend.sum()))
        return token_loss(outputs, part)

    trained.backward(batch, loss, 1.0)
    assert max(sizes) <= 32
    assert len(sizes) < 20


def test_outputs_of_forward_can_enter_a_loss() -> None:
    batch = make_batch(4)
    policy, value = learner(PolicyHead(causal())), learner(ValueHead(causal(1).base_model))
    reference = policy.forward(batch).logprobs
    old = value.forward(batch).values
    assert reference is not None
    assert old is not None
    streamed = batch.with_streams(reference_logprobs=reference, old_values=old)

    def loss(outputs: Outputs, part: TokenBatch) -> LossTerms:
        assert outputs.logprobs is not None
        difference = outputs.logprobs - part.stream("reference_logprobs")
        return LossTerms(difference.square() * part.stream("old_values").exp() * part.learn)

    metrics = policy.backward(streamed, loss, batch.num_learned)
    assert float(metrics["loss"].abs().max()) < 1e-10


@pytest.mark.parametrize("kind", ["tokens", "pairs"])
def test_a_loss_that_is_not_finite_saves_the_batch_and_names_the_rows(
    tmp_path: Path, kind: str
) -> None:
    head = PolicyHead(causal()) if kind == "tokens" else RewardHead(causal().base_model)
    given_settings = LearnerSettings(precision="fp32", device="cpu", micro_batch_tokens=30)
    trained = LocalLearner(head, OPTIM, 10, given_settings, bad_batch=tmp_path / "bad")
    before = {name: w.clone() for name, w in trained.weights().items()}

    def broken(*arguments: object) -> LossTerms:
        part = arguments[-1]
        loss = token_loss if isinstance(part, TokenBatch) else pair_loss
        terms = loss(*arguments)  # type: ignore[arg-type]
        names = part.rows if isinstance(part, TokenBatch) else part.chosen.rows  # type: ignore
        spoiled = torch.tensor([name.endswith("3") for name in names])
        shape = (-1,) + (1,) * (terms.values.ndim - 1)
        return LossTerms(terms.values.masked_fill(spoiled.view(shape), float("nan")))

    batch = make_batch(5) if kind == "tokens" else make_pairs(5)
    with pytest.raises(LearnerError, match=r"loss is nan at step 0 .*3'\].*bad-batch-step") as told:
        trained.backward(batch, broken, 1.0)
    file = next((tmp_path / "bad").iterdir())
    assert str(file) in str(told.value)
    saved = torch.load(file, weights_only=True)
    part = saved["batches"][0]
    names = part["rows"] if kind == "tokens" else part["chosen"]["rows"]
    assert any(name.endswith("3") for name in names)
    assert torch.isnan(saved["row_losses"]).sum() == 1
    assert saved["outputs"]
    if kind == "tokens":
        assert part["streams"]["advantages"].shape == part["tokens"].shape
    assert all(p.grad is None for p in head.parameters())
    assert all(torch.equal(before[n], w) for n, w in trained.weights().items())


def test_a_gradient_that_is_not_finite_is_refused_before_it_reaches_the_weights(
    tmp_path: Path,
) -> None:
    head = PolicyHead(causal())
    trained = LocalLearner(head, OPTIM, 10, LearnerSettings(device="cpu"), bad_batch=tmp_path)
    before = {name: w.clone() for name, w in trained.weights().items()}
    trained.backward(make_batch(3), token_loss, 1.0)
    weight = trained._weights["causal.model.norm.weight"]
    assert weight.grad is not None
    weight.grad[2] = float("inf")
    with pytest.raises(LearnerError, match=r"norm inf.*causal\.model\.norm\.weight"):
        trained.step()
    assert all(torch.equal(before[n], w) for n, w in trained.weights().items())
    saved = torch.load(next(tmp_path.iterdir()), weights_only=True)
    assert saved["batches"][0]["rows"] == ["r0", "r1", "r2"]
    trained.backward(make_batch(3), token_loss, 1.0)
    assert trained.step() > 0


def test_what_cannot_be_learned_from_is_an_error_that_says_why() -> None:
    trained = learner(PolicyHead(causal()))
    batch = make_batch(3)
    with pytest.raises(LearnerError, match="without a backward"):
        trained.step()
    with pytest.raises(LearnerError, match="denominator is 0"):
        trained.backward(batch, token_loss, 0)
    with pytest.raises(LearnerError, match="does not depend"):
        trained.backward(batch, lambda o, b: LossTerms(o.logprobs.detach()), 1.0)
    with pytest.raises(LearnerError, match="unreduced"):
        trained.backward(batch, lambda o, b: LossTerms(o.logprobs.sum()[None]), 1.0)
    with pytest.raises(LearnerError, match="metric 'm'"):
        trained.backward(batch, lambda o, b: LossTerms(o.logprobs, {"m": torch.ones(7)}), 1.0)
    frozen = LocalLearner.frozen(PolicyHead(causal()))
    with pytest.raises(LearnerError, match="frozen"):
        frozen.backward(batch, token_loss, 1.0)
    assert frozen.forward(batch).logprobs is not None


def test_gradients_of_several_backward_passes_add_up(policy_head: Callable) -> None:
    one, two = make_batch(3, 0), make_batch(4, 1)
    head = policy_head()
    trained = learner(head)
    trained.backward(one, token_loss, 2.0)
    first = gradient(head)
    head.zero_grad()
    trained.backward(two, token_loss, 3.0)
    second = gradient(head)
    trained.backward(one, token_loss, 2.0)
    total = {name: first[name] + second[name] for name in first}
    assert largest_difference(total, gradient(head)) < 1e-6


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_whole_distributions_come_in_the_batchs_order(layout: str) -> None:
    batch = make_batch(7, 2)
    trained = learner(PolicyHead(causal()), micro_batch_tokens=30, layout=layout)
    found = trained.log_distribution(batch)
    logprobs = trained.forward(batch, entropy=True)
    assert found.shape == (batch.num_learned, VOCABULARY)
    assert logprobs.logprobs is not None
    assert logprobs.entropy is not None
    chosen = found.gather(1, batch.tokens[batch.learn][:, None]).squeeze(1)
    torch.testing.assert_close(chosen, logprobs.logprobs[batch.learn])
    torch.testing.assert_close(-(found.exp() * found).sum(1), logprobs.entropy[batch.learn])
