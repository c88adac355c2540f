"""Best of n: of each prompt's completions keep the one that scores best, and say what n buys.

    chosen(x) = argmax over y_1 .. y_n ~ policy(. | x) of score(x, y)
    KL(best of n || policy) <= log n - (n - 1) / n, with equality where no two scores tie

What is kept stands in `RUN/completions.jsonl`, which `heed sft` reads: that is best-of-n
distillation. `RUN/curve.jsonl` has each prompt's score, and the gold score of the same choice, at
n = 1, 2, 4, ... by the estimator that is unbiased for every n up to the number of completions; the
findings are their means.

Sources: Stiennon et al. 2020, appendix G.3 (KL); Nakano et al. 2021, appendix I (estimator); Gao et
al. 2022 (the curve of gold against KL).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field, model_validator

from heed.data.completions import load_completions
from heed.data.exchange import write_rows
from heed.data.report import settle
from heed.errors import DataError, FeedbackError
from heed.feedback.base import Item, Scorer
from heed.feedback.resolve import load_scorer, load_scorers
from heed.ids import stream_seed
from heed.records import Completion, Finding, Prompt
from heed.runs.run import Run
from heed.runs.sinks import Sink
from heed.settings import DataSettings, RunSettings, Settings
from heed.stats import best_of_n
from heed.stats.intervals import bootstrap_mean

Group = list[tuple[Prompt, Completion, float, float | None]]
"""One prompt's completions with their scores and gold scores."""


class BestOfNConfig(Settings):
    """Keep the best of each prompt's completions, and measure what n buys."""

    run: RunSettings
    data: DataSettings
    """Completions: the run folder of `heed generate`, one or several."""
    reward_funcs: tuple[str, ...] = Field(min_length=1)
    """What chooses: reward models, Python callables, or a world's run folder."""
    reward_weights: tuple[float, ...] | None = None
    """One weight for each of `reward_funcs`; 1 each by default."""
    gold: str | None = None
    """A scorer that is only measured and never chooses, in the same forms."""
    n: int | None = Field(default=None, ge=1)
    """Candidates of each prompt, its first completions; by default all of them."""
    max_failed_frac: float = Field(default=0.1, ge=0.0, le=1.0)
    """Stop where more than this share of the completions has no score."""
    num_resamples: int = Field(default=2000, ge=1)
    """How often the prompts are drawn anew for the intervals."""

    @model_validator(mode="after")
    def _check(self) -> BestOfNConfig:
        if self.reward_weights and len(self.reward_weights) != len(self.reward_funcs):
            raise ValueError(
                f"there are {len(self.reward_weights)} reward_weights for "
                f"{len(self.reward_funcs)} reward_funcs; give one for each"
            )
        return self


