"""Sampling, scoring and laying out: endings, failures, and what a file gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import POLICY, raw_prompts, renderer, small
from tests.tiny import Tiny, run_stage

from heed.algorithms.rollouts import (
    AS_SAMPLED,
    Ending,
    collect,
    experience,
    score_groups,
)
from heed.engines.local import LocalEngine
from heed.engines.scripted import ScriptedEngine
from heed.errors import FeedbackError
from heed.feedback.base import Item
from heed.feedback.rules import CallableScorer
from heed.records import Completion, PolicyRef, Prompt, Sampling, Score
from heed.runs.run import Run
from heed.settings import RunSettings


def _completion(text: str, finish: Any = "stop") -> Completion:
    tokens = tuple(renderer().tokenizer.encode(text, add_special_tokens=False))
    if finish == "stop":
        tokens += (renderer().end_ids[0],)
    return Completion(
        id=text, prompt_id="p", prompt_tokens=(1, 2), tokens=tokens, text=text, finish=finish
    )


def _lengths(completions: Sequence[Any], **_: Any) -> list[float]:
    return [float(len(text)) for text in completions]


class Recorder:
    """Scores by length, and remembers the texts that it was shown."""

    name = "recorder"

    def __init__(self) -> None:
        self.shown: list[str] = []

    def score(self, items: Sequence[Item]) -> list[Score]:
        self.shown += [item.completion.text for item in items]
        return [
            Score(item_id=item.completion.id, value=float(i), scorer=self.name)
            for i, item in enumerate(items)
        ]


def test_as_sampled_a_completion_ended_where_the_policy_stopped() -> None:
    whole, cut = _completion("A baker."), _completion("A baker.", finish="length")
    assert AS_SAMPLED.cut(whole, renderer()) is whole
    assert AS_SAMPLED.cut(cut, renderer()) is None


@pytest.mark.parametrize(
    ("text", "min_tokens", "shown"),
    [
        ("The miller lives. The baker sells", 0, "The miller lives."),
        ("A baker sells. Who sells bread. Who", 8, "A baker sells. Who sells bread."),
        ("The miller lives. The baker sells", 30, None),
        ("The miller lives", 0, None),
        (". The miller", 0, "."),
    ],
)  # fmt: skip
def test_p5_the_scorer_sees_up_to_the_first_full_stop_after_some_tokens(
    text: str, min_tokens: int, shown: str | None
) -> None:
    """Ziegler's rule; the same with and without an end token of the policy's own."""
    for finish in ("length", "stop"):
        found = Ending(".", min_tokens).cut(_completion(text, finish), renderer())
        assert (None if found is None else found.text.strip()) == shown


def test_p5_what_the_scorer_sees_is_cut_and_what_is_learned_is_not(tmp_path: Path) -> None:
    prompts = raw_prompts([12, 9])
    replies = {prompts[0].text: "A. B", prompts[1].text: "no stop"}
    engine = ScriptedEngine(replies, renderer(), POLICY)
    completions = engine.generate(prompts, Sampling())
    ending, recorder = Ending("."), Recorder()
    groups = score_groups(recorder, prompts, completions, renderer(), ending)
    assert [text.strip() for text in recorder.shown] == ["A.", "no stop"]
    learned = [g.rollouts[0].completion for g in groups]
    assert learned == [c[0] for c in completions]
    groups = [_with_logprobs(group) for group in groups]
    seen = experience(groups, renderer(), 1.0, 0.0, ending)
    assert seen.ended.tolist() == [True, False]
    assert seen.batch.learn.sum(1).tolist() == [c[0].num_tokens for c in completions]


def _with_logprobs(group: Any) -> Any:
    """Scripted completions have none; these are as good as any."""
    done = [
        rollout.model_copy(
            update={
                "completion": rollout.completion.model_copy(
                    update={"logprobs": (-1.0,) * rollout.completion.num_tokens}
                )
            }
        )
        for rollout in group.rollouts
    ]
    return group.model_copy(update={"rollouts": tuple(done)})


def test_p5_the_stage_applies_the_rule(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.ppo_config(
        tmp_path / "run",
        truncate_after="e",
        truncate_min_tokens=2,
        total_episodes=16,
        keep_rollouts=True,
        sampling={"max_tokens": 8},
    )
    row = run_stage(config).metrics()[1]
    groups = (tmp_path / "run" / "rollouts" / "update-00000001.jsonl").read_text().splitlines()
    assert 0 < row["val/num_eos_tokens"] < 16
    assert len(groups) == 16


def _made(folder: Path, prompts: list[Prompt], n: int = 2) -> tuple[Run, Callable[[], list[Any]]]:
    run = Run.start(RunSettings(folder=str(folder)), "ppo", {})
    engine = LocalEngine(small(), renderer(), policy=PolicyRef(run="r", step=0))
    scorer = CallableScorer(_lengths)
    sampling = Sampling(n=n, max_tokens=6, seed=4, top_k=7)

    def make() -> list[Any]:
        return collect(run, 1, engine, scorer, prompts, sampling, renderer())

    return run, make


def test_groups_that_are_read_back_are_those_that_were_written(tmp_path: Path) -> None:
    """To the bit: log-probabilities, scores and kept ids go through JSON unchanged."""
    run, make = _made(tmp_path / "run", raw_prompts([8, 11, 5]))
    with run:
        first, second = make(), make()
    assert first == second
    one, other = (experience(g, renderer(), 1.0, 0.0) for g in (first, second))
    assert torch.equal(one.scores, other.scores)
    for name, values in one.batch.streams.items():
        assert torch.equal(values, other.batch.streams[name])
    assert one.batch.kept is not None
    assert other.batch.kept is not None
    assert torch.equal(one.batch.kept, other.batch.kept)


def test_a_prompt_that_stands_in_an_update_twice_gets_other_samples(tmp_path: Path) -> None:
    prompts = raw_prompts([8, 11])
    run, make = _made(tmp_path / "run", [prompts[0], prompts[1], prompts[0], prompts[0]])
    with run:
        groups = make()
    assert [g.prompt.id for g in groups] == [prompts[i].id for i in (0, 1, 0, 0)]
    texts = [tuple(r.completion.tokens for r in groups[i].rollouts) for i in (0, 2, 3)]
    assert len(set(texts)) == 3
    ids = [r.completion.id for g in groups for r in g.rollouts]
    assert len(set(ids)) == 8


BAD: dict[str, tuple[str, str]] = {
    "not a number": ("return [float('nan')] * len(completions)", "returned nan"),
    "infinite": ("return [float('inf')] * len(completions)", "returned inf"),
    "raises": ("raise KeyError('grade')", "KeyError: 'grade'"),
    "too few": ("return [1.0]", "returned 1 values for 16 completions"),
    "too many": ("return [1.0] * 99", "returned 99 values for 16 completions"),
    "words": ("return ['good'] * len(completions)", "returned 'good', which is not a number"),
    "declines": ("return [None] * len(completions)", "does not apply"),
}


@pytest.mark.parametrize("how", BAD)
def test_a_callable_that_gives_no_scores_stops_the_run_and_says_why(
    tiny: Tiny, tmp_path: Path, how: str
) -> None:
    body, reason = BAD[how]
    script = tmp_path / "bad.py"
    script.write_text(f"def score(completions, **columns):\n    {body}\n")
    config = tiny.ppo_config(
        tmp_path / "run", reward_funcs=[f"{script}:score"], num_eval_prompts=16
    )
    with pytest.raises(FeedbackError) as caught:
        run_stage(config)
    message = str(caught.value)
    assert "16 of 16 completions have no score" in message
    assert reason in message
    assert "max_failed_frac" in message
    assert Run.open(tmp_path / "run").status == "failed"


def test_a_few_failures_are_left_out_and_counted(tiny: Tiny, tmp_path: Path) -> None:
    script = tmp_path / "some.py"
    script.write_text(
        "def score(completions, **columns):\n"
        "    return [None if i % 8 == 3 else float(i) for i in range(len(completions))]\n"
    )
    changes: dict[str, Any] = {"reward_funcs": [f"{script}:score"], "total_episodes": 16}
    allowed = tiny.ppo_config(tmp_path / "run", max_failed_frac=0.2, **changes)
    row = run_stage(allowed).metrics()[1]
    assert row["num_failed"] == 2
    known = [float(i) for i in range(16) if i % 8 != 3]
    config = tiny.ppo_config(
        tmp_path / "again", max_failed_frac=0.2, missing_eos_score=None, **changes
    )
    assert run_stage(config).metrics()[1]["objective/scores"] == pytest.approx(
        sum(known) / len(known)
    )
    with pytest.raises(FeedbackError, match="2 of 16 completions have no score"):
        run_stage(
            tiny.ppo_config(tmp_path / "no", max_failed_frac=0.1, num_eval_prompts=3, **changes)
        )


def test_a_scorer_that_breaks_its_contract_is_named() -> None:
    class Short(Recorder):
        def score(self, items: Sequence[Item]) -> list[Score]:
            return super().score(items)[:-1]

    prompts = raw_prompts([8, 11])
    completions = ScriptedEngine(lambda p, i: "yes", renderer(), POLICY).generate(
        prompts, Sampling()
    )
    with pytest.raises(FeedbackError, match=r"'recorder' returned 1 scores for 2 items"):
        score_groups(Short(), prompts, completions, renderer())


def test_completions_without_logprobs_cannot_be_learned_from() -> None:
    prompts = raw_prompts([8])
    completions = ScriptedEngine(lambda p, i: "yes", renderer(), POLICY).generate(
        prompts, Sampling()
    )
    groups = score_groups(Recorder(), prompts, completions, renderer())
    with pytest.raises(FeedbackError, match="no log-probabilities"):
        experience(groups, renderer(), 1.0, 0.0)
