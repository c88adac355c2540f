"""The pages. They change nothing: what the script of a page does goes through the API."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

import heed
from heed.data.store import Refusal
from heed.data.store.kinds import trained_layout
from heed.data.store.progress import progress_of
from heed.data.store.scales import SCALES, Scale
from heed.data.store.views import Project
from heed.errors import StoreError
from heed.web.problems import NotLoggedIn
from heed.web.showing import as_markdown, shown_plain
from heed.web.site import Anyone, Visitor, projects_of, site_of, visitor_of

if TYPE_CHECKING:
    from heed.web.follow import RunCard, Runs

router = APIRouter(include_in_schema=False, dependencies=[Depends(Anyone())])
SCRIPTS = {
    "pair": "pair", "ranking": "ranking", "rating": "rating", "demonstration": "writing",
    "edit": "writing", "spans": "spans",
}  # fmt: skip
"""Kinds of work that have a page -> the module of its script."""
COMPARISONS = ("pair", "clips")
"""Kinds of work whose quality is measured."""
_SILENT_MINUTES = 5
"""A trainer that says nothing for so long may be gone, so the page says since when."""


@router.get("/")
def home(request: Request) -> Response:
    """The projects that one works in."""
    who = _person(request)
    if who is None:
        return RedirectResponse("/login", 303)
    site = site_of(request)
    cards = []
    for found in projects_of(site, who.caller):
        progress = progress_of(site.store, found.id, who.id)
        measured = found.config.kind in COMPARISONS and who.caller.may("people.read", found.id)
        card = {"slug": found.slug, "title": _title(found), "progress": progress}
        waiting = _waiting(found, site.store.database.clock()) if measured else ""
        cards.append({**card, "measured": measured, "waiting": waiting})
    runs = site.runs is not None and who.caller.may_somewhere("runs.read")
    return _page("home.html.jinja", who, cards=cards, runs=runs, name=_name(request, who))


@router.get("/start")
@router.get("/login")
@router.get("/invite")
def enter(request: Request) -> Response:
    """The way in; the code of an address stays in the browser until it is exchanged."""
    mode = request.url.path.strip("/")
    return _page("enter.html.jinja", None, mode=mode)


@router.get("/p/{project}/label")
def label(project: str, request: Request) -> Response:
    """The work screen."""
    who = _person(request)
    if who is None:
        return RedirectResponse("/login", 303)
    site = site_of(request)
    found = next((p for p in projects_of(site, who.caller) if p.slug == project), None)
    if found is None:
        return _page("message.html.jinja", who, 404, title="No such project",
                     text="There is no project of this name for you.")  # fmt: skip
    if found.config.kind not in SCRIPTS:
        return _page("message.html.jinja", who, 404, title="No page for this kind of work",
                     text=f"There is no page for work of kind {found.config.kind}. "
                     "Its items are reached by the API.")  # fmt: skip
    version, guideline = site.store.projects.guideline(found.id)
    config = found.config
    return _page(
        f"label_{config.kind}.html.jinja", who, title=_title(found),
        setup=_setup(found, who, version), choices=choices(SCALES[config.scale]),
        flags=[words(code) for code in config.flags],
        reasons=[words(code) for code in config.reasons],
        has_candidates=config.kind != "demonstration", layout=trained_layout(found.kind),
        guideline=as_markdown(guideline), is_owner=who.caller.is_admin, several=_several(request),
    )  # fmt: skip


def _setup(found: Project, who: Visitor, version: int) -> dict[str, Any]:
    """What the script of the work screen is told; nothing of models, gold or others."""
    scale = SCALES[found.config.scale]
    return {
        "kind": found.config.kind,
        "script": SCRIPTS[found.config.kind],
        "attributes": [
            {**attribute.model_dump(), "says": words(attribute.name)}
            for attribute in found.config.attributes
        ],
        "span_kinds": [{"name": name, "says": words(name)} for name in found.config.span_kinds],
        "project": found.slug,
        "person": who.id,
        "csrf": who.csrf,
        "depth": found.config.max_leases,
        "flags": list(found.config.flags),
        "reasons": list(found.config.reasons),
        "skip_mode": found.config.skip_modes[0] if found.config.skip_modes else None,
        "has_tie": scale.has_tie,
        "levels": scale.levels,
        "guideline": version,
        "page": heed.__version__,
    }


@router.get("/p/{project}/quality")
def quality(project: str, request: Request) -> Response:
    """How good a project's answers are; for those who may know who said what."""
    from heed.web.quality import quality_of

    who = _person(request)
    if who is None:
        return RedirectResponse("/login", 303)
    site = site_of(request)
    found = next((p for p in site.store.projects.all() if p.slug == project), None)
    if found is None or not who.caller.may("people.read", found.id):
        return _no_page(who)
    if found.config.kind not in COMPARISONS:
        return _page("message.html.jinja", who, 404, title="No page for this kind of work",
                     text=f"The page measures comparisons; this project is of kind "
                     f"{found.config.kind}.")  # fmt: skip
    return _page(
        "quality.html.jinja", who, title=_title(found), name=_name(request, who),
        quality=quality_of(site.store, found.id), shown=shown_plain,
    )  # fmt: skip


