"""The line from the tests to the solution: questions, answered before a deadline or not at all."""

from __future__ import annotations

import builtins
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from heed.feedback.sandbox import wire
from heed.feedback.sandbox.handles import Handle, SolutionEnded, exception_of

_MOST_PASSED = 1_000_000
_SHOWN = 200


class CannotPassError(Exception):
    """The tests hand the solution something that cannot leave their process."""


class Line:
    """Questions to the solution, answered before a deadline or not at all."""

    def __init__(self, reading: int, writing: int, pid: int, deadline: float) -> None:
        self._reading, self._writing, self._pid, self._deadline = reading, writing, pid, deadline
        self._handles: dict[int, Handle] = {}
        self._callbacks: list[Callable[..., Any]] = []
        self._exceptions: dict[str, type] = {}
        self.ended: str | None = None
        self.asked = 0
        self.about_objects = False

    def hear(self) -> dict[str, Any]:
        """The next message of the solution.

        Raises:
            SolutionEnded: there is none in time, or it is no message.
        """
        if self.ended:
            raise SolutionEnded(self.ended)
        try:
            message = wire.receive(self._reading, self._wait)
        except wire.WireError as error:
            raise self._over(str(error)) from None
        if not isinstance(message, dict):
            raise self._over(self._how_it_ended() if message is None else "spoke out of turn")
        return message

    def ask(self, do: str, ref: int, **more: Any) -> Any:
        """Ask, and return the answer or raise what the solution raised."""
        self.asked += 1
        given = {name: more[name] for name in ("name",) if name in more}
        args = more.get("args", ())
        encoded = [self._encode(arg) for arg in args]
        if do in ("call", "special"):
            given["args"] = encoded
        if do == "call":
            named = more["kwargs"].items()
            given["kwargs"] = {name: self._encode(arg) for name, arg in named}
        if do == "set":
            given["value"] = self._encode(more["value"])
        reply = self._answer({"do": do, "ref": ref, **given})
        for place, value in (reply.get("changed") or {}).items():
            _change(args[int(place)], self._decode(value))
        return self._value(reply)

    def fetch(self, name: str) -> tuple[bool, Any]:
        """Whether the solution has a name, and what it is."""
        self.asked += 1
        reply = self._answer({"do": "get", "name": name})
        if reply.get("absent"):
            return False, None
        if reply.get("module"):
            known = name in sys.stdlib_module_names
            return known, __import__(name) if known else None
        if "exception" in reply:
            kind = getattr(builtins, name, None) or type(name, (Exception,), {})
            self._exceptions[name] = kind
            return True, kind
        return True, self._value(reply)

    def end(self) -> None:
        """Kill the solution's process and wait for it."""
        try:
            os.kill(self._pid, 9)
            os.waitpid(self._pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.ended:
            raise SolutionEnded(self.ended)
        self._say(request)
        while True:
            reply = self.hear()
            if "back" not in reply:
                return reply
            self._say(self._called_back(reply))

    def _say(self, message: dict[str, Any]) -> None:
        try:
            wire.send(self._writing, message)
        except BrokenPipeError:
            raise self._over(self._how_it_ended()) from None

    def _called_back(self, reply: dict[str, Any]) -> dict[str, Any]:
        try:
            function = self._callbacks[reply["back"]]
            args = [self._decode(arg) for arg in reply["args"]]
            kwargs = {name: self._decode(arg) for name, arg in reply["kwargs"].items()}
            return {"value": self._encode(function(*args, **kwargs))}
        except Exception as error:
            return {"raised": {"bases": [type(error).__name__], "text": str(error)[:_SHOWN]}}

    def _value(self, reply: dict[str, Any]) -> Any:
        if "raised" in reply:
            raised = reply["raised"]
            raise exception_of(list(raised["bases"]), str(raised["text"]), self._exceptions)
        return self._decode(reply.get("value"))

    def _decode(self, value: Any) -> Any:
        try:
            return wire.decode(value, self._resolve)
        except (wire.WireError, RecursionError) as error:
            raise self._over(str(error)) from None

    def _resolve(self, kind: str, content: Any) -> Any:
        try:
            if kind == "back":
                return self._callbacks[content]
            if kind == "builtin":
                return wire.builtin(content)
            number, plain = content
            if kind != "ref" or type(number) is not int:
                raise wire.WireError("a value of unknown form")
            if number not in self._handles or plain is not None:
                known = None if plain is None else [wire.decode(plain[0], self._resolve)]
                self._handles[number] = Handle(self.ask, number, known)
            return self._handles[number]
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise wire.WireError(f"a reference of unknown form: {error}") from None

    def _encode(self, value: Any) -> Any:
        return wire.encode(value, self._refer)

    def _refer(self, value: Any) -> Any:
        if isinstance(value, Handle):
            return {"ref": [value._number, None]}
        if isinstance(value, Iterator):
            return {"iterator": self._encode(list(islice(value, _MOST_PASSED)))}
        if wire.is_builtin(value):
            return {"builtin": value.__name__}
        if callable(value):
            self._callbacks.append(value)
            return {"back": len(self._callbacks) - 1}
        raise CannotPassError(f"the tests pass a {type(value).__name__}, which is no plain data")

    def _wait(self, fd: int) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            raise self._over("time-out (wall clock)")

    def _over(self, why: str) -> SolutionEnded:
        self.ended = why
        return SolutionEnded(why)

    def _how_it_ended(self) -> str:
        _, status, usage = os.wait4(self._pid, 0)
        if os.WIFEXITED(status):
            return f"exited with status {os.WEXITSTATUS(status)} before the tests were done"
        number = os.WTERMSIG(status)
        seconds = usage.ru_utime + usage.ru_stime
        if number in (9, 24):  # SIGKILL, SIGXCPU
            return f"time-out or killed after {seconds:.1f} CPU seconds"
        return f"died by signal {number}"


def _change(old: Any, new: Any) -> None:
    """Give an argument that the solution changed in place its new content here."""
    if isinstance(old, (list, bytearray)):
        old[:] = new
    elif isinstance(old, dict):
        old.clear()
        old.update(new)
    elif hasattr(old, "clear") and hasattr(old, "update" if isinstance(old, set) else "extend"):
        old.clear()
        (old.update if isinstance(old, set) else old.extend)(new)
