"""How the tests see what lives in the solution's process."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any


class SolutionError(Exception):
    """The solution raised something that Python itself has no exception for."""


class SolutionEnded(BaseException):
    """The solution's process is no more, or does not answer. No `except Exception` catches it."""


class Handle:
    """An object of the solution. It can be called, looked into and asked, and never copied here.

    It equals plain data only where it is such data itself, and that is compared on this side: the
    solution is not asked whether its object equals what was expected. Nor is it asked whether its
    object is less than something, or holds it, unless the tests name classes of the solution, so
    that its objects are what they are about (`Line.about_objects`).
    """

    def __init__(self, ask: Callable[..., Any], number: int, plain: list[Any] | None) -> None:
        object.__setattr__(self, "_ask", ask)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_plain", plain)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it in the solution's process."""
        return self._ask("call", self._number, args=args, kwargs=kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name not in ("__name__", "__doc__"):
            raise AttributeError(name)
        return self._ask("attribute", self._number, name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set", self._number, name=name, value=value)

    def __hash__(self) -> int:
        return hash((type(self), self._number))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Handle):
            return self._plain is not None and bool(self._plain[0] == other)
        if self._number == other._number:
            return True
        if self._plain is not None and other._plain is not None:
            return bool(self._plain[0] == other._plain[0])
        return self._verdict("__eq__", other)

    def _verdict(self, name: str, other: object) -> bool:
        if not self._ask.__self__.about_objects:
            raise TypeError("the solution gave an object of its own where the tests compare")
        return self._ask("special", self._number, name=name, args=(other,)) is True

    def __bool__(self) -> bool:
        return self._ask("special", self._number, name="__bool__", args=()) is True

    def __len__(self) -> int:
        return int(self._ask("special", self._number, name="__len__", args=()))

    def __str__(self) -> str:
        return str(self._ask("special", self._number, name="__str__", args=()))

    def __repr__(self) -> str:
        return f"<object {self._number} of the solution>"

    def __iter__(self) -> Any:
        return self._ask("special", self._number, name="__iter__", args=())

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, Handle) and (
            self._ask("special", self._number, name="__instancecheck__", args=(value,)) is True
        )


_VERDICTS = ("__contains__", "__lt__", "__le__", "__gt__", "__ge__")


def _forward(name: str) -> Callable[..., Any]:
    def method(self: Handle, *args: Any) -> Any:
        if self._plain is not None and not self._ask.__self__.about_objects:
            return getattr(self._plain[0], name)(*args)
        if name in _VERDICTS:
            return self._verdict(name, *args)
        return self._ask("special", self._number, name=name, args=args)

    method.__name__ = name
    return method


for _name in (
    "next", "getitem", "setitem", "delitem", "contains", "lt", "le", "gt", "ge", "add", "sub",
    "mul", "truediv", "floordiv", "mod", "pow", "matmul", "radd", "rsub", "rmul", "rtruediv", "neg",
    "abs", "and", "or", "xor", "invert", "enter", "exit", "reversed", "index", "float", "int",
):  # fmt: skip
    setattr(Handle, f"__{_name}__", _forward(f"__{_name}__"))


def exception_of(bases: list[str], text: str, known: dict[str, type]) -> Exception:
    """The exception that the tests get for one that the solution raised.

    Args:
        bases: names of its classes, its own first.
        text: what it said.
        known: exception classes of the solution that the tests name.
    """
    for name in bases:
        kind = known.get(name) or getattr(builtins, name, None)
        if name == "Exception" or kind in (Exception, BaseException):
            break
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(text)
            except TypeError:  # some, such as UnicodeDecodeError, want more than a text
                break
    return SolutionError(f"{bases[0]}: {text}" if bases else text)
