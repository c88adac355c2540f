"""Messages between tests and solution: a length, then JSON of plain data and references.

Nothing that arrives is executed: a message is JSON, and its values become exactly None, bool, int,
float, complex, str, bytes, list, tuple, set, frozenset, dict, range, deque, Decimal, Fraction, a
name of Python's own such as `int`, or a reference. So a value that a solution returns cannot say of
itself that it equals what was expected.
"""

from __future__ import annotations

import builtins
import json
import os
import struct
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

MOST_BYTES = 4 << 20
"""Longest message in bytes."""

_HEAD = struct.Struct(">I")
_EXACT_INT = 1 << 53


class WireError(Exception):
    """A message is too long, cut short, or not of this protocol."""


def send(fd: int, message: Any) -> None:
    """Write one message.

    Raises:
        WireError: it is longer than `MOST_BYTES`.
    """
    data = json.dumps(message).encode()
    if len(data) > MOST_BYTES:
        raise WireError(f"a message of {len(data)} bytes; at most {MOST_BYTES} are allowed")
    data = _HEAD.pack(len(data)) + data
    while data:
        data = data[os.write(fd, data) :]


def receive(fd: int, ready: Callable[[int], None] | None = None) -> Any:
    """Read one message; None where the other side has closed.

    Args:
        ready: called before each read; returns when there is something to read, or raises.

    Raises:
        WireError: the message is too long, cut short or no JSON.
    """
    head = _exactly(fd, _HEAD.size, ready)
    if head is None:
        return None
    (length,) = _HEAD.unpack(head)
    if length > MOST_BYTES:
        raise WireError(f"a message of {length} bytes; at most {MOST_BYTES} are allowed")
    data = _exactly(fd, length, ready)
    if data is None:
        raise WireError("a message was cut short")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a message is no JSON: {error}") from None


def _exactly(fd: int, length: int, ready: Callable[[int], None] | None) -> bytes | None:
    parts: list[bytes] = []
    while length:
        if ready is not None:
            ready(fd)
        part = os.read(fd, min(length, 1 << 16))
        if not part:
            if parts:
                raise WireError("a message was cut short")
            return None
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


_CONTAINERS: dict[str, Callable[..., Any]] = {
    "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque,
}  # fmt: skip
_TEXTS: dict[str, Callable[..., Any]] = {"Decimal": Decimal, "Fraction": Fraction}


def encode(value: Any, refer: Callable[[Any], Any]) -> Any:
    """Turn a value into JSON; `refer` gives the JSON of what is no plain data.

    An instance of a subclass of plain data goes as the plain data that it is.
    """
    if value is None or isinstance(value, (bool, str)):
        return value if value is None or isinstance(value, bool) else str.__str__(value)
    if isinstance(value, int):
        value = int(value)
        return value if -_EXACT_INT < value < _EXACT_INT else {"int": hex(value)}
    if isinstance(value, float):
        return {"float": float.hex(value)}
    if isinstance(value, complex):
        return {"complex": [float.hex(value.real), float.hex(value.imag)]}
    if isinstance(value, list):
        return [encode(item, refer) for item in list.__iter__(value)]
    if isinstance(value, dict):
        return {"dict": [[encode(k, refer), encode(v, refer)] for k, v in dict.items(value)]}
    for name, kind in _CONTAINERS.items():
        if isinstance(value, kind):  # type: ignore[arg-type]
            return {name: [encode(item, refer) for item in value]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    for name, kind in _TEXTS.items():
        if isinstance(value, kind):  # type: ignore[arg-type]
            return {name: str(value)}
    return refer(value)


def is_builtin(value: Any) -> bool:
    """Whether a value is a type or function of Python's own, such as `int` or `len`."""
    name = getattr(value, "__name__", None)
    return isinstance(name, str) and callable(value) and getattr(builtins, name, None) is value


def builtin(name: Any) -> Any:
    """The type or function of Python's own of that name.

    Raises:
        WireError: there is none.
    """
    if not isinstance(name, str) or not is_builtin(getattr(builtins, name, None)):
        raise WireError("a value of unknown form")
    return getattr(builtins, name)


def decode(value: Any, resolve: Callable[[str, Any], Any]) -> Any:
    """Turn JSON back into a value; `resolve(kind, content)` gives what was referred to.

    Raises:
        WireError: it is not of the form that `encode` writes.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, list):
        return [decode(item, resolve) for item in value]
    if not isinstance(value, dict) or len(value) != 1:
        raise WireError("a value of unknown form")
    ((kind, content),) = value.items()
    try:
        if kind == "int":
            return int(content, 16)
        if kind == "float":
            return float.fromhex(content)
        if kind == "complex":
            return complex(*(float.fromhex(part) for part in content))
        if kind == "dict":
            return {decode(k, resolve): decode(v, resolve) for k, v in content}
        if kind in _CONTAINERS:
            return _CONTAINERS[kind]([decode(item, resolve) for item in content])
        if kind == "bytes":
            return bytes.fromhex(content)
        if kind == "range":
            return range(*content)
        if kind in _TEXTS:
            return _TEXTS[kind](content)
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise WireError(f"a value of unknown form: {error}") from None
    return resolve(kind, content)
