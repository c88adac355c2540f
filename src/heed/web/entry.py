"""Ways in and out: the owner's one-time code, address and password, an invitation, logout.

Every way in opens a new session and ends the one that the browser had, so none can be planted.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from heed.data.store import Refusal
from heed.data.store.access import Session
from heed.web import bodies
from heed.web.problems import NotLoggedIn
from heed.web.site import (
    Anyone,
    Needs,
    Site,
    Visitor,
    client_address,
    forget,
    projects_of,
    remember,
    site_of,
)

router = APIRouter(prefix="/auth", tags=["entry"])
Someone = Annotated[Visitor, Depends(Needs(None))]
_anyone = [Depends(Anyone())]


@router.post("/start", dependencies=_anyone)
def start(body: bodies.Code, request: Request, response: Response) -> dict[str, str]:
    """Exchange the one-time code, which the server's owner sees, for a session."""
    site = site_of(request)
    _brake(site, request)
    if site.owner is None or not site.codes.use(body.code):
        raise Refusal("denied", "this code was used or is none; the terminal shows a new one")
    session = site.store.people.access.open_session(site.owner, agent=_agent(request))
    return _enter(request, response, session)


@router.post("/login", dependencies=_anyone)
def log_in(body: bodies.LogIn, request: Request, response: Response) -> dict[str, str]:
    """Log in with address and password."""
    site = site_of(request)
    try:
        session = site.store.people.access.log_in(
            body.email, body.password, source=client_address(request), agent=_agent(request)
        )
    except Refusal as refusal:
        if refusal.kind == "denied":
            raise NotLoggedIn(str(refusal)) from refusal
        raise
    return _enter(request, response, session)


@router.post("/invite/accept", dependencies=_anyone)
def accept(body: bodies.Accept, request: Request, response: Response) -> dict[str, str]:
    """Use an invitation: a new person, a member of its project, logged in."""
    site = site_of(request)
    _brake(site, request)
    session = site.store.people.access.accept(
        body.code, pseudonym=body.pseudonym, email=body.email, password=body.password,
        agent=_agent(request),
    )  # fmt: skip
    return _enter(request, response, session)


@router.post("/logout", status_code=204)
def log_out(who: Someone, request: Request) -> Response:
    """End this session, and give back what the person holds."""
    site, response = site_of(request), Response(status_code=204)
    if who.secret is not None:
        site.store.queue.release_all(who.id)
        site.store.people.access.log_out(who.secret)
        forget(response, site)
    return response


@router.post("/logout/everywhere", status_code=204)
def log_out_everywhere(who: Someone, request: Request) -> Response:
    """End all sessions of the person."""
    site, response = site_of(request), Response(status_code=204)
    if who.secret is not None:
        site.store.queue.release_all(who.id)
        site.store.people.access.log_out_everywhere(who.id)
        forget(response, site)
    return response


@router.get("/me")
def me(who: Someone, request: Request) -> dict[str, Any]:
    """Who one is, and the projects that one works in."""
    site = site_of(request)
    if who.caller.is_token:
        return {"token": who.id, "scopes": sorted(who.caller.scopes)}
    found = projects_of(site, who.caller)
    return {
        "person": who.id,
        "pseudonym": site.store.people.get(who.id).pseudonym,
        "projects": [{"slug": one.slug, "title": one.config.title} for one in found],
        "csrf": who.csrf,
    }


def _enter(request: Request, response: Response, session: Session) -> dict[str, str]:
    site = site_of(request)
    before = request.cookies.get(site.cookie)
    if before:
        site.store.people.access.log_out(before)
    remember(response, site, session)
    found = projects_of(site, site.store.people.caller(session.person))
    place = f"/p/{found[0].slug}/label" if len(found) == 1 else "/"
    return {"csrf": session.csrf, "next": place}


def _brake(site: Site, request: Request) -> None:
    wait = site.guesses.wait(client_address(request))
    if wait:
        raise Refusal("gone", f"too many tries; wait {int(wait) + 1} seconds")


def _agent(request: Request) -> str:
    return request.headers.get("user-agent", "")
