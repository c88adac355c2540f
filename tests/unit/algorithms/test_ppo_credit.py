"""From a score to advantages: where the score and the KL stand, and in which order things happen.

Numbers in names are those of "The N Implementation Details of RLHF with PPO" (G, R, P) and of "The
N+ Implementation Details" (N+).
"""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from tests.unit.algorithms.handmade import (
    FINISHES,
    LENGTHS,
    PROMPTS,
    ToldLearner,
    config,
    experience,
    noise,
    parts,
)

from heed import credit, masked
from heed.algorithms import updates
from heed.algorithms.advantages import credited, shaped_scores
from heed.algorithms.updates import minibatches
from heed.learners.base import Outputs

SIDES = pytest.mark.parametrize("side", ["right", "left"])


def _last(side: str) -> list[int]:
    width = max(a + b for a, b in zip(PROMPTS, LENGTHS, strict=True))
    ends = [a + b - 1 for a, b in zip(PROMPTS, LENGTHS, strict=True)]
    return ends if side == "right" else [width - 1] * len(ends)


@SIDES
def test_r1_the_score_stands_on_the_last_real_token_alone(side: str) -> None:
    seen = experience(side=side)
    reference = seen.batch.stream("behaviour_logprobs").clone()
    _, _, rewards = credited(config(), parts(reference, noise(seen.batch, 1)), seen, 0.1)
    expected = torch.zeros_like(rewards)
    for row, at in enumerate(_last(side)):
        expected[row, at] = seen.scores[row]
    assert torch.equal(rewards, expected)


@SIDES
def test_p8_the_kl_is_taken_on_every_completion_token_and_nowhere_else(side: str) -> None:
    seen = experience(scores=(0.0,) * 4, side=side)
    reference = noise(seen.batch, 2)  # also on prompt and padding, where it must not count
    _, _, rewards = credited(config(), parts(reference, noise(seen.batch, 1)), seen, 0.1)
    behaviour = seen.batch.stream("behaviour_logprobs")
    for row, learn in enumerate(seen.batch.learn):
        assert int(learn.sum()) == LENGTHS[row]
        torch.testing.assert_close(
            rewards[row][learn], -0.1 * (behaviour - reference)[row][learn], rtol=0, atol=0
        )
        assert bool((rewards[row][~learn] == 0).all())


def test_the_side_of_the_padding_changes_no_credit() -> None:
    out = {}
    for side in ("right", "left"):
        seen = experience(side=side)
        learn = seen.batch.learn
        given = torch.zeros(seen.batch.tokens.shape)
        given[learn] = torch.linspace(-1, 1, int(learn.sum()))
        batch, _, _ = credited(config(whiten_rewards=True), parts(given, given), seen, 0.1)
        out[side] = batch.stream("advantages")[learn], batch.stream("returns")[learn]
    assert torch.equal(out["right"][0], out["left"][0])
    assert torch.equal(out["right"][1], out["left"][1])


def test_n23_every_completion_without_an_end_scores_exactly_minus_one() -> None:
    seen = experience()
    shaped = shaped_scores(config(missing_eos_score=-1.0), seen)
    for value, before, finish in zip(shaped, seen.scores, FINISHES, strict=True):
        assert float(value) == (float(before) if finish == "stop" else -1.0)


def test_a_missing_end_may_cost_a_penalty_instead() -> None:
    seen = experience()
    shaped = shaped_scores(config(missing_eos_penalty=0.75), seen)
    assert shaped.tolist() == [2.0, 0.25, -0.5, 2.25]
    assert shaped_scores(config(), seen).tolist() == seen.scores.tolist()
    assert shaped_scores(config(missing_eos_score=0.0), seen).tolist() == [2.0, 0.0, -0.5, 0.0]


def test_the_order_is_missing_end_then_kl_then_whitening_then_gae() -> None:
    """Each step written out once more, in the order of lm-human-preferences."""
    seen = experience()
    settings = config(missing_eos_score=-1.0, whiten_rewards=True, gamma=0.9, lam=0.8)
    learn, behaviour = seen.batch.learn, seen.batch.stream("behaviour_logprobs")
    reference, values = noise(seen.batch, 3), noise(seen.batch, 4)
    batch, scores, rewards = credited(settings, parts(reference, values), seen, 0.1)

    expected = torch.where(learn, -0.1 * (behaviour - reference), torch.zeros_like(reference))
    for row, at in enumerate(_last("right")):
        expected[row, at] += -1.0 if FINISHES[row] == "length" else seen.scores[row]
    torch.testing.assert_close(rewards, expected)
    assert scores.tolist() == [2.0, -1.0, -0.5, -1.0]
    chosen = expected[learn]
    scaled = expected.clone()
    scaled[learn] = (chosen - chosen.mean()) / (chosen.var(unbiased=False) + 1e-8).sqrt()
    scaled[learn] += chosen.mean()
    advantages, returns = credit.gae(scaled, values, learn, 0.9, 0.8)
    torch.testing.assert_close(batch.stream("returns"), returns)
    chosen = advantages[learn]
    whitened = (chosen - chosen.mean()) / (chosen.var(unbiased=False) + 1e-8).sqrt()
    torch.testing.assert_close(batch.stream("advantages")[learn], whitened)
    torch.testing.assert_close(batch.stream("old_values"), values)


