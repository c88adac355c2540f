"""A project of a label store behind its REST API, reached with a trainer's token."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from heed.data.store.views import Added, Change, Changes, Judgment
from heed.errors import ConfigError, FeedbackError
from heed.feedback.human import AwayError, Desk, StoreDesk, check_kind

TOKEN_VARIABLE = "HEED_TOKEN"
"""Environment variable that holds the token: a secret has no place among settings."""
_AWAY = (408, 425, 429, 500, 502, 503, 504)
_SECONDS = 30.0
_BATCH = 100
_LOCAL = ("127.0.0.1", "localhost", "::1")


class HttpDesk:
    """The project at a server.

    Args:
        address: of the server, such as `http://127.0.0.1:8410`.
        project: its name.
        token: a trainer's, see `heed label --trainer_token`.

    Raises:
        ConfigError: the address is no URL, a token would travel unencrypted to another machine,
            or the server knows no such token or project.
        AwayError: the server does not answer.
    """

    def __init__(self, address: str, project: str, token: str) -> None:
        parts = urlsplit(address)
        if parts.hostname is None:
            raise ConfigError(f"{address!r} is no address; give one such as http://127.0.0.1:8410")
        if parts.scheme != "https" and parts.hostname not in _LOCAL:
            raise ConfigError(
                f"{address} would carry the token unencrypted to another machine; use https, or a "
                "tunnel to 127.0.0.1"
            )
        self._base = f"{address.rstrip('/')}/api/v1/projects/{quote(project, safe='')}"
        self._token = token
        try:
            found = self._call("GET", "")
        except FeedbackError as error:
            if isinstance(error, AwayError):
                raise
            raise ConfigError(str(error)) from error
        check_kind(project, found["config"]["kind"])

    def add(self, items: Sequence[Mapping[str, Any]]) -> list[Added]:
        """See `Desk`."""
        out = []
        for first in range(0, len(items), _BATCH):
            body = {"items": [dict(one) for one in items[first : first + _BATCH]]}
            out += [Added(**one) for one in self._call("POST", "/items:batch", body)]
        return out

    def changes(self, after: int) -> Changes:
        """See `Desk`."""
        found = self._call("GET", f"/changes?after={after}")
        return Changes(tuple(map(_change, found["changes"])), found["seq"], found["more"])

    def say_waiting(self, num: int, step: int) -> None:
        """See `Desk`."""
        self._call("POST", "/budget", {"wanted": num, "by_step": step})

    def expire(self, step: int) -> None:
        """See `Desk`."""
        self._call("POST", "/stale", {"step": step})

    def close(self) -> None:
        """Nothing is held."""

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            self._base + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
                said = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")[:300]
            kind = AwayError if error.code in _AWAY else FeedbackError
            raise kind(f"the label server answered {error.code} to {method} {path}: {text}") from (
                error
            )
        except (OSError, http.client.HTTPException) as error:
            raise AwayError(f"the label server does not answer ({error})") from error
        return json.loads(said) if said else None


def _change(row: Mapping[str, Any]) -> Change:
    value = row["value"]
    if value is not None:
        value = Judgment(**{**value, "shown": tuple(value["shown"])})
    return Change(**{**row, "value": value})


def open_desk(
    where: str, project: str, *, config: Mapping[str, Any] | None = None, token: str | None = None
) -> Desk:
    """Open a project by the place of its store: a path, a database's URL, or a server's.

    Args:
        config: of a project that is made, where the store is a database and has none of this name.
        token: for a server.

    Raises:
        ConfigError: a server without a token; or as `StoreDesk` and `HttpDesk`.
    """
    if not where.startswith(("http://", "https://")):
        return StoreDesk(where, project, config)
    if not token:
        raise ConfigError(
            f"{where} is a server, and no token is set; make one with `heed label STORE "
            f"--trainer_token` and give it as {TOKEN_VARIABLE}"
        )
    return HttpDesk(where, project, token)
