"""Sections on where the numbers come from: the data, the time, and how to do it again."""

from __future__ import annotations

import shlex

from heed.config import dump_toml
from heed.report import numbers
from heed.report.blocks import Code, Figure, Fold, Grid, Note, Section, Table, missing
from heed.report.estimates import bars
from heed.report.folder import Row, RunRecord, mapping, number

_COUNTS = ("read", "kept", "cut", "dropped", "set_aside", "unsupervised")


def data_section(record: RunRecord) -> Section:
    """Say what became of every row that a stage read."""
    section = Section("data", "The data")
    reports = [(run, row) for run in record.walk() for row in run.data_report]
    if not reports:
        section.blocks.append(missing("No stage wrote a data report, so no rows are counted here."))
        return section
    section.lead = (
        "What became of every row before the first step. A row that was cut is kept in part; one "
        "that was dropped, or has nothing to learn (unsupervised), teaches nothing."
    )
    shown = [
        name for name in _COUNTS if name != "set_aside" or any(r.get(name) for _, r in reports)
    ]
    titles = [name.replace("_", " ") for name in shown]
    head = ["stage", "source", *titles, "tokens a row", "tokens"]
    lines = []
    reasons = []
    for run, row in reports:
        tokens = mapping(row.get("tokens"))
        median, most = number(tokens.get("median")), number(tokens.get("max"))
        spread = (
            f"{numbers.figure(median)}, at most {numbers.figure(most)}" if median else "not counted"
        )
        total = number(tokens.get("total"))
        counts = [_count(row, name) for name in shown]
        lines.append(
            [
                run.name,
                _short(str(row.get("source", "not named"))),
                *("not counted" if c is None else numbers.whole(c) for c in counts),
                spread,
                "not counted" if total is None else numbers.whole(total),
            ]
        )
        reasons += _reasons(run.name, row)
    section.blocks.append(
        Table("Rows by source", head, lines, numeric=range(2, len(head)), hide_caption=True)
    )
    if reasons:
        head = ["stage", "rows", "reason", "for example"]
        section.blocks.append(Table("Why rows were cut or left out", head, reasons, numeric=(1,)))
    else:
        section.blocks.append(Note("No row was cut, dropped or left without supervision."))
    notes = [[run.name, note] for run, row in reports for note in _list(row.get("notes"))]
    if notes:
        table = Table("How each source was read", ["stage", "note"], notes, hide_caption=True)
        section.blocks.append(Fold("How each source was read", [table]))
    return section


def _count(row: Row, name: str) -> float | None:
    """Rows of one fate; those set aside because somebody said so are not among the dropped."""
    found = number(row.get(name))
    if name == "dropped" and found is not None:
        return found - (number(row.get("set_aside")) or 0)
    return found


def _reasons(stage: str, row: Row) -> list[list[str]]:
    examples = mapping(row.get("examples"))
    out = []
    for reason, count in mapping(row.get("reasons")).items():
        shown = _list(examples.get(reason))
        known = number(count)
        times = "not counted" if known is None else numbers.whole(known)
        out.append([stage, times, str(reason), shown[0] if shown else "none kept"])
    return out


def time_section(record: RunRecord) -> Section:
    """Say how long each stage took and how much memory it needed."""
    section = Section("time", "Time and memory")
    listed = mapping(record.summary.get("seconds"))
    stages = record.stages or [record]
    rows = []
    for run in stages:
        seconds = number(run.manifest.get("seconds"))
        if seconds is None:
            seconds = number(listed.get(run.stage))
        rows.append((run.name, seconds, number(run.manifest.get("peak_memory_bytes"))))
    there = {run.stage for run in stages}
    repeated = [] if not record.stages else [name for name in listed if name not in there]
    rows += [(f"{name}, repeated", number(listed[name]), None) for name in repeated]
    known = [(name, s, _pair(s, peak)) for name, s, peak in rows if s is not None]
    absent = [name for name, s, _ in rows if s is None]
    total = total_seconds(record)
    peak = peak_memory(record)
    if total is not None:
        section.lead = f"{numbers.seconds(total)} in all"
        section.lead += f", at most {numbers.size(peak)} of memory." if peak else "."
    if len(known) > 1:
        words = "; ".join(f"{name}: {text}" for name, _, text in known)
        title = "Seconds and peak memory by stage"
        wide, narrow = (bars(known, title=title, description=words, width=w) for w in (1040, 360))
        section.blocks.append(Figure(title, wide, narrow=narrow))
    elif not known:
        section.blocks.append(missing("The time was not recorded: there is no whole manifest."))
    if absent and known:
        section.blocks.append(missing(f"No time was recorded for {', '.join(absent)}."))
    split = [_update_split(run) for run in stages]
    section.blocks += [Grid([f for f in split if f is not None])] if any(split) else []
    return section


def _pair(seconds: float, peak: float | None) -> str:
    return numbers.seconds(seconds) + (f" · {numbers.size(peak)}" if peak else "")


