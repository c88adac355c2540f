"""The top of the page: what was run, what was found, and what cannot be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from markupsafe import Markup

from heed.report import numbers, provenance, roles
from heed.report.blocks import Fold, Table
from heed.report.checks import Check, all_checks
from heed.report.estimates import glyph
from heed.report.findings import POLICIES, Statement, by_policy, statements, verdict
from heed.report.folder import RunRecord, mapping, number
from heed.report.parting import Parting

KINDS = {
    "pipeline": "pipeline",
    "ppo": "policy optimisation (PPO)",
    "online": "policy optimisation",
    "online_preference": "policy optimisation from comparisons",
    "sft": "supervised fine-tuning",
    "reward": "reward model",
    "preference": "preference optimisation (DPO family)",
    "unpaired": "optimisation on good and bad replies",
    "generate": "sampling",
    "best_of_n": "best of n",
    "compare": "comparisons",
    "evaluate": "evaluation",
    "frontier": "quality against KL",
    "world": "world",
    "init": "new model",
}
_MOST_SOURCES = 6
_MOST_LINES = 12
"""Findings of other kinds that are shown unfolded; all stand below."""
_SHORT = {
    "the untrained model": "untrained",
    "the pretrained policy": "pretrained",
    "the base policy": "base",
    "the warm-up policy": "warm-up",
    "the reference": "reference",
    "the baseline": "baseline",
    "the PPO policy": "PPO",
    "the judged policy": "judged",
    "the over-optimised policy": "over-optimised",
}


@dataclass(frozen=True)
class Header:
    """What was run."""

    title: str
    kind: str
    facts: Sequence[tuple[str, str]]
    banner: str = ""
    """Said in large where the run did not finish."""


@dataclass(frozen=True)
class Line:
    """A statement with its small picture."""

    statement: Statement
    picture: Markup


@dataclass
class Overview:
    """What was found."""

    verdict: str | None
    lines: list[Line] = field(default_factory=list)
    table: Table | None = None
    everything: Fold | None = None
    raised: list[Check] = field(default_factory=list)
    quiet: str = ""
    unknown: str = ""
    reason: str = ""
    """Why nothing was found, where nothing was."""

    @property
    def has_pictures(self) -> bool:
        """Whether any line has a picture."""
        return any(line.picture for line in self.lines)


def header(record: RunRecord) -> Header:
    """Gather what was run, on what, when and for how long."""
    manifest = record.manifest
    kind = KINDS.get(record.kind, record.kind)
    if record.stages:
        kind += f" of {len(record.stages)} stages"
    seconds = provenance.total_seconds(record)
    seed = number(manifest.get("seed"))
    version = mapping(manifest.get("code")).get("version")
    facts = [
        ("Started", numbers.moment(manifest.get("created"))),
        ("Took", numbers.seconds(seconds)),
        ("On", _machine(record)),
        ("From", _sources(record)),
        ("Seed", "not known" if seed is None else str(int(seed))),
        ("Peak memory", numbers.size(provenance.peak_memory(record))),
        ("heed", str(version) if version else "not known"),
    ]
    return Header(record.name, kind, [f for f in facts if f[1]], _banner(record))


def _banner(record: RunRecord) -> str:
    status = record.manifest.get("status")
    if status == "finished":
        return ""
    error = record.manifest.get("error")
    because = f": {error}" if error else ""
    if status == "failed":
        return f"This run failed{because}. What follows is what it left."
    if status == "interrupted":
        return f"This run was interrupted{because}. What follows is what it left."
    if status == "running":
        return "This run has not finished. What follows is what it has written so far."
    return "Whether this run finished is not known: its manifest is missing or damaged."


def _machine(record: RunRecord) -> str:
    found: dict[str, str] = {}
    for run in record.walk():
        for name, value in mapping(run.manifest.get("environment")).items():
            if value is not None:
                found.setdefault(str(name), str(value))
    words = [found[name] for name in ("device",) if name in found]
    words = words or [found.get("platform", "not recorded").split("-")[0]]
    if "threads" in found and words[0] in ("cpu", "Linux", "Darwin", "Windows", "macOS"):
        words.append("1 thread" if found["threads"] == "1" else f"{found['threads']} threads")
    return ", ".join(words)


def _sources(record: RunRecord) -> str:
    names = []
    for name, given in mapping(record.manifest.get("inputs")).items():
        path = mapping(given).get("path")
        paths = path if isinstance(path, list) else [path]
        some = [PurePath(str(p)).name for p in paths[:_MOST_SOURCES]]
        more = len(paths) - len(some)
        names.append(f"{name} {', '.join(some)}" + (f" and {more} more" if more else ""))
    if names:
        return "; ".join(names)
    return "the seed alone, no files" if record.manifest else "not known"


def overview(record: RunRecord) -> Overview:
    """Gather findings in words, warnings, and what was checked without a warning."""
    said = statements(record)
    found = _shown_parting(record)
    policies, table, rest = by_policy(said)
    checks = all_checks(record, said)
    out = Overview(verdict(said, found))
    headline = [s for s in rest if s.subject.kind != "other"]
    if not headline and not table:
        headline = rest[:_MOST_LINES]
    out.lines = [Line(s, _picture(s)) for s in headline]
    out.table = _policy_table(policies, table)
    if said:
        out.everything = Fold(f"All {len(said)} measured quantities", [_all_table(said)])
    else:
        out.reason = "No stage measured a quantity with an interval, so there are no findings yet."
    raised = {id(c): c for c in checks if c.state == "raised"}
    out.raised = list(raised.values())
    out.quiet = _names(checks, "quiet")
    out.unknown = "; ".join(
        dict.fromkeys(f"{_at(c)} ({c.text})" for c in checks if c.state == "unknown")
    )
    return out


def _shown_parting(record: RunRecord) -> Parting | None:
    runs = [run for run in roles.online_runs(record) if roles.is_overoptimisation(run)]
    return roles.parted(runs[0]) if runs else None


def _picture(statement: Statement) -> Markup:
    f = statement.finding
    if not statement.is_share or f.estimate is None or not 0 <= f.estimate <= 1:
        return Markup("")
    low = None if f.low is None else max(f.low, 0.0)
    high = None if f.high is None else min(f.high, 1.0)
    return glyph(low, f.estimate, high, statement.verdict)


def _policy_table(
    policies: Sequence[str], table: Sequence[tuple[str, dict[str, Statement]]]
) -> Table | None:
    if not table:
        return None
    rows = []
    for title, found in table:
        cells = [_cell(found[p]) if p in found else "not measured" for p in policies]
        rows.append([title, *cells])
    head = ["", *(_SHORT.get(POLICIES.get(p, ""), p) for p in policies)]
    caption = f"Each policy on the same held-out prompts, with {numbers.LEVEL} intervals"
    return Table(caption, head, rows, numeric=range(1, len(head)))


def _cell(statement: Statement) -> str:
    f = statement.finding
    if f.estimate is None:
        return "not known"
    share = statement.subject.kind == "ended"
    write = (lambda v: numbers.share(v, 0)) if share else numbers.figure
    if f.low is None or f.high is None:
        return write(f.estimate)
    if share:
        estimate, low, high = (write(v) for v in (f.estimate, f.low, f.high))
    else:
        estimate, low, high = numbers.interval(f.estimate, f.low, f.high)
    return Markup("{} <small>{} to {}</small>").format(estimate, low, high)


def _all_table(said: Sequence[Statement]) -> Table:
    rows = []
    for s in said:
        f = s.finding
        if f.estimate is None:
            value, ends = "not known", f.reason or ""
        else:
            value, ends = numbers.figure(f.estimate), "none"
            if f.low is not None and f.high is not None:
                value, low, high = numbers.interval(f.estimate, f.low, f.high)
                ends = f"{low} to {high}"
        rows.append([s.where, f.name, value, ends, numbers.whole(f.n), f.unit])
    head = ["stage", "name", "estimate", f"{numbers.LEVEL} interval", "n", "unit"]
    return Table("All findings", head, rows, numeric=(2, 3, 4), hide_caption=True)


def _names(checks: Sequence[Check], state: str) -> str:
    """Name checks of one state, each once, with the runs it was made on."""
    where: dict[str, list[str]] = {}
    for check in checks:
        if check.state == state:
            where.setdefault(check.name, []).append(check.where)
    return "; ".join(
        name + (f" ({', '.join(w for w in runs if w)})" if any(runs) else "")
        for name, runs in where.items()
    )


def _at(check: Check) -> str:
    return f"{check.name} of {check.where}" if check.where else check.name
