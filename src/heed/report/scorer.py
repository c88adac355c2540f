"""The section on the reward model: better than its baselines? calibrated? how was it trained?"""

from __future__ import annotations

from collections.abc import Sequence

from heed.report import numbers, roles
from heed.report.blocks import Block, Figure, Fold, Grid, Section, Table, missing
from heed.report.curves import SMALLER, metric_figure
from heed.report.estimates import Interval, intervals, reliability
from heed.report.findings import Statement
from heed.report.folder import Row, RunRecord, mapping, number, rows
from heed.stats.intervals import wilson

_NAMES = {
    "reward_accuracy": ("Reward model", "proxy"),
    "length_accuracy": ("Always the longer completion", "quiet"),
    "bag_accuracy": ("Bag of words", "quiet"),
}
_CURVES = (
    ("loss", "Loss", "eval/loss"),
    ("accuracy", "Accuracy", "eval/accuracy"),
    ("margin", "Margin", "eval/margin"),
    ("mean_reward", "Mean score", None),
)


def reward_section(record: RunRecord, said: Sequence[Statement]) -> Section | None:
    """Describe the reward model; None where the run has none."""
    run = roles.reward_run(record)
    if run is None:
        return None
    section = Section("reward-model", "The reward model")
    section.lead = "The scorer that the policy is optimised against: everything rests on it."
    calibration = mapping(run.facts.get("calibration"))
    shown: list[Figure] = []
    absent: list[Block] = []
    parts = [_accuracy(said), _reliability(calibration), _gaps(calibration)]
    for part in (*parts, *_optional(run.facts)):
        if isinstance(part, Figure):
            shown.append(part)
        else:
            absent.append(part)
    there = [curve for curve in _CURVES if len(run.known(curve[0])[0]) >= 2]
    size: dict[str, int] = {"width": SMALLER} if len(there) == len(_CURVES) else {}
    figures = [
        metric_figure(
            run, name, title, "one", x_label="step", **size,
            beside=beside if beside and run.known(beside)[0] else None,
        )
        for name, title, beside in there
    ]  # fmt: skip
    if shown:
        section.blocks.append(Grid(shown))
    section.blocks += absent
    if figures:
        section.blocks.append(Grid(figures, columns="four" if size else ""))
    else:
        section.blocks.append(missing("The training curves were not logged."))
    section.blocks += _words(run.facts.get("words"))
    return section


def _optional(facts: Row) -> list[Figure]:
    """Accuracy by length difference, by label and by subset, as far as the run has them."""
    found = []
    for key, title, what, note in (
        ("length_bins", "Accuracy by length difference", "tokens",
         "Tokens of chosen less those of rejected: a scorer of length fails on the left."),
        ("margin_bins", "Accuracy by margin", "margin", "Pairs grouped by their label's margin."),
        ("strength_bins", "Accuracy by strength", "strength",
         "Pairs grouped by how much better the labellers called the chosen side."),
    ):  # fmt: skip
        chart = []
        for row in rows(facts.get(key)):
            low, high, accuracy, n = (number(row.get(k)) for k in ("low", "high", "accuracy", "n"))
            if low is None or high is None or accuracy is None or not n:
                continue
            ends = wilson(min(max(accuracy, 0.0), 1.0) * n, int(n))
            span = f"{numbers.figure(low, 2)} to {numbers.figure(high, 2)}"
            label = f"{what} {span} (n = {numbers.whole(n)})"
            chart.append(Interval(label, accuracy, ends.low, ends.high, "proxy"))
        if len(chart) > 1:
            found.append(_chart(title, chart, note))
    subsets = []
    for row in rows(facts.get("subsets")):
        accuracy, low, high, n = (number(row.get(k)) for k in ("accuracy", "low", "high", "n"))
        if accuracy is not None and n:
            label = f"{row.get('name')} (n = {numbers.whole(n)})"
            subsets.append(Interval(label, accuracy, low, high, "proxy"))
    if subsets:
        note = f"Held-out pairs by subset_column; {numbers.LEVEL} intervals over prompts."
        found.append(_chart("Accuracy by subset", subsets, note))
    return found


