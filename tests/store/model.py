"""What the queue must do, in plain Python: the state machine test compares with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LEASE_MS = 900_000
SLACK_MS = 60_000
COOL_MS = 24 * 3_600_000


@dataclass
class Item:
    need: int
    valid: int = 0
    live: int = 0
    cannot: int = 0
    invalid: int = 0
    skips: int = 0

    @property
    def state(self) -> str:
        if self.invalid >= 2:
            return "quarantined"
        if self.valid >= self.need:
            return "satisfied"
        return "hard" if self.cannot > 2 or self.skips >= 5 else "ready"

    @property
    def room(self) -> bool:
        return self.valid + self.live < self.need


@dataclass
class Lease:
    id: str
    item: str
    person: str
    began: int
    beat: int
    ends: int
    state: str = "live"
    holds: bool = True


@dataclass
class Model:
    items: dict[str, Item]
    leases: dict[str, Lease] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)
    skips: list[dict[str, Any]] = field(default_factory=list)
    acts: list[dict[str, Any]] = field(default_factory=list)

    def reap(self, now: int) -> None:
        for lease in self.leases.values():
            if lease.state == "live" and (lease.ends <= now or lease.beat > now + SLACK_MS):
                self.end(lease, "expired")

    def end(self, lease: Lease, state: str) -> None:
        if lease.state == "live" and lease.holds:
            self.items[lease.item].live -= 1
        lease.state = state

    def held(self, person: str) -> list[Lease]:
        return [x for x in self.leases.values() if x.person == person and x.state == "live"]

    def standing(self, item: str, person: str) -> dict[str, Any] | None:
        found = [a for a in self.answers if (a["item"], a["person"]) == (item, person)]
        return next((a for a in found if a["state"] == "standing"), None)

    def eligible(self, person: str, now: int) -> set[str]:
        held = {lease.item for lease in self.held(person)}
        cool = {
            s["item"] for s in self.skips
            if s["person"] == person and s["state"] == "standing"
            and (s["until"] is None or s["until"] > now)
        }  # fmt: skip
        return {
            name for name, item in self.items.items()
            if item.state == "ready" and item.room and name not in held | cool
            and self.standing(name, person) is None
        }  # fmt: skip

    def count(self, answer: dict[str, Any], step: int) -> None:
        item = self.items[answer["item"]]
        if answer["outcome"] in ("cannot_judge", "invalid"):
            name = {"cannot_judge": "cannot", "invalid": "invalid"}[answer["outcome"]]
            setattr(item, name, getattr(item, name) + step)
        elif step > 0:
            answer["counted"] = item.room
            item.valid += int(item.room)
        elif answer["counted"]:
            item.valid -= 1

    def answer(self, lease: Lease, outcome: str, name: str, seq: int) -> dict[str, Any]:
        for other in self.held(lease.person):
            if other.item == lease.item and other is not lease:
                self.end(other, "released")
        self.end(lease, "done")
        return self.put(lease, outcome, name, seq)

    def put(self, lease: Lease, outcome: str, name: str, seq: int) -> dict[str, Any]:
        old = self.standing(lease.item, lease.person)
        if old is not None:
            old["state"] = "replaced"
            self.count(old, -1)
        new = {
            "id": name, "item": lease.item, "person": lease.person, "lease": lease.id,
            "outcome": outcome, "state": "standing", "counted": False, "seq": seq,
        }  # fmt: skip
        self.count(new, 1)
        self.answers.append(new)
        self.acts.append(new)
        return new

    def last_act(self, person: str, depth: int) -> dict[str, Any] | None:
        seen: list[str] = []
        for act in sorted(self.acts, key=lambda a: -a["seq"]):
            if act["person"] != person or act["lease"] in seen:
                continue
            seen.append(act["lease"])
            if len(seen) > depth:
                return None
            if act["state"] == "standing":
                return act
        return None

    def reopen(self, lease: Lease, now: int) -> Lease:
        for other in self.held(lease.person):
            if other.item == lease.item:
                return other
        lease.state, lease.holds = "live", self.items[lease.item].room
        lease.began = lease.beat = now
        lease.ends = now + LEASE_MS
        self.items[lease.item].live += int(lease.holds)
        return lease
