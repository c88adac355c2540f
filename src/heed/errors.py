"""Every exception that heed raises on purpose.

    HeedError                       base: says what was found, what was expected, what to do
    |-- ConfigError  (ValueError)   a setting is unknown, impossible, or contradicts another
    |-- DataError    (ValueError)   a file, row or batch is not what the stage needs
    |-- StoreError                  a run folder, checkpoint or database is missing, damaged or full
    |-- MissingExtra (ImportError)  an optional package is not installed
    |-- EngineError                 generation failed as a whole
    |-- LearnerError                a training step failed (non-finite loss, absent stream, ...)
    |-- FeedbackError               too many scores or labels failed

One failed completion, score or label is data, not an exception: it is recorded on its record and
counted, and only a share above the stated tolerance raises.
"""

from __future__ import annotations


class HeedError(Exception):
    """Base of every error that heed raises on purpose."""


class ConfigError(HeedError, ValueError):
    """A setting is unknown, impossible, or contradicts another."""


class DataError(HeedError, ValueError):
    """A file, row or batch is not what the stage needs."""


class StoreError(HeedError):
    """A run folder, checkpoint or database is missing, damaged or full."""


class MissingExtra(HeedError, ImportError):  # noqa: N818  the name says what to install
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"The package {package!r} is not installed, and this needs it. "
            f"Install it with: pip install 'heed-rlhf[{extra}]'"
        )


class EngineError(HeedError):
    """Generation failed as a whole."""


class LearnerError(HeedError):
    """A training step failed: a non-finite loss, an absent stream, a shape that does not fit."""


class FeedbackError(HeedError):
    """Too many scores or labels failed, or a scorer broke its contract."""
