"""The wording of findings: who wins, how sure that is, and what is not known."""

from __future__ import annotations

from pathlib import Path

import pytest

from heed.records import Finding
from heed.report.findings import by_policy, state, statements, subject, verdict
from heed.report.folder import read_folder
from heed.report.parting import Parting


def made(name: str, estimate: float | None, low: float | None, high: float | None) -> Finding:
    reason = None if estimate is not None else "no pair has both scores"
    return Finding(
        name=name, estimate=estimate, low=low, high=high, n=300, unit="share", reason=reason
    )


@pytest.mark.parametrize(
    ("ends", "word", "text"),
    [
        ((0.71, 0.66, 0.75), "better", "The PPO policy beats the warm-up policy in 71.0"),
        ((0.52, 0.47, 0.57), "even", "The PPO policy and the warm-up policy cannot be told apart"),
        ((0.31, 0.26, 0.36), "worse", "The PPO policy loses to the warm-up policy: it wins only"),
        ((0.71, None, None), "plain", "The PPO policy wins 71.0"),
    ],
)
def test_win_rate_is_said_as_its_interval_allows(
    ends: tuple[float, float | None, float | None], word: str, text: str
) -> None:
    said = state(made("win_rate/true", *ends), "ppo", "sft")
    assert said.verdict == word
    assert said.text.startswith(text)
    assert said.text.endswith("by true quality.")


def test_interval_and_n_are_always_said() -> None:
    said = state(made("win_rate/true", 0.713, 0.668, 0.754), "ppo", "sft")
    assert said.interval.replace("\N{NARROW NO-BREAK SPACE}", " ") == (
        "95 % interval 66.8 % to 75.4 %, n = 300"
    )
    assert state(made("win_rate/true", 0.7, None, None)).interval == "no interval, n = 300"


def test_length_baseline_below_one_half_is_turned_round() -> None:
    text = state(made("always-longer accuracy", 0.25, 0.2, 0.3)).text
    assert text.replace("\N{NARROW NO-BREAK SPACE}", " ").endswith(
        "so the shorter one with 75.0 %."
    )
    assert "shorter" not in state(made("always-longer accuracy", 0.6, 0.5, 0.7)).text


def test_unknown_estimate_says_why() -> None:
    said = state(made("win_rate/true", None, None, None), "ppo", "sft")
    assert said.text == "Win rate true is not known: no pair has both scores."


@pytest.mark.parametrize(
    ("name", "kind", "policy", "judge"),
    [
        ("PPO over warm-up: win_rate/true", "win_rate", "ppo", "true"),
        ("ppo_over_sft/win_rate/proxy", "win_rate", "ppo", "proxy"),
        ("win_rate/somebody", "win_rate", None, "somebody"),
        ("reward model accuracy", "reward_accuracy", None, None),
        ("always-longer accuracy", "length_accuracy", None, None),
        ("bag-of-words accuracy", "bag_accuracy", None, None),
        ("true/ppo", "true", "ppo", None),
        ("something else", "other", None, None),
    ],
)
def test_names_are_understood(name: str, kind: str, policy: str | None, judge: str | None) -> None:
    about = subject(name)
    assert (about.kind, about.policy, about.judge) == (kind, policy, judge)


def test_evaluation_names_the_policies_of_before_and_after() -> None:
    after = subject("without a penalty over warm-up: length/after", "overoptimise", "sft")
    before = subject("without a penalty over warm-up: length/before", "overoptimise", "sft")
    assert (after.kind, after.policy) == ("length", "overoptimise")
    assert (before.kind, before.policy) == ("length", "sft")
    gain = subject("PPO over warm-up: true/gain", "ppo", "sft")
    assert gain.kind == "other"


def test_other_findings_are_said_as_they_stand() -> None:
    assert state(made("left_share", 0.498, 0.47, 0.52)).text.startswith("Left share: ")


def test_findings_of_a_pipeline_are_read_once_and_ranked(pipeline: Path) -> None:
    said = statements(read_folder(pipeline))
    names = [s.finding.name for s in said]
    assert len(names) == len(set(names)) == 27
    assert said[0].text.startswith("The PPO policy beats the warm-up policy")
    assert said[0].subject.judge == "true"
    kinds = [s.subject.kind for s in said]
    assert kinds[4:7] == ["reward_accuracy", "length_accuracy", "bag_accuracy"]


def test_quantities_gather_by_policy_in_order_of_training(pipeline: Path) -> None:
    policies, table, rest = by_policy(statements(read_folder(pipeline)))
    assert policies == ["pretrain", "sft", "ppo"]
    rows = {title: {p: s.finding.estimate for p, s in found.items()} for title, found in table}
    assert rows["True quality"] == {"pretrain": 0.31, "sft": 0.93, "ppo": 1.66}
    assert rows["Sequence KL to the baseline (nats)"] == {"sft": 14.9, "ppo": 7.6}
    assert all(s.subject.kind not in ("true", "kl", "length") for s in rest)


def test_verdict_names_the_outcome_and_the_parting() -> None:
    wins = [state(made("win_rate/true", 0.71, 0.66, 0.75), "ppo", "sft")]
    parted = Parting(84.0, 1.5, 0.2, 0.1, 2.0, 4.0, 0.1)
    text = verdict(wins, parted)
    assert text is not None
    assert "beats the warm-up policy" in text
    assert "after update 84" in text
    assert verdict([], None) is None
