"""The judging side: start the solution's process, run the tests against it, report.

Started by `run` as a process of its own. It reads two messages from standard input. The first has
the program; then it forks the solution's process, which so holds nothing of the second, that has
the tests. Its report goes to standard output with the token of the second message, which the
solution never sees.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import os
import select
import sys
import time
import types
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Any

from heed.feedback.sandbox import wire
from heed.feedback.sandbox.confine import hide
from heed.feedback.sandbox.handles import Handle, SolutionEnded, exception_of

_MOST_PASSED = 1_000_000
_SHOWN = 200


class CannotPassError(Exception):
    """The tests hand the solution something that cannot leave their process."""


def main() -> None:
    """Do all of the above once."""
    hide()
    first = wire.receive(0)
    down, up = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            from heed.feedback.sandbox.solution import serve

            serve(down[0], up[1], first["source"], first["limits"])
        finally:
            os._exit(70)
    os.close(down[0])
    os.close(up[1])
    line = Line(up[0], down[1], pid, time.monotonic() + first["wall_seconds"])
    second = wire.receive(0)
    report = judge(line, second["tests"], second["setup"], second["entry_point"])
    line.end()
    wire.send(1, {"token": second["token"], **report})


class Line:
    """Questions to the solution, answered before a deadline or not at all."""

    def __init__(self, reading: int, writing: int, pid: int, deadline: float) -> None:
        self._reading, self._writing, self._pid, self._deadline = reading, writing, pid, deadline
        self._handles: dict[int, Handle] = {}
        self._callbacks: list[Callable[..., Any]] = []
        self._exceptions: dict[str, type] = {}
        self.ended: str | None = None
        self.asked = 0

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


def judge(line: Line, tests: list[Any], setup: str, entry_point: str | None) -> dict[str, Any]:
    """Load the solution, run the tests one by one, and say how each ended.

    Returns:
        layers of the sandbox, `broken` (why the tests themselves are unusable, or None), `failed`
        (why the solution did not load, or None), and `tests`: [whether it passed, why] each.
    """
    report: dict[str, Any] = {"layers": [], "broken": None, "failed": None, "tests": []}
    try:
        codes = [_Test.make(test, entry_point) for test in tests]
        prepared = compile(setup, "<setup>", "exec")
    except (SyntaxError, ValueError, RecursionError) as error:
        report["broken"] = f"the tests do not parse: {error}"
        return report
    try:
        report["layers"] = line.hear()["layers"]
        loaded = line.hear()
        if "raised" in loaded:
            bases, text = loaded["raised"]["bases"], loaded["raised"]["text"]
            report["failed"] = f"{bases[0]}: {text}"
            return report
        names, absent = _names_of(line, codes, setup, entry_point)
    except (SolutionEnded, KeyError, TypeError, IndexError) as error:
        report["failed"] = str(error)
        return report
    for code in codes:
        for ok, why in code.run(line, names, absent, prepared):
            if ok is None:
                report["broken"] = report["broken"] or why
            report["tests"].append([ok, why[:_SHOWN]])
    if not report["broken"] and not report["tests"]:
        report["broken"] = "there is no test in the tests"
    return report


def _names_of(
    line: Line, codes: list[_Test], setup: str, entry_point: str | None
) -> tuple[dict[str, Any], set[str]]:
    """What the tests name and the solution has, and what it does not have.

    A name of Python's own, such as `all`, is the solution's only where it is the entry point, or
    where the tests name nothing else of the solution: else a solution could redefine their `all`.
    """
    loaded = _names_in(ast.parse(setup), deep=True)
    loaded |= {name for code in codes for name in _names_in(code.tree, deep=True)}
    own = {name for name in loaded if hasattr(builtins, name)} - {entry_point}
    names: dict[str, Any] = {}
    absent: set[str] = set()
    for name in sorted((loaded | ({entry_point} if entry_point else set())) - own):
        there, value = line.fetch(name)
        if there:
            names[name] = value
        else:
            absent.add(name)
    if not any(isinstance(value, (Handle, type)) for value in names.values()):
        for name in sorted(own):
            there, value = line.fetch(name)
            if there:
                names[name] = value
    return names, absent


def _names_in(tree: ast.AST | None, *, deep: bool) -> set[str]:
    """Names that code reads; without `deep`, not those inside the functions that it defines."""
    found: set[str] = set()
    queue = [] if tree is None else [tree]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.add(node.id)
        if deep or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            queue.extend(ast.iter_child_nodes(node))
    return found


class _Test:
    """One test: code to execute, or arguments with the value that is expected for them."""

    def __init__(self, code: types.CodeType | None, tree: ast.Module | None, case: Any) -> None:
        self.code, self.tree, self.case = code, tree, case
        self.entry_point: str | None = None

    @classmethod
    def make(cls, test: Any, entry_point: str | None) -> _Test:
        if isinstance(test, str):
            tree = ast.parse(test)
            made = cls(compile(test, "<test>", "exec"), tree, None)
        else:
            made = cls(None, None, (list(test["args"]), test["expected"]))
            if not entry_point:
                raise ValueError("arguments with expected values need the entry point's name")
        made.entry_point = entry_point
        return made

    def run(
        self, line: Line, names: dict[str, Any], absent: set[str], setup: types.CodeType
    ) -> list[tuple[bool | None, str]]:
        """Run it in a fresh namespace; a script with test functions gives one result each."""
        space: dict[str, Any] = {"__name__": "tests", **names}
        before, uses = line.asked, bool(names.keys() & _names_in(self.tree, deep=True))

        def attempt(action: Callable[[], Any]) -> tuple[bool | None, str]:
            return _attempt(line, action, absent, lambda: uses or line.asked > before)

        def prepare() -> None:
            exec(setup, space)
            if self.code is not None:
                exec(self.code, space)

        if self.case is not None:

            def compare() -> None:
                prepare()
                self._compare(space)

            return [attempt(compare)]
        first = attempt(prepare)
        if first[0] is not True:
            return [first]
        actions = _functions(space, names.keys(), self.entry_point)
        results = [attempt(action) for action in actions] or [first]
        # A test that passes without the solution is none; else no solution would pass it, too.
        asked = line.asked > before or names.keys() & _names_in(self.tree, deep=False)
        if all(ok for ok, _ in results) and not asked:
            return [(None, "the test never asks the solution for anything")]
        return results

    def _compare(self, space: dict[str, Any]) -> None:
        args, expected = self.case
        assert self.entry_point is not None
        if self.entry_point not in space:
            raise NameError(f"name {self.entry_point!r} is not defined", name=self.entry_point)
        found = space[self.entry_point](*args)
        if isinstance(found, Handle) and not found._plain and isinstance(expected, list):
            found = list(islice(found, len(expected) + 1))  # a generator's values
        if found != expected and _listed(found) != expected:
            raise AssertionError(f"{_short(args)} gave {_short(found)}, not {_short(expected)}")


def _functions(
    space: dict[str, Any], known: Collection[str], entry_point: str | None
) -> list[Callable[[], Any]]:
    """What a script of tests defines to be called: test functions, else `check(candidate)`."""
    own = {n: v for n, v in space.items() if n not in known and isinstance(v, types.FunctionType)}
    tests: list[Callable[[], Any]] = [
        v for n, v in own.items() if n.startswith("test") and not _required(v)
    ]
    check = own.get("check")
    if tests or check is None or entry_point is None:
        return tests
    if entry_point not in space:
        return [lambda: _not_defined(entry_point)]
    return [lambda: check(space[entry_point])]


def _not_defined(name: str) -> None:
    raise NameError(f"name {name!r} is not defined", name=name)


def _required(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind < 2]


def _attempt(
    line: Line, action: Callable[[], Any], absent: set[str], asked: Callable[[], bool]
) -> tuple[bool | None, str]:
    """Whether an action passes, fails, or (None) is itself broken, and why.

    Args:
        line: to the solution.
        action: what may raise.
        absent: names that the solution lacks.
        asked: whether the solution has any part in it.
    """
    if line.ended:
        return False, line.ended
    try:
        action()
    except SolutionEnded as error:
        return False, str(error)
    except (CannotPassError, ModuleNotFoundError) as error:
        return None, str(error)
    except BaseException as error:
        if line.ended:
            return False, line.ended
        lacking = isinstance(error, NameError) and error.name in absent
        why = f"{type(error).__name__}: {str(error)[:_SHOWN]}".removesuffix(": ")
        if not asked() and not lacking:
            return None, f"the test fails without asking the solution for anything: {why}"
        return False, why
    return (False, line.ended) if line.ended else (True, "passed")


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


def _listed(value: Any) -> Any:
    """Tuples as lists, all the way down: expected values from JSON know no tuples."""
    if isinstance(value, (list, tuple)):
        return [_listed(item) for item in value]
    return value


def _short(value: Any) -> str:
    try:
        return repr(value)[:60]
    except Exception:
        return f"<{type(value).__name__}>"
