"""Every refusal in one JSON shape (RFC 9457); what went wrong inside is told to nobody outside."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from heed.data.store.refusal import Refusal
from heed.errors import StoreError

STATUS = {"absent": 404, "denied": 403, "conflict": 409, "gone": 410, "invalid": 422}
TITLES = {
    400: "Not understood", 401: "Not logged in", 403: "Not allowed", 404: "Not found",
    405: "Method not allowed", 409: "Conflict", 410: "Gone", 413: "Too large",
    415: "Wrong content type", 421: "Wrong host", 422: "Does not fit", 429: "Too many requests",
    500: "Unexpected error", 503: "Not available",
}  # fmt: skip
_WAIT = re.compile(r"wait (\d+) seconds")
_LOG = logging.getLogger("heed.web")


class NotLoggedIn(Exception):  # noqa: N818  it is no error of the server
    """The request is from nobody that the store knows."""


def problem(
    status: int, detail: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Make the answer to a request that is not carried out."""
    title = TITLES.get(status, "Refused")
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail or title}
    return JSONResponse(body, status, dict(headers or {}), "application/problem+json")


def of_refusal(refusal: Refusal) -> Response:
    """Answer with what the store says no to."""
    wait = _WAIT.search(str(refusal))
    if refusal.kind == "gone" and wait:
        return problem(429, str(refusal), {"Retry-After": wait[1]})
    return problem(STATUS[refusal.kind], str(refusal))


def install(app: FastAPI) -> None:
    """Give the application its answers to errors."""

    @app.exception_handler(Refusal)
    def refused(request: Request, error: Refusal) -> Response:
        return of_refusal(error)

    @app.exception_handler(NotLoggedIn)
    def stranger(request: Request, error: NotLoggedIn) -> Response:
        return problem(401, str(error))

    @app.exception_handler(StoreError)
    def broken(request: Request, error: StoreError) -> Response:
        _LOG.error("the label store: %s", error)
        return problem(503, "the label store cannot do this now; nothing of it was stored")

    @app.exception_handler(RequestValidationError)
    def unfit(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])[:200]
        status = 400 if first["type"] == "json_invalid" else 422
        return problem(status, f"{place}: {first['msg']}"[:500])

    @app.exception_handler(UnicodeError)
    def unreadable(request: Request, error: UnicodeError) -> Response:
        return problem(422, "a text holds characters that are none (half of a surrogate pair)")

    @app.exception_handler(HTTPException)
    def plain(request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> Response:
        return problem(500, "this is not foreseen; the server's terminal says what happened")
