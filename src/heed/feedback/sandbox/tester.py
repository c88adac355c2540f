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
import time
import types
from collections.abc import Callable, Collection
from itertools import islice
from typing import Any

from heed.feedback.sandbox import wire
from heed.feedback.sandbox.confine import hide, limit_memory
from heed.feedback.sandbox.handles import Handle, SolutionEnded
from heed.feedback.sandbox.line import CannotPassError, Line

_SHOWN = 200
_TESTER_BYTES = 256 << 20


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
    # What a solution returns is rebuilt here, and may be made to fill the memory.
    limit_memory(first["limits"]["memory_bytes"] + _TESTER_BYTES)
    line = Line(up[0], down[1], pid, time.monotonic() + first["wall_seconds"])
    second = wire.receive(0)
    report = judge(line, second["tests"], second["setup"], second["entry_point"])
    line.end()
    wire.send(1, {"token": second["token"], **report})


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
    except (SolutionEnded, Exception) as error:
        # Whatever it is, a message of the solution made it: no tests have run yet.
        report["failed"] = str(error) or type(error).__name__
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
    # Only what the tests say counts here: whether something is a class is for the solution to say.
    line.about_objects = any(
        name[0].isupper() and isinstance(names[name], Handle) for name in names
    )
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
