"""Processes that work on one store at once, and servers that are killed in the middle of it."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["heed.data.store", "sqlalchemy.dialects.sqlite"])


def client(
    where: str, person: str, number: int, seed: int, seconds: float, racy: bool, out: Any
) -> None:
    """Claim and answer until nothing is left; now and then skip, stall, or die without a word."""
    from heed.data.store import open_store
    from heed.errors import StoreError

    if racy:
        check_then_write()
    rng, done, errors, times = random.Random(seed), [], [], []
    ends = time.monotonic() + seconds
    with open_store(where) as store:
        while time.monotonic() < ends:
            try:
                began = time.monotonic()
                claimed = store.queue.claim("p", person)
                times.append(time.monotonic() - began)
                if not claimed.work:
                    nothing = claimed.nothing
                    if nothing is not None and nothing.reason == "all_done":
                        break
                    time.sleep(0.02)
                    continue
                work, chance = claimed.work[0], rng.random()
                if chance < 0.05:
                    store.queue.release(work.lease, person)
                elif chance < 0.1:
                    store.queue.save_draft(work.lease, person, {"note": "hm"})
                    store.queue.heartbeat(work.lease, person)
                name = f"{person} {len(done)}"
                if chance >= 0.05:
                    answer = {"outcome": "prefer", "side": 0, "level": 1}
                    receipt = store.answers.submit(work.lease, person, answer, submission_id=name)
                    done.append((receipt.judgment, receipt.seq, work.item))
                    if rng.random() < 0.03:
                        undone = store.answers.undo("p", person)
                        store.answers.submit(
                            undone.work.lease, person, {"outcome": "tie"}, submission_id=name + "b"
                        )
            except StoreError as error:
                errors.append(str(error))
    out.put((number, done, errors, times))


def check_then_write() -> None:
    """Break the claim: look in one transaction, and take the place in a later one."""
    from heed.data.store import queue

    real, chosen = queue.choose, {}  # type: ignore[var-annotated]

    def look(connection: Any, project: Any, member: Any, now: int, entries: Any) -> Any:
        return chosen.pop(member.person, None)

    def claim(self: Any, project: str, person: str, *, count: int = 1, **more: Any) -> Any:
        def see(connection: Any) -> Any:
            found = queue.project_in(connection, project)
            table = queue.schema.membership
            query = queue.select(table).where(table.c.project == found.id, table.c.person == person)
            member = connection.execute(query).one()
            return real(connection, found, member, self._database.clock(), [])

        row = self._database.write(see)
        time.sleep(0.05)
        if row is not None:
            chosen[person] = row
        return whole(self, project, person, count=count)

    whole = queue.Queue.claim
    queue.choose = look
    queue.Queue.claim = claim  # type: ignore[method-assign]


def run_clients(
    where: str, people: list[str], *, seconds: float, racy: bool = False
) -> list[tuple[int, list[Any], list[str], list[float]]]:
    """Let all people work at once, each in a process; returns what each was acknowledged."""
    out = SERVER.Queue()
    processes = [
        SERVER.Process(target=client, args=(where, person, k, 1000 + k, seconds, racy, out))
        for k, person in enumerate(people)
    ]
    for process in processes:
        process.start()
    results = [out.get(timeout=seconds + 120) for _ in processes]
    for process in processes:
        process.join(30)
    return results


def acknowledging_writer(where: str, person: str, start: int, path: str) -> None:
    """Answer items for ever, and write down each answer only once it is acknowledged."""
    from heed.data.store import open_store

    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with open_store(where) as store:
        number = start
        while True:
            claimed = store.queue.claim("p", person, count=2)
            if not claimed.work:
                os._exit(0)
            lease = claimed.work[0].lease
            name, kind = f"{start} {number}", number % 5
            answer = {"outcome": "prefer", "side": 0, "level": 1 + number % 3}
            if kind == 3:
                store.queue.save_draft(lease, person, {"number": number})
            receipt = store.answers.submit(lease, person, answer, submission_id=name)
            line = f"{receipt.judgment} {receipt.seq} {answer['level']}\n"
            os.write(handle, line.encode())
            if kind == 4:
                undone = store.answers.undo("p", person)
                os.write(handle, f"{undone.id} undone {undone.seq}\n".encode())
            number += 1


def kill_while(
    target: Callable[..., None], args: tuple[Any, ...], path: Path, rng: random.Random
) -> bool:
    """Start a writer, and kill it -9 at a random moment after it acknowledged something new."""
    before = path.stat().st_size if path.exists() else 0
    process = SERVER.Process(target=target, args=args)
    process.start()
    deadline = time.monotonic() + 60
    while process.is_alive() and time.monotonic() < deadline:
        if path.exists() and path.stat().st_size > before:
            break
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 0.06))
    killed = process.is_alive()
    process.kill()
    process.join()
    return killed
