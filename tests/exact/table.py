"""Write the table of docs/methods/README.md: where each method ends, and how far from there.

python -m tests.exact.table
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.exact.test_critic_free import (
    BETA,
    IN_LOSS,
    NEEDS,
    WITH_THIS_OPTIMUM,
    ended,
    nested,
    scaled,
)

from heed.worlds.tabular import total_variation

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods" / "README.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
SEEDS = (0, 1, 2)
REGULARISED = "`ref exp(r / beta) / Z`"
CALM = {"optim": {"lr": 0.05, "max_grad_norm": 0.0}}


def cases() -> Iterator[tuple[str, str, dict, str]]:
    """Words for a method, where it ends in words, its settings, and the name of its end."""
    for name in WITH_THIS_OPTIMUM:
        yield f"`{name}`, KL in the reward (k1)", REGULARISED, {"preset": name}, "regularised"
    long = IN_LOSS | {"total_episodes": 60_000}
    grpo = {"preset": "grpo", "kl_estimator": "k3", **IN_LOSS, **CALM}
    yield (
        "`grpo` as published: k3 in the loss",
        ("forward KL at each token, `beta sd(r)` for `beta`"),
        grpo,
        "scaled",
    )
    yield (
        "`grpo` with `scale_rewards none`",
        "forward KL at each token",
        (grpo | {"scale_rewards": "none"}),
        "forward",
    )
    yield (
        "`dr_grpo`, k2 in the loss",
        "reverse KL at each token",
        ({"preset": "dr_grpo", "kl_estimator": "k2", **long}),
        "reverse",
    )
    yield (
        "`dr_grpo`, k3 in the loss, `use_bias_correction_kl`",
        "reverse KL at each token",
        ({"preset": "dr_grpo", "kl_estimator": "k3", "use_bias_correction_kl": True, **long}),
        "reverse",
    )


def rows() -> Iterator[str]:
    """Lines of the table."""
    yield "| method | where it ends | distance to there | distance to the regularised optimum |"
    yield "|---|---|---|---|"
    for words, end, settings, kind in cases():
        own, usual = [], []
        for seed in SEEDS:
            more = NEEDS.get(settings["preset"], {}) if kind == "regularised" else {}
            with tempfile.TemporaryDirectory() as folder:
                policy, world = ended(Path(folder) / "run", seed, **{**settings, **more})
            regularised = world.optimum(BETA)
            ends = {
                "regularised": regularised,
                "scaled": scaled(world, BETA, "k3"),
                "forward": nested(world, BETA, "k3"),
                "reverse": nested(world, BETA, "k2"),
            }
            own.append(total_variation(policy, ends[kind]))
            usual.append(total_variation(policy, regularised))
        cells = [", ".join(f"{value:.4f}" for value in values) for values in (own, usual)]
        yield f"| {words} | {end} | {cells[0]} | {cells[1]} |"


def main() -> None:
    """Put the table between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    table = "\n".join(rows())
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
