"""What quality each method buys at which distance: true quality against KL, over many runs.

A setting is a method with its coefficients; its runs differ by the seed alone. Half of the prompts
choose: a setting is on its method's frontier if no other setting of the method has more quality
at no more KL, and within a limit of KL the setting of the highest quality is taken. The other half
say how good the chosen ones are, because what was chosen for its quality on some prompts looks
better on these than it is. Intervals are over seeds and prompts at once (`crossed_mean`).

KL is the mean over a policy's own completions of log policy - log warm-up (`heed evaluate`), and
for best of n the formula log n - (n - 1) / n.

Source: Gao et al. 2022 (quality against KL); Stiennon et al. 2020, figure 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from heed.audits.frontier_runs import START, Setting, by_setting, read_runs
from heed.errors import DataError
from heed.ids import stream_seed
from heed.records import Finding
from heed.runs.files import write_json
from heed.runs.run import Run
from heed.runs.sinks import Sink
from heed.settings import RunSettings, Settings
from heed.stats.crossed import crossed_mean
from heed.stats.intervals import Interval


class FrontierConfig(Settings):
    """Gather quality against KL of many measured policies into a table and a figure."""

    run: RunSettings
    runs: tuple[str, ...] = Field(min_length=1)
    """Runs of `heed evaluate` with tags, and of `heed best_of_n`; a star stands for several."""
    truth: str = "true"
    """The judge in `heed evaluate` whose score is quality; in best of n it is `gold`."""
    proxy: str | None = "proxy"
    """The judge whose score was optimised, if it was measured."""
    method: str = "method"
    """The tag that names the method; all tags together name a setting."""
    kl_limits: tuple[float, ...] = (1.0, 2.0, 4.0)
    """Nats per completion, within which the methods are compared."""
    against: str = START
    """The method whose best within the same limit is taken off, on the same prompts and seeds."""
    choosing_frac: float = Field(default=0.5, gt=0.0, lt=1.0)
    """Share of the prompts that choose settings and do not judge them."""
    max_lost_frac: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Stop where more than this share of the prompts lacks a score in some run."""


@dataclass(frozen=True)
class Placed:
    """A setting with what it measured: choosing values, and intervals on the other prompts."""

    setting: Setting
    seeds: int
    chosen_kl: float
    chosen_true: float
    kl: Interval
    true: Interval
    proxy: Interval | None
    on_frontier: bool = False


Best = dict[str, dict[float | None, Placed | None]]
"""Method -> limit of KL (None for no limit) -> its best setting within."""
Gains = dict[str, dict[float | None, Interval | None]]


