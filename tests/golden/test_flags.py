"""The list of all flags is frozen: that it grows is a decision.

After a change on purpose write it anew, read the difference, and commit it with the change:

    make flags
"""

from __future__ import annotations

import os
from pathlib import Path

from heed.config import flags_of
from heed.pipelines.verbs import VERBS

GOLDEN = Path(__file__).with_name("flags.txt")


def all_flags() -> str:
    """One line for each flag of each verb: name, what may be written, default."""
    lines = [
        f"{verb} --{flag.name}  {flag.type} [{flag.default}]"
        for verb in VERBS
        for flag in flags_of(VERBS[verb].config_class())
    ]
    return "\n".join(lines) + "\n"


def test_the_list_of_flags_is_as_agreed() -> None:
    now = all_flags()
    if os.environ.get("HEED_WRITE_GOLDEN"):
        GOLDEN.write_text(now, encoding="utf-8")
    agreed = GOLDEN.read_text(encoding="utf-8").splitlines()
    gone = [line for line in agreed if line not in now.splitlines()]
    new = [line for line in now.splitlines() if line not in agreed]
    assert not gone, "flags are gone or changed; `make flags` accepts it"
    assert not new, "flags are new or changed; `make flags` accepts it"
    assert now.splitlines() == agreed, "the order of flags changed; `make flags` accepts it"
