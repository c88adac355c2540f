"""Random sequences of claim, heartbeat, expiry, submission, undo and the rest, against a model."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select
from tests.store.conftest import Clock, make_project, pair, prefer
from tests.store.model import COOL_MS, LEASE_MS, Item, Lease, Model
from tests.store.servers import new_database

from heed.data.store import Refusal, Store, open_store, schema

PEOPLE = ("ann", "ben", "cem")
DEPTH = 3
WHO = st.integers(0, len(PEOPLE) - 1)
OUTCOMES = st.sampled_from(["prefer", "tie", "both_bad", "cannot_judge", "invalid"])
PICK = st.integers(0, 1000)
# A folder in memory where there is one: what is tested here is logic, not the disk.
MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


def said(outcome: str) -> dict[str, Any]:
    return prefer() if outcome == "prefer" else {"outcome": outcome}


class QueueMachine(RuleBasedStateMachine):
    """Three people on four items, on a clock that may also be set back."""

    server: str | None = None
    template: Path | None = None

    @initialize()
    def start(self) -> None:
        self.clock, self.numbers = Clock(), 0
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY, prefix="heed-machine-"))
        place = str(self.folder / "labels.db")
        if self.server is not None:
            place = new_database(self.server)
        elif QueueMachine.template is not None:
            shutil.copy(QueueMachine.template, place)
        self.store: Store = open_store(place, clock=self.clock)
        self.people = make_project(self.store, 0, *PEOPLE, config={"undo_depth": DEPTH})
        items = [pair(k, need=1 + k % 2) for k in range(4)]
        added = self.store.items.add("p", items, actor="system")
        self.model = Model({str(one.item): Item(1 + k % 2) for k, one in enumerate(added)})
        self.position, self.known = 0, {}  # type: ignore[var-annotated]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)

    def number(self) -> str:
        self.numbers += 1
        return f"submission {self.numbers}"

    def some_lease(self, who: int, pick: int) -> Lease | None:
        own = [x for x in self.model.leases.values() if x.person == self.people[who]]
        return own[pick % len(own)] if own else None

    @rule(who=WHO, count=st.integers(1, 2))
    def claim(self, who: int, count: int) -> None:
        person = self.people[who]
        self.model.reap(self.clock())
        before = self.model.held(person)
        eligible = self.model.eligible(person, self.clock())
        claimed = self.store.queue.claim("p", person, count=count)
        new = [w for w in claimed.work if w.lease not in {x.id for x in before}]
        assert len(claimed.work) == min(count, len(before) + len(eligible))
        assert (claimed.nothing is None) == bool(claimed.work)
        assert {w.item for w in new} <= eligible
        for work in new:
            now = self.clock()
            self.model.leases[work.lease] = Lease(
                work.lease, work.item, person, now, now, now + LEASE_MS
            )
            self.model.items[work.item].live += 1

    @rule(who=WHO, pick=PICK)
    def heartbeat(self, who: int, pick: int) -> None:
        lease = self.some_lease(who, pick)
        if lease is None:
            return
        if lease.state != "live":
            with pytest.raises(Refusal, match="is "):
                self.store.queue.heartbeat(lease.id, lease.person)
            return
        ends, now = self.store.queue.heartbeat(lease.id, lease.person), self.clock()
        if now >= lease.beat:
            assert ends == max(lease.ends, min(now + LEASE_MS, lease.began + 4 * LEASE_MS))
        lease.beat, lease.ends = now, ends

    @rule(who=WHO, pick=PICK)
    def release(self, who: int, pick: int) -> None:
        lease = self.some_lease(who, pick)
        if lease is not None:
            self.store.queue.release(lease.id, lease.person)
            if lease.state == "live":
                self.model.end(lease, "released")

    @rule(minutes=st.sampled_from([-30, -0.5, 0.1, 6, 16, 24 * 60]))
    def time_passes(self, minutes: float) -> None:
        self.clock.pass_seconds(60 * minutes)

    @rule()
    def expire(self) -> None:
        self.model.reap(self.clock())
        self.store.queue.expire()

    @rule(who=WHO, pick=PICK, outcome=OUTCOMES)
    def submit(self, who: int, pick: int, outcome: str) -> None:
        """Under a lease that is live, over, given back or answered."""
        lease = self.some_lease(who, pick)
        if lease is None:
            return
        name, person = self.number(), lease.person
        if lease.state == "done":
            with pytest.raises(Refusal, match="answered already"):
                self.store.answers.submit(lease.id, person, said(outcome), submission_id=name)
            return
        late = lease.state != "live"
        receipt = self.store.answers.submit(lease.id, person, said(outcome), submission_id=name)
        new = self.model.answer(lease, outcome, receipt.judgment, receipt.seq)
        valid = outcome not in ("cannot_judge", "invalid")
        assert receipt.late == late
        assert receipt.surplus == (valid and not new["counted"])
        again = self.store.answers.submit(lease.id, person, said(outcome), submission_id=name)
        assert again.replayed
        assert (again.judgment, again.seq) == (receipt.judgment, receipt.seq)

    @rule(who=WHO)
    def undo(self, who: int) -> None:
        act = self.model.last_act(self.people[who], DEPTH)
        if act is None:
            with pytest.raises(Refusal, match="nothing is left to undo"):
                self.store.answers.undo("p", self.people[who])
            return
        undone = self.store.answers.undo("p", self.people[who])
        assert undone.id == act["id"]
        if "outcome" in act:
            act["state"] = "withdrawn"
            self.model.count(act, -1)
            assert undone.work.draft is not None
        else:
            act["state"] = "undone"
            self.model.items[act["item"]].skips -= 1
        opened = self.model.reopen(self.model.leases[act["lease"]], self.clock())
        assert undone.work.lease == opened.id

    @rule(pick=PICK, outcome=OUTCOMES)
    def amend(self, pick: int, outcome: str) -> None:
        if not self.model.answers:
            return
        old = self.model.answers[pick % len(self.model.answers)]
        lease, name = self.model.leases[old["lease"]], self.number()
        if old["state"] != "standing":
            with pytest.raises(Refusal, match="meanwhile"):
                self.store.answers.amend(
                    old["id"], old["person"], said(outcome), submission_id=name
                )
            return
        receipt = self.store.answers.amend(
            old["id"], old["person"], said(outcome), submission_id=name
        )
        self.model.put(lease, outcome, receipt.judgment, receipt.seq)

    @rule(pick=PICK)
    def withdraw(self, pick: int) -> None:
        standing = [a for a in self.model.answers if a["state"] == "standing"]
        if standing:
            answer = standing[pick % len(standing)]
            self.store.answers.withdraw(answer["id"], actor="admin")
            answer["state"] = "withdrawn"
            self.model.count(answer, -1)

    @rule(who=WHO, pick=PICK, mode=st.sampled_from(["me", "others"]))
    def skip(self, who: int, pick: int, mode: str) -> None:
        lease = self.some_lease(who, pick)
        if lease is None:
            return
        own = [s for s in self.model.skips if s["lease"] == lease.id and s["state"] == "standing"]
        if own:
            assert self.store.answers.skip(lease.id, lease.person, mode=mode) == own[0]["seq"]
        elif lease.state == "done":
            with pytest.raises(Refusal, match="answered already"):
                self.store.answers.skip(lease.id, lease.person, mode=mode)
        else:
            seq = self.store.answers.skip(lease.id, lease.person, mode=mode)
            self.model.end(lease, "released")
            self.model.items[lease.item].skips += 1
            with self.store.database.read() as connection:
                query = select(schema.skip.c.id).where(schema.skip.c.seq == seq)
                name = connection.execute(query).scalar_one()
            act = {
                "id": name, "item": lease.item, "person": lease.person, "lease": lease.id,
                "state": "standing", "seq": seq,
                "until": self.clock() + COOL_MS if mode == "me" else None,
            }  # fmt: skip
            self.model.skips.append(act)
            self.model.acts.append(act)

    @rule(limit=st.integers(1, 5))
    def trainer_reads(self, limit: int) -> None:
        """What a trainer has gathered is the state at its position, and never an unsettled one."""
        batch = self.store.log.changes("p", self.position, limit=limit)
        for change in batch.changes:
            if change.kind == "retract":
                del self.known[change.judgment]
            else:
                if change.kind == "amend" and change.replaces in self.known:
                    del self.known[change.replaces]
                self.known[change.judgment] = change.value
        assert batch.seq >= self.position
        self.position = batch.seq
        folded = self.store.log.state("p", self.position)
        assert set(self.known) == {judgment.id for judgment in folded.standing()}

    @invariant()
    def tables_are_as_the_model_says(self) -> None:
        if not hasattr(self, "store"):
            return
        with self.store.database.read() as connection:
            rows = connection.execute(select(schema.item)).all()
            leases = connection.execute(select(schema.lease)).all()
        for row in rows:
            item = self.model.items[row.id]
            found = (row.n_valid, row.n_live, row.n_cannot, row.n_invalid, row.n_skips, row.state)
            assert found == (
                item.valid, item.live, item.cannot, item.invalid, item.skips, item.state
            )  # fmt: skip
            assert row.n_valid + row.n_live <= row.need
        assert {row.id: row.state for row in leases} == {
            name: lease.state for name, lease in self.model.leases.items()
        }
        assert self.store.check() == []


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        QueueMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        ),
    )


@pytest.fixture
def template(tmp_path: Path) -> Any:
    place = tmp_path / "empty.db"
    open_store(place).close()
    QueueMachine.template = place
    yield
    QueueMachine.template = None


@pytest.mark.usefixtures("template")
def test_any_sequence_leaves_what_the_model_says() -> None:
    run(25, 30)


@pytest.mark.slow
@pytest.mark.usefixtures("template")
def test_any_long_sequence_leaves_what_the_model_says() -> None:
    run(300, 60)


@pytest.mark.postgres
def test_any_sequence_leaves_it_on_postgresql_too(
    postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QueueMachine, "server", postgresql)
    run(4, 25)
