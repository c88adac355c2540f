"""Scales of comparison: how many steps of strength a side has, and whether there is a middle.

A preset is what a page shows; what is stored is one form, (side, level) with the scale's name, so
that `signed` = +-level / levels lies in [-1, 1] for every scale.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """One preset.

    Args:
        name: stored with each judgment.
        levels: steps of strength per side; a level is 1 (least) to `levels` (most).
        has_tie: whether it has a middle that says "equal".
        words: what the levels of one side say, least first.
    """

    name: str
    levels: int
    has_tie: bool
    words: tuple[str, ...]

    def signed(self, side: int | None, level: int | None) -> float:
        """Return strength towards the first item, in [-1, 1]; 0 for a tie."""
        if side is None or level is None:
            return 0.0
        return (1.0 if side == 0 else -1.0) * level / self.levels


SCALES = {
    scale.name: scale
    for scale in (
        Scale("binary", 1, False, ("better",)),
        Scale("binary_tie", 1, True, ("better",)),
        Scale("seven", 3, True, ("slightly better", "better", "much better")),
        Scale("hh8", 4, False, ("barely better", "slightly better", "better", "much better")),
        Scale("nine", 4, True, ("barely better", "slightly better", "better", "much better")),
        Scale(
            "llama4", 4, False,
            ("negligibly better", "slightly better", "better", "significantly better"),
        ),
    )
}  # fmt: skip
