"""Say measured quantities in words, each with its interval.

A finding's name, and the stage that measured it, say what it is about:

    [A_over_B/]win_rate[/JUDGE]         share of comparisons that policy A wins against policy B
    [A_over_B/]JUDGE/after, /before, /gain      mean score of A, of B, and the difference
    length/after, ended/after, kl, ...          the same for length, endings and sequence KL
    ...accuracy, with "length" or "bag of words" in the name for the baselines

An evaluation that does not name A and B in its findings means its model and its baseline. Any
other name is said as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from heed.records import Finding
from heed.report import numbers
from heed.report.folder import RunRecord, mapping, summary_findings
from heed.report.parting import Parting, parting

__all__ = ["Statement", "Subject", "by_policy", "parting", "state", "statements", "verdict"]

Verdict = Literal["better", "worse", "even", "plain"]

POLICIES = {
    "init": "the untrained model",
    "pretrain": "the pretrained policy",
    "base": "the base policy",
    "sft": "the warm-up policy",
    "reference": "the reference",
    "before": "the baseline",
    "ppo": "the PPO policy",
    "after": "the judged policy",
    "overoptimise": "the over-optimised policy",
}
"""Word for a policy -> how a sentence calls it; in the order of training."""
_ALIASES = {
    "pretrained": "pretrain",
    "warmup": "sft",
    "overoptimised": "overoptimise",
    "overoptimisation": "overoptimise",
}

QUANTITIES = {
    "true": "True quality",
    "proxy": "Proxy reward",
    "kl": "Sequence KL to the baseline",
    "length": "Completion length",
    "ended": "Completions that end",
}
_WORDS = {
    "true": "true", "gold": "true", "quality": "true", "proxy": "proxy", "score": "proxy",
    "scores": "proxy", "reward": "proxy", "kl": "kl", "length": "length", "tokens": "length",
    "stop": "ended", "eos": "ended", "ended": "ended",
}  # fmt: skip
_JUDGES = {"true": "by true quality", "proxy": "by the proxy"}


@dataclass(frozen=True)
class Subject:
    """What a finding is about."""

    kind: str
    """win_rate, reward_accuracy, length_accuracy, bag_accuracy, a key of QUANTITIES, or other."""
    policy: str | None = None
    rival: str | None = None
    judge: str | None = None
    """Who says so: true, proxy, or another scorer's word."""


@dataclass(frozen=True)
class Statement:
    """A finding in words."""

    text: str
    interval: str
    verdict: Verdict
    finding: Finding
    subject: Subject
    where: str = ""
    """Stage that measured it."""

    @property
    def is_share(self) -> bool:
        """Whether the estimate is a share that chance would put at one half."""
        return self.subject.kind == "win_rate" or self.subject.kind.endswith("accuracy")


def statements(record: RunRecord) -> list[Statement]:
    """Say every finding of a run and its stages, those that matter most first."""
    said = []
    for run in record.walk():
        if run.stages and any(stage.findings for stage in run.walk() if stage is not run):
            continue  # a pipeline's findings repeat those of its stages
        one, two = _compared(run)
        said += [state(finding, one, two, run.name) for finding in run.findings]
    return _ranked(said or [state(finding) for finding in summary_findings(record)])


def state(
    finding: Finding, policy: str | None = None, rival: str | None = None, where: str = ""
) -> Statement:
    """Say a finding in a sentence, and its interval (or that there is none) in another.

    Args:
        finding: what was measured.
        policy: word of the judged policy, where the finding's name does not say it.
        rival: word of the policy it was compared with.
        where: stage that measured it.
    """
    about = subject(finding.name, policy, rival)
    text, interval = _text(finding, about), _interval(finding, about)
    return Statement(text, interval, _judge(finding, about), finding, about, where)


def subject(name: str, policy: str | None = None, rival: str | None = None) -> Subject:
    """Read from a finding's name what it is about; `policy` and `rival` are the evaluation's."""
    plain = re.sub(r"warm[-_ ]up", "warmup", name.lower())
    words = [_ALIASES.get(word, word) for word in re.findall(r"[a-z0-9]+", plain)]
    if "over" in words[1:-1]:
        at = words.index("over", 1)
        policy, rival = policy or words[at - 1], rival or words[at + 1]
        words = words[: at - 1] + words[at + 2 :]
    if "winrate" in words or {"win", "rate"} <= set(words):
        rest = [w for w in words if w not in ("win", "rate", "winrate")]
        judge = next((_WORDS[w] for w in rest if w in _WORDS), rest[-1] if rest else None)
        return Subject("win_rate", policy, rival, judge)
    if "accuracy" in words:
        if "subset" in words or "member" in words:
            return Subject("subset_accuracy")
        if "length" in words or "longer" in words:
            return Subject("length_accuracy")
        is_bag = "bag" in words or "bow" in words
        return Subject("bag_accuracy" if is_bag else "reward_accuracy")
    kind = next((_WORDS[w] for w in words if w in _WORDS), None)
    named = next((w for w in words if w in POLICIES and w not in ("before", "after")), None)
    if kind is None or "gain" in words or "error" in words:
        return Subject("other", policy or named, rival)
    if "before" in words:
        return Subject(kind, rival or "before")
    if "after" in words:
        return Subject(kind, policy or "after")
    about = policy if policy and kind == "kl" else named
    return Subject(kind, about) if about else Subject("other", policy, rival)


def called(policy: str | None) -> str:
    """Name a policy in a sentence."""
    return POLICIES.get(policy or "", policy or "the policy")


def value_text(finding: Finding, about: Subject, value: float | None) -> str:
    """Write a value in the finding's unit: shares as per cent, others as a number."""
    if _is_share(finding, about):
        return numbers.share(value)
    return numbers.figure(value)