@router.get("/runs")
def runs(request: Request) -> Response:
    """The runs and how far they are, for those who may see them."""
    found = _runs(request)
    if isinstance(found, Response):
        return found
    who, shown = found
    return _page(
        "runs.html.jinja", who, cards=shown.cards(), name=_name(request, who), shown=shown_plain,
        moment=_moment,
    )  # fmt: skip


@router.get("/runs/{run}")
def run(run: str, request: Request) -> Response:
    """A run's report as it stands now."""
    from heed.report.folder import read_folder
    from heed.report.page import Live, render
    from heed.web.follow import targets_of, version_of

    found = _runs(request)
    if isinstance(found, Response):
        return found
    who, shown = found
    try:
        folder, card = shown.folder(run), shown.card(run)
        # Before what is read, so that a change in between is seen at the next look.
        version = version_of(folder)
        record = read_folder(folder)
    except StoreError:
        return _no_page(who)
    record.manifest["status"] = card.status
    live = Live(
        run, version, who.csrf or "", _state(card), targets_of(site_of(request).store, who),
        who.caller.may("project.make"), shown.below(folder),
    )  # fmt: skip
    return HTMLResponse(render(record, live))


def _runs(request: Request) -> tuple[Visitor, Runs] | Response:
    """Who asks and the runs, or the page for those who may not see them."""
    who, found = _person(request), site_of(request).runs
    if who is None:
        return RedirectResponse("/login", 303)
    if found is None or not who.caller.may_somewhere("runs.read"):
        return _no_page(who)
    return who, found


def _no_page(who: Visitor) -> Response:
    return _page("message.html.jinja", who, 404, title="No such page",
                 text="There is no page of this name for you.")  # fmt: skip


def _state(card: RunCard) -> str:
    step = "" if card.step is None else f", update {card.step}"
    return f"{card.status}{step}, last written {_moment(card.changed)}"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _waiting(project: Project, now: int) -> str:
    """Say how many labels a trainer waits for, as it said itself, and when; empty for none."""
    budget = project.budget
    if not budget or not budget["wanted"]:
        return ""
    num, step = budget["wanted"], budget["by_step"]
    said = f"trainer waiting for {num} label{'s' * (num != 1)} at update {step}"
    minutes = max(0, now - budget["at"]) // 60_000
    return said if minutes < _SILENT_MINUTES else f"{said}, {minutes} minutes ago"


def choices(scale: Scale) -> list[dict[str, Any]]:
    """The buttons of a scale from left to right: side, level, and what they say."""
    left = [_choice(0, level, scale) for level in range(scale.levels, 0, -1)]
    right = [_choice(1, level, scale) for level in range(1, scale.levels + 1)]
    middle = [{"side": None, "level": None, "who": "Equal", "how": ""}] if scale.has_tie else []
    found = [*left, *middle, *right]
    return [{"key": str(number), **one} for number, one in enumerate(found, start=1)]


def _choice(side: int, level: int, scale: Scale) -> dict[str, Any]:
    return {"side": side, "level": level, "who": "AB"[side], "how": scale.words[level - 1]}


def words(code: str) -> str:
    """Write a code as words."""
    return shown_plain(code.replace("_", " "))


def _person(request: Request) -> Visitor | None:
    try:
        who = visitor_of(request)
    except NotLoggedIn:
        return None
    return None if who.caller.is_token else who


def _title(project: Project) -> str:
    return shown_plain(project.config.title or project.slug)


def _name(request: Request, who: Visitor) -> str:
    try:
        return shown_plain(site_of(request).store.people.get(who.id).pseudonym)
    except Refusal:
        return ""


def _several(request: Request) -> bool:
    return len(site_of(request).store.projects.all()) > 1


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("heed.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _page(template: str, who: Visitor | None, status: int = 200, **values: Any) -> Response:
    from markupsafe import Markup

    if "guideline" in values:
        # Sanitised by `as_markdown`.
        values["guideline"] = Markup(values["guideline"])
    values.setdefault("csrf", "" if who is None else who.csrf)
    return HTMLResponse(_templates().get_template(template).render(values), status)
