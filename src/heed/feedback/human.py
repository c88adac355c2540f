"""People as a labeller: pairs go to a project of a label store, and answers come back when given.

    submit    pairs become items, each once: the key of an item is the hash of its content
    receive   what has been said since a position of the log; never waits
    compare   the `Labeller` contract: submit, wait no longer than told, say what is there

A position says everything: whoever keeps it beside the weights goes on without counting an answer
twice or missing one. Where the store is away (a server that is restarted), what was submitted stays
here and goes out with the next call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from heed.data.store import Refusal, Store, open_store
from heed.data.store.convert import payload_of, preference_of
from heed.data.store.items import MOST_IN_A_BATCH
from heed.data.store.views import Added, Changes, Judgment
from heed.errors import ConfigError, FeedbackError
from heed.feedback.base import Labelled
from heed.ids import content_hash
from heed.records import Pair, Preference

LOOK_EVERY = 0.25
"""Seconds between two looks at the log, while one waits."""


class AwayError(FeedbackError):
    """The store does not answer at this moment; nothing is lost by trying again."""


class Desk(Protocol):
    """One project of a label store, as a trainer reaches it: in the database, or over HTTP."""

    def add(self, items: Sequence[Mapping[str, Any]]) -> list[Added]:
        """Add items, at most 1,000; the same key and content adds once."""
        ...

    def changes(self, after: int) -> Changes:
        """Read settled answers after a position; never waits."""
        ...

    def say_waiting(self, num: int, step: int) -> None:
        """Say on the page how many labels are waited for."""
        ...

    def expire(self, step: int) -> None:
        """Take items out of the queue that are too old at a step, by the project's rule."""
        ...

    def close(self) -> None:
        """Let go of the store."""
        ...


class StoreDesk:
    """A project in the database itself, beside a server that serves the same one.

    Args:
        where: path or URL of the store.
        project: its name; made where there is none.
        config: of a new project.

    Raises:
        ConfigError: the project asks for another kind of work than pairs.
        StoreError: the store cannot be opened.
    """

    def __init__(
        self, where: str, project: str, config: Mapping[str, Any] | None = None
    ) -> None:  # fmt: skip
        self._store = open_store(where)
        try:
            made = _find_or_make(self._store, project, config or {})
            check_kind(project, made)
        except BaseException:
            self._store.close()
            raise
        self._project = project

    def add(self, items: Sequence[Mapping[str, Any]]) -> list[Added]:
        """See `Desk`."""
        return self._store.items.add(self._project, [dict(one) for one in items], actor="trainer")

    def changes(self, after: int) -> Changes:
        """See `Desk`."""
        return self._store.log.changes(self._project, after)

    def say_waiting(self, num: int, step: int) -> None:
        """See `Desk`."""
        self._store.projects.set_budget(self._project, num, step, actor="trainer")

    def expire(self, step: int) -> None:
        """See `Desk`."""
        self._store.items.expire_stale(self._project, step, actor="trainer")

    def close(self) -> None:
        """See `Desk`."""
        self._store.close()


def _find_or_make(store: Store, project: str, config: Mapping[str, Any]) -> str:
    try:
        found = store.projects.get(project)
    except Refusal as refusal:
        if refusal.kind != "absent":
            raise
        found = store.projects.make(project, {"kind": "pair", "title": project, **config})
        # Who runs the store sees the project without starting the page again.
        for person in store.people.all():
            if person.is_admin:
                store.people.join(project, person.id, "researcher")
    return found.config.kind


def check_kind(project: str, kind: str) -> None:
    """Hold a project to pairs.

    Raises:
        ConfigError: it asks for another kind of work.
    """
    if kind != "pair":
        raise ConfigError(
            f"project {project!r} asks for work of kind {kind!r}, and a trainer asks for pairs; "
            "name another project"
        )


