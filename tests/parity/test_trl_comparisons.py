"""XPO's and Nash-MD's losses and gradients beside those of TRL 1.12 (`record_comparisons`).

XPO is the same. Nash-MD differs on purpose: TRL multiplies each token's log-ratio with that token's
log-probability; here the KL of the whole completion is in the reward, so that a token answers for
the KL of those after it. For completions of one token the two are one; both values are held.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from heed.algorithms.advantages import without_values
from heed.algorithms.method import Method
from heed.algorithms.online_preference import with_bonus
from heed.algorithms.preference_loss import preference_loss
from heed.algorithms.preference_settings import PairLossSettings
from heed.data.batch import PairBatch, Row, collate, stream_of
from heed.kl import k1, reward_penalty
from heed.learners.base import Outputs

FILE = Path(__file__).parent / "fixtures" / "trl_comparisons.json"
TRL = json.loads(FILE.read_text(encoding="utf-8"))
LENGTHS = TRL["lengths"]
OURS, RIVAL, RIVAL_REF, OURS_REF = (
    torch.tensor(values, dtype=torch.float64) for values in TRL["logprobs"]
)


def side(logprobs: Tensor, reference: Tensor, rows: list[int]) -> tuple[Outputs, object]:
    """A side of the pairs: a prompt token before the completion's."""
    laid = collate(
        [Row(str(i), [0] * (1 + LENGTHS[i]), [False, *[True] * LENGTHS[i]]) for i in rows]
    )
    width = laid.tokens.shape[1] - 1
    values = torch.cat([torch.zeros(len(rows), 1, dtype=torch.float64), logprobs[:, :width]], 1)
    stream = stream_of([reference[k, : LENGTHS[i]].tolist() for k, i in enumerate(rows)], laid)
    return Outputs(logprobs=values), laid.with_streams(reference_logprobs=stream)


@pytest.mark.parametrize("name", ["sigmoid", "ipo"])
def test_xpo(name: str) -> None:
    theirs = TRL["xpo"][name]
    ours, rival = OURS.clone().requires_grad_(), RIVAL.clone().requires_grad_()
    wins = torch.tensor(theirs["chosen"])[:, None]
    rows = list(range(4))
    chosen, left = side(
        torch.where(wins, ours, rival), torch.where(wins, OURS_REF, RIVAL_REF), rows
    )
    lost, right = side(torch.where(wins, rival, ours), torch.where(wins, RIVAL_REF, OURS_REF), rows)
    left = left.with_row_values(rival_chosen=(~wins[:, 0]).float())  # type: ignore[attr-defined]
    batch = PairBatch(left, right, torch.ones(4))  # type: ignore[arg-type]
    # TRL's XPO sums over tokens in its IPO too.
    settings = PairLossSettings(loss_type={"ipo": "ipo_sum"}.get(name, name), beta=TRL["beta"])
    values = with_bonus(preference_loss(settings), TRL["alpha"])(chosen, lost, batch).values
    values.mean().backward()
    assert values.tolist() == pytest.approx(theirs["loss"], abs=1e-5)
    for found, expected in zip((ours.grad, rival.grad), theirs["gradients"], strict=True):
        # TRL sets padding to 0 before this function, so its gradient there is nobody's.
        wanted = torch.tensor(expected, dtype=torch.float64) * (OURS != 0)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_nash_md_of_one_token_and_where_it_differs() -> None:
    theirs = TRL["nash_md"]
    learn = OURS != 0
    p = torch.tensor(theirs["probability"], dtype=torch.float64)
    rewards = torch.zeros_like(OURS)
    rewards[torch.arange(4), torch.tensor(LENGTHS) - 1] = p
    rewards = rewards + reward_penalty(k1(OURS, OURS_REF), TRL["beta"], learn)
    method = Method(beta=TRL["beta"], baseline="even", loss_type="plain", average="sum")
    advantages = without_values(method, rewards, p, learn, torch.arange(4))
    found = -advantages / 4  # the gradient of -A log pi, averaged over completions
    expected = torch.tensor(theirs["gradient"], dtype=torch.float64) * learn
    torch.testing.assert_close(found[0], expected[0], atol=1e-9, rtol=0)  # one token
    per_token = TRL["beta"] * (OURS - OURS_REF) - (p - 0.5)[:, None]
    whole = TRL["beta"] * (OURS - OURS_REF).sum(1, keepdim=True) - (p - 0.5)[:, None]
    assert whole[0, 0] == pytest.approx(per_token[0, 0])
    for row in (1, 2, 3):
        # What each token is told: here of the whole KL; there of its own.
        torch.testing.assert_close(found[row], whole[row] * learn[row] / 4, atol=1e-9, rtol=0)
        torch.testing.assert_close(
            expected[row], per_token[row] * learn[row] / 4, atol=1e-9, rtol=0
        )
        assert not torch.allclose(found[row], expected[row], atol=1e-3)
