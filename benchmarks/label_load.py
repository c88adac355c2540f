"""How long people wait: from sending an answer to seeing the next item, many of them at once.

    python -m benchmarks.label_load --people 16 --seconds 60 --think 1.0

Threads of one process, as in the server of the labelling page, claim and answer pairs on one store;
each thinks for a random time in between. Prints one line of JSON: the 50th, 95th and 99th
percentile of submit-to-next in milliseconds, and what was done.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from pathlib import Path

from heed.data.store import Store, open_store
from heed.records import Prompt


def fill(store: Store, num_items: int, num_people: int) -> list[str]:
    """Make a project with pairs of 150 words a side, and people; returns their ids."""
    store.projects.make("load", {"kind": "pair", "need": 2})
    for start in range(0, num_items, 500):
        rows = [
            {
                "payload": {
                    "prompt": Prompt.make(f"Question {k}?").model_dump(mode="json"),
                    "candidates": [{"text": f"{side} {k} " + "word " * 150} for side in "ab"],
                }
            }
            for k in range(start, min(start + 500, num_items))
        ]
        store.items.add("load", rows, actor="load")
    people = [store.people.add(f"person {k}").id for k in range(num_people)]
    for person in people:
        store.people.join("load", person)
    return people


def annotate(
    store: Store, person: str, ends: float, think: float, seed: int, waits: list[float]
) -> None:
    """Answer until the time is over, and note each wait in seconds."""
    rng = random.Random(seed)
    work = store.queue.claim("load", person).work
    number = 0
    while work and time.monotonic() < ends:
        time.sleep(rng.expovariate(1.0 / think) if think else 0.0)
        answer = {"outcome": "prefer", "side": rng.randrange(2), "level": 2}
        began = time.monotonic()
        store.answers.submit(work[0].lease, person, answer, submission_id=f"{person} {number}")
        work = store.queue.claim("load", person).work
        waits.append(time.monotonic() - began)
        number += 1


def main() -> None:
    """Run the load, and print what it gave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--think", type=float, default=1.0)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--store", default="", help="path or URL; a temporary file by default")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        open_store(options.store or Path(folder) / "labels.db") as store,
    ):
        people = fill(store, options.items, options.people)
        waits: list[list[float]] = [[] for _ in people]
        ends = time.monotonic() + options.seconds
        threads = [
            threading.Thread(
                target=annotate, args=(store, person, ends, options.think, k, waits[k])
            )
            for k, person in enumerate(people)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        problems = store.check()
    times = sorted(1000 * wait for one in waits for wait in one)
    shown = {f"p{q}_ms": round(times[int(q / 100 * (len(times) - 1))], 1) for q in (50, 95, 99)}
    facts = {"people": options.people, "think_seconds": options.think, "answers": len(times)}
    print(json.dumps({**facts, **shown, "problems": problems}))


if __name__ == "__main__":
    main()
