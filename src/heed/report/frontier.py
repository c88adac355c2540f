"""Quality against KL, method by method: figures, table, and both as files of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from heed.report import numbers
from heed.report.blocks import Figure, Fold, Grid, Section, Table
from heed.report.charts import Line, Panel, plot
from heed.report.drawing import svg, words
from heed.report.folder import RunRecord

_START = "warm-up"
_WIDTH, _HEIGHT = 250, 150
_COLUMNS = 4
_BEYOND = 2.0
"""Times the largest KL of any frontier."""
_TITLE = "True quality against KL, by method"
_LEAD = (
    "Each point is a setting of a method, a mean over seeds and prompts; bars are "
    f"{numbers.LEVEL} intervals over both. Filled and joined: the method's frontier, chosen on "
    "other prompts than those shown. Grey: the frontiers of the other methods."
)

Found = Mapping[str, Any]
"""The content of `frontier.json`."""


def frontier_sections(record: RunRecord) -> list[Section]:
    """One section for each run of `heed frontier` whose file can be read."""
    found = []
    for run in record.walk():
        content = _read(run)
        if content:
            section = Section(f"frontier-{run.stage}", _TITLE, lead=_LEAD)
            section.blocks.append(Grid(_figures(content), columns="four"))
            section.blocks += [_best_table(content), _gain_table(content)]
            section.blocks.append(Fold("Every setting", [_all_table(content)]))
            found.append(section)
    return found


def frontier_files(record: RunRecord, style: str) -> dict[str, str]:
    """Name -> text of the files that hold the figure and the table for other pages.

    Args:
        record: of the run.
        style: the style sheet of the page.
    """
    for run in record.walk():
        content = _read(run)
        if content:
            return {
                "frontier.svg": str(_drawing(content, style)),
                "frontier.md": _markdown(content),
            }
    return {}


def _read(run: RunRecord) -> Found | None:
    path = run.folder / "frontier.json"
    if run.kind != "frontier" or not path.is_file():
        return None
    try:
        content: Found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return content


def _methods(content: Found) -> dict[str, list[Found]]:
    """Method -> its points in the order of KL; the start is no method."""
    out: dict[str, list[Found]] = {}
    for point in sorted(content["points"], key=lambda p: p["kl"]["estimate"]):
        out.setdefault(point["setting"]["method"], []).append(point)
    order = [name for name in content["best"] if name != _START]
    return {name: out[name] for name in order}


def _start(content: Found) -> Found | None:
    points = (p for p in content["points"] if p["setting"]["method"] == _START)
    return next(points, None)


def _figures(content: Found) -> list[Figure]:
    return [Figure(name, *_chart(content, name)) for name in _methods(content)]


def _reach(content: Found) -> float:
    """The KL up to which points are drawn: one far beyond all frontiers would squeeze the rest."""
    return _BEYOND * max(p["kl"]["estimate"] for p in content["points"] if p["on_frontier"])


def _chart(content: Found, method: str) -> tuple[Markup, str]:
    """One method's settings before the frontiers of the others, all on the same axes.

    Returns the drawing, and what is not in it.
    """
    start, reach = _start(content), _reach(content)
    lines = []
    for name, points in _methods(content).items():
        if name != method:
            lines.append(_joined(start, points, "quiet", pale=True))
    every = _methods(content)[method]
    own = [p for p in every if p["kl"]["estimate"] <= reach]
    lines.append(_joined(start, own, "true"))
    for points, hollow in (([p for p in own if not p["on_frontier"]], True),
                           ([p for p in own if p["on_frontier"]], False)):  # fmt: skip
        lines.append(_dots(points, "true", hollow=hollow))
    near = [p["true"] for p in content["points"] if p["kl"]["estimate"] <= reach]
    panel = Panel("", lines, include=[end[side] for end in near for side in ("low", "high")])
    best = max(every, key=lambda p: p["true"]["estimate"])
    about = (
        f"{method}: {len(every)} settings, KL {numbers.figure(every[0]['kl']['estimate'])} to "
        f"{numbers.figure(every[-1]['kl']['estimate'])} nats; highest true quality "
        f"{_interval(best['true'])} at KL {numbers.figure(best['kl']['estimate'])}."
    )
    drawing = plot(
        [panel], title=f"{method}: true quality against KL", description=about,
        x_label="sequence KL, nats", width=_WIDTH, panel_height=_HEIGHT, include=(0.0, reach),
    )  # fmt: skip
    far = [
        f"{numbers.figure(p['true']['estimate'])} at KL {numbers.figure(p['kl']['estimate'])}"
        for p in every
        if p not in own
    ]
    return drawing, f"Beyond: {', '.join(far)}." if far else ""


def _joined(start: Found | None, points: Sequence[Found], tone: str, *, pale: bool = False) -> Line:
    """A method's frontier, from the warm-up on."""
    path = [p for p in (start, *points) if p and (p is start or p["on_frontier"])]
    x = [p["kl"]["estimate"] for p in path]
    return Line("", x, [p["true"]["estimate"] for p in path], tone, pale=pale)


