"""The program passes its tests."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Literal

from pydantic import Field

from heed.feedback.checkers.base import Checker, Row, Verdict, cannot_judge, right, wrong
from heed.feedback.checkers.extract import after_thinking
from heed.feedback.sandbox.run import LAYERS, Limits, TestReport, run_tests

# The last block may lack its end: a model may stop there.
_FENCE = re.compile(
    r"^[ \t]*```([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_PYTHON = ("", "python", "py", "python3")


class PythonTests(Checker):
    """1 where the Python program of a completion passes every test of its row.

    The program runs in a confined process of its own, the tests in another (`heed.feedback.sandbox`
    says what that protects against). A program that fails, exits, hangs or takes too much has 0;
    tests that are broken, or a sandbox that does not work, are no judgement.
    """

    word: ClassVar[str] = "python"

    tests: str = "tests"
    """Column of the tests: a script (its test functions, or `check(entry_point)`, are called), a
    list of scripts, or a list of [arguments, expected value]."""
    setup: str = "setup"
    """Column of code that runs before each test, if the data have one."""
    entry_point: str = "entry_point"
    """Column of the name of the function that is tested, if the data have one."""
    prefix: str = ""
    """Column whose text stands before the program; `prompt` is the prompt itself."""
    blocks: Literal["last", "first", "all"] = "last"
    """Which block between fences is the program; without fences, the whole text is."""
    partial: bool = False
    """Give the share of the tests that pass, instead of all or nothing."""
    seconds: int = Field(default=5, ge=1)
    """Most processor time of the program, for loading it and all tests."""
    wall_seconds: float = Field(default=15.0, gt=0.0)
    """Most time on the clock."""
    memory_mb: int = Field(default=512, ge=64)
    """Most memory of the program, in MiB of address space."""
    site_packages: bool = False
    """Installed packages can be imported."""
    strict: bool = False
    """Judge only where every layer of the sandbox is in force."""
    workers: int = Field(default=0, ge=0)
    """Programs that run at once; 0 takes the number of processors, at most 8."""

    def columns(self) -> tuple[str, ...]:
        """The column of the tests."""
        return (self.tests,)

    def judge(self, text: str, row: Row) -> Verdict:
        """Run one program; the part `passed` is the share of its tests that pass."""
        tests = _tests(row[self.tests])
        if not tests:
            return cannot_judge(f"the row's {self.tests} holds no test")
        program = self.program(text)
        if program is None:
            return wrong("the thinking does not end", passed=0.0)
        prefix = str(row.get(self.prefix) or "") if self.prefix else ""
        report = run_tests(
            prefix + program,
            tests,
            setup=_joined(row.get(self.setup)),
            entry_point=row.get(self.entry_point) or None,
            limits=Limits(
                cpu_seconds=self.seconds,
                wall_seconds=self.wall_seconds,
                memory_bytes=self.memory_mb << 20,
                site_packages=self.site_packages,
            ),
        )
        return self._verdict(report)

    def judge_all(self, texts: Sequence[str], rows: Sequence[Row]) -> list[Verdict]:
        """Judge texts, several at a time, in order."""
        workers = self.workers or min(8, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers, thread_name_prefix="heed-tests") as pool:
            return list(pool.map(self._guarded, texts, rows))

    def program(self, text: str) -> str | None:
        """The program of a completion; None where its thinking does not end."""
        said = after_thinking(text)
        if said is None:
            return None
        found = [code for kind, code in _FENCE.findall(said) if kind.lower() in _PYTHON]
        if not found:
            return said
        return "\n".join(found) if self.blocks == "all" else found[-1 * (self.blocks == "last")]

    def _verdict(self, report: TestReport) -> Verdict:
        if report.broken is not None:
            return cannot_judge(report.broken)
        missing = [layer for layer in LAYERS if layer not in report.layers]
        if self.strict and report.layers and missing:
            return cannot_judge(f"the sandbox has no {' and no '.join(missing)} on this system")
        if report.failed is not None:
            return wrong(report.failed, passed=0.0)
        share = sum(report.passed) / len(report.passed)
        if share == 1.0:
            return right(f"passed {len(report.passed)} tests", passed=1.0)
        why = next(why for ok, why in zip(report.passed, report.reasons, strict=True) if not ok)
        reason = f"{sum(report.passed)} of {len(report.passed)} tests pass; {why}"
        return Verdict(share if self.partial else 0.0, reason, {"passed": share})


def _tests(value: Any) -> list[Any]:
    """The tests of a column: texts of Python, or dicts of `args` and `expected`."""
    if isinstance(value, (str, Mapping)):
        value = [value]
    return [test for test in map(_test, value) if test != ""]


def _test(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.strip() else ""
    if isinstance(value, Mapping):
        return {"args": list(value["args"]), "expected": value["expected"]}
    args, expected = value
    return {"args": list(args) if isinstance(args, (list, tuple)) else [args], "expected": expected}


def _joined(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value or "")
