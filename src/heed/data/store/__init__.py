"""The label store: what people said, durable, attributable, and open to a running trainer.

    with open_store("labels.db") as store:
        project = store.projects.make("answers", {"kind": "pair"})
        store.items.add("answers", [{"payload": {...}}], actor="system")
        ann = store.people.add("ann")
        store.people.join("answers", ann.id)
        work = store.queue.claim("answers", ann.id).work[0]
        store.answers.submit(work.lease, ann.id, {"outcome": "tie"}, submission_id="1")
        store.log.changes("answers", after=0)

    store          Store and its parts, open_store, soundness
    database, turns, faults, schema, ddl, migrate, backup
                   one engine of two, its tables, their history, copies
    log, state, changes
                   the hash-chained log, the fold over it, what trainers read
    projects, project_config, kinds, scales
                   what is asked
    items, content, queue, choosing, leases, counts
                   what waits, who gets it, for how long
    answers, recording, undoing
                   what people said
    people, access, roles, passwords
                   who they are, and what they may do
    convert, exporting, importing
                   out and in
    refusal, views, keyed
                   what is refused, what is given back, ids and keyed draws

Without torch.
"""

from __future__ import annotations

from heed.data.store.database import system_clock
from heed.data.store.items import Gold, NewItem
from heed.data.store.project_config import ProjectConfig
from heed.data.store.refusal import Refusal
from heed.data.store.store import Store, open_store, restore_store

__all__ = [
    "Gold",
    "NewItem",
    "ProjectConfig",
    "Refusal",
    "Store",
    "open_store",
    "restore_store",
    "system_clock",
]
