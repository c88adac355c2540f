"""Where the server listens, who gets in first, and the server itself."""

from __future__ import annotations

import importlib.util
import ipaddress
import socket
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heed.data.store import Store
from heed.data.store.progress import has_accounts
from heed.errors import ConfigError, MissingExtra

PACKAGES = {
    "fastapi": "fastapi", "uvicorn": "uvicorn", "markdown_it": "markdown-it-py", "nh3": "nh3",
    "argon2": "argon2-cffi", "jinja2": "jinja2",
}  # fmt: skip
"""What the page needs: module -> package."""

OWNER = "owner"
"""Pseudonym of the person who comes in by the terminal's code."""
FIRST_PORT, PORTS_TRIED = 8410, 20
_EXPIRE_EVERY = 30.0
_BACKLOG = 512
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Listening:
    """Where to listen.

    Args:
        host: address or name to bind.
        port: None takes the first free one from 8410 on, 0 any.
        names: further host names under which visitors come.
        cert, key: files of TLS.
        allow_public: bind beyond this machine without accounts and TLS.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    names: tuple[str, ...] = ()
    cert: Path | None = None
    key: Path | None = None
    allow_public: bool = False

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self.cert is not None


def require_packages() -> None:
    """Check that the extra `web` is installed.

    Raises:
        MissingExtra: names the command that installs it.
    """
    for module, package in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(package, "web")


def check_public(listening: Listening, store: Store) -> None:
    """Refuse to stand open to others without a lock.

    Raises:
        ConfigError: the address is public, and there are no accounts or no TLS.
    """
    if listening.is_local or listening.allow_public:
        return
    lacks = []
    if not has_accounts(store):
        lacks.append("nobody has an account (invite people with --invite annotator first)")
    if not listening.secure:
        lacks.append("there is no TLS (give --tls_cert and --tls_key)")
    if lacks:
        raise ConfigError(
            f"--host {listening.host} is reached from other machines, and {' and '.join(lacks)}. "
            "Keep 127.0.0.1 and use a tunnel, or say --allow_public if the network is yours alone"
        )


def make_owner(store: Store) -> str:
    """Find or add the store's owner, a member of all its projects; returns the person's id."""
    found = next((one for one in store.people.all() if one.pseudonym == OWNER), None)
    owner = found or store.people.add(OWNER, is_admin=True)
    for project in store.projects.all():
        if all(member.person != owner.id for member in store.people.members(project.id)):
            store.people.join(project.id, owner.id, "researcher")
    return owner.id


def bind(listening: Listening) -> socket.socket:
    """Take the port.

    Raises:
        ConfigError: it is taken, or the address is not this machine's.
    """
    first = FIRST_PORT if listening.port is None else listening.port
    tries = PORTS_TRIED if listening.port is None else 1
    family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
    problem = ""
    for port in range(first, first + tries):
        taken = socket.socket(family, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((listening.host, port))
        except OSError as error:
            taken.close()
            problem = error.strerror or str(error)
            continue
        return taken
    raise ConfigError(f"{listening.host}:{first} cannot be listened on ({problem}); give --port")


def serve(
    store: Store,
    listening: Listening,
    *,
    told: Callable[[str], None],
    browser: bool = True,
    api_only: bool = False,
    runs: Path | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until interrupted.

    Args:
        told: is given what to show on the terminal.
        browser: open the page.
        runs: folder of runs that are shown as they go.
        on_ready: is given the address once the server answers.

    Raises:
        ConfigError: it cannot listen there.
        MissingExtra: the extra `web` is not installed.
    """
    require_packages()
    check_public(listening, store)
    import uvicorn

    from heed.web.app import build_app
    from heed.web.follow import Runs
    from heed.web.site import Codes, Site

    taken = bind(listening)
    scheme = "https" if listening.secure else "http"
    host = f"[{listening.host}]" if ":" in listening.host else listening.host
    shown = "127.0.0.1" if host in ("0.0.0.0", "[::]") else host
    base = f"{scheme}://{shown}:{taken.getsockname()[1]}"

    def address(code: str) -> str:
        return f"{base}/start#{code}"

    codes = Codes(lambda code: told(f"for another browser: {address(code)}"))
    names = sorted({*_LOOPBACK, host.lower(), *listening.names} - {"0.0.0.0", "[::]"})
    site = Site(store, make_owner(store), tuple(names), listening.secure, api_only, codes=codes)
    site.runs = None if runs is None else Runs(runs)
    server = uvicorn.Server(_uvicorn_config(build_app(site), listening))
    stopped = threading.Event()
    threading.Thread(target=_expire, args=(store, stopped), daemon=True).start()
    # Who follows the address at once waits until the server is up, and is not turned away.
    taken.listen(_BACKLOG)
    first = address(codes.current)
    told(f"open {first}" if not api_only else f"API at {base}/api/v1 (make a token with a session)")
    if on_ready is not None:
        on_ready(first)
    if browser and not api_only:
        threading.Timer(0.7, webbrowser.open, [first]).start()
    try:
        server.run(sockets=[taken])
    finally:
        stopped.set()
        taken.close()


def _uvicorn_config(app: Any, listening: Listening) -> Any:
    import uvicorn

    return uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False,
        proxy_headers=False, timeout_graceful_shutdown=2, timeout_keep_alive=20,
        limit_concurrency=500, lifespan="off",
        ssl_certfile=None if listening.cert is None else str(listening.cert),
        ssl_keyfile=None if listening.key is None else str(listening.key),
    )  # fmt: skip


def _expire(store: Store, stopped: threading.Event) -> None:
    """Give back what people hold and have left, now and then."""
    import logging

    while not stopped.wait(_EXPIRE_EVERY):
        try:
            store.queue.expire()
        except Exception as error:  # the next turn tries again; claims expire leases too
            logging.getLogger("heed.web").warning("leases were not expired: %s", error)
