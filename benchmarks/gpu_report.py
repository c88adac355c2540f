"""From the raw lines of `benchmarks.gpu` to the GPU section of docs/benchmarks.md.

    python -m benchmarks.gpu_report gpu.jsonl

A pair's ratio is that of the median steps of its two turns, so that a step that does something for
the first time, such as compiling, counts in no ratio. Such steps stand in the raw lines.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.jobs import JOB_NAMES
from benchmarks.summary import HEED, TRL, put_section

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
MARKS = ("<!-- gpu: begin -->", "<!-- gpu: end -->")
Row = dict[str, Any]


def table(rows: Iterable[Row]) -> str:
    """Write one row for each case, in the order they were measured."""
    cases: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row["kind"] in ("turn", "line"):
            cases.setdefault((row["job"], row["model"], row["lengths"]), []).append(row)
    head = (
        "| job | model | lengths | TRL, ms | heed, ms | faster than TRL | "
        "tokens/s, TRL / heed | share of matrix rate | share of bandwidth | peak GB |"
    )
    return "\n".join([head, "|---" * 10 + "|", *(_cells(*key, of) for key, of in cases.items())])


def pair_ratios(turns: Sequence[Row]) -> list[float]:
    """TRL's median step over heed's, for each pair that both sides finished."""
    medians = {(t["side"], t["pair"]): statistics.median(t["seconds"]) for t in turns}
    pairs = sorted({pair for _, pair in medians})
    both = [p for p in pairs if (TRL, p) in medians and (HEED, p) in medians]
    return [medians[TRL, pair] / medians[HEED, pair] for pair in both]


def _cells(job: str, model: str, lengths: str, rows: Sequence[Row]) -> str:
    turns = [row for row in rows if row["kind"] == "turn"]
    line = next((row for row in rows if row["kind"] == "line"), {})
    by_side = {side: [t for t in turns if t["side"] == side] for side in (TRL, HEED)}
    figures = [line.get(side, {}) for side in by_side]

    def both(key: str, form: str) -> str:
        return " / ".join(form.format(f[key]) if key in f else "-" for f in figures)

    peaks = [max((_peak(t) for t in found), default=None) for found in by_side.values()]
    cells = [
        JOB_NAMES[job],
        model,
        lengths,
        *(_seconds(found) for found in by_side.values()),
        _ratio(pair_ratios(turns)),
        both("tokens_per_second", "{:,.0f}"),
        both("share_of_flops", "{:.1%}"),
        both("share_of_bandwidth", "{:.1%}"),
        " / ".join("-" if peak is None else f"{peak / 1e9:.1f}" for peak in peaks),
    ]
    return "| " + " | ".join(cells) + " |"


def _peak(turn: Row) -> int:
    return int(turn["peak_device_bytes"] or turn["peak_bytes"])


def _seconds(turns: Sequence[Row]) -> str:
    if not turns:
        return "-"
    median = statistics.median(s for turn in turns for s in turn["seconds"])
    return f"{median * 1e3:,.0f} ({turns[0]['precision']})"


def _ratio(ratios: Sequence[float]) -> str:
    if not ratios:
        return "-"
    if len(ratios) == 1:
        return f"{ratios[0]:.2f} (1 pair)"
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    return f"**{mean:.2f}** ({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} pairs)"


def section(rows: Sequence[Row]) -> str:
    """Write hardware, versions, what the device can do, the table, and the commands."""
    facts = [row for row in rows if row["kind"] == "facts"]
    about = facts[-1]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    best = {key: max(f["roofline"][key] for f in facts) for key in about["roofline"]}
    return "\n\n".join(
        [
            f"Measured {about['date']} on one {about['device']}, with {versions}. Matrix products "
            f"run at {best['fp32_flops'] / 1e12:.0f} (fp32) and {best['bf16_flops'] / 1e12:.0f} "
            f"(bf16) TFLOP/s there, a copy of memory at {best['copy_bytes'] / 1e12:.2f} TB/s. "
            "Milliseconds are of the median step. The ratio is the geometric mean over pairs of "
            "turns, of their median steps, with the least and the largest.",
            table(rows),
            "Commands:",
            "\n".join(f"    {row['command']}" for row in facts),
        ]
    )


def main(arguments: Sequence[str]) -> None:
    """Read files of raw lines and replace the section of the document."""
    rows = [json.loads(line) for a in arguments for line in Path(a).read_text().splitlines()]
    DOCUMENT.write_text(put_section(DOCUMENT.read_text(), section(rows), *MARKS))


if __name__ == "__main__":
    main(sys.argv[1:])