def _chart(title: str, chart: Sequence[Interval], note: str) -> Figure:
    drawing = intervals(
        list(chart), title=title, reference=(0.5, "chance"),
        description="; ".join(f"{row.label}: {numbers.share(row.estimate)}" for row in chart),
    )  # fmt: skip
    return Figure(title, drawing, note)


def _words(found: object) -> list[Block]:
    """List the words that a bag of words leans on, which a scorer may lean on too."""
    lines = []
    for entry in found if isinstance(found, list) else []:
        if isinstance(entry, list) and len(entry) == 2 and number(entry[1]) is not None:
            lines.append([str(entry[0]), numbers.figure(number(entry[1]))])
    if not lines:
        return []
    caption = "Words that predict preferences by themselves, and their weight in nats"
    return [Fold(caption, [Table(caption, ["word", "weight"], lines, (1,), hide_caption=True)])]


def _accuracy(said: Sequence[Statement]) -> Figure | Block:
    found: dict[str, Statement] = {}
    for s in said:
        if s.subject.kind in _NAMES and s.finding.estimate is not None:
            found.setdefault(s.subject.kind, s)
    if "reward_accuracy" not in found:
        return missing("Accuracy on held-out comparisons was not measured.")
    chart = []
    for kind, (name, tone) in _NAMES.items():
        if kind in found:
            f = found[kind].finding
            assert f.estimate is not None
            chart.append(Interval(name, f.estimate, f.low, f.high, tone))
    drawing = intervals(
        chart, title="Agreement with held-out comparisons",
        description=" ".join(f"{found[k].text} {found[k].interval}." for k in found),
        reference=(0.5, "chance"),
    )  # fmt: skip
    n = numbers.whole(found["reward_accuracy"].finding.n)
    note = f"Share of held-out comparisons agreed with, n = {n}; {numbers.LEVEL} intervals."
    if len(chart) == 1:
        note += " No baseline was measured beside it."
    return Figure("Agreement with held-out comparisons", drawing, note)


def _reliability(calibration: Row) -> Figure | Block:
    points = []
    for row in rows(calibration.get("bins")):
        x, y, n = (number(row.get(k)) for k in ("mean_predicted", "mean_observed", "n"))
        if x is not None and y is not None and n is not None and n >= 1:
            points.append((x, y, int(n)))
    if not points:
        return missing("Calibration was not measured: the stage left no bins.")
    ece = number(calibration.get("ece"))
    drawing = reliability(
        points, title="Calibration of the reward model",
        description="; ".join(
            f"predicted {numbers.share(x)}, observed {numbers.share(y)}, n = {n}"
            for x, y, n in points
        ),
    )  # fmt: skip
    value = "" if ece is None else f"ECE {numbers.share(ece)}"
    note = "Predicted share of wins (across) against observed (up); larger points hold more pairs."
    return Figure("Calibration", drawing, note, value)


def _gaps(calibration: Row) -> Figure | Block:
    chart = []
    for row in rows(calibration.get("gap_bins")):
        low, high, accuracy, n = (number(row.get(k)) for k in ("low", "high", "accuracy", "n"))
        if accuracy is None or n is None or n < 1:
            continue
        start = numbers.figure(low or 0.0, 2)
        span = f"above {start}" if high is None else f"{start} to {numbers.figure(high, 2)}"
        ends = wilson(min(max(accuracy, 0.0), 1.0) * n, int(n))
        label = f"gap {span} (n = {numbers.whole(n)})"
        chart.append(Interval(label, accuracy, ends.low, ends.high, "proxy"))
    if not chart:
        return missing("Accuracy by score gap was not measured.")
    note = "Pairs grouped by how far apart their scores are: a wide gap should mean a sure call."
    return _chart("Accuracy by score gap", chart, note)
