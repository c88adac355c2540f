"""Judging one policy against another: known win rates are covered, equal policies are equal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import Tiny

from heed.audits import evaluate
from heed.audits.evaluate import EvaluateConfig, judged
from heed.records import Finding, Prompt
from heed.runs.files import read_lines

LEARNER = {"precision": "fp32", "device": "cpu"}


def _config(folder: Path | str = "nowhere", **changes: Any) -> EvaluateConfig:
    values = {
        "run": {"folder": str(folder)},
        "model": {"path": "a"},
        "baseline": {"path": "b"},
        "data": {"path": "c"},
        "judges": {"true": "d"},
        "num_resamples": 200,
        "learner": LEARNER,
    }
    return EvaluateConfig.model_validate(values | changes)


def _judged(new: Any, old: Any) -> dict[str, Finding]:
    prompts = [Prompt.make(f"prompt {i}") for i in range(len(new))]
    found = judged(_config(), "true", prompts, new, old)
    return {finding.name: finding for finding in found}


def _simulated(
    rng: np.random.Generator, prompts: int, n: int, rate: float, spread: float
) -> list[list[float]]:
    """1 where the new policy wins; prompts differ in how often it does."""
    odds = np.log(rate / (1 - rate)) + spread * rng.standard_normal(prompts)
    share = 1 / (1 + np.exp(-odds))
    return (rng.random((prompts, n)) < share[:, None]).astype(float).tolist()


def test_intervals_cover_a_known_win_rate_where_prompts_differ() -> None:
    """400 simulated evaluations: 60 prompts, 4 completions each, which are not independent."""
    rng = np.random.default_rng(0)
    truth = np.mean([np.mean(_simulated(rng, 2000, 1, 0.6, 1.5)) for _ in range(200)])
    covered, naive = 0, 0
    for _ in range(400):
        wins = _simulated(rng, 60, 4, 0.6, 1.5)
        zero = [[0.5] * 4 for _ in wins]
        found = _judged(wins, zero)["win_rate/true"]
        assert found.low is not None
        assert found.high is not None
        assert found.n == 60
        covered += found.low <= truth <= found.high
        mean = float(np.mean(wins))
        half = 1.96 * (mean * (1 - mean) / 240) ** 0.5
        naive += abs(mean - truth) <= half
    assert covered >= 0.93 * 400
    assert naive < covered, "without clusters the intervals would be too narrow"


def test_mean_gains_are_covered_too() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        effect = 0.3 + rng.standard_normal((50, 1))
        new = (effect + rng.standard_normal((50, 3))).tolist()
        found = _judged(new, np.zeros((50, 3)).tolist())["true/gain"]
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.3 <= found.high
    assert covered >= 0.90 * 200


def test_ties_count_half_and_missing_scores_leave_with_their_partner() -> None:
    found = _judged([[1.0, 2.0], [None, 1.0]], [[1.0, 1.0], [5.0, None]])
    assert found["win_rate/true"].estimate == 0.75
    assert found["win_rate/true"].n == 1
    assert found["true/after"].estimate == 1.5
    assert found["true/before"].estimate == 1.0


def test_without_any_score_there_is_a_reason_and_no_number() -> None:
    for finding in _judged([[None]], [[1.0]]).values():
        assert finding.estimate is None
        assert "nothing to measure" in str(finding.reason)


def _evaluated(tiny: Tiny, folder: Path, **changes: Any) -> dict[str, Finding]:
    values = {
        "model": {"path": str(tiny.policy)},
        "baseline": {"path": str(tiny.policy)},
        "data": {"path": str(tiny.world / "held_out.jsonl")},
        "judges": {"true": str(tiny.world), "proxy": str(tiny.reward)},
        "sampling": {"max_tokens": 10, "n": 2},
    }
    run = evaluate.run(_config(folder, **{**values, **changes}))
    return {finding.name: finding for finding in run.findings()}


def test_a_policy_against_itself_wins_half(tiny: Tiny, tmp_path: Path) -> None:
    found = _evaluated(tiny, tmp_path / "run")
    for judge in ("true", "proxy"):
        wins = found[f"win_rate/{judge}"]
        assert wins.estimate == 0.5
        assert wins.low is not None
        assert wins.high is not None
        assert wins.low < 0.5 < wins.high
        assert found[f"{judge}/gain"].estimate == 0.0
        assert wins.n == 24
    assert found["kl"].estimate == pytest.approx(0.0, abs=1e-4)
    assert found["length/after"].estimate == found["length/before"].estimate


def test_a_share_of_none_is_not_certain(tiny: Tiny, tmp_path: Path) -> None:
    """No resampling of 24 completions that all go on says anything about the 25th; Wilson does."""
    sampling = {"max_tokens": 3, "ignore_end": True}
    ended = _evaluated(tiny, tmp_path / "run", sampling=sampling)["ended/after"]
    assert ended.estimate == ended.low == 0.0
    assert ended.high is not None
    assert 0.1 < ended.high < 0.2


def test_every_judged_pair_is_kept_as_evidence(tiny: Tiny, tmp_path: Path) -> None:
    found = _evaluated(tiny, tmp_path / "run", baseline={"path": str(tiny.fresh)})
    rows = read_lines(tmp_path / "run" / "judged.jsonl")
    assert len(rows) == 48
    wins = [
        (s["after"] > s["before"]) + 0.5 * (s["after"] == s["before"])
        for s in (row["scores"]["proxy"] for row in rows)
    ]
    assert found["win_rate/proxy"].estimate == pytest.approx(float(np.mean(wins)))
    assert found["kl"].estimate is not None
    assert found["kl"].estimate > 0.1
    nats = [row["kl"] for row in rows]
    assert len(set(nats)) > 40
    assert found["kl"].estimate == pytest.approx(float(np.mean(nats)))


def test_the_same_seed_gives_the_same_findings(tiny: Tiny, tmp_path: Path) -> None:
    changes = {"baseline": {"path": str(tiny.fresh)}}
    assert _evaluated(tiny, tmp_path / "a", **changes) == _evaluated(
        tiny, tmp_path / "b", **changes
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"baseline": "other_base"}, "different vocabularies"),
        ({"sampling": {"max_tokens": 6, "temperature": 0.0}}, "greedy completions"),
    ],
)
def test_where_kl_is_not_defined_the_finding_says_why(
    tiny: Tiny, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    if "baseline" in changes:
        changes = {"baseline": {"path": str(getattr(tiny, changes["baseline"]))}}
    found = _evaluated(tiny, tmp_path / "run", judges={"true": str(tiny.world)}, **changes)
    assert found["kl"].estimate is None
    assert reason in str(found["kl"].reason)
    assert found["win_rate/true"].estimate is not None


def test_failed_completions_have_no_length_and_no_kl(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heed.engines.local import LocalEngine

    original = LocalEngine.generate

    def failing(self: LocalEngine, prompts: Sequence[Prompt], sampling: Any) -> Any:
        groups = original(self, prompts, sampling)
        broken = {"finish": "error", "error": "planted", "tokens": (), "logprobs": ()}
        first = [c.model_copy(update=broken) for c in groups[0]]
        return [first, *groups[1:]]

    monkeypatch.setattr(LocalEngine, "generate", failing)
    found = _evaluated(tiny, tmp_path / "run")
    assert found["win_rate/true"].n == 23
    assert found["length/after"].n == 23
    assert found["kl"].n == 23
    assert found["length/after"].low is not None
    assert found["length/after"].low > 1
