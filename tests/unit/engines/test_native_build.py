"""Building the native loop: once for all that it depends on, and torch where it cannot be built."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.small import POLICY, possible, raw_prompts, renderer, shaken, small

from heed.engines.local import LocalEngine
from heed.engines.native import build, library
from heed.engines.policy import note_path
from heed.errors import EngineError
from heed.records import Sampling
from heed.runs.run import Run
from heed.settings import RunSettings

PROMPTS = raw_prompts([12, 3, 30, 12, 7, 21, 40])
SAMPLING = Sampling(max_tokens=40, n=3, seed=5)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache, and a process that has not loaded the library."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library.forget()
    yield tmp_path
    library.forget()


def script(folder: Path, text: str) -> str:
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def fallback_reason(path: Any = "auto") -> str:
    engine = LocalEngine(small("llama", 3.0), renderer(), policy=POLICY, path=path)
    assert engine.path == "torch"
    assert engine.build_failed
    assert engine.generate(PROMPTS[:2], SAMPLING)
    return engine.why_torch


def test_without_a_compiler_torch_decodes(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(fresh))
    assert "install g++ or clang++" in fallback_reason()
    with pytest.raises(EngineError, match="no C\\+\\+ compiler found"):
        LocalEngine(small(), renderer(), policy=POLICY, path="native")


def test_a_compiler_that_fails_or_is_not_there(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", script(fresh, "echo 'engine.cpp: error: too new' >&2; exit 1"))
    assert "engine.cpp: error: too new" in fallback_reason()
    library.forget()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "'no-such-compiler', is not there" in fallback_reason()
    assert not list((fresh / "cache").rglob("*.so"))


def test_a_file_that_does_not_load(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'for last; do :; done; [ "$last" = --version ] || echo broken > "$last"'
    monkeypatch.setenv("CXX", script(fresh, text))
    assert "was built and does not load" in fallback_reason()


def test_other_systems_are_not_tried(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.platform, "machine", lambda: "riscv64")
    assert "not Linux on riscv64" in fallback_reason() or sys.platform != "linux"


COMPILER = (
    'for last; do :; done; [ "$last" = --version ] || { echo built >> LOG; echo x > "$last"; }'
)


def test_a_build_is_kept_by_all_that_it_depends_on(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = fresh / "log"
    monkeypatch.setenv("CXX", script(fresh, COMPILER.replace("LOG", str(log))))
    first = build.library_path()
    assert build.library_path() == first
    assert log.read_text().count("built") == 1
    monkeypatch.setattr(build, "processor", lambda: "another")
    second = build.library_path()
    assert second != first
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DX"))
    assert build.library_path() not in (first, second)
    assert log.read_text().count("built") == 3
    # Nothing half-built is left beside the libraries.
    assert {p.name for p in build.cache_folder().rglob("*") if p.is_file()} == {"engine.so"}


def test_two_processes_build_at_once(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = COMPILER.replace("echo built", "sleep 0.3; echo built")
    monkeypatch.setenv("CXX", script(fresh, slow.replace("LOG", str(fresh / "log"))))
    code = "from heed.engines.native.build import library_path as p; print(p())"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[0].strip() for process in both]
    assert said[0] == said[1]
    assert Path(said[0]).read_text() == "x\n"


def test_a_cache_that_cannot_be_written(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh / "cache").write_text("a file")
    monkeypatch.setenv("CXX", script(fresh, COMPILER.replace("LOG", str(fresh / "log"))))
    assert build.library_path().read_text() == "x\n"


@pytest.mark.slow
def test_the_code_for_other_processors_gives_the_same(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the processor's own instructions the source is plain C++ with narrow vectors."""
    possible("native")
    wide_lanes = library.load_library().heed_lanes()
    model = shaken("qwen3")
    native = LocalEngine(model, renderer(), policy=POLICY, path="native")
    expected = native.generate(PROMPTS, SAMPLING)
    library.forget()
    monkeypatch.setattr(build, "TUNINGS", ((),))
    narrow = library.load_library().heed_lanes()
    assert narrow <= wide_lanes
    native = LocalEngine(model, renderer(), policy=POLICY, path="native")
    found = native.generate(PROMPTS, SAMPLING)
    for mine, theirs in zip(found, expected, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a.tokens == b.tokens
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_a_run_that_goes_on_along_the_other_path_says_so(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both paths agree to rounding, so the bits that a resumed run promises depend on it."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    torch_engine = LocalEngine(small("llama", 3.0), renderer(), policy=POLICY)
    monkeypatch.delenv("CXX")
    library.forget()
    possible("native")
    settings = RunSettings(folder=str(fresh / "run"))
    notes: list[str] = []
    monkeypatch.setattr(Run, "note", lambda run, text: notes.append(text))
    with Run.start(settings, "ppo", {}) as run:
        note_path(run, LocalEngine(small("llama", 3.0), renderer(), policy=POLICY))
        assert run.manifest["environment"]["engine_path"] == "native"
    assert not notes
    resumed = settings.model_copy(update={"resume": True})
    with Run.start(resumed, "ppo", {}) as run:
        note_path(run, torch_engine)
        (warning,) = run.warnings()
    assert "engine_path 'native' -> 'torch'" in warning["message"]
    assert "no-such-compiler" in warning["message"]
    (note,) = notes
    assert "decoded through torch, more slowly: the compiler that CXX names" in note
