"""kill -9 of the server under load: what was acknowledged is there, once, and all else is whole."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from tests.store.conftest import make_project, pair
from tests.web.chromium import Served
from tests.web.visitors import open_sessions, start_all

from heed.data.store import open_store

NUM_PEOPLE = 4
ENOUGH_AHEAD = 200


def refill(folder: Path, number: int) -> None:
    """See to it that nobody runs out of items before the next kill."""
    with open_store(folder / "labels.db") as store:
        if store.items.counts("p").get("ready", 0) < ENOUGH_AHEAD:
            rows = [pair(1000 * (number + 1) + k) for k in range(2 * ENOUGH_AHEAD)]
            store.items.add("p", rows, actor="x")


def kill_server(folder: Path, times: int, seed: int) -> tuple[int, int]:
    """Kill the server so many times under load; returns acknowledged answers and sent-again."""
    rng = random.Random(seed)
    with open_store(folder / "labels.db") as store:
        people = make_project(store, 2 * ENOUGH_AHEAD, *(f"person {k}" for k in range(NUM_PEOPLE)))
        visitors = open_sessions(store, people)
        project = store.projects.get("p").id
    with Served(folder, str(folder / "labels.db")) as served:
        threads, stopped = start_all(visitors, served.base, "p")
        for number in range(times):
            before = sum(len(one.acknowledged) for one in visitors)
            deadline = time.monotonic() + 60
            while sum(len(one.acknowledged) for one in visitors) <= before:
                assert time.monotonic() < deadline, [one.wrong for one in visitors]
                time.sleep(0.005)
            time.sleep(rng.uniform(0.0, 0.15))
            served.stop(kill=True)
            refill(folder, number)
            served.start()
        time.sleep(0.5)
        stopped.set()
        for thread in threads:
            thread.join(30)
    assert [one.wrong for one in visitors] == [[]] * NUM_PEOPLE
    with open_store(folder / "labels.db") as store:
        stored = store.log.state(project).judgments
        names = [judgment.submission_id for judgment in stored.values()]
        assert len(set(names)) == len(names)
        for one in visitors:
            for name, (judgment, level) in one.acknowledged.items():
                found = stored[judgment]
                assert (found.submission_id, found.level) == (name, level)
                assert (found.person, found.state) == (one.person, "standing")
        assert store.check() == []
        assert store.log.verify().ok
    return sum(len(one.acknowledged) for one in visitors), sum(one.num_resent for one in visitors)


def test_three_kills_of_the_server_lose_nothing(tmp_path: Path) -> None:
    acknowledged, resent = kill_server(tmp_path, 3, seed=1)
    assert acknowledged >= 3
    assert resent >= 3


@pytest.mark.slow
def test_fifty_kills_of_the_server_lose_nothing(tmp_path: Path) -> None:
    acknowledged, resent = kill_server(tmp_path, 50, seed=2)
    assert acknowledged >= 50
    assert resent >= 50


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif("HEED_SERVER_KILLS" not in os.environ, reason="set HEED_SERVER_KILLS=1000")
def test_many_kills_of_the_server_lose_nothing(tmp_path: Path) -> None:
    times = int(os.environ["HEED_SERVER_KILLS"])
    acknowledged, resent = kill_server(tmp_path, times, seed=3)
    print(f"{times} kills, {acknowledged} acknowledged answers, {resent} sent again, 0 lost")
    assert acknowledged >= times
