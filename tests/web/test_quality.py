"""The page of quality: its numbers are those of heed.stats, and only researchers see it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tests.store.conftest import PLAIN, Clock, pair, prefer
from tests.web.conftest import Person

from heed.data.store import Store
from heed.stats.agreement import krippendorff_alpha
from heed.stats.answers import collect
from heed.stats.intervals import Interval, wilson
from heed.web.quality import on_screen, quality_of, side_of

NUM_ITEMS, NUM_GOLD = 40, 12


def answered(store: Store, clock: Clock) -> None:
    """Three people: two who mostly see what is better, one who clicks left in three seconds.

    Which side an answer stands on is drawn from a secret that no test knows, so what people say
    depends on the item and on how many they did, and all gold comes first: the tests hold for every
    draw.
    """
    store.projects.make("q", {**PLAIN, "need": 3, "gold_frac": 1.0, "max_leases": 1})
    rows: list[dict[str, Any]] = [pair(k) for k in range(NUM_ITEMS)]
    for k in range(NUM_GOLD):
        gold = {"answer": {"outcome": "prefer", "side": 0, "level": 2}}
        rows.append(pair(1000 + k, role="gold", gold=gold))
    store.items.add("q", rows, actor="x")
    people = [store.people.add(name) for name in ("ann", "ben", "hasty <b>")]
    for person in people:
        store.people.join("q", person.id)
    for person in people:
        number = 0
        while work := store.queue.claim("q", person.id).work:
            texts = [one.text or "" for one in work[0].payload.candidates]
            good = int(texts[1].startswith("good"))
            gold = int(texts[0].split()[1]) >= 1000
            if person.pseudonym.startswith("hasty"):
                clock.pass_seconds(3)
                answer: dict[str, Any] = prefer(1 - good if gold else 0)
            else:
                clock.pass_seconds(20 + number % 20)
                answer = prefer(1 - good if number % 10 == 4 else good)
                if not gold and number % 10 == 7:
                    answer = {"outcome": "tie"}
            name = f"{person.id} {number}"
            store.answers.submit(work[0].lease, person.id, answer, submission_id=name)
            number += 1


def test_the_numbers_are_those_of_the_statistics(store: Store, clock: Clock) -> None:
    answered(store, clock)
    project = store.projects.get("q").id
    found = quality_of(store, project)
    assert found == quality_of(store, project)
    assert sum(found.outcomes.values()) == 3 * NUM_ITEMS
    roles = {one.id: one.role for one in store.items.listing("q")}
    said = [j for j in store.log.state(project).standing() if roles[j.item] == "normal"]
    words = ["tie" if j.outcome == "tie" else ("left", "right")[j.side or 0] for j in said]
    oracle = krippendorff_alpha(
        collect([j.item for j in said], [j.person for j in said], words, ("left", "right", "tie")),
        rng=np.random.default_rng(0),
    )
    shown = {figure.name: figure.value for figure in found.figures}
    alpha = shown["Krippendorff’s alpha, outcome"]
    assert isinstance(alpha, Interval)
    assert isinstance(oracle, Interval)
    assert alpha.estimate == pytest.approx(oracle.estimate, abs=1e-12)
    assert alpha.n == NUM_ITEMS
    sides = [p for j in said if (p := on_screen(j)) not in (None, 0.5)]
    assert shown["Left of the screen chosen"] == wilson(sum(sides), len(sides))  # type: ignore[arg-type]
    assert len(found.kappas) == 3
    assert [side_of(j) for j in said[:5]] == [
        {"tie": 0.5}.get(j.outcome, float(j.side == 0)) for j in said[:5]
    ]


def test_alerts_name_the_hasty_and_nobody_else(store: Store, clock: Clock) -> None:
    answered(store, clock)
    found = quality_of(store, store.projects.get("q").id)
    people = {person.name: person for person in found.people}
    kinds = {name: {alert.kind for alert in person.alerts} for name, person in people.items()}
    assert {"gold", "side", "time"} <= kinds["hasty <b>"]
    for name in ("ann", "ben"):
        assert not kinds[name] & {"gold", "time", "consistency"}
    assert people["hasty <b>"].seconds == 3.0
    ann, hasty = people["ann"], people["hasty <b>"]
    assert isinstance(ann.gold, Interval)
    assert isinstance(hasty.gold, Interval)
    assert ann.gold.low > hasty.gold.high
    best, worst = found.board
    assert (best.policy, best.rank_low) == ("CANARY-model-a", 1)
    assert best.strength.estimate > 0 > worst.strength.estimate
    assert isinstance(ann.reliability, Interval)
    assert isinstance(hasty.reliability, Interval)
    assert ann.reliability.estimate > hasty.reliability.estimate


def test_researchers_see_the_page_and_annotators_do_not(
    store: Store,
    clock: Clock,
    person: Callable[..., Person],
    visit: Callable[[], TestClient],
) -> None:
    answered(store, clock)
    for who in (person("a"), person("r", "reviewer"), person("o", None)):
        answer = who.client.get("/p/q/quality")
        assert answer.status_code == 404
        assert "CANARY" not in answer.text
        assert "/quality" not in who.client.get("/").text
    assert visit().get("/p/q/quality").status_code == 303
    researcher = person("s", "researcher")
    assert "/p/answers/quality" in researcher.client.get("/").text
    assert researcher.client.get("/p/q/quality").status_code == 404  # of another project
    assert "Nobody has answered yet" in researcher.client.get("/p/answers/quality").text
    page = person("admin", is_admin=True).client.get("/p/q/quality").text
    assert "hasty &lt;b&gt;" in page
    assert "CANARY-model-a" in page
    text = re.sub(r"<[^>]+>", " ", page)
    assert "Gwet’s AC1" in text
    assert "accuracy on gold pairs is" in text
