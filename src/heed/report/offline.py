"""The section of a run that learned from comparisons or labels without sampling."""

from __future__ import annotations

from heed.report.blocks import Grid, Section
from heed.report.curves import metric_figure
from heed.report.folder import RunRecord

KINDS = ("preference", "unpaired")
DRAWN = (
    ("loss", "eval/loss", "Loss"),
    ("rewards/margins", "eval/rewards/margins", "Reward margin"),
    ("rewards/accuracies", "eval/rewards/accuracies", "Pairs in the right order"),
    ("logps/chosen", "eval/logps/chosen", "Log-probability of chosen"),
    ("eval/logps/chosen_change", None, "Held-out change of chosen"),
    ("eval/rewards/auc", None, "Good above bad, held out"),
)
"""Metric, what is drawn beside it, heading."""


def offline_sections(record: RunRecord) -> list[Section]:
    """One section for each run of `heed preference` and `heed unpaired` that logged two steps."""
    found = []
    for run in record.walk():
        if run.kind not in KINDS:
            continue
        figures = []
        for name, held_out, title in DRAWN:
            if len(run.known(name)[0]) < 2:
                continue
            beside = held_out if held_out and run.known(held_out)[0] else None
            figures.append(metric_figure(run, name, title, "one", x_label="step", beside=beside))
        if figures:
            section = Section(f"offline-{run.kind}", f"{run.name}: learning from preferences")
            section.lead = "No completion was sampled here: quality is measured by `heed evaluate`."
            section.blocks.append(Grid(figures))
            found.append(section)
    return found