def run(config: BestOfNConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Choose, and leave the best completions in `RUN/completions.jsonl`.

    Raises:
        DataError: a prompt has fewer completions than n.
        FeedbackError: too many completions have no score.
    """
    inputs = {"data": config.data.path}
    inputs |= {f"reward {i}": word for i, word in enumerate(config.reward_funcs)}
    with Run.start(config.run, "best_of_n", config, inputs, sinks) as run:
        completions, report = load_completions(config.data)
        settle(run, [(report, config.data.max_loss_frac)])
        run.stage("scoring", len(completions))
        scorer = load_scorers(config.reward_funcs, config.reward_weights)
        gold = load_scorer(config.gold) if config.gold else None
        groups, num_failed = scored(completions, scorer, gold, config.max_failed_frac)
        run.progress(len(completions), len(completions))
        chosen = [best(group, config.n) for group in groups]
        rows = [
            {"prompt": p.model_dump(mode="json"), "completion": c.model_dump(mode="json")}
            for p, c, *_ in chosen
        ]
        write_rows(run.path("completions.jsonl"), rows)
        bought = curve(groups)
        write_rows(run.path("curve.jsonl"), bought)
        run.add_findings(curve_findings(bought, config.run.seed, config.num_resamples))
        facts = {
            "num_prompts": len(groups),
            "num_failed": num_failed,
            "mean_score": float(np.mean([score for *_, score, _ in chosen])),
        }
        made = {name: run.path(f"{name}.jsonl") for name in ("completions", "curve")}
        run.finish(made, facts=facts)
    return run


def scored(
    completions: Sequence[tuple[Prompt, Completion]],
    scorer: Scorer,
    gold: Scorer | None,
    max_failed_frac: float,
) -> tuple[list[Group], int]:
    """Score completions and gather them by prompt; failed ones are left out and counted.

    A gold score that is missing stays None.
    """
    items = [Item(prompt, completion) for prompt, completion in completions]
    scores = scorer.score(items)
    truth = gold.score(items) if gold else [None] * len(items)
    if len(scores) != len(items) or len(truth) != len(items):
        raise FeedbackError(
            f"{len(scores)} scores came back for {len(items)} completions; a scorer returns one "
            "for each item, in order, with an error on those that failed"
        )
    failed = [score.error or "" for score in scores if score.value is None]
    if len(failed) > max_failed_frac * len(items):
        raise FeedbackError(
            f"{len(failed)} of {len(items)} completions have no score, more than the allowed share "
            f"{max_failed_frac:g}. First reason: {failed[0]}. Mend the scorer, or raise "
            "max_failed_frac."
        )
    groups: dict[str, Group] = {}
    for item, score, true in zip(items, scores, truth, strict=True):
        if score.value is not None:
            row = (item.prompt, item.completion, score.value, true.value if true else None)
            groups.setdefault(item.prompt.id, []).append(row)
    return list(groups.values()), len(failed)


def best(group: Group, n: int | None = None) -> tuple[Prompt, Completion, float, float | None]:
    """Return the best of the first n; of equals the first.

    Raises:
        DataError: there are fewer than n.
    """
    if n is not None and len(group) < n:
        raise DataError(
            f"prompt {group[0][0].id!r} has {len(group)} scored completions, expected {n}; sample "
            "more (`heed generate --sampling.n`) or lower n"
        )
    return max(group[:n], key=lambda row: row[2])


def curve(groups: Sequence[Group]) -> list[dict]:
    """Estimate score and gold score of the best of n at n = 1, 2, 4, ..., for each prompt.

    `gold` is None where a completion of the prompt has no gold score.
    """
    most = min(map(len, groups))
    sizes = [2**k for k in range(most.bit_length()) if 2**k <= most]
    if most not in sizes:
        sizes.append(most)
    rows = []
    for n in sizes:
        for group in groups:
            ours = [score for *_, score, _ in group]
            true = [gold for *_, gold in group if gold is not None]
            gold = best_of_n.score(ours, n, true) if len(true) == len(group) else None
            row = {"prompt_id": group[0][0].id, "n": n, "kl": best_of_n.kl(n)}
            rows.append({**row, "proxy": best_of_n.score(ours, n), "gold": gold})
    return rows


def curve_findings(rows: Sequence[dict], seed: int, num_resamples: int) -> list[Finding]:
    """The means of `curve` over prompts, with intervals, and the KL of each n."""
    found: list[Finding] = []
    for n in dict.fromkeys(row["n"] for row in rows):
        here = [row for row in rows if row["n"] == n]
        for name in ("proxy", "gold"):
            values = [row[name] for row in here if row[name] is not None]
            if values:
                found.append(_mean(f"{name}, best of {n}", values, seed, num_resamples))
        bound = Finding(
            name=f"kl bound, best of {n}", estimate=here[0]["kl"], n=len(here), unit="nats"
        )
        found.append(bound)
    return found


def _mean(name: str, values: Sequence[float], seed: int, num_resamples: int) -> Finding:
    rng = np.random.default_rng(stream_seed(seed, "bootstrap", name))
    interval = bootstrap_mean(values, num_resamples=num_resamples, rng=rng)
    return Finding(
        name=name,
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        unit="score",
    )
