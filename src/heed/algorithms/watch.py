"""Watching a policy while it is optimised: the same prompts, answered again and again.

The proxy is the score that is optimised; the gold score is never shown to the optimiser. Where
the two part, the policy has learned the scorer and no longer the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heed import kl
from heed.algorithms.rollouts import AS_SAMPLED, Ending, experience, score_groups
from heed.data.render import Renderer
from heed.engines.base import Engine
from heed.feedback.base import Scorer
from heed.feedback.unscored import Unscored
from heed.learners.base import Evaluator
from heed.records import Prompt, RolloutGroup, Sampling
from heed.runs.run import Run


@dataclass(frozen=True)
class Watch:
    """Answers fixed prompts with fixed random streams, so that looks differ by the policy alone.

    Args:
        run: where samples are written.
        prompts: answered at every look.
        sampling: one completion a prompt, always with the same seed.
        proxy: the scorer that is optimised.
        gold: a scorer that is only measured, or None.
        num_samples: completions written to the run at each look.
    """

    run: Run
    engine: Engine
    reference: Evaluator
    renderer: Renderer
    prompts: Sequence[Prompt]
    sampling: Sampling
    proxy: Scorer
    gold: Scorer | None
    num_samples: int
    max_failed_frac: float
    ending: Ending = AS_SAMPLED

    def look(self, update: int) -> dict[str, float | int | None]:
        """Answer the prompts, score the answers, write samples; returns `eval/...` metrics."""
        completions = self.engine.generate(self.prompts, self.sampling)
        groups = score_groups(self.proxy, self.prompts, completions, self.renderer, self.ending)
        scored = not isinstance(self.proxy, Unscored)
        allowed, temperature = self.max_failed_frac, self.sampling.temperature
        seen = experience(groups, self.renderer, temperature, allowed, self.ending, scored=scored)
        reference = self.reference.forward(seen.batch).logprobs
        assert reference is not None
        per_token = kl.k1(seen.batch.stream("behaviour_logprobs"), reference) * seen.batch.learn
        truth = self._truth(completions)
        self._write_samples(update, groups, truth)
        known = [value for value in truth if value is not None]
        return {
            "eval/proxy": float(seen.scores.mean()) if scored else None,
            "eval/true": sum(known) / len(known) if known else None,
            "eval/kl": float(per_token.sum(1).mean()),
            "eval/length": sum(c.num_tokens for c in seen.completions) / len(seen.completions),
        }

    def _truth(self, completions: Sequence[Sequence]) -> list[float | None]:
        if self.gold is None:
            return [None] * len(self.prompts)
        groups = score_groups(self.gold, self.prompts, completions, self.renderer, self.ending)
        return [group.rollouts[0].score.value for group in groups]

    def _write_samples(
        self, update: int, groups: Sequence[RolloutGroup], truth: Sequence[float | None]
    ) -> None:
        rows = []
        for group, true in list(zip(groups, truth, strict=True))[: self.num_samples]:
            first = group.rollouts[0]
            rows.append(
                {
                    "prompt_id": group.prompt.id,
                    "prompt": group.prompt.text,
                    "completion": first.completion.text,
                    "num_tokens": first.completion.num_tokens,
                    "finish": first.completion.finish,
                    "scores": {"proxy": first.score.value, "true": true},
                }
            )
        self.run.sample(update, rows)