@dataclass(frozen=True)
class Received:
    """What came back between two positions of the log.

    Args:
        after, seq: the positions.
        new: answers to pairs of one's own, in the order of the log; one that takes the place of an
            earlier answer has `replaces`.
        retracted: ids of answers that were taken back.
        num_other: answers to items that are not one's own, or no longer.
    """

    after: int
    seq: int
    new: tuple[Preference, ...] = ()
    retracted: tuple[str, ...] = ()
    num_other: int = 0

    def then(self, later: Received) -> Received:
        """Join what came with what came after it; an answer that was corrected counts once."""
        gone = {*later.retracted, *(p.replaces for p in later.new)}
        known = {p.id for p in self.new}
        return Received(
            self.after,
            later.seq,
            # Both in one span: the later one stands in the place of the first.
            tuple(p for p in self.new if p.id not in gone)
            + tuple(_first_version(p, self.new) for p in later.new),
            self.retracted + tuple(name for name in later.retracted if name not in known),
            self.num_other + later.num_other,
        )


def _first_version(preference: Preference, earlier: Sequence[Preference]) -> Preference:
    old = next((p for p in earlier if p.id == preference.replaces), None)
    if old is None:
        return preference
    return preference.model_copy(update={"replaces": old.replaces})


class HumanLabeller:
    """People who answer in their own time.

    Args:
        desk: the project.
        name: of the labeller as a whole; each preference names its own person.
        position: of the log, up to which `receive` has given everything.
        wait_seconds: longest time that `compare` waits; 0 never waits.
        clock: seconds; with `sleep`, for tests.
    """

    def __init__(
        self,
        desk: Desk,
        name: str = "people",
        *,
        position: int = 0,
        wait_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._desk, self._name, self.position = desk, name, position
        self._wait, self._clock, self._sleep = wait_seconds, clock, sleep
        self._unsent: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._pair_of: dict[str, str] = {}
        """Item -> pair."""
        self._items: dict[str, list[str]] = {}
        """Pair -> its item, once the store has it."""
        self._read = 0
        self._said: dict[str, dict[str, Judgment]] = {}
        """Item -> answers that stand, for `compare`."""

    @property
    def name(self) -> str:
        """The name of the people together."""
        return self._name

    @property
    def num_unsent(self) -> int:
        """Pairs that the store does not have yet."""
        return len(self._unsent)

    def submit(
        self,
        pairs: Sequence[Pair],
        *,
        step: int | None = None,
        chances: Mapping[str, float] | None = None,
        acquirer: str | None = None,
    ) -> None:
        """Ask people to compare pairs; those that were asked before are not asked again.

        Args:
            step: of the policy that they are from.
            chances: pair id -> probability with which it was selected.
            acquirer: how they were selected.

        Raises:
            AwayError: the store does not answer; the pairs go out with the next call.
            FeedbackError: the store refuses a pair.
        """
        for pair in pairs:
            if pair.id not in self._items and pair.id not in self._unsent:
                item = item_of(pair, step, (chances or {}).get(pair.id), acquirer)
                self._unsent[pair.id] = (pair.id, item)
        self._send()

    def forget(self, pairs: Sequence[str]) -> None:
        """Hold pairs for other people's from now on, such as those that are too old."""
        for pair in pairs:
            self._unsent.pop(pair, None)
            for item in self._items.pop(pair, ()):
                self._pair_of.pop(item, None)

    def receive(self) -> Received:
        """Return what was said since `position`, and move it; never waits.

        Raises:
            AwayError: the store does not answer; the position stays.
        """
        self._send()
        found, more = Received(self.position, self.position), True
        while more:
            batch = self._desk.changes(found.seq)
            found, more = (
                found.then(self._of(batch, found.seq)),
                batch.more and batch.seq > found.seq,
            )
        self.position = found.seq
        return found

    def compare(self, pairs: Sequence[Pair]) -> Labelled:
        """Return what stands of pairs; those that nobody has answered yet are pending."""
        whole = [pair for pair in pairs if "error" not in (pair.left.finish, pair.right.finish)]
        self.submit(whole)
        ends = self._clock() + self._wait
        while True:
            self._catch_up()
            said = {pair.id: self._standing(pair.id) for pair in whole}
            left = ends - self._clock()
            if all(said.values()) or left <= 0:
                break
            self._sleep(min(LOOK_EVERY, left))
        broken = {pair.id: [self._failed(pair)] for pair in pairs if pair.id not in said}
        found = said | broken
        return Labelled(
            tuple(p for pair in pairs for p in found[pair.id]),
            tuple(pair.id for pair in pairs if not found[pair.id]),
        )

    def say_waiting(self, num: int, step: int) -> None:
        """Say on the page how many labels are waited for; where it is away, nothing is said."""
        try:
            self._desk.say_waiting(num, step)
        except AwayError:
            return

    def expire(self, step: int) -> None:
        """Take old items out of the queue; where the store is away, the next call does."""
        try:
            self._desk.expire(step)
        except AwayError:
            return

    def close(self) -> None:
        """Let go of the store."""
        self._desk.close()

    def _send(self) -> None:
        while self._unsent:
            batch = list(self._unsent.values())[:MOST_IN_A_BATCH]
            for (pair, _), added in zip(
                batch, self._desk.add([item for _, item in batch]), strict=True
            ):
                if added.item is None:
                    raise FeedbackError(f"the label store refuses pair {pair!r}: {added.error}")
                self._pair_of[added.item] = pair
                self._items.setdefault(pair, []).append(added.item)
                del self._unsent[pair]

    def _of(self, batch: Changes, after: int) -> Received:
        """Read a batch of changes as what it says of one's own pairs."""
        found = Received(after, after)
        for change in batch.changes:
            at = change.seq
            if change.value is None:
                one = Received(after, at, retracted=(change.judgment,))
            elif change.value.item not in self._pair_of or change.value.practice:
                one = Received(after, at, num_other=1)
            else:
                said = preference_of(change.value, self._pair_of[change.value.item])
                one = Received(after, at, new=(said,))
            found = found.then(one)
        return Received(after, batch.seq, found.new, found.retracted, found.num_other)

    def _catch_up(self) -> None:
        more = True
        while more:
            batch = self._desk.changes(self._read)
            for change in batch.changes:
                if change.kind != "judgment":
                    for said in self._said.values():
                        said.pop(change.replaces or change.judgment, None)
                if change.value is not None and not change.value.practice:
                    self._said.setdefault(change.value.item, {})[change.judgment] = change.value
            more, self._read = batch.more and batch.seq > self._read, batch.seq

    def _standing(self, pair: str) -> list[Preference]:
        return [
            preference_of(said, pair)
            for item in self._items.get(pair, ())
            for said in self._said.get(item, {}).values()
        ]

    def _failed(self, pair: Pair) -> Preference:
        return Preference(
            id="f-" + content_hash([pair.id, self.name]),
            pair_id=pair.id,
            outcome="cannot_judge",
            reason="a completion failed, and was not shown",
            labeller=self.name,
            kind="rule",
        )


def item_of(
    pair: Pair, step: int | None = None, p_select: float | None = None, acquirer: str | None = None
) -> dict[str, Any]:
    """Make the item of a pair; the same pair of the same texts has the same key."""
    texts = [[m.role, m.text] for m in pair.prompt.messages], pair.left.text, pair.right.text
    # What only learning needs stays with the trainer.
    sides = [
        side.model_copy(update={"logprobs": None, "kept": None}) for side in (pair.left, pair.right)
    ]
    return {
        "key": "pair-" + content_hash([pair.id, pair.origin, *texts], 32),
        "payload": payload_of(pair.prompt, sides),
        "origin": pair.origin[:120],
        "policy_step": step,
        "p_select": p_select,
        "acquirer": acquirer,
    }
