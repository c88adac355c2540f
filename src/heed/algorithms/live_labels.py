"""Labels of people, while a run goes on: ask about some pairs, learn from what has come back.

    for each update:
        some pairs are labelled by `reward_funcs` in people's place (bootstrap), of the others
        some are selected and submitted, with the probability of the selection
        what came back since the last update is received; wait at most so long for it
        each label is taught once, unless its pair is more than `max_label_lag` updates old

RUN/
    asked/update-N.jsonl   the pairs that update N asked about, written before they are submitted
    labels.jsonl           what update N received, with the positions of the log, written before
                           anything is learned from it

So a run that is killed goes on with the same labels at the same updates, from the checkpoint's
position in the log: none is taught twice, none is left out. Another run can replay the file.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heed.algorithms.live_settings import LiveSettings
from heed.data.exchange import read_rows, write_rows
from heed.errors import FeedbackError, StoreError
from heed.feedback.human import LOOK_EVERY, AwayError, HumanLabeller, Received
from heed.feedback.simulated import ReplayLabeller
from heed.ids import stream_seed
from heed.records import Pair, Preference
from heed.runs.files import append_line, keep_lines, read_lines
from heed.runs.run import Run
from heed.stats.acquire import bald, ensemble_variance, select, top

JOURNAL = "labels.jsonl"
ASKED = "asked"
_WORTH_SAYING = 2.0
"""Seconds of waiting from which on it is said on the terminal."""


@dataclass(frozen=True)
class Heard:
    """What one update learns of people.

    Args:
        labels: each pair with the mean p_left of its new labels; None where nobody could judge it.
        metrics: figures of the update.
    """

    labels: tuple[tuple[Pair, float | None], ...]
    metrics: dict[str, float | int | None]


@dataclass
class _Open:
    update: int
    pair: Pair
    labelled: bool = False


class LiveLabels:
    """What is asked and what came back, over the updates of one run.

    Args:
        config: which pairs, how long to wait, how old they may be.
        run: whose folder keeps both.
        people: who answers; None replays.
        script: update -> what it received in the run that is replayed.
    """

    def __init__(
        self,
        config: LiveSettings,
        run: Run,
        people: HumanLabeller | None,
        script: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> None:
        self._config, self._run, self._people = config, run, people
        self._seed = run.seed
        self._script = dict(script or {})
        self._open: dict[str, _Open] = {}
        self._heard: set[str] = set()
        self._position = 0

    @property
    def num_labels(self) -> int:
        """Labels of people so far; one that was corrected counts once."""
        return len(self._heard)

    # -- checkpoints ------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the position of the log."""
        return {"position": self._position, "num_labels": self.num_labels}

    def resume(self, update: int, state: Mapping[str, Any]) -> None:
        """Go on after an update, from what its checkpoint keeps.

        Later updates that the run came to before it was killed receive again what they received.

        Raises:
            StoreError: what was received before the checkpoint is not in the run's folder.
        """
        path = self._run.path(JOURNAL)
        if self._people is not None:
            keep_lines(path, lambda row: True)  # a torn last line goes
            self._script = _by_update(path)
        else:
            keep_lines(path, lambda row: row["update"] <= update)
        for past in range(1, update + 1):
            asked = self._asked_path(past)
            if update - past <= self._config.max_label_lag and asked.exists():
                for _, row in read_rows(asked):
                    pair = Pair.model_validate(row)
                    self._open[pair.id] = _Open(past, pair)
        lines = _by_update(path)
        for past in range(1, update + 1):
            for preference in _fresh(_preferences(lines.get(past, {}))):
                self._heard.add(preference.id)
                if preference.pair_id in self._open:
                    self._open[preference.pair_id].labelled = True
        if self.num_labels != state.get("num_labels", 0):
            raise StoreError(
                f"the checkpoint of update {update} has learned from {state.get('num_labels', 0)} "
                f"labels, and {path} holds {self.num_labels}; restore that file from a copy, or "
                "start over with run.overwrite=true"
            )
        self._position = int(state.get("position", 0))
        if self._people is not None:
            self._people.position = self._position
            self._ask([one.pair for one in self._open.values()], update)

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._people is not None:
            self._people.say_waiting(0, 0)
            self._people.close()

    # -- one update -------------------------------------------------------------------------------

    def is_simulated(self, update: int, left: str, right: str) -> bool:
        """Whether a pair, by the ids of its completions, is labelled in people's place."""
        until = self._config.bootstrap_until
        if until is not None and self.num_labels >= until:
            return False
        drawn = Random(stream_seed(self._seed, "bootstrap", update, left, right)).random()
        return drawn < self._config.bootstrap_frac

    def hear(self, pairs: Sequence[Pair], gaps: NDArray | None, update: int) -> Heard:
        """Ask people about some of an update's pairs, and return what has come back of any.

        Args:
            pairs: that they could be asked about.
            gaps: [K, N] what each of K reward models says of the pairs, left minus right.
        """
        chosen, chances = self._selected(pairs, gaps, update)
        if chosen:
            write_rows(self._asked_path(update), [pair.model_dump(mode="json") for pair in chosen])
        self._drop_old(update)
        self._open |= {pair.id: _Open(update, pair) for pair in chosen}
        self._ask(chosen, update, chances)
        began = time.monotonic()
        line = self._line(update, len(chosen))
        waited = time.monotonic() - began
        self._position = line["seq"]
        if self._people is not None:
            self._people.position = self._position
        return self._taken(line, len(chosen), update, waited)

    def _selected(
        self, pairs: Sequence[Pair], gaps: NDArray | None, update: int
    ) -> tuple[list[Pair], dict[str, float]]:
        num = min(self._config.labels_per_update or len(pairs), len(pairs))
        if num == len(pairs):
            return list(pairs), {pair.id: 1.0 for pair in pairs}
        how, share = self._config.selection, self._config.uniform_share
        if how == "uniform" or gaps is None:
            target, share = np.full(len(pairs), num / len(pairs)), 1.0
        else:
            target = top(bald(gaps) if how == "information_gain" else ensemble_variance(gaps), num)
        rng = np.random.default_rng(stream_seed(self._seed, "selection", update))
        found = select(target, rng=rng, uniform_share=share)
        order = np.argsort(found.index)
        chosen = [pairs[i] for i in found.index[order]]
        chances = (float(p) for p in found.probability[order])
        return chosen, {pair.id: p for pair, p in zip(chosen, chances, strict=True)}

    def _drop_old(self, update: int) -> None:
        old = [
            name
            for name, one in self._open.items()
            if update - one.update > self._config.max_label_lag
        ]
        for name in old:
            del self._open[name]
        if self._people is not None and old:
            self._people.forget(old)
            self._people.expire(update)

    def _ask(
        self, pairs: Sequence[Pair], update: int, chances: Mapping[str, float] | None = None
    ) -> None:
        if self._people is None:
            return
        try:
            self._people.submit(
                pairs, step=update, chances=chances, acquirer=self._config.selection
            )
        except AwayError as error:
            self._run.warn(update, "labels", f"{error}; its pairs are submitted later")

    def _line(self, update: int, num_asked: int) -> Mapping[str, Any]:
        """What an update receives: as it did before it was killed, as replayed, or what is new."""
        if update in self._script:
            line = self._script[update]
        elif self._people is None:
            raise FeedbackError(
                f"the run that is replayed received nothing at update {update}: it ended before, "
                "or asked no people; give the settings it was run with"
            )
        else:
            found = self._received(self._people, update, num_asked)
            line = {
                "update": update,
                "after": found.after,
                "seq": found.seq,
                "preferences": [p.model_dump(mode="json") for p in found.new],
                "retracted": list(found.retracted),
                "num_other": found.num_other,
            }
        if self._people is None or update not in self._script:
            append_line(self._run.path(JOURNAL), line)
        return line

    def _received(self, people: HumanLabeller, update: int, num_asked: int) -> Received:
        began, said, found = time.monotonic(), False, Received(people.position, people.position)
        while True:
            try:
                found = found.then(people.receive())
            except AwayError as error:
                self._run.warn(update, "labels", f"{error}; the run goes on without new labels")
            waiting = self._num_waiting(found)
            passed = time.monotonic() - began
            left = self._config.label_wait_seconds - passed
            if left <= 0 or waiting == 0 or len(found.new) >= num_asked:
                people.say_waiting(waiting, update)
                return found
            if passed >= _WORTH_SAYING and not said:
                said = True
                self._run.note(f"waiting for {waiting} labels, {left:.0f} s more at most")
            if passed == 0 or said:
                people.say_waiting(waiting, update)
            time.sleep(min(LOOK_EVERY, left))

    def _num_waiting(self, found: Received) -> int:
        new = {preference.pair_id for preference in found.new}
        return sum(not one.labelled and name not in new for name, one in self._open.items())

    def _taken(
        self, line: Mapping[str, Any], num_asked: int, update: int, waited: float
    ) -> Heard:  # fmt: skip
        """Join an update's labels by pair; one that corrects what was taught teaches no more."""
        preferences = _preferences(line)
        fresh = _fresh(preferences)
        open_pairs = [one.pair for one in self._open.values()]
        said: dict[str, list[Preference]] = {}
        for preference in ReplayLabeller(fresh).compare(open_pairs).preferences:
            said.setdefault(preference.pair_id, []).append(preference)
        lags = [update - self._open[p].update for p, given in said.items() for _ in given]
        self._heard |= {p.id for p in fresh}
        for name in said:
            self._open[name].labelled = True
        metrics: dict[str, float | int | None] = {
            "labels/asked": num_asked,
            "labels/received": len(lags),
            "labels/waiting": self._num_waiting(Received(0, 0)),
            "labels/unused": len(fresh) - len(lags) + int(line["num_other"]),
            "labels/changed": len(preferences) - len(fresh) + len(line["retracted"]),
            "labels/total": self.num_labels,
            "labels/lag": sum(lags) / len(lags) if lags else None,
            "labels/position": int(line["seq"]),
            "time/label_wait_seconds": waited,
        }
        labels = [(self._open[name].pair, _mean(given)) for name, given in said.items()]
        return Heard(tuple(labels), metrics)

    def _asked_path(self, update: int) -> Path:
        return self._run.path(ASKED, f"update-{update:08d}.jsonl")


def read_script(folder: str | Path) -> dict[int, Mapping[str, Any]]:
    """Read what each update of a run received.

    Raises:
        StoreError: it is no run, or asked no people.
    """
    path = Run.open(folder).path(JOURNAL)
    found = _by_update(path)
    if not found:
        raise StoreError(f"{path} is not there; replay a run that was made with a labeller")
    return found


def _by_update(path: Path) -> dict[int, Mapping[str, Any]]:
    return {int(line["update"]): line for line in read_lines(path)}


def _preferences(line: Mapping[str, Any]) -> list[Preference]:
    return [Preference.model_validate(row) for row in line.get("preferences", ())]


def _fresh(preferences: Sequence[Preference]) -> list[Preference]:
    """Those that do not correct one that was given before."""
    return [p for p in preferences if p.replaces is None]


def _mean(given: Sequence[Preference]) -> float | None:
    known = [p.p_left for p in given if p.p_left is not None]
    return sum(known) / len(known) if known else None
