"""Compile the native loop at first use, into a cache that is keyed by all that it depends on.

The key is the hash of source, compiler, flags and processor, so that a cache on a shared disk
never hands one machine code that another cannot run. A build is moved into place whole: two
processes that build at once write the same file.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("source")
FLAGS = (
    "-std=c++20",
    "-O3",
    # Products and sums join into one instruction; nothing else about the arithmetic is loosened.
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
    "-fPIC",
    "-shared",
    "-pthread",
)
TUNINGS = (("-march=native",), ("-mcpu=native",), ())
"""Asks for the processor's own instructions; the first that the compiler accepts is taken."""
ARCHITECTURES = ("x86_64", "AMD64", "aarch64", "arm64")
COMPILERS = ("g++", "clang++", "c++")
TIMEOUT_SECONDS = 300
_CPUINFO = Path("/proc/cpuinfo")


class BuildError(Exception):
    """The native loop cannot be built here; the text says why and what to do."""


def cache_folder() -> Path:
    """Where builds are kept: `$XDG_CACHE_HOME/heed`, or `~/.cache/heed`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "heed" / "native"


def find_compiler() -> str:
    """The C++ compiler: `$CXX`, or the first of g++, clang++ and c++.

    Raises:
        BuildError: there is none.
    """
    named = os.environ.get("CXX", "").strip()
    for name in [named] if named else COMPILERS:
        if found := shutil.which(name):
            return found
    raise BuildError(
        f"the compiler that CXX names, {named!r}, is not there; name one that is"
        if named
        else "no C++ compiler found; install g++ or clang++, or name one in CXX"
    )


def library_path() -> Path:
    """Return the compiled library, building it where this was not done before.

    Raises:
        BuildError: the system is not supported, there is no compiler, or it fails.
    """
    if os.name != "posix" or platform.machine() not in ARCHITECTURES:
        system = f"{platform.system()} on {platform.machine()}"
        raise BuildError(
            f"native decoding supports Linux and macOS on x86-64 and ARM, not {system}"
        )
    compiler = find_compiler()
    target = cache_folder() / build_key(compiler) / "engine.so"
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=target.parent))
    except OSError:
        # Nowhere to keep it: built for this process alone, where nobody else can write.
        folder = Path(tempfile.mkdtemp(prefix="heed-native-"))
        target = folder / "kept.so"
    made = folder / "engine.so"
    try:
        compile_library(compiler, made)
        made.replace(target)
    finally:
        if folder != target.parent:
            shutil.rmtree(folder, ignore_errors=True)
    return target


def compile_library(compiler: str, target: Path) -> None:
    """Compile the source into `target`.

    Raises:
        BuildError: the compiler fails with every tuning; the text has its first complaint.
    """
    complaint = ""
    for tuning in TUNINGS:
        command = [compiler, *FLAGS, *tuning, str(SOURCE / "engine.cpp"), "-o", str(target)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"{compiler} did not run: {error}") from error
        if done.returncode == 0:
            return
        lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        complaint = complaint or lines[0].strip()
    raise BuildError(f"{compiler} failed: {complaint}; name another compiler in CXX")


def build_key(compiler: str) -> str:
    """Hash of everything that the built code depends on."""
    digest = hashlib.sha256()
    for path in sorted(SOURCE.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for text in (*FLAGS, *map(str, TUNINGS), compiler_version(compiler), processor()):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]


def compiler_version(compiler: str) -> str:
    """What the compiler says of itself."""
    try:
        command = [compiler, "--version"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{compiler} did not run: {error}") from error


@cache
def processor() -> str:
    """The processor's model and instructions, as far as the system tells."""
    if _CPUINFO.exists():
        wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
        first = _CPUINFO.read_text(errors="replace").split("\n\n")[0].splitlines()
        return "\n".join(line for line in first if line.startswith(wanted))
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout
    return platform.processor() or platform.machine()