def _dots(points: Sequence[Found], tone: str, *, hollow: bool) -> Line:
    return Line(
        "", [p["kl"]["estimate"] for p in points], [p["true"]["estimate"] for p in points], tone,
        dots=True, hollow=hollow, curve=False,
        ends=[(p["true"]["low"], p["true"]["high"]) for p in points],
    )  # fmt: skip


def _drawing(content: Found, style: str) -> Markup:
    """All figures as one drawing that stands alone, light or dark as its reader is."""
    names = list(_methods(content))
    wide, high = _WIDTH + 24, _HEIGHT + 126
    parts = []
    for i, name in enumerate(names):
        x, y = 12 + wide * (i % _COLUMNS), 12 + high * (i // _COLUMNS)
        inner = Markup('<svg x="{}" y="{}" width="{}" height="{}">{}</svg>')
        title = words(0, 14, name, "start", "panel")
        drawing, beyond = _chart(content, name)
        chart = Markup('<g transform="translate(0 10)">{}</g>').format(drawing)
        note = words(0, high - 12, beyond, "start", "note")
        parts.append(inner.format(x, y, _WIDTH + 10, high - 8, title + chart + note))
    columns = min(len(names), _COLUMNS)
    width, height = 12 + wide * columns, 12 + high * -(-len(names) // _COLUMNS)
    back = Markup('<rect class="back" width="{}" height="{}"/>').format(width, height)
    drawing = svg([back, *parts], width, height, _TITLE, _LEAD)
    opened = re.sub(r"^<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" ', drawing)
    head, _, rest = opened.partition(">")
    return Markup(f"{head}><style>{_rules(style)}</style>{rest}")


def _rules(style: str) -> str:
    """The rules of the page's style that a chart needs."""
    colours = style[: style.index("* {")]
    rules = [s for s in style.splitlines() if re.match(r"\.(chart|dot|quiet|proxy|true)\b", s)]
    own = "svg { font-family: sans-serif; } .back { fill: var(--paper); }"
    return "\n".join([colours, *rules, own])


def _best_table(content: Found) -> Table:
    head, rows = _best_rows(content)
    caption = "True quality of each method's best setting, chosen on other prompts"
    return Table(caption, head, rows, numeric=range(1, len(head)))


def _best_rows(content: Found) -> tuple[list[str], list[list[str]]]:
    """What each method reaches within each limit of KL, and its best setting at any."""
    limits = content["kl_limits"]
    head = ["method", *(f"within {limit:g} nats" for limit in limits), "at any KL"]
    head += ["there: KL", "proxy", "setting"]
    rows = []
    start = _start(content)
    if start:
        rows.append([_START, *[""] * len(limits), *_cells(start)])
    for method in _methods(content):
        *limited, best = content["best"][method]
        points = content["points"]
        within = ["none" if i is None else _interval(points[i]["true"]) for i in limited]
        rows.append([method, *within, *_cells(points[best])])
    return head, rows


def _gain_table(content: Found) -> Table:
    """What each method has over the one that all are compared with."""
    limits = [f"within {limit:g} nats" for limit in content["kl_limits"]]
    rows = [
        [method, *("none" if gain is None else _interval(gain) for gain in gains)]
        for method, gains in content["gains"].items()
        if method != _START
    ]
    caption = f"True quality less that of {content['against']}, on the same prompts and seeds"
    return Table(caption, ["method", *limits, "at any KL"], rows, numeric=range(1, len(limits) + 2))


def _cells(point: Found) -> list[str]:
    proxy = _interval(point["proxy"]) if point["proxy"] else "not measured"
    return [_interval(point["true"]), _interval(point["kl"]), proxy, point["label"]]


def _all_table(content: Found) -> Table:
    rows = [
        [method, p["label"], str(p["seeds"]), *_cells(p)[:3], "yes" if p["on_frontier"] else "no"]
        for method, points in _methods(content).items()
        for p in points
    ]
    head = ["method", "setting", "seeds", "true quality", "KL, nats", "proxy", "on the frontier"]
    return Table("Every setting, judged on the same prompts", head, rows, numeric=range(2, 6))


def _interval(found: Found) -> str:
    if found["low"] == found["high"]:
        return numbers.figure(found["estimate"])
    middle, low, high = numbers.interval(found["estimate"], found["low"], found["high"])
    return f"{middle} [{low}, {high}]"


def _markdown(content: Found) -> str:
    lines = []
    for table in (_best_table(content), _gain_table(content), _all_table(content)):
        lines += [f"{table.caption}:", ""]
        for row in (table.head, ["---"] * len(table.head), *table.rows):
            cells = (str(cell).replace("|", "\\|").replace(numbers.MINUS, "-") for cell in row)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)
