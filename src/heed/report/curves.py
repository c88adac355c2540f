"""Sections of curves: policy optimisation, quality against distance, supervised training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from heed.report import numbers, roles
from heed.report.blocks import Block, Figure, Grid, Section, missing
from heed.report.charts import Line, Mark, Panel, plot
from heed.report.folder import RunRecord, number
from heed.report.parting import window_for
from heed.runs.metrics import METRICS

_WIDE, _NARROW = 1040, 360
SMALLER = 280
"""Width of a figure of which four stand in a row."""
_IN_FOURS = (4, 7, 8)

SMALL = (
    (("objective/scores",), "Proxy reward", "proxy"),
    (("quality/true",), "True quality", "true"),
    (("objective/kl", "eval/kl"), "Sequence KL to the reference", "one"),
    (("objective/entropy",), "Entropy", "one"),
    (("completions/mean_length", "eval/length"), "Completion length", "one"),
    (("policy/clipfrac_avg",), "Clip fraction", "one"),
    (("value/explained_variance",), "Explained variance", "one"),
    (("kl_coef",), "KL coefficient", "one"),
)
"""Metrics to draw (the first that is there), heading, tone."""
_OPTIONAL = {"quality/true", "kl_coef"}
_OF_VALUES = {"value/explained_variance"}
"""Absent, and rightly so, where a method has no value model."""
_SHARES = {"policy/clipfrac_avg"}
_INCLUDE = {
    "objective/kl": (0.0,),
    "eval/kl": (0.0,),
    "objective/entropy": (0.0,),
    "policy/clipfrac_avg": (0.0, 0.3),
    "value/explained_variance": (0.0, 1.0),
    "accuracy": (0.5, 1.0),
    "learning_rate": (0.0,),
    "kl_coef": (0.0,),
}
"""Values that an axis must reach, so that a flat curve looks flat."""
_FLOORS = {"value/explained_variance": -1.0}
"""Lowest value that is drawn: a first update far below would flatten all that follows."""


def online_sections(record: RunRecord) -> list[Section]:
    """One section for each run that optimised a policy, the over-optimisation phase labelled."""
    return [_online(run) for run in roles.online_runs(record)]


def _online(run: RunRecord) -> Section:
    on_purpose = roles.is_overoptimisation(run)
    name = roles.label(run)
    section = Section(f"curves-{_slug(run.stage)}", f"{name}: the curves")
    coef = roles.kl_coef(run)
    if on_purpose:
        section.title = "Over-optimisation, on purpose"
        section.lead = (
            "A second phase with the KL coefficient at 0 and many updates, run to show what "
            "happens when nothing holds the policy back. It is a demonstration, not a result."
        )
    elif coef is not None:
        section.lead = f"Policy optimisation with a KL coefficient of {numbers.setting(coef)}."
    section.blocks.append(_hero(run))
    figures, absent = _small_figures(run)
    if figures:
        section.blocks.append(Grid(figures, columns="four" if len(figures) in _IN_FOURS else ""))
    if absent:
        section.blocks.append(missing(f"Not drawn, because not logged: {', '.join(absent)}."))
    return section


def _hero(run: RunRecord) -> Block:
    steps, proxy, true = roles.proxy_and_truth(run)
    if len(steps) < 2:
        steps, proxy = run.known("eval/proxy")
        if len(steps) < 2:
            return missing(
                "Proxy and truth are not drawn together: the run took fewer than 2 looks."
            )
        true = []
    dots = len(steps) <= 60
    window = 1 if dots else window_for(len(steps))
    panels = [Panel("Proxy reward", [Line("", steps, proxy, "proxy", window, dots)])]
    if true:
        panels.append(Panel("True quality", [Line("", steps, true, "true", window, dots)]))
    found = roles.parted(run)
    marks, note = (
        [],
        "Proxy: what was optimised. Truth: the world's own judgement, never optimised.",
    )
    if found is not None:
        kl = roles.kl_at(run, found.step)
        at = "" if kl is None else f", KL {numbers.figure(kl)}"
        marks = [Mark(found.step, f"proxy and truth part: update {numbers.figure(found.step)}{at}")]
    elif true and len(steps) >= 8:
        note += " They do not part beyond their noise."
    if not true:
        note = "True quality is not known in this run, so only the proxy is drawn."
    description = _words("proxy reward", steps, proxy)
    description += " " + _words("true quality", steps, true) if true else ""
    wide, narrow = (
        plot(
            panels, title=f"Proxy reward and true quality of {roles.label(run)}",
            description=description, x_label="update", width=width, panel_height=height,
            marks=marks if width == _WIDE else [Mark(m.x, _short(m.label)) for m in marks],
        )
        for width, height in ((_WIDE, 170), (_NARROW, 120))
    )  # fmt: skip
    looks = "fixed held-out prompts" if steps == run.known("eval/proxy")[0] else "each update"
    title = f"Proxy and truth, {looks}" if true else f"Proxy, {looks}"
    return Figure(title, wide, note, narrow=narrow)


def _small_figures(run: RunRecord) -> tuple[list[Figure], list[str]]:
    there, absent = [], []
    optional = _OPTIONAL | (_OF_VALUES if run.kind in ("online", "online_preference") else set())
    for names, title, tone in SMALL:
        name = next((n for n in names if len(run.known(n)[0]) >= 2), None)
        if name == "kl_coef" and len(set(run.known(name)[1])) == 1:
            continue
        if name is not None:
            there.append((name, title, tone))
        elif not optional & set(names):
            absent.append(title[:1].lower() + title[1:])
    width = SMALLER if len(there) in _IN_FOURS else _NARROW
    figures = [metric_figure(run, *which, x_label="update", width=width) for which in there]
    return figures, absent


def metric_figure(
    run: RunRecord,
    name: str,
    title: str,
    tone: str,
    *,
    x_label: str,
    beside: str | None = None,
    width: int = _NARROW,
) -> Figure:
    """Draw one metric: measurements pale, moving mean bold; `beside` adds held-out points."""
    steps, values = run.series(name)
    known = [v for v in values if v is not None]
    floor = _FLOORS.get(name)
    under = [v for v in known if floor is not None and v < floor]
    if floor is not None:
        values = [v if v is None else max(v, floor) for v in values]
    window = window_for(len(known)) if len(known) >= 15 else 1
    lines = [Line("training" if beside else "", steps, values, tone, window, len(known) < 15)]
    if beside:
        x, y = run.known(beside)
        lines.append(Line("held out", x, y, "two", dots=True))
    few = max(1, len(known) // 10)
    first, last = fmean(known[:few]), fmean(known[-few:])
    ends = numbers.change(first, last)
    if name in _SHARES or name.endswith("accuracy"):
        ends = f"{numbers.share(first)} → {numbers.share(last)}"
    about = METRICS.get(name)
    note = about.meaning if about else ""
    if about and about.unit not in ("1", "fraction", "score", "quality"):
        note = f"{note.rstrip('.')} ({about.unit})."
    if window > 1:
        note += f" Bold: mean over {window} points."
    if under and floor is not None:
        note += (
            f" Below {numbers.setting(floor)} drawn there (lowest {numbers.figure(min(under))})."
        )
    drawing = plot(
        [Panel("", lines, include=_INCLUDE.get(name, ()))], title=title,
        description=_words(title, steps, values), x_label=x_label,
        panel_height=round(width / 3), width=width,
    )  # fmt: skip
    return Figure(title, drawing, note.strip(), ends)


def distance_section(record: RunRecord) -> Section | None:
    """Proxy and truth against the distance from the reference, all optimisation runs together."""
    runs = [
        (run, xs, ys)
        for run in roles.online_runs(record)
        for xs, *ys in [_against_kl(run)]
        if len(xs) >= 3
    ]
    if not runs:
        return None
    section = Section("distance", "Quality against distance")
    section.lead = (
        "How far the policy has moved from the reference, and what that bought. A good scorer "
        "gives truth for distance; where truth turns down, more distance only feeds the scorer."
    )
    has_truth = any(any(v is not None for v in true) for _, _, (_, true) in runs)
    figures = []
    for title, change in (("Against √KL", True), ("Against KL", False)):
        panels = []
        for place, (name, tone) in enumerate((("Proxy reward", "proxy"), ("True quality", "true"))):
            if name == "True quality" and not has_truth:
                continue
            lines = [
                Line(
                    roles.label(run) if len(runs) > 1 else "",
                    [math.sqrt(max(x, 0.0)) for x in xs] if change else xs,
                    ys[place], tone, dots=True, hollow=roles.is_overoptimisation(run),
                )
                for run, xs, ys in runs
            ]  # fmt: skip
            panels.append(Panel(name, lines))
        x_label = "square root of sequence KL, √nats" if change else "sequence KL, nats"
        words = " ".join(
            _words(f"true quality of {roles.label(run)}", xs, ys[1], "KL") for run, xs, ys in runs
        )
        wide, narrow = (
            plot(
                panels, title=title, description=words, x_label=x_label, width=w, panel_height=150,
                marks=_marks(runs, change),
            )
            for w in (500, _NARROW)
        )  # fmt: skip
        note = "One point for each look, joined in order of time."
        figures.append(Figure(title, wide, note, narrow=narrow))
    section.blocks.append(Grid(figures, columns="pair"))
    if not has_truth:
        section.blocks.append(
            missing("True quality is not known here, so only the proxy is drawn.")
        )
    return section


def _marks(runs: Sequence[tuple[RunRecord, object, object]], change: bool) -> list[Mark]:
    """Where proxy and truth part in the first run in which they do, by its KL."""
    for run, _, _ in runs:
        found = roles.parted(run)
        kl = roles.kl_at(run, found.step) if found else None
        if kl is not None and kl > 0:
            at = f"part at KL {numbers.figure(kl)}"
            return [Mark(math.sqrt(kl) if change else kl, at)]
    return []


def _against_kl(
    run: RunRecord,
) -> tuple[list[float], list[float | None], list[float | None]]:
    """KL, proxy and truth of the same completions, in the order of time."""
    kl: list[float] = []
    proxy: list[float | None] = []
    true: list[float | None] = []
    sets = (
        ("eval/kl", "eval/proxy", "eval/true"),
        ("objective/kl", "objective/scores", "quality/true"),
    )
    for names in sets:
        for row in run.metrics:
            values = [number(row.get(name)) for name in names]
            if values[0] is not None and (values[1] is not None or values[2] is not None):
                kl.append(values[0])
                proxy.append(values[1])
                true.append(values[2])
        if len(kl) >= 3:
            break
    return kl, proxy, true


def supervised_section(record: RunRecord) -> Section | None:
    """Loss of every supervised stage, with the held-out loss beside it."""
    figures = []
    for run in roles.supervised_runs(record):
        if len(run.known("loss")[0]) >= 2:
            beside = "eval/loss" if run.known("eval/loss")[0] else None
            title = f"Loss of {run.name}"
            figures.append(metric_figure(run, "loss", title, "one", x_label="step", beside=beside))
    if not figures:
        return None
    section = Section("supervised", "Supervised training")
    rates = [r for r in roles.supervised_runs(record) if len(r.known("learning_rate")[0]) >= 2]
    if len(figures) == 1 and rates:
        figures.append(
            metric_figure(rates[0], "learning_rate", "Learning rate", "one", x_label="step")
        )
    section.blocks.append(Grid(figures))
    return section


def _words(
    name: str, steps: Sequence[float], values: Sequence[float | None], axis: str = "step"
) -> str:
    """Describe a curve for those who cannot see it."""
    known = [(s, v) for s, v in zip(steps, values, strict=True) if v is not None]
    if not known:
        return f"{name}: not known."
    (first, start), (last, end) = known[0], known[-1]
    top_step, top = max(known, key=lambda pair: pair[1])
    low_step, low = min(known, key=lambda pair: pair[1])
    write = numbers.figure
    text = (
        f"{name}: from {write(start)} at {axis} {write(first)} to {write(end)} at {axis} "
        f"{write(last)}; highest {write(top)} at {write(top_step)}, lowest {write(low)} at "
        f"{write(low_step)}."
    )
    return text[:1].upper() + text[1:]


def _short(label: str) -> str:
    return label.replace("proxy and truth part: ", "part: ")


def _slug(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower())
