"""`heed doctor` and `heed data inspect`: what they read and what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.small import possible

from heed.cli import doctor
from heed.cli.command import main
from heed.cli.data import read
from heed.errors import ConfigError


def test_doctor_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("installed", "torch", "machine", "cores", "memory", "extras", "learner.precision"):
        assert word in out
    assert "engine.path" in out


@pytest.mark.parametrize("compiler", [None, "no-such-compiler"])
def test_doctor_says_how_completions_are_decoded_and_why(
    compiler: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from heed.engines.native import library

    assert doctor.decoding("cuda").startswith("torch (the native loop runs on a CPU")
    if compiler is None:
        possible("native")
        assert re.match(r"native for .* \(\d+ numbers at a time\)", doctor.decoding("cpu"))
        return
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.forget()
    assert "torch, more slowly (the compiler that CXX names" in doctor.decoding("cpu")
    library.forget()


def test_doctor_names_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CORE", (*doctor.CORE, "no-such-package"))
    monkeypatch.setattr(doctor, "EXTRAS", {"web": ("no_such_module", "pages")})
    assert main(["doctor"]) == 2
    out = capsys.readouterr().out
    assert "no-such-package  NOT INSTALLED" in out
    assert "missing: no-such-package; install them with: pip install heed-rlhf" in out
    assert "pages: not installed (pip install 'heed-rlhf[web]')" in out


@pytest.mark.parametrize(
    ("quota", "cores"), [("150000 100000", 1.5), ("max 100000", 4.0), ("800000 100000", 4.0)]
)
def test_cores_respect_affinity_and_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: float
) -> None:
    monkeypatch.setattr(doctor, "_CGROUP", tmp_path)
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    (tmp_path / "cpu.max").write_text(quota)
    assert doctor.usable_cores() == cores


def test_memory_is_the_least_of_machine_and_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_CGROUP", tmp_path)
    monkeypatch.setattr(doctor, "_MEMINFO", tmp_path / "meminfo")
    assert doctor.memory_bytes() is None
    (tmp_path / "meminfo").write_text("MemTotal:  2048 kB\nMemFree: 1 kB\n")
    assert doctor.memory_bytes() == 2048 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor.memory_bytes() == 2048 * 1024
    (tmp_path / "memory.max").write_text("1000\n")
    assert doctor.memory_bytes() == 1000


def test_bare_words_of_data_inspect_are_data_and_toml_is_settings(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[data]\nmax_length = 64\n")
    config = read(["a.jsonl", str(file), "--tokenizer", "t", "b.jsonl"])
    assert config.data.path == ("a.jsonl", "b.jsonl")
    assert config.data.max_length == 64
    assert config.tokenizer == "t"
    assert read(["a.jsonl"]).data.path == "a.jsonl"
    with pytest.raises(ConfigError, match=r"--data\.path"):
        read([])


def test_data_has_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show"]) == 2
    assert "heed data inspect PATH" in capsys.readouterr().err
    assert main(["data", "--help"]) == 0
    assert "usage: heed data inspect PATH ..." in capsys.readouterr().out
