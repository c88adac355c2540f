"""Which item a person gets next: the eligible ones in order, and now and then a special one.

eligible   ready, a place free, not answered or held by the person, not put aside by them,
           not written by them, with the skill that they have
order      priority (high first), least labelled first, then a keyed draw of each item
special    gold, swapped repeats and anchors, by a keyed draw of (person, number of the claim),
           so that nothing about them is periodic and nobody without the secret foresees them
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, insert, or_, select

from heed.data.store import schema
from heed.data.store.items import logged
from heed.data.store.keyed import draw, first_of, new_id, shuffled
from heed.data.store.log import Entry
from heed.data.store.views import Project

_GOLD_LIMIT = 1000


def drawn_role(project: Project, person: str, ordinal: int) -> str:
    """Draw what the claim with this number (from 0) of a person is for."""
    config = project.config
    if ordinal < config.first_gold_within:
        place = draw(project.secret, "first gold", person)
        if ordinal == int(place * config.first_gold_within):
            return "gold"
    at = draw(project.secret, "special", person, ordinal)
    for role, frac in (
        ("gold", config.gold_frac),
        ("repeat", config.repeat_frac),
        ("anchor", config.anchor_frac),
    ):
        if at < frac:
            return role
        at -= frac
    return "normal"


def eligible(project: str, person: str, skills: list[str], now: int) -> ColumnElement[bool]:
    """Say which items a person may get, their room and role aside."""
    item, judged, skipped, held = (
        schema.item.c,
        schema.judgment.c,
        schema.skip.c,
        schema.lease.c,
    )
    return and_(
        item.project == project,
        item.state == "ready",
        or_(item.expires_at.is_(None), item.expires_at > now),
        or_(item.author.is_(None), item.author != person),
        or_(item.skill.is_(None), item.skill.in_(skills)),
        ~exists().where(
            judged.item == item.id,
            judged.person == person,
            judged.state == "standing",
            judged.role == "label",
        ),
        ~exists().where(
            skipped.item == item.id,
            skipped.person == person,
            skipped.state == "standing",
            or_(skipped.until.is_(None), skipped.until > now),
        ),
        ~exists().where(held.item == item.id, held.person == person, held.state == "live"),
    )


def choose(
    connection: Connection, project: Project, member: Any, now: int, entries: list[Entry]
) -> Any:
    """Choose the next item of a person and lock it; None where nothing is eligible.

    Args:
        member: the person's locked row in the project; `n_claims` numbers the draw.
        entries: gets what must be logged (a repeat is made when it is drawn).
    """
    person, role = member.person, drawn_role(project, member.person, member.n_claims)
    if role in ("gold", "anchor"):
        row = _for_everyone(connection, project, member, role, now)
        if row is not None:
            return row
    if role == "repeat" and project.kind.swaps:
        row = _repeat(connection, project, member, now, entries)
        if row is not None:
            return row
    mine = _own_repeat(project, person, now)
    return _locked(connection, mine) or _locked(connection, ordinary(project, member, now))


def ordinary(project: Project, member: Any, now: int) -> Select[Any]:
    """Select ordinary items with a place free, in the order of the queue."""
    item = schema.item.c
    return (
        select(schema.item)
        .where(
            eligible(project.id, member.person, member.skills, now),
            item.role == "normal",
            item.n_valid + item.n_live < item.need,
        )
        .order_by(item.priority.desc(), item.n_valid, item.tiebreak)
    )


def practice(connection: Connection, project: Project, member: Any, now: int) -> Any:
    """Choose a practice item that the person has not answered."""
    return _for_everyone(connection, project, member, "practice", now)


def _locked(connection: Connection, query: Select[Any]) -> Any:
    # Others who claim at this moment pass over the row, and none of them waits for another.
    return connection.execute(query.limit(1).with_for_update(skip_locked=True)).first()


def _for_everyone(
    connection: Connection, project: Project, member: Any, role: str, now: int
) -> Any:
    item = schema.item.c
    query = (
        select(item.id)
        .where(eligible(project.id, member.person, member.skills, now), item.role == role)
        .order_by(item.id)
        .limit(_GOLD_LIMIT)
    )
    ids = [row.id for row in connection.execute(query)]
    chosen = first_of(project.secret, ids, role, member.person)
    if chosen is None:
        return None
    return connection.execute(
        select(schema.item).where(item.id == chosen).with_for_update()
    ).first()


def _own_repeat(project: Project, person: str, now: int) -> Select[Any]:
    # One that was drawn before and then let go.
    item = schema.item.c
    return select(schema.item).where(
        eligible(project.id, person, [], now),
        item.role == "repeat",
        item.for_person == person,
        item.n_valid + item.n_live < item.need,
    )


def _repeat(
    connection: Connection, project: Project, member: Any, now: int, entries: list[Entry]
) -> Any:
    """Make the repeat of one of the person's own older answers."""
    judged, item = schema.judgment.c, schema.item
    again = schema.item.alias("again")
    own = (
        select(judged.item, judged.seq, item.c.role)
        .join(item, item.c.id == judged.item)
        .where(
            judged.project == project.id,
            judged.person == member.person,
            judged.state == "standing",
            judged.role == "label",
            judged.practice.is_(False),
            judged.outcome.in_(("prefer", "tie")),
        )
        .order_by(judged.seq.desc())
        .offset(project.config.repeat_gap)
        .subquery()
    )
    repeated = select(again.c.repeats).where(
        again.c.project == project.id, again.c.for_person == member.person
    )
    query = select(own.c.item).where(own.c.role == "normal", own.c.item.not_in(repeated))
    ids = [row.item for row in connection.execute(query.order_by(own.c.seq).limit(_GOLD_LIMIT))]
    chosen = first_of(project.secret, ids, "repeat", member.person)
    if chosen is None:
        return None
    old = connection.execute(select(item).where(item.c.id == chosen)).one()
    row = {
        **old._mapping,
        "id": new_id("i"), "key": f"repeat {chosen} {member.person}", "role": "repeat",
        "for_person": member.person, "repeats": chosen, "need": 1, "pool": "", "state": "ready",
        "closed": None, "n_valid": 0, "n_live": 0, "n_cannot": 0, "n_invalid": 0, "n_skips": 0,
        "created_at": now, "expires_at": None,
    }  # fmt: skip
    connection.execute(insert(item).values(row))
    places = schema.item_candidate
    found = connection.execute(
        select(places).where(places.c.item == chosen).order_by(places.c.place)
    ).all()
    candidates = [place.candidate for place in found]
    connection.execute(
        insert(places),
        [{"item": row["id"], "place": p, "candidate": c} for p, c in enumerate(candidates)],
    )
    entries.append(Entry("item.added", "system", row["id"], logged(row, candidates), project.id))
    return connection.execute(select(item).where(item.c.id == row["id"]).with_for_update()).one()


def shown_order(
    connection: Connection, project: Project, item: Any, person: str, count: int
) -> list[int]:
    """Decide the order in which a person sees the candidates: keyed, balanced, and kept.

    A person who gets an item again sees the same order; a repeat shows the reverse of the first
    time. Of two people on one item the second sees the other order.
    """
    lease = schema.lease.c
    source = item.repeats if item.role == "repeat" else item.id
    before = connection.execute(
        select(lease.shown)
        .where(lease.item == source, lease.person == person)
        .order_by(lease.claimed_at.desc())
        .limit(1)
    ).first()
    if before is not None:
        return list(before.shown) if source == item.id else list(reversed(before.shown))
    if count != 2:
        return shuffled(project.secret, count, "order", item.id, person)
    others = connection.execute(
        select(func.count(lease.person.distinct())).where(lease.item == item.id)
    ).scalar_one()
    paired = others // 2
    first = int(2 * draw(project.secret, "order", item.id, paired))
    return [0, 1] if (first + others) % 2 == 0 else [1, 0]
