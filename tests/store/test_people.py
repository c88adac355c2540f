"""People, roles and ways in: secrets kept as hashes, default deny, identities that can go."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from tests.store.conftest import Clock, make_project, prefer

from heed.data.store import Refusal, Store
from heed.data.store.access import IDLE_MS
from heed.data.store.roles import ADMIN, PERMISSIONS, TOKEN_SCOPES, Caller

WORD = "correct horse battery"


def test_log_in_and_out(store: Store, clock: Clock) -> None:
    make_project(store, 1)
    ann = store.people.add("ann", email="Ann@Example.org", password=WORD)
    store.people.join("p", ann.id, "reviewer")
    session = store.people.access.log_in(" ann@example.ORG ", WORD, source="1.2.3.4")
    caller, csrf = store.people.access.of_session(session.secret)
    assert (caller.id, csrf) == (ann.id, session.csrf)
    assert caller.may("adjudicate", store.projects.get("p").id)
    assert not caller.may("export", store.projects.get("p").id)
    store.people.access.log_out(session.secret)
    with pytest.raises(Refusal, match="not logged in"):
        store.people.access.of_session(session.secret)
    session = store.people.access.log_in("ann@example.org", WORD)
    clock.pass_seconds(IDLE_MS / 1000 - 1)
    store.people.access.of_session(session.secret)
    clock.pass_seconds(IDLE_MS / 1000 + 1)
    with pytest.raises(Refusal, match="log in again"):
        store.people.access.of_session(session.secret)


def test_wrong_passwords_and_unknown_accounts_read_the_same(sqlite_store: Store) -> None:
    store = sqlite_store
    store.people.add("ann", email="ann@example.org", password=WORD)
    messages = []
    for email, word in (("ann@example.org", "wrong password"), ("eve@example.org", WORD)):
        with pytest.raises(Refusal) as refusal:
            store.people.access.log_in(email, word)
        messages.append((refusal.value.kind, str(refusal.value)))
    assert messages[0] == messages[1]


def test_guessing_is_slowed_per_account_and_per_address(
    sqlite_store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, tries = sqlite_store, []
    store.people.add("ann", email="ann@example.org", password=WORD)
    monkeypatch.setattr(
        "heed.data.store.access.fits", lambda word, hashed: bool(tries.append(1)) or word == WORD
    )

    def guess(email: str, source: str, word: str = "guess guess") -> str:
        with pytest.raises(Refusal) as refusal:
            store.people.access.log_in(email, word, source=source)
        return str(refusal.value)

    for _ in range(5):
        assert "do not fit" in guess("ann@example.org", "1.1.1.1")
    assert "too many tries; wait 2 seconds" in guess("ann@example.org", "2.2.2.2", WORD)
    assert "too many tries" in guess("eve@example.org", "1.1.1.1")
    assert len(tries) == 5
    clock.pass_seconds(2.1)
    assert "do not fit" in guess("ann@example.org", "2.2.2.2")
    assert "wait 4 seconds" in guess("ann@example.org", "2.2.2.2")
    clock.pass_seconds(5)
    assert store.people.access.log_in("ann@example.org", WORD, source="2.2.2.2")
    assert store.people.access.log_in("ann@example.org", WORD, source="3.3.3.3")
    for _ in range(12):
        assert store.people.access.log_in("ann@example.org", WORD, source="one office")


def test_changing_a_password_and_blocking_end_sessions(sqlite_store: Store) -> None:
    store = sqlite_store
    ann = store.people.add("ann", email="ann@example.org", password=WORD)
    for end in (
        lambda: store.people.set_password(ann.id, "another long word", actor=ann.id),
        lambda: store.people.set_state(ann.id, "blocked", actor="x"),
    ):
        session = store.people.access.open_session(ann.id)
        store.people.access.of_session(session.secret)
        end()
        with pytest.raises(Refusal, match="not logged in"):
            store.people.access.of_session(session.secret)
    with pytest.raises(Refusal, match="do not fit"):
        store.people.access.log_in("ann@example.org", "another long word")
    with pytest.raises(Refusal, match="10 to 256"):
        store.people.set_password(ann.id, "short", actor=ann.id)


def test_tokens(store: Store, clock: Clock) -> None:
    make_project(store, 1)
    store.projects.make("other", {"kind": "pair"})
    ours, theirs = store.projects.get("p").id, store.projects.get("other").id
    access = store.people.access
    name, secret = access.make_token(
        "trainer", ["changes.read", "items.write"], project="p", days=1, actor="x"
    )
    caller = access.of_token(secret)
    assert caller.id == name
    assert caller.may("changes.read", ours)
    assert not caller.may("changes.read", theirs)
    assert not caller.may("changes.read")
    assert not caller.may("export", ours)
    assert not caller.may("work", ours)
    for scope in ("work", "people.write", "audit", "everything"):
        with pytest.raises(Refusal, match="known are"):
            access.make_token("bad", [scope], actor="x")
    clock.pass_seconds(86_401)
    with pytest.raises(Refusal, match="is over"):
        access.of_token(secret)
    name, secret = access.make_token("other", ["export"], actor="x")
    assert access.of_token(secret).may("export", theirs)
    access.revoke_token(name, actor="x")
    with pytest.raises(Refusal, match="not known"):
        access.of_token(secret)


def test_invitations_work_once(sqlite_store: Store, clock: Clock) -> None:
    store = sqlite_store
    make_project(store, 1)
    access = store.people.access
    secret = access.invite("p", "annotator", actor="x")
    session = access.accept(secret, pseudonym="bee", email="b@example.org", password=WORD)
    caller, _ = access.of_session(session.secret)
    assert caller.roles == ((store.projects.get("p").id, "annotator"),)
    with pytest.raises(Refusal, match="used, over or unknown"):
        access.accept(secret, pseudonym="cee", email="c@example.org", password=WORD)
    old = access.invite("p", actor="x")
    clock.pass_seconds(8 * 86_400)
    with pytest.raises(Refusal, match="used, over or unknown"):
        access.accept(old, pseudonym="cee", email="c@example.org", password=WORD)


def test_secrets_are_nowhere_in_the_file_or_the_log(sqlite_store: Store, tmp_path: Path) -> None:
    store = sqlite_store
    make_project(store, 1)
    ann = store.people.add("ann", email="ann@example.org", name="Ann Canary", password=WORD)
    access = store.people.access
    secrets = [
        WORD, access.open_session(ann.id).secret, access.invite("p", actor="x"),
        access.make_token("t", ["export"], actor="x")[1],
    ]  # fmt: skip
    log = repr(store.log.events())
    project = store.projects.get("p")
    assert project.secret not in log + repr(project)
    assert all(secret not in log for secret in [*secrets, "ann@example.org", "Ann Canary"])
    store.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not any(secret.encode() in content for secret in secrets)
    assert project.secret.encode() in content


def test_an_erased_person_is_nobody_and_their_answers_stay(
    sqlite_store: Store, tmp_path: Path
) -> None:
    store = sqlite_store
    make_project(store, 1)
    ann = store.people.add("ann", email="ann@example.org", name="Ann Canary", password=WORD)
    store.people.join("p", ann.id)
    work = store.queue.claim("p", ann.id).work[0]
    store.answers.submit(work.lease, ann.id, prefer(), submission_id="1")
    store.people.erase(ann.id, actor="x")
    assert store.people.get(ann.id).state == "erased"
    assert len(store.answers.history("p", ann.id)) == 1
    with pytest.raises(Refusal, match="not active"):
        store.people.caller(ann.id)
    store.backup(tmp_path / "copy.db")
    assert b"Canary" not in (tmp_path / "copy.db").read_bytes()
    assert store.check() == []
    assert store.people.add("ann", email="ann@example.org")


def test_erased_text_is_gone_and_the_log_still_fits(sqlite_store: Store) -> None:
    store = sqlite_store
    (ann,) = make_project(store, 1, "ann")
    work = store.queue.claim("p", ann).work[0]
    with store.database.read() as connection:
        from sqlalchemy import select

        from heed.data.store import schema

        candidate = connection.execute(select(schema.candidate.c.id)).scalars().first()
    store.contents.erase(str(candidate), reason="personal data", actor="x")
    shown = [one.text for one in store.queue.held("p", ann)[0].payload.candidates]
    assert "[erased]" in shown
    store.answers.submit(work.lease, ann, prefer(), submission_id="1")
    assert store.check() == []
    assert store.log.verify().ok


def test_what_the_table_does_not_say_is_denied() -> None:
    every = ADMIN | TOKEN_SCOPES
    nobody = Caller("x")
    for permission in every | {"unheard of", ""}:
        assert not nobody.may(permission)
        assert not nobody.may(permission, "p")
        for role, allowed in PERMISSIONS.items():
            member = Caller("x", roles=(("p", role),))
            assert member.may(permission, "p") == (permission in allowed)
            assert not member.may(permission, "q")
            assert not member.may(permission)
        token = Caller("t", is_token=True, scopes=frozenset(every))
        assert token.may(permission) == (permission in TOKEN_SCOPES)
    assert not TOKEN_SCOPES & {"work", "adjudicate", "people.write", "tokens.write", "audit"}
    ranks = [PERMISSIONS[role] for role in ("annotator", "reviewer", "researcher", "admin")]
    assert all(low < high for low, high in pairwise(ranks))
