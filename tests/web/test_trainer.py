"""A trainer over HTTP: its token, its pairs, its labels, a server that goes away, the home row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.contracts.feedback_samples import pair
from tests.people import Knower, answer_all, make_project
from tests.store.conftest import Clock
from tests.web.chromium import Served
from tests.web.conftest import Person

from heed.data.store import Store, open_store
from heed.data.store.roles import TRAINER_SCOPES
from heed.errors import ConfigError
from heed.feedback.human import AwayError, HumanLabeller, StoreDesk
from heed.feedback.human_http import HttpDesk, open_desk

PAIRS = [pair(f"pair-{i}", f"good {i}", f"poor {i}!") for i in range(150)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str, str]]:
    """A running server, the token that it printed, and a person of its project."""
    folder = tmp_path_factory.mktemp("trainer")
    (person,) = make_project(folder / "labels.db", ["ann"])
    with Served(folder, "labels.db", "--trainer-token") as running:
        assert running.process is not None
        assert running.process.stdout is not None
        said = running.process.stdout.readline()
        assert said.startswith("token (HEED_TOKEN): heed_")
        yield running, said.split()[-1], person


def test_pairs_go_and_labels_come_as_in_the_database(served: tuple[Served, str, str]) -> None:
    running, token, person = served
    desk = open_desk(running.base, "live", token=token)
    assert isinstance(desk, HttpDesk)
    people = HumanLabeller(desk)
    people.submit(PAIRS, step=2, acquirer="uniform")
    people.submit(PAIRS)
    knower = Knower(lambda item: float("good" in item.completion.text), "ann")
    with open_store(running.folder / "labels.db") as store:
        assert len(store.items.listing("live")) == len(PAIRS)
        for _ in range(3):
            answer_all(store, person, knower, 1)
        done = store.answers.history("live", person)[0]
        answer_all(store, person, knower, 7)
        store.answers.amend(done.id, person, {"outcome": "tie"}, submission_id="again")
    got = people.receive()
    assert len(got.new) == 10
    assert sorted(p.outcome for p in got.new) == ["left"] * 9 + ["tie"]
    direct = HumanLabeller(StoreDesk(str(running.folder / "labels.db"), "live"))
    direct.submit(PAIRS)
    assert direct.receive() == got
    assert direct.compare(PAIRS) == HumanLabeller(desk).compare(PAIRS)
    people.say_waiting(140, 2)
    with open_store(running.folder / "labels.db") as store:
        budget = store.projects.get("live").budget
    assert budget is not None
    assert (budget["wanted"], budget["by_step"]) == (140, 2)


def test_a_server_that_is_killed_loses_nothing_of_a_trainers(
    served: tuple[Served, str, str],
) -> None:
    running, token, _ = served
    people = HumanLabeller(HttpDesk(running.base, "live", token))
    more = [pair(f"later-{i}", f"good {i}", f"poor {i}") for i in range(5)]
    running.stop(kill=True)
    try:
        with pytest.raises(AwayError, match="does not answer"):
            people.submit(more)
        people.say_waiting(5, 3)  # nobody is there to hear it, and nothing stops
    finally:
        running.start()
    people.receive()
    assert people.num_unsent == 0
    with open_store(running.folder / "labels.db") as store:
        assert len(store.items.listing("live")) == len(PAIRS) + 5


def test_pairs_that_are_too_old_leave_the_queue(
    served: tuple[Served, str, str],
) -> None:
    running, token, _ = served
    with open_store(running.folder / "labels.db") as store:
        config = store.projects.get("live").config
        store.projects.configure("live", config.model_copy(update={"max_policy_lag": 3}), actor="x")
        before = store.items.counts("live")["items"]
    desk = HttpDesk(running.base, "live", token)
    people = HumanLabeller(desk)
    people.submit([pair("old", "good", "poor")], step=4)
    people.submit([pair("young", "good too", "poor too")], step=9)
    people.expire(8)
    with open_store(running.folder / "labels.db") as store:
        states = {one.policy_step: one.state for one in store.items.listing("live")}
        assert store.items.counts("live")["items"] == before + 2
    assert (states[4], states[9]) == ("expired", "ready")


def test_a_wrong_token_or_address_is_said(served: tuple[Served, str, str]) -> None:
    running, token, _ = served
    with pytest.raises(ConfigError, match="no token is set"):
        open_desk(running.base, "live")
    with pytest.raises(ConfigError, match="answered 401"):
        HttpDesk(running.base, "live", token[:-1] + "x")
    with pytest.raises(ConfigError, match="answered 403"):
        HttpDesk(running.base, "other", token)
    with pytest.raises(ConfigError, match="unencrypted to another machine"):
        HttpDesk("http://labels.example.org", "live", token)
    with pytest.raises(ConfigError, match="is no address"):
        HttpDesk("http://", "live", token)


def test_the_home_row_says_what_the_trainer_says(
    store: Store, clock: Clock, person: Callable[..., Person], machine: Callable[..., Person]
) -> None:
    researcher, annotator = person("s", "researcher"), person("a")
    assert "trainer" not in researcher.client.get("/").text.partition("<main")[2]
    trainer = machine(*TRAINER_SCOPES)
    assert trainer.post("/projects/answers/budget", {"wanted": 34, "by_step": 7}).status_code == 204
    said = "trainer waiting for 34 labels at update 7"
    assert f">{said}<" in researcher.client.get("/").text
    assert said not in annotator.client.get("/").text
    clock.pass_seconds(720)
    assert f">{said}, 12 minutes ago<" in researcher.client.get("/").text
    trainer.post("/projects/answers/budget", {"wanted": 0, "by_step": 0})
    assert "trainer waiting" not in researcher.client.get("/").text


def test_a_trainers_token_may_no_more_than_it_needs(machine: Callable[..., Person]) -> None:
    trainer = machine(*TRAINER_SCOPES)
    assert trainer.get("/projects/answers").status_code == 200
    for method, path in (("POST", "/projects/answers/leases"), ("POST", "/tokens"),
                         ("POST", "/projects/answers/invitations")):  # fmt: skip
        assert trainer.call(method, path, {}).status_code in (403, 422)


def test_the_folder_of_a_store_is_no_address(tmp_path: Path) -> None:
    desk = open_desk(str(tmp_path / "new.db"), "live", config={"need": 3})
    assert isinstance(desk, StoreDesk)
    desk.close()