def by_policy(
    said: Sequence[Statement],
) -> tuple[list[str], list[tuple[str, dict[str, Statement]]], list[Statement]]:
    """Gather quantities that are known of several policies into rows.

    Returns the policies in the order of training, one row for each quantity (its title, and the
    statement by policy), and the statements that fit in no row.
    """
    cells: dict[str, dict[str, Statement]] = {}
    for statement in said:
        about = statement.subject
        if about.kind in QUANTITIES and about.policy:
            cells.setdefault(about.kind, {}).setdefault(about.policy, statement)
    if not any(len(found) > 1 for found in cells.values()):
        return [], [], list(said)
    found = {policy for row in cells.values() for policy in row}
    policies = [p for p in POLICIES if p in found] + sorted(found - set(POLICIES))
    rest = [s for s in said if not (s.subject.kind in cells and s.subject.policy)]
    return policies, [(_with_unit(k, cells[k]), cells[k]) for k in QUANTITIES if k in cells], rest


def verdict(said: Sequence[Statement], parted: Parting | None) -> str | None:
    """Say the run's outcome in one or two sentences; None where nothing was compared."""
    known = [s for s in said if s.finding.estimate is not None]
    wins = [s for s in known if s.subject.kind == "win_rate"]
    main = [s for s in wins if s.subject.policy in ("ppo", "after")]
    lines = [s.text for s in (main or wins)[:1]]
    if parted is not None:
        lines.append(
            f"Optimised without a KL penalty, the proxy went on rising after update "
            f"{numbers.figure(parted.step)} while true quality fell."
        )
    return " ".join(lines) or None


def _compared(run: RunRecord) -> tuple[str | None, str | None]:
    """Words of the two policies of an evaluation, from the paths in its configuration."""
    names = []
    for key in ("model", "baseline"):
        path = mapping(run.config.get(key)).get("path")
        word = PurePath(path).name.lower() if isinstance(path, str) else ""
        names.append(_ALIASES.get(word, word) or None)
    return (names[0], names[1]) if run.kind == "evaluate" else (None, None)


def _is_share(finding: Finding, about: Subject) -> bool:
    shares = ("win_rate", "ended")
    return (
        about.kind in shares
        or about.kind.endswith("accuracy")
        or finding.unit.strip().lower().startswith(("share", "frac", "probab"))
    )


def _judge(finding: Finding, about: Subject) -> Verdict:
    if about.kind != "win_rate" or finding.low is None or finding.high is None:
        return "plain"
    if finding.low > 0.5:
        return "better"
    return "worse" if finding.high < 0.5 else "even"


def _text(finding: Finding, about: Subject) -> str:
    if finding.estimate is None:
        return f"{_title(finding.name)} is not known: {_ended(finding.reason or 'no reason given')}"
    value = value_text(finding, about, finding.estimate)
    if about.kind == "win_rate":
        return _win_text(finding, about, value)
    if about.kind == "reward_accuracy":
        return f"The reward model agrees with {value} of held-out comparisons."
    if about.kind == "length_accuracy":
        said = f"Always preferring the longer completion agrees with {value} of them"
        if finding.estimate < 0.5:
            said += f", so the shorter one with {numbers.share(1 - finding.estimate)}"
        return said + "."
    if about.kind == "bag_accuracy":
        return f"A bag of words agrees with {value} of them."
    if about.kind in QUANTITIES:
        return f"{QUANTITIES[about.kind]} of {called(about.policy)}: {value}."
    return f"{_title(finding.name)}: {value}."


def _win_text(finding: Finding, about: Subject, value: str) -> str:
    one = called(about.policy)
    two = called(about.rival) if about.rival else "its rival"
    by = f", {_JUDGES.get(about.judge, f'by {about.judge}')}" if about.judge else ""
    verdict = _judge(finding, about)
    if verdict == "better":
        return f"{_capital(one)} beats {two} in {value} of comparisons{by}."
    if verdict == "worse":
        return f"{_capital(one)} loses to {two}: it wins only {value} of comparisons{by}."
    if verdict == "even":
        apart = f"{_capital(one)} and {two} cannot be told apart"
        return f"{apart}: {one} wins {value} of comparisons{by}."
    return f"{_capital(one)} wins {value} of comparisons against {two}{by}."


def _interval(finding: Finding, about: Subject) -> str:
    count = f"n = {numbers.whole(finding.n)}"
    if finding.estimate is None:
        return count
    if finding.low is None or finding.high is None:
        return f"no interval, {count}"
    low, high = (value_text(finding, about, end) for end in (finding.low, finding.high))
    return f"{numbers.LEVEL} interval {low} to {high}, {count}"


def _ranked(said: Sequence[Statement]) -> list[Statement]:
    """Order statements as a reader wants them: who wins, whether the scorer is good, the rest."""
    kinds = ["win_rate", "reward_accuracy", "length_accuracy", "bag_accuracy"]

    def place(statement: Statement) -> tuple[int, int, int]:
        about = statement.subject
        kind = kinds.index(about.kind) if about.kind in kinds else len(kinds)
        latest = -list(POLICIES).index(about.policy) if about.policy in POLICIES else 0
        on_purpose = (about.policy or "").startswith("overoptim")
        return (kind, 1 if on_purpose else latest, 0 if about.judge == "true" else 1)

    return sorted(said, key=place)


def _with_unit(kind: str, row: dict[str, Statement]) -> str:
    unit = next(iter(row.values())).finding.unit.split(" per ")[0]
    return f"{QUANTITIES[kind]} ({unit})" if kind in ("kl", "length") and unit else QUANTITIES[kind]


def _title(name: str) -> str:
    return _capital(re.sub(r"[_/]+", " ", name).strip())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _ended(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."
