"""From the trainer: start a tester, wait as long as agreed, kill what is left, read its report."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heed.errors import ConfigError
from heed.feedback.sandbox import wire

LAYERS = ("limits", "namespaces", "files", "calls")
"""The layers that a whole sandbox has; `heed.feedback.sandbox.confine` says what they are."""

_ROOT = str(Path(__file__).resolve().parents[3])
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop()); "
    "from heed.feedback.sandbox import tester, solution; del sys.path[0]; tester.main()"
)
_GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class Limits:
    """What a solution may use.

    Args:
        cpu_seconds: processor time, in whole seconds; the kernel kills at its end.
        wall_seconds: time on the clock for loading and all tests.
        memory_bytes: address space.
        file_bytes: largest file that it writes.
        site_packages: installed packages can be imported, by solution and tests.
    """

    cpu_seconds: int = 5
    wall_seconds: float = 15.0
    memory_bytes: int = 512 << 20
    file_bytes: int = 16 << 20
    site_packages: bool = False


@dataclass(frozen=True)
class TestReport:
    """What the tests saw.

    Args:
        passed: for each test, whether it passed.
        reasons: for each test, why not.
        failed: why the solution did not come so far as to be tested, or None.
        broken: why nothing can be said: the tests or the sandbox are at fault; or None.
        layers: the layers of the sandbox that were in force.
    """

    __test__ = False  # pytest takes a class of this name for a test

    passed: tuple[bool, ...] = ()
    reasons: tuple[str, ...] = ()
    failed: str | None = None
    broken: str | None = None
    layers: tuple[str, ...] = ()


def run_tests(
    source: str,
    tests: Sequence[Any],
    *,
    setup: str = "",
    entry_point: str | None = None,
    limits: Limits = Limits(),
) -> TestReport:
    """Run tests against a program, in processes of their own; never raises for what it does.

    Args:
        source: the program.
        tests: texts of Python, or dicts of `args` and `expected`.
        setup: Python that is run before each test, on the tests' side.
        entry_point: name of the function that the tests are about.
        limits: what the program may use.

    Raises:
        ConfigError: the system has no processes of the kind that this needs.
    """
    if os.name != "posix":
        raise ConfigError("running tests needs a POSIX system (Linux or macOS)")
    token = secrets.token_hex(16)
    folder = tempfile.mkdtemp(prefix="heed-tests-")
    try:
        first = {
            "source": source,
            "wall_seconds": limits.wall_seconds,
            "limits": {
                "folder": folder,
                "memory_bytes": limits.memory_bytes,
                "cpu_seconds": limits.cpu_seconds,
                "file_bytes": limits.file_bytes,
            },
        }
        second = {
            "token": token,
            "tests": list(tests),
            "setup": setup,
            "entry_point": entry_point,
        }
        said = _communicate(folder, first, second, limits)
    except wire.WireError as error:
        return TestReport(broken=f"the program or its tests are too long: {error}")
    finally:
        _remove(folder)
    if isinstance(said, str):
        return TestReport(broken=said)
    if said.pop("token", None) != token:
        return TestReport(broken="the report is not the tester's own")
    passed = tuple(ok is True for ok, _ in said["tests"])
    reasons = tuple(why for _, why in said["tests"])
    return TestReport(passed, reasons, said["failed"], said["broken"], tuple(said["layers"]))


def _communicate(
    folder: str, first: dict[str, Any], second: dict[str, Any], limits: Limits
) -> dict[str, Any] | str:
    """Run a tester; return its report, or why there is none."""
    flags = ["-I", "-B"] if limits.site_packages else ["-I", "-S", "-B"]
    environment = {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": folder,
        "TMPDIR": folder,
    }
    with tempfile.TemporaryFile() as messages:
        for message in (first, second):
            wire.send(messages.fileno(), message)
        messages.seek(0)
        process = subprocess.Popen(
            [sys.executable, *flags, "-c", _START, _ROOT],
            stdin=messages,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    assert process.stdout is not None
    deadline = time.monotonic() + limits.wall_seconds + _GRACE_SECONDS
    fd = process.stdout.fileno()

    def in_time(_: int) -> None:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            raise TimeoutError

    try:
        report = wire.receive(fd, in_time)
    except TimeoutError:
        return {
            "token": second["token"],
            "tests": [],
            "failed": "time-out: the tests did not end",
            "broken": None,
            "layers": [],
        }
    except wire.WireError as error:
        return f"the tester's report cannot be read: {error}"
    finally:
        # Not reaped yet, so the group's number can belong to nobody else.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        status = process.wait()
    return report if isinstance(report, dict) else f"the tester ended with status {status}"


def _remove(folder: str) -> None:
    """Remove a folder, also where what ran in it took its own rights away."""
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.isdir(folder):
        for place, _, _ in os.walk(folder):
            with contextlib.suppress(OSError):
                os.chmod(place, 0o700)
        shutil.rmtree(folder, ignore_errors=True)
