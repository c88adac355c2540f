"""Judge a policy against a baseline: win rate, mean scores, KL and length, each with its interval.

Both policies answer the same prompts. Each judge scores every completion; a pair's outcome is 1, 0
or one half for equal scores. Intervals resample prompts, because completions of one prompt are not
independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from heed import kl
from heed.data.batch import collate, stream_of
from heed.data.exchange import write_rows
from heed.data.report import settle
from heed.engines.policy import OpenPolicy, load_fitting_prompts, note_path, open_policy
from heed.feedback.base import Item, Scorer
from heed.feedback.ensemble import sources_of
from heed.feedback.resolve import load_scorer
from heed.ids import stream_seed
from heed.learners.local import LocalLearner
from heed.models.heads import PolicyHead
from heed.models.load import same_tokens
from heed.records import Completion, Finding, Prompt, Sampling
from heed.runs.run import Run
from heed.runs.sinks import Sink
from heed.settings import (
    EngineSettings,
    LearnerSettings,
    ModelSettings,
    NoEffect,
    PromptSettings,
    RunSettings,
    Settings,
)
from heed.stats.intervals import Interval, bootstrap_mean, win_rate

NOTHING = "nothing to measure: the completions failed, or have no score"


class EvaluateConfig(Settings):
    """Judge a policy against a baseline on held-out prompts."""

    run: RunSettings
    model: ModelSettings
    """The policy that is judged."""
    baseline: ModelSettings
    """The policy that it is compared with."""
    data: PromptSettings
    """Prompts that neither was trained on."""
    judges: dict[str, str] = Field(min_length=1)
    """Name -> scorer (reward model, callable or world); each gives its own win rate."""
    sampling: Sampling = Sampling()
    """`n` completions of each prompt from each policy."""
    num_resamples: int = Field(default=2000, ge=100)
    """Bootstrap resamples behind each interval."""
    prefix: str = ""
    """Put before the names of the findings."""
    tags: dict[str, str | int | float] = Field(default_factory=dict)
    """What `heed frontier` tells policies apart by, such as method and beta; seeds repeat them."""
    engine: EngineSettings = EngineSettings()
    learner: LearnerSettings = LearnerSettings()

    def without_effect(self) -> tuple[NoEffect, ...]:
        """See `Settings.without_effect`."""
        return (
            NoEffect(True, ("sampling.seed",), "samples follow run.seed"),
            NoEffect(True, ("model.lora", "baseline.lora"), "nothing is trained here"),
            NoEffect(
                self.data.on_overlong == "truncate",
                ("data.on_overlong",),
                "a prompt is never cut; one that is too long is dropped and counted",
            ),
        )


def run(config: EvaluateConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Judge, and leave the findings and every scored completion in the run."""
    inputs = {
        "model": config.model.path,
        "baseline": config.baseline.path,
        "data": config.data.path,
        **{f"judge {name}": sources_of(word) for name, word in config.judges.items()},
    }
    with Run.start(config.run, "evaluate", config, inputs, sinks) as run:
        policy, baseline = _open(config, config.model), _open(config, config.baseline)
        note_path(run, policy.engine)
        note_path(run, baseline.engine, "baseline")
        # Both answer the same prompts, so the shorter of the two decides.
        shorter = min(policy, baseline, key=lambda it: it.engine.max_length or math.inf)
        prompts, report = load_fitting_prompts(
            config.data, shorter.engine, config.sampling.max_tokens
        )
        settle(run, [(report, config.data.max_loss_frac)])
        run.stage("evaluation", 3)
        seed = stream_seed(config.run.seed, "evaluate")
        sampling = config.sampling.model_copy(update={"seed": seed})
        answers = policy.engine.generate(prompts, sampling)
        run.progress(1, 3)
        others = baseline.engine.generate(prompts, sampling)
        run.progress(2, 3)
        distances = _distances(config, prompts, answers, policy, baseline)
        findings = [
            *_length_findings(config, prompts, answers, others),
            _kl_finding(config, distances),
        ]
        scored: dict[str, list] = {}
        for name, word in config.judges.items():
            judge = load_scorer(word, device=config.learner.device)
            new = _scores(judge, prompts, answers)
            old = _scores(judge, prompts, others)
            findings += judged(config, name, prompts, new, old)
            scored[name] = [new, old]
        run.progress(3, 3)
        write_rows(run.path("judged.jsonl"), _rows(prompts, answers, others, scored, distances))
        run.add_findings(findings)
        run.finish({"judged": run.path("judged.jsonl")})
    return run


def _open(config: EvaluateConfig, model: ModelSettings) -> OpenPolicy:
    return open_policy(
        model,
        device=config.learner.device,
        precision=config.learner.precision,
        engine=config.engine,
    )


def _scores(
    judge: Scorer, prompts: Sequence[Prompt], groups: Sequence[Sequence[Completion]]
) -> list[list[float | None]]:
    items = [Item(p, c) for p, group in zip(prompts, groups, strict=True) for c in group]
    values = iter([score.value for score in judge.score(items)])
    return [[next(values) for _ in group] for group in groups]


