"""Claims, leases, drafts, and what decides who gets which item when."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tests.store.conftest import PLAIN, Clock, make_project, pair, prefer

from heed.data.store import Refusal, Store


def answer_one(store: Store, person: str, number: int, **how: Any) -> str | None:
    """Claim and answer; returns the item, None where there was none."""
    claimed = store.queue.claim("p", person)
    if not claimed.work:
        return None
    store.answers.submit(
        claimed.work[0].lease, person, prefer(), submission_id=f"{person} {number}", **how
    )
    return claimed.work[0].item


def test_a_second_tab_gets_the_same_item(store: Store) -> None:
    (ann,) = make_project(store, 5, "ann")
    first = store.queue.claim("p", ann).work
    assert store.queue.claim("p", ann).work == first
    both = store.queue.claim("p", ann, count=2).work
    assert both[0] == first[0]
    assert len(both) == 2
    assert store.queue.claim("p", ann, count=5).work == both


def test_two_people_never_share_the_last_place(store: Store) -> None:
    ann, ben = make_project(store, 1, "ann", "ben")
    assert store.queue.claim("p", ann).work
    nothing = store.queue.claim("p", ben).nothing
    assert nothing is not None
    assert (nothing.reason, nothing.by_others) == ("leased_by_others", 1)
    assert nothing.free_at == store.database.clock() + 900_000


def test_an_empty_queue_says_why(store: Store, clock: Clock) -> None:
    ann, ben = make_project(store, 1, "ann", "ben")

    def reason(person: str) -> str:
        nothing = store.queue.claim("p", person).nothing
        return nothing.reason if nothing else "work"

    store.items.add("p", [pair(7, skill="law")], actor="x")
    assert answer_one(store, ann, 1)
    assert reason(ann) == "needs_skill"
    store.people.join("p", ben, skills=["law"])
    assert answer_one(store, ben, 1)
    assert reason(ben) == "all_done"
    store.projects.set_state("p", "paused", actor="x")
    assert reason(ben) == "paused"
    store.projects.set_state("p", "closed", actor="x")
    assert reason(ben) == "closed"
    store.projects.make("q", {"kind": "pair"})
    store.people.join("q", ann)
    assert store.queue.claim("q", ann).nothing.reason == "no_items"  # type: ignore[union-attr]
    store.people.join("p", ann, daily_cap=1)
    store.projects.set_state("p", "open", actor="x")
    assert reason(ann) == "daily_cap"
    clock.pass_seconds(86_400)
    assert reason(ann) == "all_done"


def test_the_guideline_comes_first(store: Store) -> None:
    (ann,) = make_project(store, 1, "ann", config={"needs_guideline": True})
    assert store.queue.claim("p", ann).work
    store.queue.release_all(ann)
    assert store.projects.write_guideline("p", "Be fair.", actor="x") == 1
    assert store.queue.claim("p", ann).nothing.reason == "guideline"  # type: ignore[union-attr]
    store.people.acknowledge("p", ann, 1)
    assert store.queue.claim("p", ann).work
    assert store.projects.guideline("p") == (1, "Be fair.")


def test_strangers_get_nothing(store: Store) -> None:
    ann, ben = make_project(store, 2, "ann", "ben")
    lease = store.queue.claim("p", ann).work[0].lease
    stranger = store.people.add("stranger").id
    with pytest.raises(Refusal, match="no member") as refusal:
        store.queue.claim("p", stranger)
    assert refusal.value.kind == "denied"
    for act in (
        lambda: store.queue.heartbeat(lease, ben),
        lambda: store.queue.release(lease, ben),
        lambda: store.queue.save_draft(lease, ben, {}),
        lambda: store.answers.submit(lease, ben, prefer(), submission_id="x"),
        lambda: store.answers.skip(lease, ben),
    ):
        with pytest.raises(Refusal, match="somebody else's"):
            act()


def test_heartbeats_extend_a_lease_four_times_at_most(sqlite_store: Store, clock: Clock) -> None:
    (ann,) = make_project(sqlite_store, 1, "ann")
    began = clock()
    lease = sqlite_store.queue.claim("p", ann).work[0].lease
    for minute in range(60):
        clock.pass_seconds(60)
        ends = sqlite_store.queue.heartbeat(lease, ann)
        assert ends == min(clock() + 900_000, began + 3_600_000), minute
    clock.pass_seconds(1)
    sqlite_store.queue.expire()
    with pytest.raises(Refusal, match="expired") as refusal:
        sqlite_store.queue.heartbeat(lease, ann)
    assert refusal.value.kind == "gone"


def test_a_lease_lasts_three_times_the_median_time(sqlite_store: Store, clock: Clock) -> None:
    (ann,) = make_project(sqlite_store, 40, "ann")
    for number in range(30):
        work = sqlite_store.queue.claim("p", ann).work[0]
        clock.pass_seconds(200)
        sqlite_store.answers.submit(work.lease, ann, prefer(), submission_id=str(number))
    sqlite_store.queue.expire()
    assert sqlite_store.projects.get("p").lease_ms == 600_000


def test_a_clock_that_is_set_back_holds_nobody_up(store: Store, clock: Clock) -> None:
    ann, ben = make_project(store, 1, "ann", "ben")
    clock.pass_seconds(365 * 86_400)
    store.queue.claim("p", ann)
    clock.pass_seconds(-365 * 86_400)
    assert store.queue.claim("p", ben).work


def test_a_clock_that_leaps_forward_loses_no_answer(store: Store, clock: Clock) -> None:
    ann, ben = make_project(store, 1, "ann", "ben")
    lease = store.queue.claim("p", ann).work[0].lease
    clock.pass_seconds(10 * 365 * 86_400)
    assert answer_one(store, ben, 1)
    receipt = store.answers.submit(lease, ann, prefer(), submission_id="late")
    assert receipt.late
    assert receipt.surplus
    assert store.check() == []


def test_drafts_are_versioned_and_survive(store: Store) -> None:
    (ann,) = make_project(store, 1, "ann")
    lease = store.queue.claim("p", ann).work[0].lease
    assert store.queue.save_draft(lease, ann, {"note": "hm"}, version=0) == 1
    with pytest.raises(Refusal, match="at version 1, not 0"):
        store.queue.save_draft(lease, ann, {"note": "older tab"}, version=0)
    assert store.queue.save_draft(lease, ann, {"note": "hmm"}, version=1) == 2
    work = store.queue.held("p", ann)[0]
    assert (work.draft, work.draft_version) == ({"note": "hmm"}, 2)
    store.answers.submit(lease, ann, prefer(), submission_id="1")
    with pytest.raises(Refusal, match="given already"):
        store.queue.save_draft(lease, ann, {})


def test_overlap_and_the_calibration_pool(sqlite_store: Store) -> None:
    sqlite_store.projects.make("p", {**PLAIN, "calibration_frac": 0.3})
    sqlite_store.items.add("p", [pair(k) for k in range(300)], actor="x")
    counts = sqlite_store.items.counts("p")
    pool = (counts["wanted"] - counts["items"]) // 2
    # A binomial of 300 and 0.3 lies in 58..122 but once in 10,000 times.
    assert 58 <= pool <= 122


def test_priority_first_then_the_least_labelled(store: Store) -> None:
    people = make_project(store, 4, "ann", "ben", config={"need": 2})
    store.items.add("p", [pair(99, priority=5)], actor="x")
    first = [answer_one(store, person, 0) for person in people]
    assert first[0] == first[1]
    second = [answer_one(store, person, 1) for person in people]
    assert second[0] != second[1]


def test_an_author_never_judges_their_own(store: Store) -> None:
    ann, ben = make_project(store, 0, "ann", "ben")
    store.items.add("p", [pair(1, author=ann)], actor="x")
    assert not store.queue.claim("p", ann).work
    assert store.queue.claim("p", ben).work


def special(store: Store, *, people: int, claims: int, **config: float) -> list[list[str]]:
    """The roles of what each of some people got, in order."""
    from sqlalchemy import select

    from heed.data.store import schema

    make_project(store, 0, config=config)
    store.items.add("p", [pair(k, need=100) for k in range(claims)], actor="x")
    gold = {"role": "gold", "gold": {"answer": prefer()}}
    store.items.add("p", [pair(1000 + k, **gold) for k in range(claims)], actor="x")
    with store.database.read() as connection:
        roles = {r.id: r.role for r in connection.execute(select(schema.item))}
    out = []
    for number in range(people):
        person = store.people.add(f"person {number}").id
        store.people.join("p", person)
        got = [answer_one(store, person, k) for k in range(claims)]
        out.append([roles.get(str(item), "repeat") for item in got])
    return out


def test_gold_is_drawn_by_key_and_never_periodic(sqlite_store: Store) -> None:
    from heed.data.store.choosing import drawn_role

    make_project(sqlite_store, 0, config={"gold_frac": 0.05, "first_gold_within": 10})
    project = sqlite_store.projects.get("p")
    people = [f"person {k}" for k in range(60)]
    drawn = [[drawn_role(project, who, k) == "gold" for k in range(400)] for who in people]
    assert all(any(row[:10]) for row in drawn)
    later = [hit for row in drawn for hit in row[10:]]
    # 23,400 draws at 0.05: four standard errors.
    assert abs(sum(later) / len(later) - 0.05) < 4 * (0.05 * 0.95 / len(later)) ** 0.5
    gaps = Counter(
        later_at - at
        for row in drawn
        for at, later_at in zip(
            [k for k, hit in enumerate(row) if hit][:-1],
            [k for k, hit in enumerate(row) if hit][1:],
            strict=True,
        )
    )
    # Geometric gaps: the commonest is rare, and a period would make it the rule.
    assert max(gaps.values()) < 0.12 * sum(gaps.values())
    assert len({tuple(row) for row in drawn}) == len(people)


def test_gold_comes_within_the_first_ten_claims(sqlite_store: Store) -> None:
    rows = special(sqlite_store, people=3, claims=10, first_gold_within=10, gold_frac=0.0)
    assert all(row.count("gold") == 1 for row in rows)
    assert len({row.index("gold") for row in rows}) > 1
    assert sqlite_store.check() == []


def test_repeats_come_later_with_sides_swapped(sqlite_store: Store) -> None:
    (ann,) = make_project(sqlite_store, 12, "ann", config={"repeat_frac": 0.6, "repeat_gap": 3})
    shown: dict[str, list[tuple[int, str]]] = {}
    for number in range(18):
        claimed = sqlite_store.queue.claim("p", ann)
        if not claimed.work:
            break
        work = claimed.work[0]
        texts = [candidate.text or "" for candidate in work.payload.candidates]
        question = work.payload.prompt.text if work.payload.prompt else ""
        shown.setdefault(question, []).append((number, texts[0]))
        sqlite_store.answers.submit(work.lease, ann, prefer(), submission_id=str(number))
    repeated = [seen for seen in shown.values() if len(seen) > 1]
    assert len(repeated) >= 3
    for seen in repeated:
        assert len(seen) == 2
        assert seen[1][0] - seen[0][0] > 3
        assert seen[0][1] != seen[1][1]
    assert sqlite_store.check() == []


def test_orders_are_balanced_between_people_and_within(sqlite_store: Store) -> None:
    people = make_project(sqlite_store, 20, "ann", "ben", config={"need": 2})
    first: dict[str, list[str]] = {}
    for person in people:
        for number in range(20):
            work = sqlite_store.queue.claim("p", person).work[0]
            first.setdefault(work.item, []).append(str(work.payload.candidates[0].text)[:3])
            sqlite_store.answers.submit(
                work.lease, person, prefer(), submission_id=f"{person}{number}"
            )
    assert all(len(set(seen)) == 2 for seen in first.values())
    assert 2 <= sum(seen[0] == "goo" for seen in first.values()) <= 18


def test_the_side_is_stored_in_the_order_of_the_item(store: Store) -> None:
    (ann,) = make_project(store, 12, "ann")
    sides = Counter()  # type: ignore[var-annotated]
    for number in range(12):
        work = store.queue.claim("p", ann).work[0]
        texts = [str(candidate.text) for candidate in work.payload.candidates]
        good = next(place for place, text in enumerate(texts) if text.startswith("good"))
        sides[good] += 1
        flags = [{"place": good, "code": "formatting"}]
        receipt = store.answers.submit(
            work.lease, ann, prefer(good, flags=flags), submission_id=str(number)
        )
        stored = store.answers.get(receipt.judgment)
        assert stored.side == 0
        assert stored.answer["flags"] == [{"place": 0, "code": "formatting"}]
        assert stored.shown.index(0) == good
    assert set(sides) == {0, 1}


def test_work_shows_nothing_of_models_gold_or_others(store: Store) -> None:
    (ann,) = make_project(store, 0, "ann", config={"first_gold_within": 1})
    gold = {"answer": prefer(), "explanation": "CANARY-gold"}
    row = pair(1, role="gold", gold=gold, origin="CANARY-run", policy_step=987654321)
    store.items.add("p", [row], actor="x")
    work = store.queue.claim("p", ann).work[0]
    text = repr(work) + work.payload.model_dump_json()
    assert "CANARY" not in text
    assert "987654321" not in text
    assert "gold" not in text


def test_practice_is_apart(store: Store) -> None:
    (ann,) = make_project(store, 1, "ann")
    store.items.add("p", [pair(5, role="practice")], actor="x")
    work = store.queue.claim("p", ann, practising=True).work[0]
    receipt = store.answers.submit(work.lease, ann, prefer(), submission_id="1")
    assert store.answers.get(receipt.judgment).practice
    ordinary = store.queue.claim("p", ann).work[0]
    assert ordinary.item != work.item


def test_skips(store: Store, clock: Clock) -> None:
    ann, ben = make_project(store, 1, "ann", "ben", config={"skip_modes": ["me", "ignore"]})
    work = store.queue.claim("p", ann).work[0]
    store.queue.save_draft(work.lease, ann, {"note": "an hour of writing"})
    store.answers.skip(work.lease, ann, mode="me", reason="tired")
    assert store.queue.claim("p", ann).nothing.reason == "set_aside"  # type: ignore[union-attr]
    undone = store.answers.undo("p", ann)
    assert undone.work.draft == {"note": "an hour of writing"}
    store.answers.skip(work.lease, ann)
    assert store.queue.claim("p", ben).work
    store.queue.release_all(ben)
    clock.pass_seconds(24 * 3600 + 1)
    again = store.queue.claim("p", ann).work[0]
    store.answers.skip(again.lease, ann, mode="ignore")
    assert store.items.counts("p")["archived"] == 1
    store.answers.undo("p", ann)
    assert store.items.counts("p")["ready"] == 1
    with pytest.raises(Refusal, match="skip mode 'others'"):
        store.answers.skip(again.lease, ann, mode="others")
    assert store.check() == []


def test_researchers_see_counters_and_known_answers(store: Store) -> None:
    (ann,) = make_project(store, 2, "ann")
    known = {"answer": prefer(1), "explanation": "because"}
    store.items.add("p", [pair(9, role="gold", gold=known)], actor="x")
    answered = answer_one(store, ann, 1)
    infos = {info.id: info for info in store.items.listing("p")}
    assert len(infos) == 3
    assert infos[str(answered)].n_valid == 1
    assert [info.id for info in store.items.listing("p", "satisfied")] == [answered]
    (item,) = store.items.golds("p")
    assert infos[item].role == "gold"
    assert store.items.golds("p")[item].answer == prefer(1)


def test_stale_items_expire_and_leased_ones_never(store: Store) -> None:
    (ann,) = make_project(store, 0, "ann", config={"max_policy_lag": 10})
    store.items.add("p", [pair(k, policy_step=k) for k in range(4)], actor="x")
    held = store.queue.claim("p", ann).work[0].item
    assert store.items.expire_stale("p", 50, actor="trainer") == 3
    counts = store.items.counts("p")
    assert (counts["expired"], counts["ready"]) == (3, 1)
    assert store.queue.held("p", ann)[0].item == held


def test_batches_are_idempotent_and_refuse_row_by_row(store: Store) -> None:
    make_project(store, 0)
    rows: list[Any] = [pair(1), {"payload": {"candidates": []}}, pair(2), pair(1)]
    rows.append({**pair(2), "payload": pair(3)["payload"]})
    rows.append(pair(4, role="gold", gold={"answer": prefer(level=9)}))
    rows.append({"payload": pair(9)["payload"]})
    added = store.items.add("p", rows, actor="x")
    assert [one.status for one in added] == [
        "new", "refused", "new", "known", "refused", "refused", "new",
    ]  # fmt: skip
    assert "prompt is missing" in str(added[1].error)
    assert "other content" in str(added[4].error)
    assert "level is 9" in str(added[5].error)
    again = store.items.add("p", [pair(1), {"payload": pair(9)["payload"]}], actor="x")
    assert [one.item for one in again] == [added[0].item, added[6].item]
    assert store.items.counts("p")["items"] == 3
    with pytest.raises(Refusal, match="1001 items"):
        store.items.add("p", [pair(k) for k in range(1001)], actor="x")