def run(config: FrontierConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Gather, and leave the points in `RUN/frontier.json`.

    Raises:
        DataError: runs measured other prompts or seeds than others, or lack a judge.
    """
    paths = paths_of_runs(config.runs)
    with Run.start(config.run, "frontier", config, {"runs": paths}, sinks) as run:
        run.stage("gathering", 1)
        measured = read_runs(paths, config.method, config.truth, config.proxy)
        settings, prompts = by_setting(measured, config.max_lost_frac)
        choosing = _choosing(prompts, config)
        placed = [place(setting, rows, choosing) for setting, rows in settings.items()]
        placed = with_frontiers(placed)
        best = within_limits(placed, config.kl_limits)
        gains = differences(best, settings, choosing, config.against)
        write_json(run.path("frontier.json"), _record(config, placed, best, gains))
        run.add_findings([*_findings(best), *_gain_findings(gains, config.against)])
        facts = {
            "num_runs": len(measured),
            "num_choosing": int(choosing.sum()),
            "num_judging": int((~choosing).sum()),
        }
        run.finish({"frontier": run.path("frontier.json")}, facts=facts)
    return run


def paths_of_runs(words: Sequence[str]) -> tuple[str, ...]:
    """Run folders, stars resolved, each once.

    Raises:
        DataError: a pattern fits nothing.
    """
    found: list[str] = []
    for word in words:
        pattern = any(sign in word for sign in "*?[")
        some = [p for p in sorted(glob(word)) if Path(p).is_dir()] if pattern else [word]
        if not some:
            raise DataError(f"no run fits {word!r}; give folders of `heed evaluate`")
        found += some
    return tuple(dict.fromkeys(found))


def _choosing(prompts: Sequence[str], config: FrontierConfig) -> NDArray[np.bool_]:
    """Which prompts choose, [P]; by each prompt's own hash, so that others change nothing."""
    shares = [stream_seed(config.run.seed, "choosing", prompt) / 2**63 for prompt in prompts]
    choosing = np.array(shares) < config.choosing_frac
    if min(choosing.sum(), (~choosing).sum()) < 2:
        raise DataError(
            f"{len(prompts)} prompts leave fewer than two to choose or to judge; measure on more"
        )
    return choosing


def place(setting: Setting, rows: Mapping[str, NDArray], choosing: NDArray[np.bool_]) -> Placed:
    """Measure one setting.

    Args:
        setting: what it is.
        rows: kl, true and, if known, proxy: [S, P] each.
        choosing: [P], which prompts choose.
    """
    judged = {name: crossed_mean(table[:, ~choosing]) for name, table in rows.items()}
    return Placed(
        setting,
        seeds=len(rows["true"]),
        chosen_kl=float(rows["kl"][:, choosing].mean()),
        chosen_true=float(rows["true"][:, choosing].mean()),
        kl=judged["kl"],
        true=judged["true"],
        proxy=judged.get("proxy"),
    )


def with_frontiers(placed: Sequence[Placed]) -> list[Placed]:
    """Mark the settings that no other of their method beats on the prompts that choose."""

    def beaten(one: Placed) -> bool:
        return any(
            two.setting.method == one.setting.method
            and two.chosen_kl <= one.chosen_kl
            and two.chosen_true >= one.chosen_true
            and (two.chosen_kl, two.chosen_true) != (one.chosen_kl, one.chosen_true)
            for two in placed
        )

    return [replace(one, on_frontier=not beaten(one)) for one in placed]


def within_limits(placed: Sequence[Placed], limits: Sequence[float]) -> Best:
    """Method -> limit (None for no limit) -> its best setting within, by the choosing prompts."""
    out: Best = {}
    for method in dict.fromkeys(one.setting.method for one in placed):
        own = [one for one in placed if one.setting.method == method]
        out[method] = {
            limit: max(
                (one for one in own if limit is None or one.chosen_kl <= limit),
                key=lambda one: one.chosen_true,
                default=None,
            )
            for limit in (*limits, None)
        }
    return out


def differences(
    best: Best,
    settings: Mapping[Setting, Mapping[str, NDArray]],
    choosing: NDArray[np.bool_],
    against: str,
) -> dict[str, dict[float | None, Interval | None]]:
    """Method -> limit -> quality of its best setting less that of `against`, on the same prompts.

    None where one of the two has no setting within the limit. Methods share prompts and seeds, so
    that a difference is known better than either quality.

    Raises:
        DataError: there is no method `against`.
    """
    if against not in best:
        raise DataError(f"against is {against!r}, and the methods are {', '.join(best)}")

    def gain(one: Placed | None, two: Placed | None) -> Interval | None:
        if one is None or two is None:
            return None
        table = settings[one.setting]["true"] - settings[two.setting]["true"]
        return crossed_mean(table[:, ~choosing])

    return {
        method: {limit: gain(one, best[against][limit]) for limit, one in chosen.items()}
        for method, chosen in best.items()
        if method != against
    }


def _record(
    config: FrontierConfig, placed: Sequence[Placed], best: Best, gains: Gains
) -> dict[str, Any]:
    index = {one.setting: i for i, one in enumerate(placed)}
    return {
        "kl_limits": list(config.kl_limits),
        "points": [{**asdict(one), "label": str(one.setting)} for one in placed],
        "best": {
            method: [None if one is None else index[one.setting] for one in chosen.values()]
            for method, chosen in best.items()
        },
        "against": config.against,
        "gains": {
            method: [None if one is None else asdict(one) for one in found.values()]
            for method, found in gains.items()
        },
    }


def _findings(best: Best) -> list[Finding]:
    found, unit = [], "true score"
    for method, chosen in best.items():
        for limit, one in chosen.items():
            if method == START and limit is not None:
                continue
            name = (
                f"{method}, as it starts" if method == START else f"{method}, best {_where(limit)}"
            )
            if one is None:
                reason = "no setting of this method stays within"
                found.append(Finding.unknown(name, unit, reason))
            else:
                found.append(Finding.of(name, one.true, unit))
    return found


def _gain_findings(gains: Gains, against: str) -> list[Finding]:
    return [
        Finding.of(f"{method} less {against}, {_where(limit)}", gain, "true score")
        for method, found in gains.items()
        for limit, gain in found.items()
        if gain is not None
    ]


def _where(limit: float | None) -> str:
    return "within no limit" if limit is None else f"within {limit:g} nats"
