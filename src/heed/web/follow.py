"""Runs as they go: which there are below a folder, how far each is, and its samples for labelling.

A run is named by an id that comes from the listing, so that nothing else on the disk can be asked
for. Everything is read from the run's folder; a run knows nothing of who looks.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from heed.data.store import Refusal, Store
from heed.data.store.items import MOST_IN_A_BATCH, NewItem
from heed.data.store.views import Project
from heed.errors import HeedError
from heed.ids import content_hash
from heed.records import Prompt
from heed.runs.run import Run
from heed.web.bodies import Body
from heed.web.site import Needs, Visitor, site_of

MANIFEST = "manifest.json"
WATCHED = (
    MANIFEST, "metrics.jsonl", "samples.jsonl", "warnings.jsonl", "findings.json",
    "data_report.json", "summary.json",
)  # fmt: skip
"""Files whose change means that there is something new to see."""
_NO_RUNS_IN = {"checkpoints", "rollouts", "model", "bad"}
_DEEPEST, _MOST_RUNS = 6, 2000
_TAIL_BYTES = 1 << 16

router = APIRouter(tags=["runs"])


@dataclass(frozen=True)
class RunCard:
    """One run in the list.

    Args:
        id: its name in addresses.
        name: its path below the folder of runs.
        title: the name as the list shows it: a stage by its own.
        status: running, finished, failed or interrupted; unreadable with a damaged manifest.
        step: of the newest line of metrics; None without one.
        changed: seconds since 1970 of the newest file.
        alarms: lines of warnings.
        parent: id of the run that it is a stage of; empty for none.
    """

    id: str
    name: str
    title: str
    kind: str
    status: str
    started: str
    step: int | None
    changed: float
    alarms: int
    parent: str


class Runs:
    """The runs below a folder, or the run that the folder is and its stages.

    Args:
        root: is looked through again whenever somebody asks.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._base = self.root.parent if (self.root / MANIFEST).is_file() else self.root

    def folders(self) -> dict[str, Path]:
        """Ids and folders, parents before their stages; at most 2,000."""
        found = {}
        for folder in self._walk():
            name = str(folder.relative_to(self._base))
            found[f"{_slug(folder.name)}-{content_hash(name, 10)}"] = folder
            if len(found) == _MOST_RUNS:
                break
        return found

    def folder(self, run: str) -> Path:
        """Find a run by its id.

        Raises:
            Refusal: there is none.
        """
        found = self.folders().get(run)
        if found is None:
            raise Refusal("absent", "there is no such run")
        return found

    def card(self, run: str) -> RunCard:
        """One run, as the list has it.

        Raises:
            Refusal: there is none.
        """
        folder = self.folder(run)
        return self._card(run, folder, {found: name for name, found in self.folders().items()})

    def below(self, folder: Path) -> dict[str, str]:
        """A run and its stages: path below the run's folder -> id."""
        return {
            str(found.relative_to(folder)): run
            for run, found in self.folders().items()
            if found.is_relative_to(folder)
        }

    def name(self, folder: Path) -> str:
        """The path of a run below the folder of runs."""
        return str(folder.relative_to(self._base))

    def cards(self) -> list[RunCard]:
        """All runs, the newest first, stages after the run that they belong to."""
        folders = self.folders()
        ids = {folder: run for run, folder in folders.items()}
        cards = [self._card(run, folder, ids) for run, folder in folders.items()]
        top = sorted((c for c in cards if not c.parent), key=lambda c: (-c.changed, c.name))
        by_parent: dict[str, list[RunCard]] = {}
        for card in cards:
            by_parent.setdefault(card.parent, []).append(card)
        ordered: list[RunCard] = []

        def put(card: RunCard) -> None:
            ordered.append(card)
            for stage in sorted(by_parent.get(card.id, []), key=lambda c: (c.started, c.name)):
                put(stage)

        for card in top:
            put(card)
        return ordered

    def _walk(self) -> Iterator[Path]:
        for place, names, files in os.walk(self.root):
            folder = Path(place)
            if MANIFEST in files:
                yield folder
            depth = len(folder.relative_to(self.root).parts)
            inside = sorted(n for n in names if n not in _NO_RUNS_IN and not n.startswith("."))
            names[:] = inside if depth < _DEEPEST else []

    def _card(self, run: str, folder: Path, ids: dict[Path, str]) -> RunCard:
        try:
            opened = Run.open(folder)
            manifest, status = opened.manifest, opened.status
        except HeedError:
            manifest, status = {}, "unreadable"
        above = next((found for found in folder.parents if found in ids), None)
        title = self.name(folder)
        if above is not None:
            title = str(folder.relative_to(above)).removeprefix("stages/")
        return RunCard(
            run, self.name(folder), title, str(manifest.get("kind") or ""), status,
            str(manifest.get("created") or ""), last_step(folder), _changed(folder),
            _lines(folder / "warnings.jsonl"), "" if above is None else ids[above],
        )  # fmt: skip


def version_of(folder: Path) -> str:
    """A word that changes when anything that is shown of a run, or of its stages, changes."""
    marks: list[Any] = []
    for place, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if name not in _NO_RUNS_IN)
        for name in sorted(set(files) & set(WATCHED)):
            try:
                found = os.stat(os.path.join(place, name))
            except OSError:
                continue  # replaced at this moment; the next look sees the new one
            marks.append([place, name, found.st_size, found.st_mtime_ns])
    return content_hash([marks, _status(folder)])


