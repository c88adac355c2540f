"""How long people wait at the served page: from sending an answer to holding the next item.

    python -m benchmarks.label_http_load --people 16 --seconds 60 --think 1.0

Starts `heed label` on a store of its own, and lets people answer over HTTP, each thinking for a
random time in between. Prints one line of JSON: the 50th, 95th and 99th percentile of
submit-to-next in milliseconds, and what was done. The people run in this process, so on a machine
of few cores their own work is part of the wait.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from tests.web.chromium import Served
from tests.web.visitors import open_sessions, start_all

from benchmarks.label_load import fill
from heed.data.store import open_store


def main() -> None:
    """Run the load, and print what it gave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--think", type=float, default=1.0)
    parser.add_argument("--items", type=int, default=5000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open_store(folder / "labels.db") as store:
            visitors = open_sessions(store, fill(store, options.items, options.people))
        with Served(folder, str(folder / "labels.db")) as served:
            threads, stopped = start_all(visitors, served.base, "load", options.think)
            time.sleep(options.seconds)
            stopped.set()
            for thread in threads:
                thread.join(30)
        with open_store(folder / "labels.db") as store:
            problems = store.check() + [wrong for one in visitors for wrong in one.wrong]
            stored = store.items.counts("load")["judgments"]
    times = sorted(1000 * wait for one in visitors for wait in one.waits)
    shown = {f"p{q}_ms": round(times[int(q / 100 * (len(times) - 1))], 1) for q in (50, 95, 99)}
    facts = {"people": options.people, "think_seconds": options.think, "answers": len(times)}
    print(json.dumps({**facts, "stored": stored, **shown, "problems": problems}))


if __name__ == "__main__":
    main()