def _update_split(run: RunRecord) -> Figure | None:
    """Where the time of an update goes, where that was logged."""
    parts = []
    for key, label in (("rollout", "sampling"), ("score", "scoring"), ("train", "training steps"),
                       ("eval", "looks")):  # fmt: skip
        _, values = run.known(f"time/{key}_seconds")
        if values:
            parts.append((label, sum(values), numbers.seconds(sum(values))))
    if len(parts) < 2:
        return None
    title = f"Where the time of {run.name} went"
    words = "; ".join(f"{label}: {text}" for label, _, text in parts)
    return Figure(title, bars(parts, title=title, description=words))


def total_seconds(record: RunRecord) -> float | None:
    """Return the seconds of the whole run, those of stages made earlier included."""
    stages = [number(s.manifest.get("seconds")) for s in record.stages]
    summed = [s for s in stages if s is not None]
    given = number(record.summary.get("total_seconds"))
    own = number(record.manifest.get("seconds"))
    return given if given is not None else sum(summed) if summed else own


def peak_memory(record: RunRecord) -> float | None:
    """Return the highest peak memory of the run and its stages, in bytes."""
    peaks = [number(run.manifest.get("peak_memory_bytes")) for run in record.walk()]
    known = [p for p in [*peaks, number(record.summary.get("peak_memory_bytes"))] if p]
    return max(known, default=None)


def reproduction_section(record: RunRecord) -> Section:
    """Say how to do it again: command, settings, environment, hashes of what went in."""
    section = Section("again", "How to do it again")
    code = mapping(record.manifest.get("code"))
    version = code.get("version")
    if version:
        section.lead = f"heed {version}, code {code.get('hash', 'without a hash')}."
    if not record.manifest:
        section.blocks.append(missing("There is no whole manifest, so settings are not known."))
    else:
        text, how = command(record)
        section.blocks += [Note(how), Code(text)]
    if record.config:
        section.blocks.append(Fold(f"Settings of {record.name}", [Code(_toml(record.config))]))
    below = [run for run in record.walk() if run is not record and run.config]
    if below:
        folds = [Fold(run.name, [Code(_toml(run.config))]) for run in below]
        section.blocks.append(Fold(f"Settings of its {len(below)} stages", folds))
    section.blocks.append(_environment(record))
    hashes = _inputs(record)
    if hashes:
        table = Table("Inputs by content hash", ["stage", "input", "path", "hash"], hashes)
        section.blocks.append(Fold("Inputs by content hash", [table]))
    else:
        section.blocks.append(missing("No file went in: all was made from the seed."))
    return section


def command(record: RunRecord) -> tuple[str, str]:
    """Return the command that repeats a run in a new folder, and a sentence on how to use it."""
    given = record.facts.get("command") or record.manifest.get("command")
    if isinstance(given, str) and given:
        return given, "The command that was given:"
    if isinstance(given, list) and given:
        return shlex.join(str(word) for word in given), "The command that was given:"
    seed = number(record.manifest.get("seed"))
    flags = " --run.folder runs/again"
    flags += f" --run.seed {int(seed)}" if seed is not None else ""
    name = record.name
    if record.kind == "pipeline" and name == "quickstart":
        return f"heed quickstart{flags}", "The same seed gives the same numbers on one machine:"
    if record.kind == "pipeline":
        return (
            f"heed run {shlex.quote(name + '.toml')}{flags}",
            "With the recipe's file and the arguments that stand in the settings below:",
        )
    return (
        f"heed {record.kind} settings.toml{flags}",
        "Save the settings below as settings.toml, then:",
    )


def _environment(record: RunRecord) -> Fold:
    found: dict[str, list[str]] = {}
    for run in record.walk():
        for name, value in mapping(run.manifest.get("environment")).items():
            if value is not None and str(value) not in found.setdefault(str(name), []):
                found[str(name)].append(str(value))
    lines = [[name, ", ".join(values)] for name, values in found.items() if values]
    if not lines:
        return Fold("Environment", [missing("The environment was not recorded.")])
    return Fold("Environment", [Table("Environment", ["what", "value"], lines, hide_caption=True)])


def _inputs(record: RunRecord) -> list[list[str]]:
    lines = []
    for run in record.walk():
        for name, given in mapping(run.manifest.get("inputs")).items():
            entry = mapping(given)
            path = entry.get("path")
            text = ", ".join(map(str, path)) if isinstance(path, list) else str(path)
            hash_ = entry.get("hash") or entry.get("reason") or "no hash"
            lines.append([run.name, str(name), text, str(hash_)])
    return lines


def _toml(config: Row) -> str:
    try:
        return dump_toml(config)
    except (TypeError, ValueError, RecursionError) as error:
        return f"# The settings cannot be written as TOML: {error}"


def _short(source: str) -> str:
    """Keep the last two parts of a path; the whole path stands among the inputs."""
    parts = source.replace("\\", "/").split("/")
    return source if len(parts) <= 2 else "…/" + "/".join(parts[-2:])


def _list(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
