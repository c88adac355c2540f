"""Experience made by hand, and learners that return what they are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from heed.algorithms.parts import Parts
from heed.algorithms.ppo_config import PPOConfig
from heed.algorithms.rollouts import Experience
from heed.data.batch import Row, TokenBatch, collate, stream_of
from heed.learners.base import LossTerms, Outputs, TokenLoss
from heed.records import Completion, Finish

PROMPTS = (3, 1, 2, 4)
LENGTHS = (4, 2, 5, 1)
FINISHES: tuple[Finish, ...] = ("stop", "length", "stop", "length")


def config(**changes: Any) -> PPOConfig:
    """Settings of PPO with a penalty of 0.1 a nat; nothing is read from its paths."""
    values = {
        "run": {"folder": "nowhere"},
        "model": {"path": "nothing"},
        "data": {"path": "nothing"},
        "reward_funcs": ("nothing",),
        "kl_coef": 0.1,
        "batch_size": len(LENGTHS),
        "total_episodes": len(LENGTHS),
    }
    return PPOConfig.model_validate(values | changes)


def experience(
    scores: tuple[float, ...] = (2.0, 1.0, -0.5, 3.0), side: str = "right"
) -> Experience:
    """Four completions of 4, 2, 5 and 1 tokens; the second and fourth do not end."""
    generator = torch.Generator().manual_seed(0)
    rows, logprobs, completions = [], [], []
    for i, (before, length, finish) in enumerate(zip(PROMPTS, LENGTHS, FINISHES, strict=True)):
        tokens = tuple(range(10 * i, 10 * i + before + length))
        rows.append(Row(f"row {i}", tokens, (False,) * before + (True,) * length))
        drawn = (-3 * torch.rand(length, generator=generator)).tolist()
        logprobs.append(drawn)
        completions.append(
            Completion(
                id=f"row {i}",
                prompt_id="p",
                prompt_tokens=tokens[:before],
                tokens=tokens[before:],
                logprobs=tuple(drawn),
                text="",
                finish=finish,
            )
        )
    batch = collate(rows, side=side)
    return Experience(
        completions=tuple(completions),
        batch=batch.with_streams(behaviour_logprobs=stream_of(logprobs, batch)),
        scores=torch.tensor(scores),
        ended=torch.tensor([finish == "stop" for finish in FINISHES]),
        parts={},
        group=torch.arange(len(rows)),
        num_failed=0,
    )


@dataclass
class ToldLearner:
    """Returns given outputs; records the batches, losses and steps that it is given."""

    logprobs: Tensor | None = None
    values: Tensor | None = None
    seen: list[TokenBatch] = field(default_factory=list)
    terms: list[LossTerms] = field(default_factory=list)
    steps: int = 0

    def forward(self, batch: TokenBatch, *, entropy: bool = False) -> Outputs:
        return Outputs(logprobs=self.logprobs, values=self.values)

    def backward(self, batch: TokenBatch, loss: TokenLoss, denominator: float) -> dict[str, Tensor]:
        self.seen.append(batch)
        outputs = Outputs(
            logprobs=batch.streams.get("behaviour_logprobs"), values=batch.streams.get("old_values")
        )
        found = loss(outputs, batch)
        self.terms.append(found)
        return {**found.metrics, "loss": found.values.sum(1)}

    def step(self) -> float:
        self.steps += 1
        return 1.0

    @property
    def learning_rate(self) -> float:
        return 0.0


def parts(reference: Tensor, values: Tensor, policy: Any = None, value: Any = None) -> Parts:
    """Parts whose reference and values are given; nothing samples or scores."""
    absent: Any = None
    return Parts(
        engine=absent,
        policy=policy or ToldLearner(),
        value=value or ToldLearner(values=values),
        reference=ToldLearner(logprobs=reference),
        scorer=absent,
        renderer=absent,
        prompts=(),
        ptx_rows=(),
        watch=absent,
    )


def noise(batch: TokenBatch, seed: int) -> Tensor:
    """Numbers [B, T] on every token, prompt and padding included."""
    return torch.randn(batch.tokens.shape, generator=torch.Generator().manual_seed(seed))
