"""A policy that is a table, so that its optimum under a KL penalty is known in closed form.

Completions are two tokens over three symbols, nine in all, after one prompt token. The table holds
the logits of the first token and, for each first token, those of the second. It runs through the
real loop, learner, credit and losses; only the model and the sampler are tables.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heed.algorithms.online import optimise
from heed.algorithms.online_settings import OnlineSettings
from heed.algorithms.parts import Parts
from heed.algorithms.watch import Watch
from heed.data.batch import Row, TokenBatch
from heed.feedback.base import Item
from heed.learners.local import LocalLearner
from heed.records import Completion, PolicyRef, Prompt, Sampling, Score
from heed.runs.run import Run
from heed.worlds.tabular import Tabular

SYMBOLS = 3
COMPLETIONS = [(a, b) for a in range(SYMBOLS) for b in range(SYMBOLS)]
PROMPT_TOKEN = SYMBOLS
PROMPT = Prompt.make("which?", raw=True)


class TableHead(nn.Module):
    """Logits [3] of the first token and [3, 3] of the second; values likewise."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(first.clone()), nn.Parameter(second.clone())

    def probabilities(self) -> np.ndarray:
        """Of the nine completions, in the order of COMPLETIONS."""
        with torch.no_grad():
            joint = self.first.softmax(-1)[:, None] * self.second.softmax(-1)
        return joint.double().flatten().numpy()

    def outputs(
        self,
        batch: TokenBatch,
        *,
        entropy: bool = False,
        layout: str = "padded",
        also: Collection[str] = (),
    ) -> dict[str, Tensor | None]:
        """Log-probabilities of the two symbols; what follows them in a row is certain."""
        width, a = batch.tokens.shape[1], batch.tokens[:, 1]
        one = self.first.log_softmax(-1)[a]
        said = [torch.zeros_like(one), one]
        if width > 2:  # a learner's probe is one token long
            b = batch.tokens[:, 2:3]
            said.append(self.second.log_softmax(-1)[a].gather(1, b).squeeze(1))
        sure = [torch.zeros_like(one)] * (width - 3)
        logprobs = torch.stack([*said, *sure], 1)
        found = {"logprobs": logprobs, "entropy": None, "values": None, "scores": None}
        if "log_distribution" in also:
            found["log_distribution"] = self.log_distribution(batch)
        return found

    def log_distribution(self, batch: TokenBatch, *, layout: str = "padded") -> Tensor:
        """Whole distributions behind the two symbols of each row, [2 B, 3]."""
        one = self.first.log_softmax(-1).expand(len(batch), SYMBOLS)
        two = self.second.log_softmax(-1)[batch.tokens[:, 1]]
        return torch.stack([one, two], 1).flatten(0, 1)


class TableValue(nn.Module):
    """Values: one number before the first token, one for each first token before the second."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(()))
        self.second = nn.Parameter(torch.zeros(SYMBOLS))

    def outputs(
        self, batch: TokenBatch, *, entropy: bool = False, layout: str = "padded"
    ) -> dict[str, Tensor | None]:
        one = self.first.expand(len(batch))
        two = self.second[batch.tokens[:, 1]]
        values = torch.stack([torch.zeros_like(one), one, two], 1)
        return {"logprobs": None, "entropy": None, "values": values, "scores": None}


class TableEngine:
    """Samples the table exactly."""

    def __init__(self, head: TableHead) -> None:
        self.head = head
        self.policy = PolicyRef(run="table", step=0)

    def load(self, weights: Mapping[str, Any] | None, policy: PolicyRef) -> None:
        self.policy = policy

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        rng = np.random.default_rng(sampling.seed)
        with torch.no_grad():
            first, second = self.head.first.log_softmax(-1), self.head.second.log_softmax(-1)
        num = len(prompts) * sampling.n
        if sampling.temperature == 0:
            drawn = np.full(num, self._weights().argmax())
        else:
            drawn = rng.choice(len(COMPLETIONS), num, p=self._weights())
        done = []
        for i, which in enumerate(drawn):
            a, b = COMPLETIONS[which]
            done.append(
                Completion(
                    id=f"{sampling.seed}-{i}",
                    prompt_id=prompts[i // sampling.n].id,
                    prompt_tokens=(PROMPT_TOKEN,),
                    tokens=(a, b),
                    logprobs=(float(first[a]), float(second[a, b])),
                    text=f"{a}{b}",
                    finish="stop",
                    sampling=sampling,
                )
            )
        return [done[i : i + sampling.n] for i in range(0, len(done), sampling.n)]

    def _weights(self) -> np.ndarray:
        weights = self.head.probabilities()
        return weights / weights.sum()


class TableRenderer:
    """Rows of a prompt token and two symbols."""

    pad_id = 0

    def completion_row(self, prompt: Prompt, completion: Completion) -> Row:
        tokens = (*completion.prompt_tokens, *completion.tokens)
        return Row(completion.id, tokens, (False, True, True))

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(map(str, tokens))


class TableScorer:
    """The reward of each completion, looked up."""

    name = "table"

    def __init__(self, rewards: np.ndarray) -> None:
        self._rewards = rewards

    def score(self, items: Sequence[Item]) -> list[Score]:
        return [
            Score(
                item_id=item.completion.id,
                value=float(self._rewards[COMPLETIONS.index(item.completion.tokens)]),
                scorer=self.name,
            )
            for item in items
        ]


def tables(seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Logits of a policy, and the reward of each of its completions."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(3, generator=generator)
    second = torch.randn(3, 3, generator=generator)
    rewards = torch.randn(9, generator=generator).double().numpy()
    return first, second, rewards


def optimised(
    config: OnlineSettings,
    seed: int,
    change: Callable[[np.ndarray], np.ndarray] = lambda rewards: rewards,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run the loop on a table; returns the policy, the reference and the rewards.

    Args:
        change: from the table's rewards to those that the scorer gives.
    """
    first, second, rewards = tables(seed)
    policy, reference = TableHead(first, second), TableHead(first, second)
    steps = config.num_updates * config.steps_per_update
    run = Run.start(config.run, "online", {})
    engine, scorer = TableEngine(policy), TableScorer(change(rewards))
    frozen = LocalLearner.frozen(reference, config.learner)
    value = None
    if config.method.has_values:
        value = LocalLearner(TableValue(), config.optim, steps, config.learner)
    parts = Parts(
        engine=engine,
        policy=LocalLearner(policy, config.optim, steps, config.learner),
        value=value,
        reference=frozen,
        scorer=scorer,
        renderer=TableRenderer(),
        prompts=[PROMPT],
        ptx_rows=[],
        watch=Watch(
            run, engine, frozen, TableRenderer(), [PROMPT], config.sampling, scorer, None, 1, 0.0
        ),
    )
    with run:
        optimise(config, run, parts)
    return policy.probabilities(), reference.probabilities(), rewards


def world(reference: np.ndarray, rewards: np.ndarray) -> Tabular:
    """The closed forms of a reference and rewards."""
    return Tabular(reference / reference.sum(), rewards)
