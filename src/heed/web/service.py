"""Routes of trainers, importers and researchers: items, changes, budget, counts, ways in."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from heed.web import bodies
from heed.web.site import Needs, Visitor, site_of

router = APIRouter(tags=["service"])
MOST_WAIT = 25.0
_LOOK_EVERY = 0.25


@router.get("/projects/{project}")
def project(
    project: str, who: Annotated[Visitor, Depends(Needs("project.read"))], request: Request
) -> dict[str, Any]:
    """A project's configuration, and its items by state."""
    store = site_of(request).store
    found = store.projects.get(who.project)
    return {
        "id": found.id,
        "slug": found.slug,
        "state": found.state,
        "config": found.config.model_dump(mode="json"),
        "config_version": found.config_version,
        "budget": found.budget,
        "counts": store.items.counts(who.project),
    }


@router.post("/projects/{project}/items:batch")
def add_items(
    project: str,
    body: bodies.Batch,
    who: Annotated[Visitor, Depends(Needs("items.write"))],
    request: Request,
) -> list[dict[str, Any]]:
    """Add up to 1,000 items; one result per row. The same key and content adds once."""
    added = site_of(request).store.items.add(who.project, body.items, actor=who.id)
    return [asdict(one) for one in added]


@router.get("/projects/{project}/changes")
async def changes(
    project: str,
    who: Annotated[Visitor, Depends(Needs("changes.read"))],
    request: Request,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    wait: Annotated[float, Query(ge=0, le=MOST_WAIT)] = 0.0,
) -> dict[str, Any]:
    """Settled changes after a position, in order; waits up to `wait` seconds for the first."""
    log, ends = site_of(request).store.log, time.monotonic() + wait
    while True:
        found = await run_in_threadpool(log.changes, who.project, after, limit=limit)
        left = ends - time.monotonic()
        if found.changes or found.seq > after or left <= 0 or await request.is_disconnected():
            return asdict(found)
        await asyncio.sleep(min(_LOOK_EVERY, left))


@router.post("/projects/{project}/budget", status_code=204)
def set_budget(
    project: str,
    body: bodies.Budget,
    who: Annotated[Visitor, Depends(Needs("budget.write"))],
    request: Request,
) -> Response:
    """Say how many labels a trainer waits for; people see it."""
    store = site_of(request).store
    store.projects.set_budget(who.project, body.wanted, body.by_step, actor=who.id)
    return Response(status_code=204)


@router.post("/projects/{project}/stale")
def expire_stale(
    project: str,
    body: bodies.Step,
    who: Annotated[Visitor, Depends(Needs("items.write"))],
    request: Request,
) -> dict[str, int]:
    """Take items that are too old at a step out of the queue, by the project's own rule."""
    store = site_of(request).store
    return {"expired": store.items.expire_stale(who.project, body.step, actor=who.id)}


@router.post("/projects/{project}/invitations", status_code=201)
def invite(
    project: str,
    body: bodies.Invitation,
    who: Annotated[Visitor, Depends(Needs("people.write"))],
    request: Request,
) -> dict[str, str]:
    """Make an invitation. Its address is shown once."""
    access = site_of(request).store.people.access
    secret = access.invite(who.project, body.role, days=body.days, actor=who.id)
    return {"address": f"/invite#{secret}"}


@router.post("/tokens", status_code=201)
def make_token(
    body: bodies.TokenIn,
    who: Annotated[Visitor, Depends(Needs("tokens.write"))],
    request: Request,
) -> dict[str, str]:
    """Make a machine's token. It is shown once."""
    access = site_of(request).store.people.access
    name, secret = access.make_token(
        body.name, body.scopes, project=body.project, days=body.days, actor=who.id
    )
    return {"id": name, "token": secret}


@router.delete("/tokens/{token}", status_code=204)
def revoke_token(
    token: str, who: Annotated[Visitor, Depends(Needs("tokens.write"))], request: Request
) -> Response:
    """Make a token good for nothing."""
    site_of(request).store.people.access.revoke_token(token, actor=who.id)
    return Response(status_code=204)
