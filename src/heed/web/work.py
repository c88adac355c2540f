"""Routes of people who label. Thin over the store: it decides, these translate.

Places in what is sent and received are places on the person's own screen.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from heed.data.store import Refusal
from heed.data.store.kinds import Kind, inverse
from heed.data.store.progress import progress_of
from heed.data.store.views import Judgment, Receipt
from heed.web import bodies
from heed.web.showing import as_markdown
from heed.web.site import Needs, Visitor, site_of

router = APIRouter(tags=["work"])
Worker = Annotated[Visitor, Depends(Needs("work"))]
Reader = Annotated[Visitor, Depends(Needs("history"))]


@router.post("/projects/{project}/leases")
def claim(project: str, body: bodies.Claim, who: Worker, request: Request) -> dict[str, Any]:
    """Hold items: those held already come first. Without any, `nothing` says why."""
    store = site_of(request).store
    claimed = store.queue.claim(who.project, who.id, count=body.count)
    return bodies.claimed_out(claimed, progress_of(store, who.project, who.id))


@router.post("/leases/{lease}/heartbeat")
def heartbeat(lease: str, who: Worker, request: Request) -> dict[str, str]:
    """Say that one is still at it; 410 where the lease is over."""
    return {"expires_at": bodies.moment(site_of(request).store.queue.heartbeat(lease, who.id))}


@router.post("/leases/{lease}/release", status_code=204)
def release(lease: str, who: Worker, request: Request) -> Response:
    """Give an item back; its draft stays."""
    site_of(request).store.queue.release(lease, who.id)
    return Response(status_code=204)


@router.put("/leases/{lease}/draft")
def save_draft(
    lease: str,
    body: bodies.Draft,
    who: Worker,
    request: Request,
    if_match: Annotated[str | None, Header(max_length=20)] = None,
) -> dict[str, int]:
    """Keep an unfinished answer. `If-Match` is the version that it continues; 409 if newer."""
    version = None
    if if_match is not None:
        text = if_match.strip('"')
        if not (text.isascii() and text.isdigit()):
            raise Refusal("invalid", "If-Match is the number of the draft's version, such as 3")
        version = int(text)
    value = body.model_dump(mode="json", exclude_unset=True)
    store = site_of(request).store
    return {"version": store.queue.save_draft(lease, who.id, value, version=version)}


@router.post("/leases/{lease}/judgment", status_code=201)
def submit(
    lease: str, body: bodies.Submission, who: Worker, request: Request, response: Response
) -> dict[str, Any]:
    """Store an answer: 201, or 200 with the same body for the same submission; 409 if it differs.

    When this answers, the judgment is on the disk.
    """
    store = site_of(request).store
    receipt = store.answers.submit(
        lease,
        who.id,
        body.answer,
        submission_id=body.submission_id,
        timing=None if body.timing is None else body.timing.model_dump(exclude_none=True),
        client=body.client.model_dump(),
    )
    response.status_code = 200 if receipt.replayed else 201
    return _receipt_out(receipt)


@router.post("/leases/{lease}/skip")
def skip(lease: str, body: bodies.SkipIn, who: Worker, request: Request) -> dict[str, str]:
    """Put an item aside; undo takes it back."""
    store = site_of(request).store
    store.answers.skip(lease, who.id, mode=body.mode, reason=body.reason, note=body.note)
    return {"skipped": lease}


@router.post("/projects/{project}/undo")
def undo(project: str, who: Worker, request: Request) -> dict[str, Any]:
    """Take back one's latest answer or skip; its item is open again, the answer its draft."""
    store = site_of(request).store
    done = store.answers.undo(who.project, who.id)
    progress = progress_of(store, who.project, who.id)
    return {
        "undone": done.what,
        "work": bodies.work_out(done.work),
        "progress": bodies.progress_out(progress),
    }


@router.post("/judgments/{judgment}/amend", status_code=201)
def amend(
    judgment: str, body: bodies.Amendment, who: Worker, request: Request, response: Response
) -> dict[str, Any]:
    """Store a new version of one's own answer."""
    receipt = site_of(request).store.answers.amend(
        judgment, who.id, body.answer, submission_id=body.submission_id
    )
    response.status_code = 200 if receipt.replayed else 201
    return _receipt_out(receipt)


@router.get("/projects/{project}/me")
def mine(project: str, who: Reader, request: Request) -> dict[str, int]:
    """How far one has come."""
    return bodies.progress_out(progress_of(site_of(request).store, who.project, who.id))


@router.get("/projects/{project}/history")
def history(project: str, who: Reader, request: Request) -> list[dict[str, Any]]:
    """One's own last 200 answers, the newest first, as one gave them."""
    store = site_of(request).store
    kind = store.projects.get(who.project).kind
    return [judgment_out(one, kind) for one in store.answers.history(who.project, who.id)]


@router.get("/projects/{project}/guideline")
def guideline(project: str, who: Reader, request: Request) -> dict[str, Any]:
    """The newest guideline; version 0 where there is none."""
    version, text = site_of(request).store.projects.guideline(who.project)
    return {"version": version, "html": as_markdown(text)}


@router.post("/projects/{project}/guideline/acknowledge", status_code=204)
def acknowledge(project: str, body: bodies.Acknowledged, who: Worker, request: Request) -> Response:
    """Say that one has read a version of the guideline."""
    site_of(request).store.people.acknowledge(who.project, who.id, body.version)
    return Response(status_code=204)


def judgment_out(judgment: Judgment, kind: Kind) -> dict[str, Any]:
    """Show a person their own answer, with the places of their own screen."""
    answer = kind.turn(kind.answer.model_validate(judgment.answer), inverse(judgment.shown))
    return {
        "judgment": judgment.id,
        "item": judgment.item,
        "answer": answer.model_dump(mode="json"),
        "version": judgment.version,
        "state": judgment.state,
        "at": bodies.moment(judgment.at),
    }


def _receipt_out(receipt: Receipt) -> dict[str, Any]:
    """Say what was stored; not whether others had answered, nor how much goes on elsewhere."""
    return {
        "judgment": receipt.judgment,
        "version": receipt.version,
        "outcome": receipt.outcome,
        "late": receipt.late,
    }
