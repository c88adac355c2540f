"""Token buckets: how often somebody may ask. They live in the process, and forget the idle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_MOST_KEYS = 10_000


class Buckets:
    """One bucket per key; each fills at a rate up to a size, and every request takes one token.

    Args:
        per_second: tokens that come back in a second.
        size: tokens of a full bucket.
        now: seconds of a clock that never goes back.
    """

    def __init__(
        self, per_second: float, size: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._size, self._now = per_second, float(size), now
        self._left: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def wait(self, key: str) -> float:
        """Take a token; returns 0, or the seconds after which there is one."""
        with self._lock:
            now = self._now()
            left, since = self._left.get(key, (self._size, now))
            left = min(self._size, left + (now - since) * self._rate)
            taken = left >= 1.0
            self._left[key] = (left - taken, now)
            if len(self._left) > _MOST_KEYS:
                self._forget(now)
            return 0.0 if taken else (1.0 - left) / self._rate

    def _forget(self, now: float) -> None:
        """Drop the full buckets; under a flood of keys, the fullest half."""
        full = self._size / self._rate
        self._left = {k: v for k, v in self._left.items() if now - v[1] < full}
        if len(self._left) > _MOST_KEYS:
            ordered = sorted(self._left, key=lambda key: self._left[key][0])
            self._left = {key: self._left[key] for key in ordered[: _MOST_KEYS // 2]}
