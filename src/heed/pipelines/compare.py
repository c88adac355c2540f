"""Pair completions of one prompt, and let a labeller say which is better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from heed.data.completions import load_completions
from heed.data.datasets import paths_of
from heed.data.exchange import write_rows
from heed.data.report import settle
from heed.feedback.base import Labeller
from heed.feedback.ensemble import sources_of
from heed.feedback.resolve import load_scorers
from heed.feedback.simulated import Biases, Crew, ScorerLabeller, SimulatedLabeller
from heed.ids import content_hash, stream_seed
from heed.records import Completion, Pair, Prompt
from heed.runs.run import Run
from heed.runs.sinks import Sink
from heed.settings import DataSettings, NoEffect, RunSettings, Settings


class CompareConfig(Settings):
    """Compare completions pairwise with a simulated labeller, a reward model or a callable."""

    run: RunSettings
    data: DataSettings
    """Completions: the run folder of `heed generate`, one or several."""
    scorers: tuple[str, ...] = Field(min_length=1)
    """What the labeller goes by: a world (its truth), reward models or callables."""
    scorer_weights: tuple[float, ...] | None = None
    """One weight for each of `scorers`."""
    labeller: Literal["simulated", "scorer"] = "simulated"
    """simulated: people who see the score through noise, skill and bias. scorer: the score."""
    num_labellers: int = Field(default=4, ge=1)
    """Simulated people who share the work."""
    overlap: int = Field(default=1, ge=1)
    """People who judge each pair."""
    temperature: float = Field(default=0.5, ge=0.0)
    """Score difference at which a labeller's log-odds are 1; 0 always picks the higher score."""
    skill: float = Field(default=0.95, ge=0.0, le=1.0)
    """Share of the pairs that a simulated labeller attends to; the rest is guessed."""
    tie_width: float = Field(default=0.0, ge=0.0)
    """Scores closer than this are called a tie."""
    biases: Biases = Biases()
    pairs_per_prompt: int | None = Field(default=None, ge=1)
    """Random pairs of each prompt; all by default."""

    def without_effect(self) -> tuple[NoEffect, ...]:
        """See `Settings.without_effect`."""
        return (
            NoEffect(
                self.labeller == "scorer",
                ("num_labellers", "overlap", "skill", "tie_width", "biases"),
                "labeller is scorer, which is no person",
            ),
            NoEffect(
                True,
                ("data.max_length", "data.on_overlong"),
                "completions are compared as they are, and no model reads them here",
            ),
        )

    @model_validator(mode="after")
    def _check(self) -> CompareConfig:
        if self.overlap > self.num_labellers:
            raise ValueError(
                f"overlap {self.overlap} is more than num_labellers {self.num_labellers}; "
                "nobody judges the same pair twice"
            )
        return self


def run(config: CompareConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Compare, and leave `RUN/pairs.jsonl` and `RUN/preferences.jsonl`."""
    inputs = {"data": config.data.path} | {f"scorer {w}": sources_of(w) for w in config.scorers}
    with Run.start(config.run, "compare", config, inputs, sinks) as run:
        completions, report = load_completions(config.data)
        settle(run, [(report, config.data.max_loss_frac)])
        pairs = list(
            make_pairs(completions, config.pairs_per_prompt, config.run.seed, _origin(config.data))
        )
        run.stage("comparing", len(pairs))
        labelled = make_labeller(config).compare(pairs)
        run.progress(len(pairs), len(pairs))
        write_rows(run.path("pairs.jsonl"), [p.model_dump(mode="json") for p in pairs])
        rows = [p.model_dump(mode="json") for p in labelled.preferences]
        write_rows(run.path("preferences.jsonl"), rows)
        facts = {
            "num_pairs": len(pairs),
            "num_preferences": len(rows),
            "num_pending": len(labelled.pending),
            "left_frac": _left_share([p.p_left for p in labelled.preferences]),
        }
        run.finish(
            {"pairs": run.path("pairs.jsonl"), "preferences": run.path("preferences.jsonl")},
            facts=facts,
        )
    return run


def make_pairs(
    completions: Sequence[tuple[Prompt, Completion]],
    pairs_per_prompt: int | None,
    seed: int,
    origin: str,
) -> Iterator[Pair]:
    """Pair each prompt's completions; equal texts and failed completions are left out.

    Which of the two stands left is drawn at random, so that side tells nothing.
    """
    groups: dict[str, tuple[Prompt, list[Completion]]] = {}
    for prompt, completion in completions:
        if completion.finish != "error":
            groups.setdefault(prompt.id, (prompt, []))[1].append(completion)
    for prompt, group in groups.values():
        rng = np.random.default_rng(stream_seed(seed, "pairs", prompt.id))
        found = [(a, b) for a, b in combinations(group, 2) if a.text != b.text]
        if pairs_per_prompt is not None and len(found) > pairs_per_prompt:
            picked = sorted(rng.choice(len(found), pairs_per_prompt, replace=False).tolist())
            found = [found[i] for i in picked]
        for a, b in found:
            left, right = (a, b) if rng.random() < 0.5 else (b, a)
            name = "pair-" + content_hash([prompt.id, left.id, right.id])
            yield Pair(id=name, prompt=prompt, left=left, right=right, origin=origin)


def _origin(data: DataSettings) -> str:
    """The runs' names: where their folders stand changes nothing that is made of them."""
    return ", ".join(Path(path).name for path in paths_of(data))


def make_labeller(config: CompareConfig) -> Labeller:
    """The labeller that a configuration asks for."""
    scorer = load_scorers(config.scorers, config.scorer_weights, apparent=True)
    if config.labeller == "scorer":
        return ScorerLabeller(scorer, temperature=config.temperature, seed=config.run.seed)
    people = [
        SimulatedLabeller(
            scorer,
            name=f"simulated-{i + 1}",
            temperature=config.temperature,
            skill=config.skill,
            biases=config.biases,
            tie_width=config.tie_width,
            seed=config.run.seed,
        )
        for i in range(config.num_labellers)
    ]
    return Crew(people, overlap=config.overlap, seed=config.run.seed)


def _left_share(verdicts: Sequence[float | None]) -> float | None:
    known = [v for v in verdicts if v is not None]
    return sum(known) / len(known) if known else None
