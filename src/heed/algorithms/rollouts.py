"""What every online method does before it learns: sample, score, and lay the result on tokens.

prompts -> engine -> completions -> scorer -> groups, written whole before they are trained on
groups -> batch with behaviour log-probabilities, and one score a row
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from heed.data.batch import TokenBatch, collate, stream_of
from heed.data.exchange import read_rows, write_rows
from heed.data.render import Renderer
from heed.engines.base import Engine
from heed.errors import DataError, FeedbackError
from heed.feedback.base import Item, Scorer
from heed.ids import stream_seed
from heed.records import Completion, Prompt, Rollout, RolloutGroup, Sampling, Score
from heed.runs.run import Run


@dataclass(frozen=True)
class Ending:
    """When a completion counts as ended, and how much of it the scorer sees.

    Without `text`, a completion has ended if the policy stopped by itself. With `text` (Ziegler's
    rule: a period), the scorer sees it up to the first token from number `min_tokens` on that
    holds the text, and it has ended if there is such a token.
    """

    text: str | None = None
    min_tokens: int = 0

    def cut(self, completion: Completion, renderer: Renderer) -> Completion | None:
        """Return what the scorer sees, or None where the completion has not ended."""
        if self.text is None:
            return completion if completion.finish == "stop" else None
        for t in range(self.min_tokens, completion.num_tokens):
            if self.text in renderer.decode(completion.tokens[t : t + 1]):
                shown = renderer.decode(completion.tokens[: t + 1])
                return completion.model_copy(update={"text": shown})
        return None


AS_SAMPLED = Ending()
"""A completion has ended where the policy ended it."""


@dataclass(frozen=True)
class Experience:
    """Scored completions, laid out for learning.

    Args:
        completions: B completions that have a score.
        batch: B rows with the stream `behaviour_logprobs`.
        scores: [B] the scorer's values.
        ended: [B] bool, whether the completion ended as it should (`Ending`).
        parts: name -> [B] the scorer's parts by name, NaN-free; only parts known for all rows.
        group: [B] int64, the place of each completion's prompt in the update.
        num_failed: completions left out because sampling or scoring failed.
        greedy: the prompts' greedy completions, one a group, where the method asks for them.
    """

    completions: tuple[Completion, ...]
    batch: TokenBatch
    scores: Tensor
    ended: Tensor
    parts: dict[str, Tensor]
    group: Tensor
    num_failed: int
    greedy: Experience | None = None


def score_groups(
    scorer: Scorer,
    prompts: Sequence[Prompt],
    completions: Sequence[Sequence[Completion]],
    renderer: Renderer,
    ending: Ending = AS_SAMPLED,
) -> list[RolloutGroup]:
    """Score each prompt's completions; groups come back in the prompts' order.

    Raises:
        FeedbackError: the scorer returned another number of scores than it was given items.
    """
    items = [
        Item(prompt, ending.cut(completion, renderer) or completion)
        for prompt, group in zip(prompts, completions, strict=True)
        for completion in group
    ]
    scores = scorer.score(items)
    if len(scores) != len(items):
        raise FeedbackError(
            f"scorer {scorer.name!r} returned {len(scores)} scores for {len(items)} items; "
            "it must return one per item, in order, with an error on those that failed"
        )
    remaining = iter(scores)
    return [
        RolloutGroup(
            prompt=prompt,
            rollouts=tuple(Rollout(completion=c, score=next(remaining)) for c in group),
        )
        for prompt, group in zip(prompts, completions, strict=True)
    ]


def collect(
    run: Run,
    update: int,
    engine: Engine,
    scorer: Scorer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    renderer: Renderer,
    ending: Ending = AS_SAMPLED,
    part: str = "",
) -> list[RolloutGroup]:
    """Sample and score one update's groups, or read them back if they were written before.

    The groups are on disk before anything is learned from them, so a run that is killed in
    mid-update goes on from what it had, also where scoring is costly or not repeatable. A file
    that is damaged is passed over with a warning.

    A prompt that stands in an update more than once gets other samples each time.

    Args:
        part: names what is sampled beside the update's first groups, in a file of its own.
    """
    path = rollout_path(run, update, part)
    if path.exists():
        groups, fault = _read_groups(path, prompts, sampling.n)
        if fault is None:
            return groups
        message = f"{path.name} is damaged ({fault}); its completions are sampled again"
        run.warn(update, "rollouts", message)
    completions: list[list[Completion]] = [[] for _ in prompts]
    for time, places in enumerate(_rounds(prompts)):
        seed = sampling.seed if time == 0 else stream_seed(sampling.seed, "repeated prompt", time)
        drawn = engine.generate(
            [prompts[i] for i in places], sampling.model_copy(update={"seed": seed})
        )
        for place, group in zip(places, drawn, strict=True):
            completions[place] = group
    groups = score_groups(scorer, prompts, completions, renderer, ending)
    write_rows(path, [group.model_dump(mode="json") for group in groups])
    return groups


def _read_groups(
    path: Path, prompts: Sequence[Prompt], n: int
) -> tuple[list[RolloutGroup], str | None]:
    """Read an update's groups back; also says what is wrong with them, or None."""
    try:
        groups = [RolloutGroup.model_validate(row) for _, row in read_rows(path)]
    except (DataError, ValidationError) as error:
        return [], str(error).splitlines()[0]
    found = [(group.prompt.id, len(group.rollouts)) for group in groups]
    if found != [(prompt.id, n) for prompt in prompts]:
        return [], f"it holds {len(groups)} groups, which are not those of this update"
    return groups, None


