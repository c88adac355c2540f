"""Fixtures of the report's tests: one made-up pipeline folder, and its page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from synthetic import write_pipeline

from heed.report.page import write_report


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole made-up pipeline with its page; not to be changed."""
    folder = write_pipeline(tmp_path_factory.mktemp("runs") / "quickstart")
    write_report(folder)
    return folder
