"""heed's critic-free losses and advantages are TRL's, value and gradient, on every loss type.

`benchmarks/record_online.py` made the recordings from TRL's unmodified code.

One name means two things on purpose. TRL's CISPO clamps the ratio at `epsilon_high` itself; here,
as in the paper, the bound is 1 + epsilon_high. Both values stand in
`test_cispo_is_bounded_at_one_plus_epsilon_high`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from heed.algorithms.advantages import without_values
from heed.algorithms.method import Method
from heed.algorithms.online_config import OnlineConfig
from heed.algorithms.updates import denominator, policy_loss
from heed.data.batch import TokenBatch
from heed.learners.base import Outputs

FOLDER = Path(__file__).parent / "fixtures" / "trl"

# TRL's option -> heed's columns.
AS_HEED: dict[str, dict[str, Any]] = {
    "grpo": {"average": "sequence"},
    "grpo_kl": {
        "average": "sequence",
        "kl_place": "loss",
        "kl_estimator": "k3",
        "beta": 0.04,
    },
    "grpo_kl_corrected": {
        "average": "sequence",
        "kl_place": "loss",
        "kl_estimator": "k3",
        "use_bias_correction_kl": True,
        "beta": 0.04,
    },
    "bnpo": {"average": "token"},
    "dr_grpo": {"average": "constant"},
    "dapo": {"average": "token", "epsilon_high": 0.28},
    "delta": {"average": "token", "delta": 1.5},
    "gspo": {"average": "sequence", "ratio": "sequence_mean"},
    "luspo": {"average": "sum", "ratio": "sequence_mean"},
    "cispo": {"average": "token", "loss_type": "weight", "epsilon_high": 0.28},
    "sapo": {"average": "sequence", "loss_type": "sapo"},
    "vespo": {"average": "token", "loss_type": "vespo"},
    "rloo": {"average": "sequence", "ratio": "sequence"},
}


@pytest.fixture(scope="module")
def found() -> dict[str, Tensor]:
    return load_file(FOLDER / "online.safetensors")


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FOLDER / "online.json").read_text())
    return read


def _batch(found: dict[str, Tensor]) -> TokenBatch:
    """A prompt token, then the recorded completions."""

    def behind_a_prompt(values: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(values[:, :1]), values], 1)

    learn = behind_a_prompt(found["mask"])
    attend = learn.clone()
    attend[:, 0] = True
    advantages = found["advantages"][:, None] * found["mask"]
    streams = {
        "behaviour_logprobs": found["old_logprobs"],
        "reference_logprobs": found["reference_logprobs"],
        "advantages": advantages,
    }
    tokens = learn.long()
    return TokenBatch(
        tokens,
        attend,
        learn,
        tokens,
        tuple(map(str, range(len(learn)))),
        {name: behind_a_prompt(values) for name, values in streams.items()},
    )


def _loss(method: Method, batch: TokenBatch, logprobs: Tensor, longest: int) -> Tensor:
    given = torch.cat([torch.zeros_like(logprobs[:, :1]), logprobs], 1)
    values = policy_loss(method, method.beta)(Outputs(logprobs=given), batch).values
    return values.sum() / denominator(batch.learn, method.average, longest)


@pytest.mark.parametrize("name", AS_HEED)
def test_value_and_gradient_are_trls(
    found: dict[str, Tensor], facts: dict[str, Any], name: str
) -> None:
    method = Method(**{"beta": 0.0, **AS_HEED[name]})
    logprobs = found["logprobs"].clone().requires_grad_()
    loss = _loss(method, _batch(found), logprobs, facts["longest"])
    loss.backward()
    torch.testing.assert_close(loss, found[f"{name}:loss"], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(logprobs.grad, found[f"{name}:gradient"], rtol=1e-5, atol=1e-9)
    assert float(found[f"{name}:gradient"].abs().max()) > 1e-3


def test_every_recorded_loss_is_compared(facts: dict[str, Any]) -> None:
    assert {*facts["losses"], "rloo"} == set(AS_HEED)


@pytest.mark.parametrize(("trl", "heed"), [(1.28, 0.28)])
def test_cispo_is_bounded_at_one_plus_epsilon_high(
    found: dict[str, Tensor], facts: dict[str, Any], trl: float, heed: float
) -> None:
    """The recording has epsilon_high 1.28; the same number here is a bound at 2.28."""
    assert facts["losses"]["cispo"]["epsilon_high"] == trl
    batch, longest = _batch(found), facts["longest"]
    columns = {"beta": 0.0, "average": "token", "loss_type": "weight"}
    same = _loss(Method(**columns, epsilon_high=heed), batch, found["logprobs"], longest)
    named = _loss(Method(**columns, epsilon_high=trl), batch, found["logprobs"], longest)
    torch.testing.assert_close(same, found["cispo:loss"], rtol=1e-6, atol=1e-9)
    assert abs(float(named - same)) > 1e-4


@pytest.mark.parametrize(
    ("recorded", "columns"),
    [
        ("scale_group", {"baseline": "group", "scale_rewards": "group"}),
        ("scale_batch", {"baseline": "group", "scale_rewards": "batch"}),
        ("scale_none", {"baseline": "group"}),
        ("leave_one_out", {"baseline": "leave_one_out"}),
    ],
)
def test_advantages_are_trls(
    found: dict[str, Tensor], facts: dict[str, Any], recorded: str, columns: dict[str, Any]
) -> None:
    rewards = found["rewards"]
    learn = torch.tensor([[False, True]]).expand(len(rewards), 2)
    given = torch.stack([torch.zeros_like(rewards), rewards], 1)
    group = torch.arange(len(rewards)) // facts["group"]
    made = without_values(Method(beta=0.0, **columns), given, rewards, learn, group)[:, 1]
    torch.testing.assert_close(made, found[f"{recorded}:advantages"], rtol=1e-5, atol=1e-6)
    assert made[4:8].tolist() == [0.0] * 4


def test_trls_names_of_losses_are_explained() -> None:
    for name in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "luspo"):
        with pytest.raises(ValueError, match="a preset of that name"):
            OnlineConfig.model_validate({"loss_type": name, "beta": 0.0})