def test_p9_rewards_keep_their_mean_and_advantages_lose_it() -> None:
    seen = experience()
    learn = seen.batch.learn
    reference, values = noise(seen.batch, 3), noise(seen.batch, 4)
    streams = {}
    for whiten in (False, True):
        settings = config(whiten_rewards=whiten, lam=1.0, whiten_advantages="none")
        batch, _, rewards = credited(settings, parts(reference, values), seen, 0.1)
        # With lambda and gamma 1 the return of a row's first token is the sum of its rewards.
        first = learn.float().argmax(1)
        streams[whiten] = batch.stream("returns").gather(1, first[:, None]).sum(), rewards
    assert torch.equal(streams[False][1], streams[True][1])  # reported before whitening
    mean = streams[False][0] / learn.sum()
    torch.testing.assert_close(streams[True][0] / learn.sum(), mean)
    batch, _, _ = credited(config(), parts(reference, values), seen, 0.1)
    advantages = batch.stream("advantages")
    assert abs(float(masked.mean(advantages, learn))) < 1e-6
    assert float(masked.std(advantages, learn)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_estimator_of_the_penalty_is_the_one_that_is_set(estimator: str) -> None:
    seen = experience(scores=(0.0,) * 4)
    reference = noise(seen.batch, 3)
    gap = (seen.batch.stream("behaviour_logprobs") - reference)[seen.batch.learn]
    per_token = {"k1": gap, "k2": gap**2 / 2, "k3": (-gap).exp() - 1 + gap}[estimator]
    settings = config(kl_estimator=estimator)
    _, _, rewards = credited(settings, parts(reference, noise(seen.batch, 1)), seen, 0.1)
    torch.testing.assert_close(rewards[seen.batch.learn], -0.1 * per_token)


@pytest.mark.parametrize(("where", "spread"), [("minibatch", True), ("batch", False)])
def test_p9_advantages_are_whitened_where_it_is_set(where: str, spread: bool) -> None:
    seen = experience()
    settings = config(whiten_advantages=where, num_mini_batches=2, num_ppo_epochs=1)
    policy = ToldLearner()
    made = parts(noise(seen.batch, 3), noise(seen.batch, 4), policy=policy)
    batch, _, _ = credited(settings, made, seen, 0.1)
    updates.learn(settings, made, batch, 1, 0.1)
    means = [float(masked.mean(b.stream("advantages"), b.learn)) for b in policy.seen]
    assert all(abs(mean) < 1e-6 for mean in means) == spread


@pytest.mark.parametrize(("rows", "parts_"), [(8, 2), (9, 4), (10, 4), (7, 7), (5, 1)])
def test_p7_every_epoch_visits_every_row_once_in_an_order_of_its_own(
    rows: int, parts_: int
) -> None:
    settings = config(batch_size=rows, num_mini_batches=parts_, num_ppo_epochs=3)
    found = minibatches(settings, rows, update=5)
    assert len(found) == 3 * parts_ == settings.steps_per_update
    sizes = [len(batch) for batch in found]
    assert max(sizes) - min(sizes) <= 1
    epochs = [list(chain(*found[e * parts_ : (e + 1) * parts_])) for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(rows))
    assert epochs[0] != epochs[1] or rows == 1
    assert found == minibatches(settings, rows, update=5)
    assert found != minibatches(settings, rows, update=6)


def test_p7_each_minibatch_is_a_step_of_policy_and_value() -> None:
    seen = experience()
    settings = config(num_mini_batches=2, num_ppo_epochs=3)
    policy, value = ToldLearner(), ToldLearner(values=noise(seen.batch, 4))
    made = parts(noise(seen.batch, 3), noise(seen.batch, 4), policy=policy, value=value)
    batch, _, _ = credited(settings, made, seen, 0.1)
    updates.learn(settings, made, batch, 1, 0.1)
    for learner in (policy, value):
        assert learner.steps == 6
        visits = sorted(row for part in learner.seen for row in part.rows)
        assert visits == sorted([f"row {i}" for i in range(4)] * 3)


def test_p10_a_value_that_moved_too_far_has_no_gradient() -> None:
    seen = experience()
    batch, _, _ = credited(config(), parts(noise(seen.batch, 3), noise(seen.batch, 4)), seen, 0.1)
    loss = updates.value_loss(config(cliprange_value=0.2, vf_coef=0.1).method)
    old, returns = batch.stream("old_values"), batch.stream("returns")
    # Past the bound on the way to the return: the clipped term is the larger, and is constant.
    moved = (old + 0.3 * (returns - old).sign()).requires_grad_()
    far = (returns - old).abs() > 0.3
    terms = loss(Outputs(values=moved), batch)
    terms.values.sum().backward()
    assert moved.grad is not None
    assert bool((moved.grad[batch.learn & far] == 0).all())
    assert int((batch.learn & far).sum()) > 3
    # At the old value the gradient is that of the squared error, times vf_coef.
    still = old.clone().requires_grad_()
    loss(Outputs(values=still), batch).values.sum().backward()
    torch.testing.assert_close(still.grad, torch.where(batch.learn, 0.1 * (old - returns), 0.0))


def test_the_defaults_are_those_of_the_n_plus_paper() -> None:
    """Table 7: everything but the batch, which is a matter of means."""
    settings = config()
    assert (settings.gamma, settings.lam) == (1.0, 0.95)  # P6
    assert (settings.cliprange, settings.cliprange_value, settings.vf_coef) == (0.2, 0.2, 0.1)
    assert (settings.num_ppo_epochs, settings.num_mini_batches) == (4, 1)
    assert (settings.optim.lr, settings.optim.eps) == (3e-6, 1e-5)
    assert settings.optim.schedule == "linear"
    assert settings.kl_estimator == "k1"
    assert not settings.whiten_rewards
    assert (settings.sampling.temperature, settings.sampling.top_p, settings.sampling.top_k) == (
        1.0,
        1.0,
        0,
    )