def judged(
    config: EvaluateConfig,
    judge: str,
    prompts: Sequence[Prompt],
    new: Sequence[Sequence[float | None]],
    old: Sequence[Sequence[float | None]],
) -> list[Finding]:
    """Findings of one judge: win rate, both mean scores, and the mean gain.

    A completion without a score is left out with its partner, and counted in the unit's n.
    """
    outcomes, gains, after, before, clusters = [], [], [], [], []
    for prompt, group, others in zip(prompts, new, old, strict=True):
        for a, b in zip(group, others, strict=True):
            if a is None or b is None:
                continue
            outcomes.append(1.0 if a > b else 0.0 if a < b else 0.5)
            gains.append(a - b)
            after.append(a)
            before.append(b)
            clusters.append(prompt.id)
    wins = win_rate(outcomes, clusters) if outcomes else None
    return [
        finding(config, f"win_rate/{judge}", wins, "share of pairs won, ties one half"),
        finding(config, f"{judge}/after", _mean(config, judge, after, clusters), "score"),
        finding(config, f"{judge}/before", _mean(config, judge, before, clusters), "score"),
        finding(config, f"{judge}/gain", _mean(config, judge, gains, clusters), "score"),
    ]


def _mean(
    config: EvaluateConfig, purpose: str, values: Sequence[float], clusters: Sequence[str]
) -> Interval | None:
    """A bootstrap interval that resamples prompts; None where there is nothing to resample."""
    if not values:
        return None
    rng = np.random.default_rng(stream_seed(config.run.seed, "bootstrap", purpose))
    return bootstrap_mean(values, clusters, num_resamples=config.num_resamples, rng=rng)


def finding(config: EvaluateConfig, name: str, interval: Interval | None, unit: str) -> Finding:
    """Name an interval; without one the finding says why it is missing."""
    name = config.prefix + name
    if interval is None:
        return Finding.unknown(name, unit, NOTHING)
    return Finding.of(name, interval, unit)


def _whole(
    prompts: Sequence[Prompt], groups: Sequence[Sequence[Completion]]
) -> list[tuple[Prompt, Completion]]:
    """The completions that did not fail, each with its prompt."""
    pairs = [(p, c) for p, group in zip(prompts, groups, strict=True) for c in group]
    return [(p, c) for p, c in pairs if c.finish != "error"]


def _length_findings(
    config: EvaluateConfig,
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[Completion]],
    others: Sequence[Sequence[Completion]],
) -> list[Finding]:
    out = []
    for name, groups in (("after", answers), ("before", others)):
        whole = _whole(prompts, groups)
        lengths = [float(c.num_tokens) for _, c in whole]
        ended = [float(c.finish == "stop") for _, c in whole]
        ids = [p.id for p, _ in whole]
        length = _mean(config, "length", lengths, ids)
        out.append(finding(config, f"length/{name}", length, "tokens per completion"))
        share = win_rate(ended, ids) if ended else None  # no bootstrap of all or none is wide
        out.append(finding(config, f"ended/{name}", share, "share of completions that end"))
    return out


def _distances(
    config: EvaluateConfig,
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[Completion]],
    policy: OpenPolicy,
    baseline: OpenPolicy,
) -> dict[str, tuple[str, float]] | str:
    """log policy - log baseline of the policy's own completions, whose mean is the sequence KL.

    Returns:
        completion id -> prompt id and nats, or why it is not defined.
    """
    if not same_tokens(policy.tokenizer, baseline.tokenizer):
        return "the two policies have different vocabularies"
    if config.sampling.temperature == 0:
        return "greedy completions are no sample of the policy"
    pairs = [(p, c) for p, c in _whole(prompts, answers) if c.logprobs]
    if not pairs:
        return NOTHING
    batch = collate(
        [policy.renderer.completion_row(p, c) for p, c in pairs],
        pad_id=policy.renderer.pad_id,
        temperature=config.sampling.temperature,
    )
    reference = LocalLearner.frozen(PolicyHead(baseline.model), config.learner)
    theirs = reference.forward(batch).logprobs
    assert theirs is not None
    ours = stream_of([c.logprobs or () for _, c in pairs], batch)
    values = (kl.k1(ours, theirs) * batch.learn).sum(1).tolist()
    return {c.id: (p.id, value) for (p, c), value in zip(pairs, values, strict=True)}


def _kl_finding(config: EvaluateConfig, distances: dict[str, tuple[str, float]] | str) -> Finding:
    """Sequence KL of the policy to the baseline on its own completions, where it is defined."""
    name, unit = config.prefix + "kl", "nats per completion"
    if isinstance(distances, str):
        return Finding.unknown(name, unit, distances)
    prompts, values = zip(*distances.values(), strict=True)
    return finding(config, "kl", _mean(config, "kl", values, prompts), unit)


def _rows(
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[Completion]],
    others: Sequence[Sequence[Completion]],
    scored: dict[str, list[list[list[float | None]]]],
    distances: dict[str, tuple[str, float]] | str,
) -> list[dict]:
    """One row a pair, with every judge's scores: the evidence behind the findings."""
    nats = {} if isinstance(distances, str) else {c: value for c, (_, value) in distances.items()}
    rows = []
    for i, prompt in enumerate(prompts):
        for j, (new, old) in enumerate(zip(answers[i], others[i], strict=True)):
            scores = {
                name: {"after": after[i][j], "before": before[i][j]}
                for name, (after, before) in scored.items()
            }
            rows.append(
                {
                    "prompt_id": prompt.id,
                    "prompt": prompt.text,
                    "after": new.text,
                    "before": old.text,
                    "scores": scores,
                    "kl": nats.get(new.id),
                }
            )
    return rows