def _rounds(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Places of the prompts, each prompt at most once in a round."""
    rounds: list[list[int]] = []
    seen: Counter[str] = Counter()
    for place, prompt in enumerate(prompts):
        time = seen[prompt.id]
        seen[prompt.id] += 1
        if time == len(rounds):
            rounds.append([])
        rounds[time].append(place)
    return rounds


def rollout_path(run: Run, update: int, part: str = "") -> Path:
    """Where the groups of an update are kept."""
    return run.path("rollouts", f"update-{update:08d}{'-' if part else ''}{part}.jsonl")


def drop_rollouts(run: Run, before: int) -> None:
    """Remove the groups of updates before `before`, which no resume needs any more."""
    for path in run.path("rollouts").glob("update-*.jsonl"):
        if int(path.stem.split("-")[1]) < before:
            path.unlink()


def experience(
    groups: Sequence[RolloutGroup],
    renderer: Renderer,
    temperature: float,
    max_failed_frac: float,
    ending: Ending = AS_SAMPLED,
    *,
    sampled: bool = True,
    scored: bool = True,
) -> Experience:
    """Lay scored completions out as a batch; failed ones are left out and counted.

    Args:
        sampled: whether the engine's log-probabilities are needed; without them the batch has no
            stream `behaviour_logprobs`, and a completion may be somebody's demonstration.
        scored: whether a completion needs a score; without, scores that are not known are NaN.

    Raises:
        FeedbackError: more than `max_failed_frac` of the completions failed.
    """
    found, failed = usable(groups, max_failed_frac, scored=scored)
    whole = [(prompt, rollout) for _, prompt, rollout in found]
    batch = collate(
        [renderer.completion_row(p, r.completion) for p, r in whole],
        pad_id=renderer.pad_id,
        temperature=temperature,
    )
    if sampled:
        behaviour = stream_of([_sampled_logprobs(r.completion) for _, r in whole], batch)
        batch = batch.with_streams(behaviour_logprobs=behaviour)
    names = {name for _, r in whole for name, v in r.score.parts.items() if v is not None}
    parts = {
        name: torch.tensor([float(r.score.parts[name]) for _, r in whole])  # type: ignore[arg-type]
        for name in sorted(names)
        if all(r.score.parts.get(name) is not None for _, r in whole)
    }
    return Experience(
        completions=tuple(r.completion for _, r in whole),
        batch=batch,
        scores=torch.tensor(
            [float("nan") if r.score.value is None else r.score.value for _, r in whole]
        ),
        ended=torch.tensor([ending.cut(r.completion, renderer) is not None for _, r in whole]),
        parts=parts,
        group=torch.tensor([place for place, *_ in found]),
        num_failed=failed,
    )


def usable(
    groups: Sequence[RolloutGroup], max_failed_frac: float, *, scored: bool = True
) -> tuple[list[tuple[int, Prompt, Rollout]], int]:
    """Return the completions that have a score, with their group's place, and how many have none.

    Raises:
        FeedbackError: more than `max_failed_frac` of the completions failed.
    """
    rollouts = [(place, g.prompt, r) for place, g in enumerate(groups) for r in g.rollouts]
    found = [row for row in rollouts if _is_usable(row[2], scored)]
    failed = len(rollouts) - len(found)
    if failed > max_failed_frac * len(rollouts) or not found:
        bad = [r for *_, r in rollouts if not _is_usable(r, scored)]
        reasons = [_reason(r.score, r.completion) for r in bad if r.score.value is None]
        raise FeedbackError(
            f"{failed} of {len(rollouts)} completions have no score, more than the allowed share "
            f"{max_failed_frac:g}. First reason: {reasons[0] if reasons else 'empty completion'}. "
            "Mend the scorer, or raise max_failed_frac."
        )
    return found, failed


def _is_usable(rollout: Rollout, scored: bool) -> bool:
    if not rollout.completion.tokens:
        return False
    return rollout.score.value is not None if scored else rollout.completion.finish != "error"


def _sampled_logprobs(completion: Completion) -> list[float]:
    if completion.logprobs is None:
        raise FeedbackError(
            f"completion {completion.id!r} has no log-probabilities; policy optimisation needs "
            "those of the engine that sampled it"
        )
    learnable = completion.learnable or (True,) * completion.num_tokens
    return [v for v, keep in zip(completion.logprobs, learnable, strict=True) if keep]


def _reason(score: Score, completion: Completion) -> str:
    return score.error or completion.error or "unknown"
