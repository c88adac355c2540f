"""What all requests share, who a request is from, and what it may do: denied unless declared.

Every route names what it needs with `Needs`, or says `Anyone`. A person is who the session says, a
machine who the token says; nothing in a body or an address says who somebody is.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import Request
from starlette.responses import Response

from heed.data.store import Refusal, Store
from heed.data.store.access import Session
from heed.data.store.keyed import digest, new_secret
from heed.data.store.progress import project_of_lease
from heed.data.store.roles import Caller
from heed.data.store.views import Project
from heed.web.limits import Buckets
from heed.web.problems import NotLoggedIn
from heed.web.shield import SAFE

if TYPE_CHECKING:
    from heed.web.follow import Runs

IDLE_SECONDS = 12 * 3600


class Codes:
    """The one-time code of the server's owner: good once, and then there is another.

    Args:
        told: is given each new code, to show it where only the owner sees it.
    """

    def __init__(self, told: Callable[[str], None] = lambda code: None) -> None:
        self._told = told
        self._lock = threading.Lock()
        self._code = new_secret()[:32]

    @property
    def current(self) -> str:
        """The code that is good now."""
        return self._code

    def use(self, code: str) -> bool:
        """Whether this is the code; if so it is used up."""
        with self._lock:
            right = hmac.compare_digest(code.encode(), self._code.encode())
            if right:
                self._code = new_secret()[:32]
        if right:
            self._told(self._code)
        return right


@dataclass
class Site:
    """One server's state.

    Args:
        owner: the person who comes in by the one-time code; None where nobody does.
        hosts: names that it answers under.
        secure: whether visitors reach it by TLS.
        api_only: no pages.
        runs: runs that are shown as they go; None for none.
    """

    store: Store
    owner: str | None = None
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    secure: bool = False
    api_only: bool = False
    runs: Runs | None = None
    codes: Codes = field(default_factory=Codes)
    guesses: Buckets = field(default_factory=lambda: Buckets(1 / 10, 10))
    """Tries at codes and invitations, by address."""

    @property
    def cookie(self) -> str:
        """Name of the session's cookie: cookies know no ports, so each store has its own."""
        database = self.store.database
        # However the path to one file is written.
        place = str(database.path.resolve()) if database.path else database.place
        name = f"heed-{digest(place)[:8]}"
        return f"__Host-{name}" if self.secure else name


@dataclass(frozen=True)
class Visitor:
    """Who a request is from, and in which project it acts."""

    caller: Caller
    csrf: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    project: str = ""

    @property
    def id(self) -> str:
        """Id of the person or token."""
        return self.caller.id


def site_of(request: Request) -> Site:
    """Find the server's state."""
    site: Site = request.app.state.site
    return site


def visitor_of(request: Request) -> Visitor:
    """Find who a request is from.

    Raises:
        NotLoggedIn: nobody known.
    """
    site = site_of(request)
    access = site.store.people.access
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    try:
        if scheme:
            if scheme.lower() != "bearer":
                raise NotLoggedIn("send `Authorization: Bearer TOKEN`")
            return Visitor(access.of_token(token.strip()))
        secret = request.cookies.get(site.cookie)
        if not secret:
            raise NotLoggedIn("not logged in")
        caller, csrf = access.of_session(secret)
        return Visitor(caller, csrf, secret)
    except Refusal as refusal:
        raise NotLoggedIn(str(refusal)) from refusal


class Anyone:
    """Declares a route that needs nobody; it says and does nothing about any person."""

    permission = "anyone"

    def __call__(self, request: Request) -> None:
        """Let the request pass."""


class Needs:
    """Declares what a route needs: a permission in its project, or just somebody logged in.

    The project is the one in the path, or the one of the lease or judgment in the path; with
    `anywhere` a role in any project will do, for what belongs to none.
    """

    def __init__(self, permission: str | None, *, anywhere: bool = False) -> None:
        self.permission = permission or "logged in"
        self._needed, self._anywhere = permission, anywhere

    def __call__(self, request: Request) -> Visitor:
        """Find the visitor, and let nobody else pass.

        Raises:
            NotLoggedIn: nobody known.
            Refusal: the role or scope does not allow it, or the token of the page is missing.
        """
        visitor = visitor_of(request)
        if request.method not in SAFE and not visitor.caller.is_token:
            sent = request.headers.get("x-csrf-token", "")
            if not hmac.compare_digest(sent.encode(), (visitor.csrf or "").encode()):
                raise Refusal("denied", "the page's token is missing or old; reload the page")
        if self._needed is None:
            return visitor
        if self._anywhere:
            if not visitor.caller.may_somewhere(self._needed):
                raise Refusal("denied", f"your role does not allow this (it needs {self._needed})")
            return visitor
        project = _project_of(request, visitor)
        if not visitor.caller.may(self._needed, project):
            raise Refusal("denied", f"your role does not allow this (it needs {self._needed})")
        return Visitor(visitor.caller, visitor.csrf, visitor.secret, project or "")


def _project_of(request: Request, visitor: Visitor) -> str | None:
    store, path = site_of(request).store, request.path_params
    if "lease" in path:
        if visitor.caller.is_token:
            raise Refusal("denied", "a token holds no leases")
        return project_of_lease(store, path["lease"], visitor.id)
    if "judgment" in path:
        return store.answers.get(path["judgment"]).project
    if "project" not in path:
        return None
    try:
        return store.projects.get(path["project"]).id
    except Refusal:
        # Who may not see a project does not learn which there are.
        if visitor.caller.is_admin:
            raise
        raise Refusal("denied", "there is no such project for you") from None


def projects_of(site: Site, caller: Caller) -> list[Project]:
    """Read the projects that a caller is a member of and works in."""
    member = {project for project, _ in caller.roles}
    return [
        found
        for found in site.store.projects.all()
        if found.id in member and caller.may("work", found.id)
    ]


def client_address(request: Request) -> str:
    """The address that a request comes from."""
    return request.client.host if request.client else ""


def remember(response: Response, site: Site, session: Session) -> None:
    """Give the browser its session."""
    response.set_cookie(
        site.cookie, session.secret, max_age=IDLE_SECONDS, path="/", httponly=True,
        secure=site.secure, samesite="lax",
    )  # fmt: skip


def forget(response: Response, site: Site) -> None:
    """Take the session out of the browser."""
    response.delete_cookie(site.cookie, path="/", httponly=True, secure=site.secure, samesite="lax")
