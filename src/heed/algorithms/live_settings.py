"""Settings of learning from people while a run goes on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from heed.settings import NoEffect, Settings

Selection = Literal["uniform", "disagreement", "information_gain"]

_LIVE = (
    "store", "project", "replay", "label_wait_seconds", "max_label_lag", "labels_per_update",
    "selection", "uniform_share", "bootstrap_frac", "bootstrap_until",
)  # fmt: skip


class LiveSettings(Settings):
    """Who labels, where their answers are, and how long one waits for them."""

    labeller: Literal["web", "replay"] | None = None
    """web: people compare in a project of a label store while the run goes on (`heed label`).
    replay: what they said in an earlier run is said again, at the same updates."""
    store: str | None = None
    """Of web: SQLite file, postgresql:// URL, or address of a label server (its token in
    HEED_TOKEN)."""
    project: str | None = None
    """Of web: name of the project in the store; made where a database has none of this name."""
    replay: str | None = None
    """Of replay: run folder whose labels are said again."""
    label_wait_seconds: float = Field(default=0.0, ge=0.0)
    """Longest wait of an update for as many labels as it asked for; 0 never waits."""
    max_label_lag: int = Field(default=8, ge=0)
    """Updates after which a pair is too old: it leaves the queue, and its label teaches nothing."""
    labels_per_update: int | None = Field(default=None, ge=1)
    """Pairs of each update that people are asked about; by default all."""
    selection: Selection = "uniform"
    """Which of them: any, those on which an ensemble of reward models disagrees most, or those
    whose answer would tell most about which member is right."""
    uniform_share: float = Field(default=0.3, ge=0.0, le=1.0)
    """Share of a selection that is drawn evenly, so that estimates can be made unbiased."""
    bootstrap_frac: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of each update's pairs that `reward_funcs` label in people's place (simulated)."""
    bootstrap_until: int | None = Field(default=None, ge=1)
    """Labels of people from which on none is simulated; by default some always are."""

    def live_without_effect(self) -> tuple[NoEffect, ...]:
        """Say which of these settings do nothing beside the others."""
        replayed = self.labeller == "replay"
        return (
            NoEffect(self.labeller is None, _LIVE, "no labeller is set"),
            NoEffect(replayed, ("label_wait_seconds",), "a replay waits for nobody"),
            NoEffect(
                self.labeller is not None and self.selection == "uniform",
                ("uniform_share",),
                "the selection is uniform",
            ),
            NoEffect(
                self.labeller is not None and not self.bootstrap_frac,
                ("bootstrap_until",),
                "bootstrap_frac is 0",
            ),
        )

    def check_live(self, *, has_scorer: bool) -> None:
        """Hold the settings to each other.

        Raises:
            ValueError: they contradict each other.
        """
        wanted = {"web": ("store", "project"), "replay": ("replay",)}[self.labeller or "web"]
        for name in ("store", "project", "replay"):
            if (getattr(self, name) is not None) != (name in wanted):
                raise ValueError(
                    f"labeller is {self.labeller!r} and {name} is {getattr(self, name)!r}; it "
                    f"takes {' and '.join(wanted)}"
                )
        for name in ("bootstrap_frac", "selection"):
            if not has_scorer and getattr(self, name) not in (0.0, "uniform"):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, and there are no reward_funcs to go by; "
                    "name a reward model, or leave it out"
                )
