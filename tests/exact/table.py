"""Write the table of docs/methods/README.md: where each method ends, and how far from there.

python -m tests.exact.table
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.exact import test_online_preference as comparisons
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


def compared() -> Iterator[str]:
    """Lines of the methods that learn from comparisons."""
    with tempfile.TemporaryDirectory() as folder:
        for number, (words, end, measured) in enumerate(comparison_cases()):
            found = [measured(Path(folder) / f"{number}-{seed}", seed) for seed in SEEDS]
            cells = [", ".join(f"{pair[i]:.4f}" for pair in found) for i in (0, 1)]
            yield f"| {words} | {end} | {cells[0]} | {cells[1]} |"


Measured = Callable[[Path, int], tuple[float, float]]


def comparison_cases() -> Iterator[tuple[str, str, Measured]]:
    """Words for a method, where it ends, and what measures both distances."""

    def online_dpo(how: dict) -> Measured:
        def measured(folder: Path, seed: int) -> tuple[float, float]:
            settings = comparisons.config(folder, seed, **how)
            policy, world = comparisons.ended(settings, seed)
            distance = total_variation(policy, world.optimum(BETA))
            return distance, distance

        return measured

    num = comparisons.NUM
    yield "`online_dpo`, soft labels", REGULARISED, online_dpo({})
    sampled = {"labels": "sampled", "total_episodes": num * 500}
    yield "`online_dpo`, sampled labels", REGULARISED, online_dpo(sampled)
    iterative = {"preset": "iterative_dpo", "num_generations": 8, "total_episodes": num * 150}
    yield "`iterative_dpo`, soft labels", REGULARISED, online_dpo(iterative)
    yield (
        "`xpo`, alpha 0, soft labels",
        REGULARISED,
        online_dpo({"preset": "xpo", "xpo_alpha": 0.0, "total_episodes": num * 150}),
    )

    def spin(folder: Path, seed: int) -> tuple[float, float]:
        wanted = comparisons.TableHead(*comparisons.tabular.tables(seed + 10)[:2]).probabilities()
        wanted = wanted / wanted.sum()
        settings = comparisons.config(folder, seed, **comparisons.SPIN)
        policy, world = comparisons.ended(settings, seed, people=wanted)
        return total_variation(policy, wanted), total_variation(policy, world.optimum(BETA))

    yield "`spin`", "the demonstrations' distribution", spin

    def nash(coef: float) -> Measured:
        def measured(folder: Path, seed: int) -> tuple[float, float]:
            long = comparisons.NASH | {"total_episodes": num * 500}
            settings = comparisons.config(folder, seed, **long, mixture_coef=coef)
            circle = comparisons.circle()
            policy, world = comparisons.ended(settings, seed, preferences=circle)
            own = comparisons.nash_end(world, circle, coef)
            return total_variation(policy, own), total_variation(policy, world.optimum(BETA))

        return measured

    yield "`nash_md`, `mixture_coef` 0, a circle of preferences", "the Nash equilibrium", nash(0.0)
    yield "`nash_md`, `mixture_coef` 0.5, the same", "the best reply to the mixture", nash(0.5)


def main() -> None:
    """Put the table between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    table = "\n".join([*rows(), *compared()])
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
