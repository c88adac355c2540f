"""Learning from people while a run goes on: what is asked, what comes back, kills and replays."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tests.people import Knower, answer_all, make_project
from tests.resume.same import fingerprint, resumed_from, stopped_at
from tests.tiny import Tiny

from heed.algorithms.live_labels import LiveLabels, read_script
from heed.algorithms.live_settings import LiveSettings
from heed.algorithms.online_preference import run
from heed.data.store import open_store
from heed.errors import ConfigError, FeedbackError, StoreError
from heed.feedback.base import Item
from heed.feedback.human import StoreDesk
from heed.learners.local import LocalLearner
from heed.runs.files import read_lines
from heed.runs.run import Run


def shorter(item: Item) -> float:
    return -float(len(item.completion.text))


@pytest.fixture
def crowd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """People who answer so many pairs each time that a trainer looks; `live` is their project."""
    where = tmp_path / "labels.db"
    ids = make_project(where, ("ann", "ben"))
    knowers = [Knower(shorter, name) for name in ("ann", "ben")]
    changes = StoreDesk.changes

    def at(most: int) -> list[str]:
        def answered(self: StoreDesk, after: int) -> Any:
            for person, knower in zip(ids, knowers, strict=True):
                answer_all(self._store, person, knower, most)
            return changes(self, after)

        monkeypatch.setattr(StoreDesk, "changes", answered)
        return ids

    return at


def live(tiny: Tiny, folder: Path, **changes: Any) -> Any:
    store = str(folder.parent / "labels.db")
    how = {"labeller": "web", "store": store, "project": "live", "reward_funcs": ()}
    if "labeller" in changes:
        how |= {"store": None, "project": None}
    return tiny.online_preference_config(folder, **(how | changes))


def judged(where: Path) -> list[str]:
    """Ids of all answers in the log, in order."""
    with open_store(where) as store:
        events = store.log.events(project="live")
    return [event.subject for event in events if event.kind == "judgment"]


def taught(folder: Path) -> list[str]:
    """Ids of all labels that a run was given, update by update."""
    lines = read_lines(folder / "labels.jsonl")
    return [row["id"] for line in lines for row in line["preferences"]]


def test_a_run_learns_from_what_people_say_and_from_each_label_once(
    tiny: Tiny, tmp_path: Path, crowd: Any
) -> None:
    crowd(2)
    done = run(live(tiny, tmp_path / "run"))
    rows = done.metrics()
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert rows[0]["eval/proxy"] is None  # nobody gives scores
    assert "objective/scores" not in rows[1]
    total = sum(row["labels/received"] for row in rows[1:])
    assert total == rows[-1]["labels/total"] > 8
    assert len(set(taught(tmp_path / "run"))) == total
    assert taught(tmp_path / "run") == judged(tmp_path / "labels.db")
    for row in rows[1:]:
        assert row["pairs/num"] + row["pairs/num_ties"] == row["labels/received"]
    learned = [row for row in rows[1:] if row["pairs/num"]]
    assert learned
    assert learned[-1]["policy/grad_norm"] > 0
    with open_store(tmp_path / "labels.db") as store:
        budget = store.projects.get("live").budget
    assert budget is not None
    assert budget["wanted"] == 0  # the run is over and waits for nothing


def test_without_an_answer_nothing_is_learned_and_nobody_waits(tiny: Tiny, tmp_path: Path) -> None:
    make_project(tmp_path / "labels.db", ())
    done = run(live(tiny, tmp_path / "run", max_label_lag=1))
    rows = done.metrics()[1:]
    assert [row["labels/received"] for row in rows] == [0] * 5
    assert all("loss" not in row for row in rows)
    asked = [row["labels/asked"] for row in rows]
    # Of this update and the one before: older ones are not waited for.
    assert [row["labels/waiting"] for row in rows[1:]] == [a + b for a, b in pairwise(asked)]
    assert not done.warnings()


def test_the_page_and_the_terminal_say_the_same_number(tiny: Tiny, tmp_path: Path) -> None:
    make_project(tmp_path / "labels.db", ())
    seen = []

    class Listening:
        def metrics(self, step: int, metrics: Any) -> None:
            with open_store(tmp_path / "labels.db") as store:
                seen.append((metrics.get("labels/waiting"), store.projects.get("live").budget))

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: None

    run(live(tiny, tmp_path / "run", total_episodes=32), (Listening(),))
    for update, (waiting, budget) in enumerate(seen[1:], 1):
        assert budget is not None
        assert (budget["wanted"], budget["by_step"]) == (waiting, update)
        assert waiting > 0


def test_old_pairs_leave_the_queue_and_their_labels_teach_nothing(
    tiny: Tiny, tmp_path: Path, crowd: Any
) -> None:
    """Nobody answers before the last update; what is too old by then is asked of nobody."""
    make = live(tiny, tmp_path / "run", max_label_lag=1, label_wait_seconds=0.0)
    with open_store(tmp_path / "labels.db") as store:
        config = store.projects.get("live").config
        store.projects.configure("live", config.model_copy(update={"max_policy_lag": 1}), actor="x")
    run(make)
    with open_store(tmp_path / "labels.db") as store:
        items = store.items.listing("live")
    states = {item.policy_step: item.state for item in items}
    assert states == {1: "expired", 2: "expired", 3: "expired", 4: "ready", 5: "ready"}


def test_reward_models_label_in_peoples_place_until_there_are_enough(
    tiny: Tiny, tmp_path: Path, crowd: Any
) -> None:
    crowd(1)
    how = {"reward_funcs": (str(tiny.reward),), "bootstrap_frac": 0.5, "bootstrap_until": 4}
    rows = run(live(tiny, tmp_path / "run", **how)).metrics()[1:]
    assert rows[0]["labels/simulated"] > 0
    for before, row in pairwise(rows):
        assert (row["labels/simulated"] == 0) == (before["labels/total"] >= 4)
    assert rows[-1]["labels/simulated"] == 0
    assert rows[0]["objective/scores"] is not None  # there is a scorer to measure with


@pytest.mark.parametrize("how", ["disagreement", "information_gain"])
def test_an_ensemble_selects_and_the_chance_is_kept(
    tiny: Tiny, tmp_path: Path, crowd: Any, how: str
) -> None:
    crowd(1)
    word = f"mean({tiny.reward},{tiny.other_reward})"
    more = {"reward_funcs": (word,), "selection": how, "labels_per_update": 2}
    rows = run(live(tiny, tmp_path / "run", total_episodes=32, **more)).metrics()[1:]
    assert [row["labels/asked"] for row in rows] == [2, 2]
    with open_store(tmp_path / "labels.db") as store:
        items = store.items.listing("live")
    assert {item.acquirer for item in items} == {how}
    assert all(0 < (item.p_select or 0) <= 1 for item in items)


def test_selection_prefers_what_the_members_differ_on(tiny: Tiny, tmp_path: Path) -> None:
    """Members differ on two of eight pairs; those are asked, the uniform share aside."""
    config = LiveSettings(
        labeller="replay", replay="x", labels_per_update=2, selection="disagreement",
        uniform_share=0.3,
    )  # fmt: skip
    pairs = [_Named(str(i)) for i in range(8)]
    gaps = np.zeros((2, 8))
    gaps[:, [3, 6]] = [[2.0, -2.0], [-2.0, 2.0]]
    counts = np.zeros(8)
    with Run.start(tiny.sft_config(tmp_path / "run").run, "sft", {}) as made:
        labels = LiveLabels(config, made, None)
        for update in range(400):
            chosen, chances = labels._selected(pairs, gaps, update)  # type: ignore[arg-type]
            for one in chosen:
                counts[int(one.id)] += 1
            assert chances.get("3", 0.775) == pytest.approx(0.3 * 2 / 8 + 0.7)
    assert counts[[3, 6]] / 400 == pytest.approx([0.775, 0.775], abs=0.08)
    assert counts.sum() == 800


class _Named:
    def __init__(self, id: str) -> None:
        self.id = id


def test_a_killed_run_goes_on_to_the_same_bits(
    tiny: Tiny, tmp_path: Path, crowd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after it received labels and before it learned: nothing twice, nothing lost."""
    crowd(1)
    often = {"checkpoint_seconds": 0.0}
    cut = tmp_path / "run"
    with stopped_at(monkeypatch, LocalLearner, "step", 5):
        run(live(tiny, cut, run=often))
    before = taught(cut)
    with resumed_from(monkeypatch) as steps:
        run(live(tiny, cut, run=often | {"resume": True}))
    assert steps[0] > 0
    assert taught(cut)[: len(before)] == before
    assert taught(cut) == judged(tmp_path / "labels.db")
    assert Run.open(cut).metrics()[-1]["labels/total"] == len(taught(cut))
    # Played again from what was received, without the store: the same weights to the bit.
    again = tmp_path / "again" / "run"
    (tmp_path / "labels.db").rename(tmp_path / "away.db")
    run(live(tiny, again, labeller="replay", replay=str(cut), run=often))
    assert fingerprint(again) == fingerprint(cut)
    assert read_script(again) == read_script(cut)


