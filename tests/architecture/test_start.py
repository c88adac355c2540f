"""What starts without torch, and how fast: each in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import heed

LARGE = ("torch", "transformers", "tokenizers", "safetensors", "peft", "datasets")
SOURCE = str(Path(heed.__file__).parents[1])

TORCH_FREE = [
    "heed",
    "heed.config",
    "heed.records",
    "heed.settings",
    "heed.runs.run",
    "heed.runs.metrics",
    "heed.runs.sinks",
    "heed.data.exchange",
    "heed.data.datasets",
    "heed.data.report",
    "heed.data.store",
    "heed.data.store.exporting",
    "heed.data.store.foreign",
    "heed.stats",
    "heed.report.page",
    "heed.worlds.town",
    "heed.worlds.tabular",
    "heed.pipelines.chain",
    "heed.pipelines.recipe",
    "heed.cli",
    "heed.cli.chain",
    "heed.cli.resume",
    "heed.cli.terminal",
]


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": SOURCE},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(code: str) -> set[str]:
    """Top-level packages that are loaded once the code has run."""
    report = "import sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    return set(json.loads(python(f"{code}\n{report}").splitlines()[-1]))


@pytest.mark.parametrize("module", TORCH_FREE)
def test_it_starts_without_torch(module: str) -> None:
    assert not loaded_by(f"import {module}") & set(LARGE)


def test_help_imports_nothing_large() -> None:
    code = "from heed.cli import main; assert main(['--help']) == 0"
    heavy = {*LARGE, "numpy", "scipy", "pydantic", "rich", "jinja2", "matplotlib", "pyarrow"}
    assert not loaded_by(code) & heavy


def test_public_records_come_without_torch() -> None:
    loaded = loaded_by("import heed; heed.Prompt.make('hi'); heed.Sampling(); heed.load_config")
    assert not loaded & set(LARGE)


def fastest(code: str, tries: int = 5) -> float:
    """Seconds of the fastest of several fresh processes: a busy machine only ever adds time."""
    times = []
    for _ in range(tries):
        began = time.monotonic()
        python(code)
        times.append(time.monotonic() - began)
    return min(times)


def test_help_answers_in_half_a_second() -> None:
    assert fastest("from heed.cli import main; main(['--help'])") < 0.5


def test_importing_heed_is_quick() -> None:
    assert fastest("import heed") < 0.3
