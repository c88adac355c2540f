"""What stands before every route: hosts, origins, content types, sizes, rates; and headers after.

Written to the protocol itself (ASGI), so that a body is cut off while it arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heed.data.store.keyed import digest
from heed.web.limits import Buckets
from heed.web.problems import problem

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
SAFE = ("GET", "HEAD", "OPTIONS")
MOST_BYTES, MOST_BATCH_BYTES = 1 << 20, 64 << 20
_MOST_ADDRESS = 2048


class Shield:
    """Refuse what no route need look at, and put the headers on every answer.

    Args:
        hosts: names under which the server answers; others are refused (DNS rebinding).
        secure: whether it is reached by TLS.
    """

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str], secure: bool) -> None:
        self._app, self._hosts = app, set(hosts)
        self._of_address, self._of_way_in = Buckets(200, 2000), Buckets(30, 300)
        self._headers = dict(HEADERS)
        if secure:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    found[name] = value
                if not scope["path"].startswith("/static/"):
                    found["Cache-Control"] = "no-store"
            await send(message)

        refused = self._refusal(scope, headers)
        if refused is not None:
            await refused(scope, receive, answer)
            return
        await self._app(scope, self._limited(scope, receive), answer)

    def _refusal(self, scope: Scope, headers: Headers) -> Any:
        host = headers.get("host", "")
        if _host_name(host) not in self._hosts:
            return problem(421, "this server does not answer under this name")
        if len(scope["path"]) + len(scope.get("query_string", b"")) > _MOST_ADDRESS:
            return problem(400, "the address is too long")
        wait = self._wait(scope, headers)
        if wait:
            seconds = str(int(wait) + 1)
            return problem(429, f"wait {seconds} seconds", {"Retry-After": seconds})
        if scope["method"] in SAFE:
            return None
        if foreign(headers, host):
            return problem(403, "the request comes from another site")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > _most_bytes(scope):
            return problem(413, _too_large(scope))
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        has_body = length != "0" or "transfer-encoding" in headers
        if has_body and kind != "application/json":
            return problem(415, "send application/json")
        return None

    def _wait(self, scope: Scope, headers: Headers) -> float:
        """Take a token of the address, and one of the session or token that is shown."""
        if scope["path"].startswith("/static/"):
            return 0.0
        shown = headers.get("authorization") or headers.get("cookie")
        wait = self._of_address.wait(str((scope.get("client") or ("",))[0]))
        if shown is not None:
            wait = max(wait, self._of_way_in.wait(digest(shown)))
        return wait

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        left = _most_bytes(scope)

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, _too_large(scope))
            return message

        return bounded


def foreign(headers: Headers, host: str) -> bool:
    """Whether a browser says that another site made this request."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != host.lower()


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


def _most_bytes(scope: Scope) -> int:
    return MOST_BATCH_BYTES if scope["path"].endswith("/items:batch") else MOST_BYTES


def _too_large(scope: Scope) -> str:
    return f"a body here has at most {_most_bytes(scope)} bytes"