def test_a_run_whose_labels_are_gone_does_not_go_on(tiny: Tiny, tmp_path: Path, crowd: Any) -> None:
    crowd(1)
    run(live(tiny, tmp_path / "run", total_episodes=32))
    (tmp_path / "run" / "labels.jsonl").unlink()
    config = live(tiny, tmp_path / "run", run={"resume": True})
    with pytest.raises(StoreError, match="has learned from"):
        run(config)


def test_a_replay_says_when_the_other_run_ended_before(
    tiny: Tiny, tmp_path: Path, crowd: Any
) -> None:
    crowd(1)
    run(live(tiny, tmp_path / "run", total_episodes=32))
    longer = live(tiny, tmp_path / "more" / "run", labeller="replay", replay=str(tmp_path / "run"))
    with pytest.raises(FeedbackError, match="received nothing at update 3"):
        run(longer)


BAD = {
    "no store": ({"store": None}, "it takes store and project"),
    "a replay with a store": ({"labeller": "replay", "replay": "r", "store": "s"}, "takes replay"),
    "a judge beside people": ({"judge": "a:b"}, "both compare"),
    "no people in Nash-MD": ({"preset": "nash_md"}, "asks nobody"),
    "best against worst": ({"preset": "iterative_dpo", "num_generations": 8}, "set halves"),
    "bootstrap without a scorer": ({"bootstrap_frac": 0.5}, "there are no reward_funcs"),
    "selection without a scorer": ({"selection": "disagreement"}, "there are no reward_funcs"),
    "a penalty without a score": ({"missing_eos_penalty": 1.0}, "people give none"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_say_what_to_do(tiny: Tiny, tmp_path: Path, case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(ValidationError, match=message):
        live(tiny, tmp_path / "run", **changes)


def test_a_selection_needs_an_ensemble(tiny: Tiny, tmp_path: Path) -> None:
    how = {"reward_funcs": (str(tiny.reward),), "selection": "disagreement"}
    with pytest.raises(ConfigError, match="members of an ensemble"):
        run(live(tiny, tmp_path / "run", **how))


def test_settings_that_do_nothing_are_named(tiny: Tiny, tmp_path: Path) -> None:
    plain = tiny.online_preference_config(tmp_path / "run", max_label_lag=3)
    assert "max_label_lag is set and ignored: no labeller" in " ".join(plain.ignored())
    even = live(tiny, tmp_path / "run", uniform_share=0.5, bootstrap_until=3)
    assert len(even.ignored()) == 2
