"""Which stage of a run plays which part in the report."""

from __future__ import annotations

from typing import Any

from heed.report.folder import RunRecord, number
from heed.report.parting import FEWEST_POINTS, Parting, parting

_FEW_LOOKS = 16


def online_runs(record: RunRecord) -> list[RunRecord]:
    """Return the runs that optimised a policy against a score, in their order."""
    return [
        run
        for run in record.walk()
        if run.kind in ("ppo", "online") or "objective/kl" in _names(run)
    ]


def supervised_runs(record: RunRecord) -> list[RunRecord]:
    """Return the runs that raised the likelihood of text or demonstrations."""
    return [run for run in record.walk() if run.kind == "sft"]


def reward_run(record: RunRecord) -> RunRecord | None:
    """Return the run that trained the reward model; the first one where there are several."""
    return next((run for run in record.walk() if run.kind == "reward"), None)


def is_overoptimisation(run: RunRecord) -> bool:
    """Whether a run over-optimises on purpose: by its name, with the KL coefficient at 0."""
    named = any("overoptim" in text.lower().replace("-", "") for text in (run.stage, run.name))
    return named and kl_coef(run) in (0.0, None)


def kl_coef(run: RunRecord) -> float | None:
    """Return the KL coefficient of a run that optimised a policy: `kl_coef`, or `beta`."""
    coef = number(setting(run.config, "kl_coef"))
    return number(setting(run.config, "beta")) if coef is None else coef


def setting(config: Any, name: str) -> Any:
    """Find a setting by its own name, however deep it lies; None where it is not there."""
    if not isinstance(config, dict):
        return None
    if name in config:
        return config[name]
    for value in config.values():
        found = setting(value, name)
        if found is not None:
            return found
    return None


def label(run: RunRecord) -> str:
    """Name a run for a reader."""
    if is_overoptimisation(run):
        return "Over-optimisation"
    return "PPO" if run.kind == "ppo" and run.stage.lower() == "ppo" else run.name


def proxy_and_truth(run: RunRecord) -> tuple[list[float], list[float], list[float]]:
    """Return steps, proxy and true quality measured on the same completions.

    The looks at fixed held-out prompts are taken where there are at least 16 of them, or where the
    training completions were not judged; otherwise the training completions.
    """
    looks = _together(run, "eval/proxy", "eval/true")
    if len(looks[0]) >= _FEW_LOOKS:
        return looks
    updates = _together(run, "objective/scores", "quality/true")
    return updates if len(updates[0]) >= max(len(looks[0]), FEWEST_POINTS) else looks


def parted(run: RunRecord) -> Parting | None:
    """Return where proxy and truth part in a run, if they do."""
    return parting(*proxy_and_truth(run))


def kl_at(run: RunRecord, step: float) -> float | None:
    """Return the sequence KL measured nearest to a step, in nats."""
    for metric in ("eval/kl", "objective/kl"):
        steps, values = run.known(metric)
        if steps:
            nearest = min(range(len(steps)), key=lambda i: abs(steps[i] - step))
            return values[nearest]
    return None


def _together(run: RunRecord, one: str, two: str) -> tuple[list[float], list[float], list[float]]:
    found = ([], [], [])  # type: tuple[list[float], list[float], list[float]]
    for row in run.metrics:
        values = [number(row.get(name)) for name in ("step", one, two)]
        if None not in values:
            for column, value in zip(found, values, strict=True):
                column.append(value)  # type: ignore[arg-type]
    return found


def _names(run: RunRecord) -> set[str]:
    return set().union(*(row.keys() for row in run.metrics[:2]))
