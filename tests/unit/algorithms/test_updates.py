"""Every loss, through the real learner: what must not matter changes neither loss nor gradient."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.unit.learners.conftest import causal, gradient, largest_difference, make_rows

from heed.algorithms.method import Method
from heed.algorithms.online_config import OnlineConfig
from heed.algorithms.updates import denominator, policy_loss
from heed.data.batch import Row, TokenBatch, collate
from heed.learners.base import Outputs
from heed.learners.local import LocalLearner
from heed.models.heads import PolicyHead
from heed.settings import LearnerSettings, OptimSettings

LONGEST = 16
FORMS: dict[str, dict[str, Any]] = {
    "ppo": {},
    "grpo": {"average": "sequence", "kl_place": "loss", "kl_estimator": "k3", "beta": 0.5},
    "dr_grpo": {"average": "constant"},
    "reinforce": {"loss_type": "plain", "average": "sum"},
    "rloo": {"ratio": "sequence", "average": "sequence"},
    "gspo": {"ratio": "sequence_mean", "average": "sequence"},
    "gspo-token": {"ratio": "sequence_mean_token", "average": "sequence"},
    "luspo": {"ratio": "sequence_mean", "average": "sum"},
    "cispo": {"loss_type": "weight"},
    "sapo": {"loss_type": "sapo", "average": "sequence"},
    "vespo": {"loss_type": "vespo"},
    "dual_clip": {"delta": 1.5},
    "weighted": {"importance_sampling": "token_truncate"},
}


def _batch(rows: list[Row], order: list[int] | None = None, extra: int = 0) -> TokenBatch:
    """Rows with streams of their own, whatever they stand beside."""
    if extra:
        rows = [*rows, Row("wide", tuple(range(1, extra + 1)), (False,) * extra)]
    batch = collate(rows)
    streams = {
        name: torch.zeros(batch.tokens.shape)
        for name in ("behaviour_logprobs", "reference_logprobs", "advantages", "weights")
    }
    for place, row in enumerate(rows):
        generator = torch.Generator().manual_seed(sum(map(ord, row.id)))
        n = len(row.tokens)
        streams["behaviour_logprobs"][place, :n] = -4 - 0.3 * torch.randn(n, generator=generator)
        streams["reference_logprobs"][place, :n] = -4 - 0.3 * torch.randn(n, generator=generator)
        streams["advantages"][place, :n] = torch.randn((), generator=generator)
        streams["weights"][place, :n] = torch.rand(n, generator=generator) + 0.5
    batch = batch.with_streams(**streams)
    return batch if order is None else batch.select(order)


def _gradient(
    method: Method, batches: list[TokenBatch], size: float, **how: Any
) -> tuple[float, dict[str, torch.Tensor]]:
    settings = LearnerSettings(precision="fp32", device="cpu", **how)
    learner = LocalLearner(PolicyHead(causal()), OptimSettings(), 1, settings)
    loss = 0.0
    for batch in batches:
        loss += float(learner.backward(batch, policy_loss(method, method.beta), size)["loss"].sum())
    return loss / size, gradient(learner.head)


@pytest.mark.parametrize("form", FORMS)
def test_splits_layout_padding_and_mates_do_not_matter(form: str) -> None:
    method = Method(**{"beta": 0.0, **FORMS[form]})
    rows = make_rows(7, seed=3)
    whole = _batch(rows)
    size = denominator(whole.learn, method.average, LONGEST)
    loss, expected = _gradient(method, [whole], size)
    others = {
        "one row at a time": ([whole], {"micro_batch_tokens": 1}),
        "packed": ([whole], {"layout": "packed"}),
        "more padding": ([_batch(rows, extra=30)], {}),
        "another order": ([_batch(rows, order=[4, 2, 6, 0, 1, 5, 3])], {}),
        "two batches": ([_batch(rows[:3]), _batch(rows[3:])], {}),
    }
    for name, (batches, how) in others.items():
        found, made = _gradient(method, batches, size, **how)
        assert found == pytest.approx(loss, rel=1e-5, abs=1e-6), name
        assert largest_difference(expected, made) < 1e-5, name
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-4


@pytest.mark.parametrize(
    ("average", "expected"), [("token", 5), ("sequence", 2), ("sum", 2), ("constant", 32)]
)
def test_denominators_count_what_is_learned(average: Any, expected: float) -> None:
    learn = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    assert denominator(learn, average, LONGEST) == expected


def test_a_row_that_teaches_nothing_changes_no_average() -> None:
    """Overlong filtering takes its tokens away, and it counts in no denominator."""
    rows = make_rows(4, seed=5)
    for form in ("grpo", "dr_grpo", "ppo"):
        method = Method(**{"beta": 0.0, **FORMS[form]})
        batch = _batch(rows)
        learn = batch.learn.clone()
        learn[1] = False
        masked = replace(batch, learn=learn)
        without = _batch([rows[0], *rows[2:]])
        found = []
        for each in (masked, without):
            size = denominator(each.learn, method.average, LONGEST)
            found.append(_gradient(method, [each], size))
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
        assert largest_difference(found[0][1], found[1][1]) < 1e-5


def test_the_average_per_completion_spares_long_bad_answers() -> None:
    """Dr. GRPO's length bias: per completion, a token of a long answer weighs less than one of a
    short answer of the same advantage; over all tokens, and by a constant, they weigh alike."""
    short, long = Row("s", (1, 2, 3), (False, True, True)), Row("l", (1,) * 9, (False, *[True] * 8))
    batch = collate([short, long])
    minus = torch.where(batch.learn, -1.0, 0.0)
    batch = batch.with_streams(behaviour_logprobs=minus, advantages=minus)
    weigh = {}
    for average in ("sequence", "token", "constant"):
        logprobs = minus.clone().requires_grad_()
        method = Method(beta=0.0, average=average)
        values = policy_loss(method, 0.0)(Outputs(logprobs=logprobs), batch).values
        (values.sum() / denominator(batch.learn, average, LONGEST)).backward()
        assert logprobs.grad is not None
        weigh[average] = float(logprobs.grad[1, 1] / logprobs.grad[0, 1])
    assert weigh == pytest.approx({"sequence": 0.25, "token": 1.0, "constant": 1.0})


OLD = ((-1.0, -2.0, -0.5), (-0.7, -1.5, -3.0, -0.2, -1.1))
NEW = ((-0.6, -2.3, -0.5), (-0.9, -0.9, -3.4, -0.25, -1.0))
BY_TOKEN = (0.10234, 0.22776, 0, 0.11890, 0.13815)
GOLDEN: dict[str, tuple[dict[str, Any], float, tuple[float, ...], tuple[float, ...]]] = {
    "grpo": ({}, 0.059589, (0, -0.12347, -0.16667), (0.08187, 0.18221, 0, 0.09512, 0.11052)),
    "reinforce++": ({}, 0.319554, (0, -0.09260, -0.125), BY_TOKEN),
    "dr_grpo": ({}, 0.159777, (0, -0.04630, -0.0625), (0.05117, 0.11388, 0, 0.05945, 0.06907)),
    "dapo": ({}, 0.309554, (0, -0.09260, -0.125), BY_TOKEN),
    "gspo": ({}, 0.004825, (0, 0, 0), (0.10101,) * 5),
    "gspo-token": (
        {"epsilon": 0.2, "epsilon_high": 0.2}, -0.011922, (-0.17232,) * 3, (0.10101,) * 5,
    ),
    "cispo": (
        {"epsilon_high": 0.28}, -0.317380,
        (-0.16, -0.09260, -0.125), (0.10234, 0.16, 0.08379, 0.11890, 0.13815),
    ),
    "rloo": ({}, -0.026950, (-0.55259,) * 3, (0.52564,) * 5),
}  # fmt: skip


@pytest.mark.parametrize("preset", GOLDEN)
def test_a_preset_gives_the_golden_value_and_gradient(preset: str) -> None:
    """Two completions of 3 and 5 tokens, advantages 1 and -1, longest length 8, in float64."""
    changes, value, first, second = GOLDEN[preset]
    config = OnlineConfig.model_validate(
        {
            "run": {"folder": "nowhere"},
            "model": {"path": "nothing"},
            "data": {"path": "nothing"},
            "reward_funcs": ("nothing",),
            "preset": preset,
            "beta": 0.0,
            "sampling": {"max_tokens": 8},
            **changes,
        }
    )
    rows = [Row(name, (1,) * (n + 1), (False, *[True] * n)) for name, n in (("a", 3), ("b", 5))]
    batch = collate(rows)
    learn, method = batch.learn, config.method

    def spread(values: tuple[tuple[float, ...], ...]) -> torch.Tensor:
        out = torch.zeros(learn.shape, dtype=torch.float64)
        out[learn] = torch.tensor([v for row in values for v in row], dtype=torch.float64)
        return out

    batch = batch.with_streams(
        behaviour_logprobs=spread(OLD),
        reference_logprobs=spread(OLD),
        advantages=spread(((1.0,) * 3, (-1.0,) * 5)),
    )
    logprobs = spread(NEW).requires_grad_()
    values = policy_loss(method, method.beta)(Outputs(logprobs=logprobs), batch).values
    loss = values.sum() / denominator(learn, method.average, config.sampling.max_tokens)
    loss.backward()
    assert loss.item() == pytest.approx(value, abs=1e-6)
    torch.testing.assert_close(logprobs.grad, spread((first, second)), atol=1e-5, rtol=0)