def last_step(folder: Path) -> int | None:
    """The step of the newest whole line of metrics; None without one."""
    try:
        with (folder / "metrics.jsonl").open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = stream.read().split(b"\n")
    except OSError:
        return None
    for line in reversed(lines):
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            continue
        return int(step) if isinstance(step, int | float) else None
    return None


def pairs_of(
    folder: Path, name: str, step: int, against: int
) -> tuple[list[NewItem], Counter[str]]:
    """Make items of a run's samples: each prompt answered at two steps, side by side.

    Args:
        name: of the run, kept as the hidden source of each completion.

    Returns:
        Items, and how many prompts are left out by reason.

    Raises:
        Refusal: the run kept no samples of these steps.
    """
    by_step: dict[int, dict[str, dict[str, Any]]] = {}
    for row in Run.open(folder).samples():
        prompt = str(row.get("prompt_id") or row.get("prompt"))
        by_step.setdefault(int(row.get("step") or 0), {}).setdefault(prompt, row)
    for wanted in (step, against):
        if wanted not in by_step:
            known = ", ".join(map(str, sorted(by_step))) or "none"
            raise Refusal("invalid", f"there are no samples of step {wanted}; there are {known}")
    items, left_out = [], Counter[str]()
    for prompt, row in by_step[step].items():
        other = by_step[against].get(prompt)
        texts = [str(one.get("completion", "")) for one in (row, other or {})]
        if other is None:
            left_out["the prompt was not sampled at both steps"] += 1
        elif texts[0] == texts[1]:
            left_out["both completions are the same"] += 1
        else:
            sides = [
                {"text": text, "source": {"newest": {"run": name, "step": at}}}
                for text, at in zip(texts, (step, against), strict=True)
            ]
            # Place tells nothing: it depends on the texts alone.
            sides.sort(key=lambda side: content_hash(side["text"]))
            payload = {"prompt": Prompt.make(str(row["prompt"])).model_dump(mode="json")}
            key = content_hash([name, prompt, step, against, texts], 32)
            items.append(
                NewItem(payload={**payload, "candidates": sides}, key=key, origin=name[-120:])
            )
    return items, left_out


class Sending(Body):
    """Which samples of a run become pairs, and where."""

    step: int = Field(ge=0, le=2**53)
    against: int = Field(default=0, ge=0, le=2**53)
    project: str | None = Field(default=None, max_length=80)


@router.get("/runs")
def runs(
    who: Annotated[Visitor, Depends(Needs("runs.read", anywhere=True))], request: Request
) -> list[dict[str, Any]]:
    """Runs and their stages, the newest first."""
    return [asdict(card) for card in _runs(request).cards()]


@router.get("/runs/{run}/state")
def state(
    run: str,
    who: Annotated[Visitor, Depends(Needs("runs.read", anywhere=True))],
    request: Request,
) -> dict[str, Any]:
    """How far a run is, and a word that changes with what there is to see."""
    folder = _runs(request).folder(run)
    return {"version": version_of(folder), "status": _status(folder), "step": last_step(folder)}


@router.post("/runs/{run}/items", status_code=201)
def send(
    run: str,
    body: Sending,
    who: Annotated[Visitor, Depends(Needs("runs.read", anywhere=True))],
    request: Request,
) -> dict[str, Any]:
    """Make pairs of a run's samples at two steps; without a project a new one is made for them."""
    found, store = _runs(request), site_of(request).store
    folder = found.folder(run)
    items, left_out = pairs_of(folder, found.name(folder), body.step, body.against)
    project = _project(store, who, body, folder.name)
    counts: Counter[str] = Counter()
    for first in range(0, len(items), MOST_IN_A_BATCH):
        batch = items[first : first + MOST_IN_A_BATCH]
        for one in store.items.add(project.id, batch, actor=who.id):
            counts[one.status] += 1
            if one.status == "refused":
                left_out[one.error or "it does not fit the project"] += 1
    return {
        "project": project.slug, "added": counts["new"], "known": counts["known"],
        "left_out": dict(left_out),
    }  # fmt: skip


def targets_of(store: Store, who: Visitor) -> list[str]:
    """Projects of pairs that somebody may add items to."""
    return [
        project.slug
        for project in store.projects.all()
        if project.config.kind == "pair" and who.caller.may("items.write", project.id)
    ]


def _project(store: Store, who: Visitor, body: Sending, name: str) -> Project:
    if body.project is not None:
        if body.project not in targets_of(store, who):
            raise Refusal("denied", "there is no project of pairs of this name that you may add to")
        return store.projects.get(body.project)
    if not who.caller.may("project.make"):
        raise Refusal("denied", "you cannot make a project; name one that you may add to")
    slug = f"{_slug(name)[:60]}-{body.step}-against-{body.against}"
    if slug not in (project.slug for project in store.projects.all()):
        title = f"{name[:100]}: update {body.step} beside update {body.against}"
        made = {"kind": "pair", "title": title, "calibration_frac": 0.0, "max_leases": 10}
        store.projects.make(slug, made, actor=who.id)
        store.people.join(slug, who.id, "researcher")
    return store.projects.get(slug)


def _runs(request: Request) -> Runs:
    found = site_of(request).runs
    if found is None:
        raise Refusal("absent", "this server shows no runs; start it with --runs FOLDER")
    return found


def _status(folder: Path) -> str:
    try:
        return Run.open(folder).status
    except HeedError:
        return "unreadable"


def _changed(folder: Path) -> float:
    found = 0.0
    for name in WATCHED:
        try:
            found = max(found, (folder / name).stat().st_mtime)
        except OSError:
            continue
    return found


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0


def _slug(name: str) -> str:
    letters = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower())
    return "-".join(filter(None, letters.split("-")))[:40] or "run"
