"""heed computes what TRL computes: from recorded tensors, and through the models themselves.

`benchmarks/record_fixtures.py` made the recordings from TRL's unmodified code. The part on streams
feeds recorded tensors to heed's pure functions; the part on models feeds weights and tokens.

One difference is on purpose. Where a completion ends before the widest one, TRL gives the score to
the position after the end token and lets the value model judge it there (`padding_mask_p1`); heed
gives it to the end token, the last one that was chosen. So ragged cases are compared with TRL's
extra position marked as learned, and cases of full width, where the two agree, as they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from heed import credit, kl, masked
from heed.losses import policy, reward

FOLDER = Path(__file__).parent / "fixtures" / "trl"
PPO_CASES = ["full", "ragged", "whitened", "k3"]


def recording(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    facts = json.loads((FOLDER / f"{name}.json").read_text())
    return load_file(FOLDER / f"{name}.safetensors"), facts


def agree(found: Tensor | float, expected: Tensor | float) -> None:
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    torch.testing.assert_close(
        found.double(), expected.double(), rtol=1e-6, atol=1e-6, check_device=False
    )


class TestStreams:
    """heed's pure functions on the tensors that TRL had."""

    @pytest.mark.parametrize("case", PPO_CASES)
    def test_kl_and_rewards(self, case: str) -> None:
        found, facts = recording(f"ppo_{case}")
        learn, options = ~found["padding_mask"], facts["options"]
        estimator = kl.k3 if options.get("kl_estimator") == "k3" else kl.k1
        per_token = estimator(found["logprobs"], found["ref_logprobs"])
        agree(torch.where(learn, per_token, 0.0), torch.where(learn, found["kl"], 0.0))
        agree(
            kl.reward_penalty(per_token, options["kl_coef"], learn),
            found["non_score_reward"],
        )
        agree(masked.sum(per_token, learn) / len(learn), facts["metrics"]["objective/kl"])

    @pytest.mark.parametrize("case", PPO_CASES)
    def test_rewards_with_the_score(self, case: str) -> None:
        found, _ = recording(f"ppo_{case}")
        scored = ~found["padding_mask_p1"]
        placed = credit.place_score(found["scores"], scored) + found["non_score_reward"]
        if case == "whitened":
            agree(placed, found["before_whitening_0"])
            placed = masked.whiten(placed, scored, shift_mean=False, unbiased=True)
        agree(placed, found["rewards"])

    @pytest.mark.parametrize("case", PPO_CASES)
    def test_advantages_and_returns(self, case: str) -> None:
        found, facts = recording(f"ppo_{case}")
        learn, extra = ~found["padding_mask"], ~found["padding_mask_p1"]
        gamma, lam = facts["options"]["gamma"], facts["options"]["lam"]
        advantages, returns = credit.gae(found["rewards"], found["values"], extra, gamma, lam)
        agree(
            advantages, found["before_whitening_1" if case == "whitened" else "before_whitening_0"]
        )
        agree(returns, found["returns"])
        agree(masked.whiten(advantages, learn, unbiased=True), found["advantages"])

    @pytest.mark.parametrize("case", PPO_CASES)
    @pytest.mark.parametrize("epoch", [0, 1])
    def test_policy_and_value_losses(self, case: str, epoch: int) -> None:
        found, facts = recording(f"ppo_{case}")
        options = facts["options"]
        at = found[f"epoch{epoch}:micro_batch_inds"]
        learn, extra = ~found["padding_mask"][at], ~found["padding_mask_p1"][at]
        clip = options["cliprange"]
        terms = policy.clipped_surrogate(
            found[f"epoch{epoch}:new_logprobs"],
            found["logprobs"][at],
            found["advantages"][at],
            learn,
            clip,
            clip,
        )
        value_loss, _ = policy.clipped_value(
            found[f"epoch{epoch}:vpred"],
            found["values"][at],
            found["returns"][at],
            extra,
            options["cliprange_value"],
        )
        policy_mean = masked.reduce(terms.values, learn, "token")
        value_mean = masked.reduce(value_loss, extra, "token")
        agree(policy_mean, found[f"epoch{epoch}:pg_loss"])
        agree(value_mean, found[f"epoch{epoch}:vf_loss"])
        agree(policy_mean + options["vf_coef"] * value_mean, found[f"epoch{epoch}:loss"])

    @pytest.mark.parametrize("case", PPO_CASES)
    def test_reported_figures(self, case: str) -> None:
        found, facts = recording(f"ppo_{case}")
        clip, clip_value = facts["options"]["cliprange"], facts["options"]["cliprange_value"]
        clipped, value_clipped, moved = [], [], []
        for epoch in (0, 1):
            at = found[f"epoch{epoch}:micro_batch_inds"]
            learn, extra = ~found["padding_mask"][at], ~found["padding_mask_p1"][at]
            new, old = found[f"epoch{epoch}:new_logprobs"], found["logprobs"][at]
            terms = policy.clipped_surrogate(new, old, found["advantages"][at], learn, clip, clip)
            both = (terms.clipped_low | terms.clipped_high).float()
            clipped.append(masked.mean(both, learn))
            _, over = policy.clipped_value(
                found[f"epoch{epoch}:vpred"],
                found["values"][at],
                found["returns"][at],
                extra,
                clip_value,
            )
            value_clipped.append(masked.mean(over.float(), extra))
            # TRL averages this one over padding too, where it is 0.
            moved.append(policy.approx_kl(new, old, learn).mean())
        agree(torch.stack(clipped).mean(), facts["metrics"]["policy/clipfrac_avg"])
        agree(torch.stack(value_clipped).mean(), facts["metrics"]["val/clipfrac_avg"])
        agree(torch.stack(moved).mean(), facts["metrics"]["policy/approxkl_avg"])

    def test_recordings_exercise_the_clips(self) -> None:
        for case in PPO_CASES:
            _, facts = recording(f"ppo_{case}")
            assert 0.1 < facts["metrics"]["policy/clipfrac_avg"] < 0.9
            assert 0.1 < facts["metrics"]["val/clipfrac_avg"] < 0.9

    @pytest.mark.parametrize("case", ["plain", "margin", "centred"])
    def test_reward_losses(self, case: str) -> None:
        found, facts = recording("reward")
        chosen, rejected = found[f"{case}:scores"].chunk(2)
        margin = found[f"{case}:margin"] if case == "margin" else None
        loss = reward.bradley_terry(chosen, rejected, margin=margin).mean()
        if case == "centred":
            loss = loss + facts["center_rewards_coefficient"] * (
                reward.centring(chosen, rejected).mean()
            )
        agree(loss, found[f"{case}:loss"])
