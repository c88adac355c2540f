"""The section of sampled completions: the same prompts over time, with their scores."""

from __future__ import annotations

from heed.report import numbers, roles
from heed.report.blocks import Block, Fold, Prompted, Sample, Samples, Section
from heed.report.folder import Row, RunRecord, mapping, number

MOST_PROMPTS = 8
MOST_STEPS = 24
SHOWN_STEPS = 4
_LONGEST = 1500


def completions_section(record: RunRecord) -> Section | None:
    """Show how completions of the same prompts change; None where no run kept any."""
    runs = [run for run in record.walk() if run.samples]
    if not runs:
        return None
    section = Section("completions", "Completions over time")
    section.lead = (
        "The same prompts, answered again and again with the same random streams. Prompts are "
        "chosen by rule: at the last look the widest lead of proxy over truth, the best, the worst "
        "and the median true quality, then those that come first."
    )
    if not any(_has_truth(run) for run in runs):
        section.lead = "The same prompts, answered again and again with the same random streams."
    for i, run in enumerate(sorted(runs, key=roles.is_overoptimisation)):
        name = roles.label(run)
        table: Block = _samples(run, name, record)
        section.blocks.append(table if i == 0 else Fold(f"Completions of {name}", [table]))
    return section


def _samples(run: RunRecord, name: str, whole: RunRecord) -> Samples:
    by_prompt: dict[str, list[Row]] = {}
    for row in run.samples:
        by_prompt.setdefault(str(row.get("prompt_id") or row.get("prompt")), []).append(row)
    steps = sorted({number(row.get("step")) or 0.0 for row in run.samples})
    kept = _spread(steps, MOST_STEPS)
    shown = set(_spread(kept, SHOWN_STEPS))
    found = roles.parted(run)
    if found is not None:
        shown.add(min(kept, key=lambda step: abs(step - found.step)))
    has_truth = _has_truth(run)
    prompts = [
        Prompted(
            str(rows_[0].get("prompt", "")),
            tags,
            [_sample(row, shown) for row in rows_ if (number(row.get("step")) or 0.0) in kept],
        )
        for tags, rows_ in _chosen(by_prompt, has_truth)
    ]
    return Samples(
        name, [numbers.figure(s) for s in kept], prompts, has_truth, [int(s) for s in kept],
        str(run.folder.relative_to(whole.folder)),
    )  # fmt: skip


def _sample(row: Row, shown: set[float]) -> Sample:
    step = number(row.get("step")) or 0.0
    text = str(row.get("completion", ""))
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + f" … ({len(text) - _LONGEST} more characters)"
    finish = row.get("finish")
    tokens = numbers.figure(number(row.get("num_tokens")))
    if finish == "length":
        tokens += ", cut"
    elif finish == "error":
        tokens += ", failed"
    scores = mapping(row.get("scores"))
    return Sample(
        numbers.figure(step),
        text,
        _score(scores.get("proxy")),
        _score(scores.get("true")),
        tokens,
        step in shown,
    )


def _score(value: object) -> str:
    known = number(value)
    return "none" if known is None else numbers.fixed(known, 2)


def _has_truth(run: RunRecord) -> bool:
    return any(number(mapping(row.get("scores")).get("true")) is not None for row in run.samples)


def _chosen(by_prompt: dict[str, list[Row]], has_truth: bool) -> list[tuple[list[str], list[Row]]]:
    """Choose prompts by rule, each with the reasons for its choice."""
    tags: dict[str, list[str]] = {}
    last = {key: mapping(found[-1].get("scores")) for key, found in by_prompt.items()}
    true = {key: number(scores.get("true")) for key, scores in last.items()}
    known = sorted((value, key) for key, value in true.items() if value is not None)
    if has_truth and len(known) >= 4:
        gaps = _standing(last, "proxy"), _standing(last, "true")
        lead = {key: gaps[0][key] - gaps[1][key] for key in gaps[0] if key in gaps[1]}
        if lead:
            tags.setdefault(max(lead, key=lambda key: lead[key]), []).append("proxy leads truth")
        tags.setdefault(known[-1][1], []).append("best")
        tags.setdefault(known[0][1], []).append("worst")
        tags.setdefault(known[len(known) // 2][1], []).append("median")
    order = [*tags, *(key for key in by_prompt if key not in tags)][:MOST_PROMPTS]
    return [(tags.get(key, []), by_prompt[key]) for key in order]


def _standing(last: dict[str, Row], score: str) -> dict[str, float]:
    """Place of each prompt among all by one score, 0 to 1: scores have different scales."""
    values = {key: number(scores.get(score)) for key, scores in last.items()}
    known = sorted((value, key) for key, value in values.items() if value is not None)
    return {key: i / max(len(known) - 1, 1) for i, (_, key) in enumerate(known)}


def _spread(steps: list[float], num: int) -> list[float]:
    """Take `num` steps evenly, the first and the last among them."""
    if len(steps) <= num:
        return steps
    return [steps[round(i * (len(steps) - 1) / (num - 1))] for i in range(num)]
