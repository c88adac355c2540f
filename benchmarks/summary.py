"""From raw turns to ratios with intervals, and to the table of docs/benchmarks.md."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import t as student

from benchmarks.jobs import JOB_NAMES

HEED, TRL, TRL_TUNED = "heed", "trl", "trl-malloc"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
LEAST_PAIRS = 3
"""Of an interval: two pairs have one degree of freedom, and an interval that says nothing."""


@dataclass(frozen=True)
class Ratio:
    """How many times faster heed is: geometric mean over pairs.

    Args:
        low, high: 95 % interval, from `LEAST_PAIRS` pairs on; below, None.
    """

    mean: float
    low: float | None
    high: float | None
    num_pairs: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.2f} ({self.num_pairs} pair{'s' * (self.num_pairs > 1)})"
        return f"**{self.mean:.2f}** ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Line:
    """One case of the table; seconds are medians of a step over the pairs.

    Args:
        shares: of the machine's best matrix rate, by side; empty where that was not measured.
    """

    job: str
    model: str
    lengths: str
    trl_precision: str
    seconds: dict[str, float]
    ratios: dict[str, Ratio]
    peak_bytes: dict[str, int]
    tokens_per_second: dict[str, float]
    others_cores: float
    shares: dict[str, float]


def ratio_of(slower: Sequence[float], faster: Sequence[float]) -> Ratio:
    """Compare paired times by a t interval on the logarithms of their ratios."""
    logs = [math.log(a / b) for a, b in zip(slower, faster, strict=True)]
    mean, n = statistics.fmean(logs), len(logs)
    if n < LEAST_PAIRS:
        return Ratio(math.exp(mean), None, None, n)
    half = float(student.ppf(0.975, n - 1)) * statistics.stdev(logs) / math.sqrt(n)
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), n)


def summarise(turns: Iterable[dict[str, Any]], clock: str = "seconds") -> list[Line]:
    """Group turns by case, in the order they were measured.

    Args:
        turns: raw lines of a results file.
        clock: "seconds" on the wall, or "cpu_seconds", which other load hardly changes; with more
            than one thread the latter counts them all.
    """
    cases: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    rate = None
    for turn in turns:
        if turn["kind"] == "facts":
            rate = turn.get("roofline", {}).get("flops")
        if turn["kind"] == "turn":
            key = (turn["job"], turn["model"], turn["lengths"])
            cases.setdefault(key, []).append(turn)
    return [_line(key, found, clock, rate) for key, found in cases.items()]


def _line(
    key: tuple[str, str, str], turns: list[dict[str, Any]], clock: str, rate: float | None
) -> Line:
    by_side: dict[str, list[dict[str, Any]]] = {}
    for turn in turns:
        by_side.setdefault(turn["side"], []).append(turn)
    means = {
        side: [statistics.fmean(turn[clock]) for turn in sorted(found, key=lambda x: x["pair"])]
        for side, found in by_side.items()
    }
    seconds = {side: statistics.median(values) for side, values in means.items()}
    flops = turns[0].get("needed_flops")
    return Line(
        *key,
        trl_precision=by_side[TRL][0]["precision"],
        seconds=seconds,
        ratios={
            side: ratio_of(values, means[HEED]) for side, values in means.items() if side != HEED
        },
        peak_bytes={
            side: max(turn["peak_bytes"] for turn in found) for side, found in by_side.items()
        },
        tokens_per_second={
            side: sum(sum(turn["num_tokens"]) for turn in found)
            / sum(sum(turn[clock]) for turn in found)
            for side, found in by_side.items()
            if all("num_tokens" in turn for turn in found)
        },
        others_cores=statistics.median(turn["others_cores"] for turn in turns),
        shares={side: flops / value / rate for side, value in seconds.items() if flops and rate},
    )


def table(lines: Sequence[Line]) -> str:
    """Write the lines as a Markdown table."""
    head = (
        "| job | model | lengths | TRL, ms | TRL with kept memory, ms | heed, ms | "
        "faster than TRL | than TRL with kept memory | peak GB, TRL / heed | "
        "share of the machine, TRL / heed |"
    )
    rows = [head, "|---|---|---|---|---|---|---|---|---|---|"]
    for line in lines:
        tuned = line.seconds.get(TRL_TUNED)
        cells = [
            JOB_NAMES[line.job],
            line.model,
            line.lengths,
            f"{line.seconds[TRL] * 1e3:.0f} ({line.trl_precision})",
            "-" if tuned is None else f"{tuned * 1e3:.0f}",
            f"{line.seconds[HEED] * 1e3:.0f}",
            str(line.ratios[TRL]),
            "-" if tuned is None else str(line.ratios[TRL_TUNED]),
            f"{line.peak_bytes[TRL] / 1e9:.2f} / {line.peak_bytes[HEED] / 1e9:.2f}",
            " / ".join(f"{line.shares[s]:.0%}" if line.shares else "-" for s in (TRL, HEED)),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def section(facts: dict[str, Any], lines: Sequence[Line]) -> str:
    """Write the generated part of docs/benchmarks.md: hardware, versions, command, table."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    busiest = max(line.others_cores for line in lines)
    return "\n\n".join(
        [
            f"Measured {facts['date']} on {facts['processor']}, {facts['num_cores']} cores, "
            f"{facts['memory_gb']:.0f} GB, {facts['platform']}, with {versions}. "
            f"Times are {facts['clock'].replace('_', ' ')} with {facts['threads']} threads. "
            f"{_roofline(facts)}Other processes kept at most {busiest:.2f} cores busy "
            "(median of a case).",
            f"    {facts['command']}",
            table(lines),
        ]
    )


def _roofline(facts: dict[str, Any]) -> str:
    found = facts.get("roofline")
    if not found:
        return ""
    return (
        f"Matrix products of 2048 run at {found['fp32_flops'] / 1e9:.0f} (fp32) and "
        f"{found['bf16_flops'] / 1e9:.0f} (bf16) GFLOP/s here, a copy of memory at "
        f"{found['copy_bytes'] / 1e9:.0f} GB/s. "
    )


def put_section(document: str, text: str, begin: str = BEGIN, end: str = END) -> str:
    """Replace what stands between two marks of a document.

    Raises:
        ValueError: a mark is missing.
    """
    if begin not in document or end not in document:
        raise ValueError(f"the document lacks {begin} or {end}; put both where the table belongs")
    before, rest = document.split(begin, 1)
    after = rest.split(end, 1)[1]
    return f"{before}{begin}\n{text}\n{end}{after}"
