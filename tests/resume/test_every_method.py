"""Every row of the tables of methods, stopped and resumed, ends with the bits of one run through.

The cases come from the tables, so that a new row is held to it without being named here.
`test_stopped` has the settings that vary them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from tests.resume.same import fingerprint, resumed_from, stopped_at
from tests.tiny import NEEDED, Tiny, run_stage

from heed.algorithms.comparison_presets import COMPARISONS
from heed.algorithms.preference_rows import ROWS
from heed.algorithms.presets import PRESETS
from heed.algorithms.unpaired_config import UnpairedConfig
from heed.learners.local import LocalLearner

NOW = {"checkpoint_seconds": 0.0}
UNPAIRED = get_args(UnpairedConfig.model_fields["loss_type"].annotation)
CASES = [
    *(("preference", name) for name in ROWS if name != "dpo"),
    *(("unpaired", name) for name in UNPAIRED),
    *(("online", name) for name in PRESETS),
    *(("online_preference", name) for name in COMPARISONS),
]


def run_case(tiny: Tiny, family: str, name: str, folder: Path, run: dict[str, Any]) -> None:
    if family == "preference":
        needed = {"harden_labels": not ROWS[name].soft, **NEEDED.get(name, {})}
        config = tiny.preference_config(folder, run=run, loss_type=name, **needed)
    elif family == "unpaired":
        config = tiny.unpaired_config(folder, run=run, loss_type=name, batch_size=40)
    elif family == "online":
        rare = ["tests.unit.algorithms.rewards:rare"]
        config = tiny.online_config(folder, run=run, preset=name, reward_funcs=rare)
    elif name == "spin":
        config = tiny.spin_config(folder, run=run)
    else:
        config = tiny.online_preference_config(folder, run=run, preset=name)
    run_stage(config)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), CASES)
def test_the_end_is_the_same(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, name: str
) -> None:
    whole, cut = tmp_path / "whole" / "run", tmp_path / "cut" / "run"
    run_case(tiny, family, name, whole, {})
    with resumed_from(monkeypatch) as steps:
        with stopped_at(monkeypatch, LocalLearner, "step", 5 if "online" in family else 4):
            run_case(tiny, family, name, cut, NOW)
        run_case(tiny, family, name, cut, NOW | {"resume": True})
    assert steps[0] == 0 < steps[1]
    assert fingerprint(cut) == fingerprint(whole)
