"""The groups of one update: as they come, with their greedy baselines, or only those that vary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from heed.algorithms.online_settings import OnlineSettings
from heed.algorithms.parts import Parts
from heed.algorithms.rollouts import Experience, collect, experience, usable
from heed.data.order import Order
from heed.ids import stream_seed
from heed.records import Prompt, Rollout, RolloutGroup, Sampling
from heed.runs.run import Run


@dataclass(frozen=True)
class Gathered:
    """What one update learns from.

    Args:
        seen: the completions, scored and laid out.
        cursor: batches of prompts drawn since the run began; where the next update goes on.
        num_refills: batches drawn beyond the first.
        num_left_out: groups left out because their scores are all equal.
    """

    seen: Experience
    cursor: int
    num_refills: int
    num_left_out: int


def gather(
    config: OnlineSettings, run: Run, parts: Parts, order: Order, cursor: int, update: int
) -> Gathered:
    """Sample and score an update's groups, from batch `cursor` of the prompts on.

    With dynamic sampling (`max_refills`), groups whose scores are all equal are left out and
    further prompts sampled until the update is full or the cap is reached; an update that is still
    not full is smaller, and says so. Where no group varies, those of the last batch stand in.

    Source: DAPO (Yu et al. 2025), section 3.2.
    """
    kept: list[RolloutGroup] = []
    left_out = rounds = 0
    while True:
        prompts = [parts.prompts[i] for i in order.batch(cursor + rounds)]
        groups = collected(config, run, parts, prompts, update, rounds)
        rounds += 1
        if not config.max_refills:
            kept = groups
            break
        usable(groups, config.max_failed_frac)  # also of the groups that are left out
        varied = [group for group in groups if varies(group)]
        left_out += len(groups) - len(varied)
        kept += varied
        if len(kept) >= config.num_prompts or rounds > config.max_refills:
            break
    if len(kept) < config.num_prompts:
        run.warn(
            update,
            "sampling/groups_left_out",
            f"{len(kept)} of {config.num_prompts} groups have scores that differ, after "
            f"{rounds - 1} refills; the others teach nothing. Prompts of other difficulty, more "
            "num_generations or a finer score would help",
        )
    kept = kept[: config.num_prompts] or groups
    seen = _laid_out(config, run, parts, kept, update)
    return Gathered(seen, cursor + rounds, rounds - 1, left_out)


def varies(group: RolloutGroup) -> bool:
    """Whether a group's scores differ; failed completions do not count."""
    return len({r.score.value for r in group.rollouts if r.score.value is not None}) > 1


def collected(
    config: OnlineSettings,
    run: Run,
    parts: Parts,
    prompts: Sequence[Prompt],
    update: int,
    refill: int = 0,
) -> list[RolloutGroup]:
    """Sample and score a group for each prompt, or read them back if they were written before."""
    more = ("refill", refill) if refill else ()
    seed = stream_seed(config.run.seed, "sample", update, *more)
    sampling = config.sampling.model_copy(update={"n": config.group_size, "seed": seed})
    part = f"refill-{refill}" if refill else ""
    return collect(
        run,
        update,
        parts.engine,
        parts.scorer,
        prompts,
        sampling,
        parts.renderer,
        parts.ending,
        part,
    )


def _laid_out(
    config: OnlineSettings, run: Run, parts: Parts, groups: list[RolloutGroup], update: int
) -> Experience:
    temperature, limit = config.sampling.temperature, config.max_failed_frac
    if config.method.baseline != "greedy":
        return experience(groups, parts.renderer, temperature, limit, parts.ending)
    likeliest = Sampling(
        temperature=0.0,
        max_tokens=config.sampling.max_tokens,
        stop=config.sampling.stop,
        ignore_end=config.sampling.ignore_end,
    )
    best = collect(
        run,
        update,
        parts.engine,
        parts.scorer,
        [group.prompt for group in groups],
        likeliest,
        parts.renderer,
        parts.ending,
        "greedy",
    )
    groups = [_judged(group, other) for group, other in zip(groups, best, strict=True)]
    seen = experience(groups, parts.renderer, temperature, limit, parts.ending)
    # The share of failures is bounded above: a prompt without a baseline failed as a whole.
    greedy = experience(best, parts.renderer, 1.0, 1.0, parts.ending)
    return replace(seen, greedy=greedy)


def _judged(group: RolloutGroup, best: RolloutGroup) -> RolloutGroup:
    """Return the group, its scores taken away where its greedy completion has none."""
    score = best.rollouts[0].score
    if score.value is not None and best.rollouts[0].completion.tokens:
        return group
    reason = f"the greedy completion of its prompt has no score: {score.error or 'it is empty'}"
    failed: dict[str, object] = {"value": None, "error": reason, "parts": {}}
    rollouts = tuple(
        Rollout(completion=r.completion, score=r.score.model_copy(update=failed))
        for r in group.rollouts
    )
    return group.model_copy(update={"rollouts": rollouts})
