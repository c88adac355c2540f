"""The confined side: load the program, then answer what the tests ask of it.

Nothing here is trusted once the program runs: it shares this process. All that it can do with the
line to the tests is to answer, which is what a solution is for.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from typing import Any

from heed.feedback.sandbox import wire
from heed.feedback.sandbox.confine import confine

_MODULE = "solution"
_SHOWN = 200


def serve(reading: int, writing: int, source: str, limits: dict[str, Any]) -> None:
    """Confine this process, load the program and answer until the other side closes."""
    for fd in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), fd)
    keep = sorted((reading, writing))
    os.closerange(3, keep[0])
    os.closerange(keep[0] + 1, keep[1])
    os.closerange(keep[1] + 1, 4096)
    layers = confine(**limits)
    wire.send(writing, {"layers": layers})
    side = _Side(reading, writing)
    wire.send(writing, side.load(source))
    while True:
        request = wire.receive(reading)
        if request is None:
            os._exit(0)
        side.send(side.answer(request))


class _Side:
    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._module = types.ModuleType(_MODULE)

    def load(self, source: str) -> dict[str, Any]:
        sys.modules[_MODULE] = self._module
        return self._try(lambda: exec(compile(source, "<solution>", "exec"), self._module.__dict__))

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        do = request["do"]
        if do == "get":
            return self._get(request["name"])
        target = self._objects[request["ref"]]
        if do == "attribute":
            return self._try(lambda: getattr(target, request["name"]))
        if do == "set":
            value = self._decode(request["value"])
            return self._try(lambda: setattr(target, request["name"], value))
        if do == "special":
            args = [self._decode(arg) for arg in request["args"]]
            return self._try(lambda: _special(target, request["name"], args))
        return self._call(target, request)

    def send(self, reply: dict[str, Any]) -> None:
        try:
            wire.send(self._writing, reply)
        except wire.WireError as error:
            wire.send(self._writing, _raised(error))

    def _get(self, name: str) -> dict[str, Any]:
        if name not in self._module.__dict__:
            return {"absent": True}
        value = self._module.__dict__[name]
        if isinstance(value, types.ModuleType):
            return {"module": True}
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"exception": [base.__name__ for base in value.__mro__]}
        return self._try(lambda: value)

    def _call(self, target: Any, request: dict[str, Any]) -> dict[str, Any]:
        args = [self._decode(arg) for arg in request["args"]]
        kwargs = {name: self._decode(arg) for name, arg in request["kwargs"].items()}
        reply = self._try(lambda: target(*args, **kwargs))
        try:
            after = [self._encode(arg) for arg in args]
            changed = {str(i): new for i, new in enumerate(after) if new != request["args"][i]}
        except Exception:
            changed = {}
        return {**reply, "changed": changed} if changed else reply

    def _try(self, action: Callable[[], Any]) -> dict[str, Any]:
        try:
            return {"value": self._encode(action())}
        except BaseException as error:
            return _raised(error)

    def _encode(self, value: Any) -> Any:
        # What the program's own classes make is referred to, so that it keeps its methods; beside
        # the reference goes the plain data that it is, for comparing.
        if type(value).__module__ == _MODULE and not isinstance(value, type):
            return self._refer(value)
        return wire.encode(value, self._refer)

    def _refer(self, value: Any) -> Any:
        if isinstance(value, _Callback):
            return {"back": value.number}
        if wire.is_builtin(value):
            return {"builtin": value.__name__}
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        plain = None
        if isinstance(value, (int, float, str, list, tuple, dict, set, frozenset)):
            plain = [wire.encode(value, self._refer)]
        return {"ref": [number, plain]}

    def _decode(self, value: Any) -> Any:
        return wire.decode(value, self._resolve)

    def _resolve(self, kind: str, content: Any) -> Any:
        if kind == "ref":
            return self._objects[content[0]]
        if kind == "builtin":
            return wire.builtin(content)
        if kind == "iterator":
            return iter(self._decode(content))
        return _Callback(self, content)

    def call_back(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        encoded = [self._encode(arg) for arg in args]
        named = {name: self._encode(arg) for name, arg in kwargs.items()}
        wire.send(self._writing, {"back": number, "args": encoded, "kwargs": named})
        while True:
            reply = wire.receive(self._reading)
            if reply is None:
                os._exit(0)
            if "do" not in reply:
                break
            self.send(self.answer(reply))
        if "raised" in reply:
            raise RuntimeError(reply["raised"]["text"])
        return self._decode(reply["value"])


class _Callback:
    """A function of the tests that was passed to the solution."""

    def __init__(self, side: _Side, number: int) -> None:
        self._side, self.number = side, number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._side.call_back(self.number, args, kwargs)


def _special(target: Any, name: str, args: list[Any]) -> Any:
    if name == "__bool__":
        return bool(target)
    if name == "__instancecheck__":
        return isinstance(args[0], target)
    if name == "__str__":
        return str(target)
    if name == "__iter__":
        return iter(target)
    method = getattr(type(target), name, None)
    if method is None:
        raise TypeError(f"{type(target).__name__!r} has no {name}")
    result = method(target, *args)
    return None if result is NotImplemented else result


def _raised(error: BaseException) -> dict[str, Any]:
    try:
        text = str(error)[:_SHOWN]
    except BaseException:
        text = ""
    bases = [base.__name__ for base in type(error).__mro__]
    return {"raised": {"bases": bases, "text": text}}
