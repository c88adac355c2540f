"""Where a number cannot be trusted: every check, whether it speaks, stays quiet or cannot tell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Literal

from heed.report import numbers, roles
from heed.report.findings import Statement, called
from heed.report.folder import RunRecord, mapping, number

SMALL_N = 100
"""Below so many independent items an interval is wide and easily misread."""
BARELY = 0.03
"""A reward model this little above a baseline is called barely better."""
LOW_ACCURACY = 0.6
LOW_EOS = 0.8
MOST_EQUAL_GROUPS = 0.5
"""Share of groups that teach nothing, above which most of the sampling is spent for nothing."""
COLLAPSED_ENTROPY = 0.3
HIGH_CLIPFRAC = 0.3
LONGER = 2.0
HIGH_ECE = 0.1
LOST_ROWS = 0.05

Level = Literal["serious", "care", "note"]


@dataclass(frozen=True)
class Check:
    """One check of one run."""

    name: str
    state: Literal["raised", "quiet", "unknown"]
    text: str = ""
    level: Level = "care"
    where: str = ""


Verdict = tuple[Literal["raised", "quiet", "unknown"], str, Level]
QUIET: Verdict = ("quiet", "", "note")


def _unknown(why: str) -> Verdict:
    return ("unknown", why, "note")


def all_checks(record: RunRecord, statements: Sequence[Statement]) -> list[Check]:
    """Run every check that applies to what the run holds, the serious ones first."""
    found = []
    for run in roles.online_runs(record):
        found += [_checked(run, name, check) for name, check in _ONLINE]
        if run.known("frac_reward_zero_std")[1]:
            found.append(_checked(run, "groups teach something", _equal_groups))
    found += [Check("numbers are finite", *_finite(record))]
    for name, rule in _FINDINGS:
        found += [Check(name, "raised", text, "care") for text in rule(statements)] or [
            Check(name, "quiet")
        ]
    reward = roles.reward_run(record)
    if reward is not None:
        found.append(Check("calibration", *_calibration(reward), where="reward model"))
    found.append(Check("rows lost", *_lost_rows(record)))
    found += alarms(record)
    weight = {"serious": 0, "care": 1, "note": 2}
    return sorted(found, key=lambda check: weight[check.level])


def _checked(run: RunRecord, name: str, check: Callable[[RunRecord], Verdict]) -> Check:
    """Run one check; in a phase that over-optimises on purpose it can only be a note."""
    state, text, level = check(run)
    expected = roles.is_overoptimisation(run) and level == "care"
    return Check(name, state, text, "note" if expected else level, roles.label(run))


def alarms(record: RunRecord) -> list[Check]:
    """Return what the stages warned of while they ran, one entry for each name and stage."""
    found = []
    for run in record.walk():
        by_name: dict[str, list[dict[str, object]]] = {}
        for line in run.alarms:
            by_name.setdefault(str(line.get("name", "warning")), []).append(line)
        for name, lines in by_name.items():
            times = "" if len(lines) == 1 else f" ({numbers.whole(len(lines))} times)"
            first = number(lines[0].get("step"))
            at = f" First at step {numbers.figure(first)}." if first and len(lines) > 1 else ""
            text = f"{name}{times}: {lines[0].get('message', 'no message')}{at}"
            found.append(Check("warnings of the run", "raised", text, "care", run.name))
    return found


def _ends(values: Sequence[float], share: float = 0.1) -> tuple[float, float]:
    """Mean of the first and of the last tenth of a curve."""
    few = max(1, round(len(values) * share))
    return fmean(values[:few]), fmean(values[-few:])


def _parting(run: RunRecord) -> Verdict:
    steps, _, _ = roles.proxy_and_truth(run)
    if len(steps) < 8:
        return _unknown("true quality was measured fewer than 8 times")
    found = roles.parted(run)
    if found is None:
        return QUIET
    kl = roles.kl_at(run, found.step)
    where = f"update {numbers.figure(found.step)}"
    where += f" (KL {numbers.figure(kl)} nats)" if kl is not None else ""
    text = (
        f"Proxy and truth part: from {where} on, the proxy rises from "
        f"{numbers.figure(found.proxy_peak)} to {numbers.figure(found.proxy_end)} while true "
        f"quality falls from {numbers.figure(found.true_peak)} to {numbers.figure(found.true_end)}."
    )
    if roles.is_overoptimisation(run):
        return (
            "raised",
            f"{text} This phase was run to show it: no KL penalty, on purpose.",
            "note",
        )
    return ("raised", f"{text} Stop earlier or raise the KL coefficient.", "serious")


def _negative_kl(run: RunRecord) -> Verdict:
    _, values = run.known("objective/kl")
    if not values:
        return _unknown("no KL was logged")
    window = min(5, len(values))
    means = [fmean(values[i : i + window]) for i in range(len(values) - window + 1)]
    steps = [b - a for a, b in pairwise(values)]
    noise = math.sqrt(fmean(s * s for s in steps) / 2 / window) if steps else 0.0
    lowest = min(means)
    if lowest >= -max(0.02, 3 * noise):
        return QUIET
    return (
        "raised",
        f"Sequence KL is negative ({numbers.figure(lowest)} nats over {window} updates), which a "
        "KL cannot be: completions were probably sampled from another distribution than the one "
        "scored (temperature, top-k or top-p, dropout, stale weights). Do not trust the penalty.",
        "serious",
    )


def _ended(run: RunRecord) -> Verdict:
    _, cut = run.known("completions/clipped_ratio")
    if not cut:
        return _unknown("how completions end was not logged")
    end = 1 - _ends(cut)[1]
    if end >= LOW_EOS:
        return QUIET
    return (
        "raised",
        f"Only {numbers.share(end, 0)} of the last completions end by themselves; the others are "
        "cut at the longest length, and their scores are those of unfinished text.",
        "care",
    )


def _explained_variance(run: RunRecord) -> Verdict:
    _, values = run.known("value/explained_variance")
    if not values:
        return _unknown("there is no value model, or its fit was not logged")
    late = _ends(values, 1 / 3)[1]
    if late >= 0:
        return QUIET
    return (
        "raised",
        f"The value model explains less than nothing (explained variance {numbers.figure(late)} in "
        "the last third): advantages are noisier than without it.",
        "care",
    )


def _equal_groups(run: RunRecord) -> Verdict:
    late = _ends(run.known("frac_reward_zero_std")[1], 1 / 3)[1]
    if late <= MOST_EQUAL_GROUPS:
        return QUIET
    return (
        "raised",
        f"In the last third {numbers.share(late, 0)} of the groups have scores that are all equal: "
        "they teach nothing. Prompts of other difficulty, more completions of each, or a finer "
        "score would help.",
        "care",
    )


def _entropy(run: RunRecord) -> Verdict:
    _, values = run.known("objective/entropy")
    if len(values) < 2:
        return _unknown("entropy was not logged")
    first, last = _ends(values)
    if first <= 0 or last >= COLLAPSED_ENTROPY * first:
        return QUIET
    return (
        "raised",
        f"Entropy collapsed from {numbers.figure(first)} to {numbers.figure(last)} nats: the "
        "policy says nearly the same thing every time, and can hardly learn more.",
        "care",
    )


def _clipping(run: RunRecord) -> Verdict:
    _, values = run.known("policy/clipfrac_avg")
    if not values:
        return _unknown("clipping was not logged")
    high = sum(value > HIGH_CLIPFRAC for value in values)
    if high < min(20, max(3, len(values) // 5)):
        return QUIET
    return (
        "raised",
        f"More than {numbers.share(HIGH_CLIPFRAC, 0)} of tokens were clipped in {high} of "
        f"{len(values)} updates: steps are too large, so lower the learning rate or the epochs.",
        "care",
    )


def _length(run: RunRecord) -> Verdict:
    _, values = run.known("completions/mean_length")
    if len(values) < 2:
        return _unknown("completion length was not logged")
    first, last = _ends(values)
    if first <= 0 or 1 / LONGER <= last / first <= LONGER:
        return QUIET
    way = "grew" if last > first else "shrank"
    return (
        "raised",
        f"Completions {way} from {numbers.figure(first)} to {numbers.figure(last)} tokens: see "
        "whether the score rewards length itself.",
        "care",
    )


_ONLINE: tuple[tuple[str, Callable[[RunRecord], Verdict]], ...] = (
    ("proxy and truth part", _parting),
    ("sign of the KL", _negative_kl),
    ("completions end", _ended),
    ("value model explains returns", _explained_variance),
    ("entropy", _entropy),
    ("clip fraction", _clipping),
    ("completion length", _length),
)


def _finite(record: RunRecord) -> Verdict:
    found = [(run, name, step) for run in record.walk() for name, step in run.nonfinite.items()]
    if not found:
        return QUIET if any(run.metrics for run in record.walk()) else _unknown("no metrics")
    run, name, step = found[0]
    more = f", and {len(found) - 1} other metrics" if len(found) > 1 else ""
    return (
        "raised",
        f"{name} of {run.name} was not finite (NaN or infinite) at step {step}{more}; curves have "
        "gaps there.",
        "serious",
    )


def _even_wins(statements: Sequence[Statement]) -> list[str]:
    return [
        f"Whether {called(s.subject.policy)} is better than {called(s.subject.rival)} is open: the "
        f"interval includes {numbers.share(0.5, 0)}. More prompts would narrow it."
        for s in statements
        if s.verdict == "even"
    ]


def _small(statements: Sequence[Statement]) -> list[str]:
    few = [s.finding for s in statements if s.is_share and s.finding.n < SMALL_N]
    if not few:
        return []
    names = ", ".join(f"{finding.name} (n = {finding.n})" for finding in few)
    if len(few) > 3:
        least = min(finding.n for finding in few)
        return [
            f"{len(few)} win rates and accuracies rest on fewer than {SMALL_N} items, as few as "
            f"{least}: read their intervals, not their numbers."
        ]
    return [f"Fewer than {SMALL_N} items stand behind {names}: read the interval, not the number."]


def _barely(statements: Sequence[Statement]) -> list[str]:
    by_kind = {s.subject.kind: s.finding for s in statements if s.finding.estimate is not None}
    model = by_kind.get("reward_accuracy")
    if model is None or model.estimate is None:
        return []
    said = []
    names = {"length_accuracy": "preferring the longer one", "bag_accuracy": "a bag of words"}
    for kind, name in names.items():
        baseline = by_kind.get(kind)
        if baseline is None or baseline.estimate is None:
            continue
        free = baseline.estimate
        if kind == "length_accuracy" and free < 0.5:
            free, name = 1 - free, "preferring the shorter one"
        gain = model.estimate - free
        if gain < BARELY:
            how = "no better" if gain <= 0 else "barely better"
        elif model.low is not None and model.low <= free:
            how = "not clearly better"
        else:
            continue
        said.append(
            f"The reward model ({numbers.share(model.estimate)}) is {how} than {name} "
            f"({numbers.share(free)}): it may have learned little else."
        )
    if model.estimate < LOW_ACCURACY:
        said.append(
            f"The reward model agrees with only {numbers.share(model.estimate)} of held-out "
            "comparisons; a policy optimised against it follows mostly noise."
        )
    return said


_FINDINGS: tuple[tuple[str, Callable[[Sequence[Statement]], list[str]]], ...] = (
    ("win rates differ from one half", _even_wins),
    ("enough items", _small),
    ("reward model beats its baselines", _barely),
)


def _calibration(run: RunRecord) -> Verdict:
    ece = number(mapping(run.facts.get("calibration")).get("ece"))
    if ece is None:
        return _unknown("calibration was not measured")
    if ece <= HIGH_ECE:
        return QUIET
    return (
        "raised",
        f"The reward model's probabilities are off by {numbers.share(ece)} on average: its scores "
        "rank, but their size means little.",
        "care",
    )


def _lost_rows(record: RunRecord) -> Verdict:
    reports = [(run, row) for run in record.walk() for row in run.data_report]
    if not reports:
        return _unknown("no stage wrote a data report")
    bad = Counter[str]()
    for run, row in reports:
        read = number(row.get("read")) or 0
        counts = [number(row.get(n)) or 0 for n in ("dropped", "unsupervised", "set_aside")]
        lost = counts[0] + counts[1] - counts[2]
        if read and lost / read > LOST_ROWS:
            bad[f"{run.name} ({numbers.share(lost / read)})"] += 1
    if not bad:
        return QUIET
    return ("raised", f"Many rows taught nothing: {', '.join(bad)}. See the data below.", "care")
