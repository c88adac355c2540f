"""Where methods that learn online from comparisons end, in a world whose ends are known.

With labels that are Bradley-Terry's probabilities of a reward, every pair's loss is smallest where
beta log(pi / ref) differs by what the rewards differ by, whoever samples the pairs:

    online DPO, iterative DPO     ref exp(reward / beta) / Z
    XPO                           a bonus alpha pulls from there; its end is a root, in `xpo_end`
    SPIN                          the distribution of the demonstrations
    Nash-MD                       pi = ref exp(P(. beats opponent) / beta) / Z: with coef 0 the Nash
                                  equilibrium of the regularised game, with a mixture the best reply
                                  to the mixture of itself and ref
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from tests.exact import tabular
from tests.exact.tabular import COMPLETIONS, PROMPT, TableEngine, TableHead, TableScorer

from heed.algorithms import online
from heed.algorithms.online_preference import update_pairs
from heed.algorithms.online_preference_config import OnlinePreferenceConfig
from heed.algorithms.parts import Parts
from heed.algorithms.watch import Watch
from heed.engines.opposed import OpposedEngine
from heed.feedback.base import Scorer
from heed.feedback.versus import Opinion, VersusScorer
from heed.learners.local import LocalLearner
from heed.learners.reference import MovingReference
from heed.records import Completion, Pair, PolicyRef, Prompt, Sampling
from heed.runs.run import Run
from heed.settings import LearnerSettings, OptimSettings
from heed.worlds.tabular import Tabular, total_variation

BETA = 0.5
NUM = 128
BETA_NASH = 0.2


def config(folder: Path, seed: int, **changes: object) -> OnlinePreferenceConfig:
    values: dict = {
        "run": {"folder": str(folder), "seed": seed, "checkpoint_seconds": 1e9},
        "model": {"path": "table"},
        "data": {"path": "table"},
        "reward_funcs": ("table",),
        "beta": BETA,
        "labels": "soft",
        "total_episodes": NUM * 100,
        "batch_size": NUM,
        "num_generations": NUM,
        "eval_every": 10_000,
        "exact_kl_rows": 0,
        "optim": OptimSettings(lr=0.1, max_grad_norm=0.0, schedule="cosine"),
        "learner": LearnerSettings(precision="fp32", device="cpu"),
    }
    return OnlinePreferenceConfig.model_validate(values | changes)


class MixedTable(TableEngine):
    """Samples the geometric mixture of two tables, token by token."""

    def __init__(self, head: TableHead, other: TableHead, coef: float) -> None:
        super().__init__(head)
        self._other, self._coef = other, coef

    def _weights(self) -> np.ndarray:
        weights = mixed(_tokens(self.head), _tokens(self._other), self._coef)
        return weights / weights.sum()


def _tokens(head: TableHead) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        first, second = head.first.log_softmax(-1), head.second.log_softmax(-1)
    return first.double().numpy(), second.double().numpy()


def mixed(
    ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray], coef: float
) -> np.ndarray:
    """The mixture of two policies given by the logs of their tokens, of the nine completions."""
    parts = []
    for a, b in zip(ours, theirs, strict=True):
        weights = np.exp((1 - coef) * a + coef * b)
        parts.append(weights / weights.sum(-1, keepdims=True))
    return (parts[0][:, None] * parts[1]).ravel()


class Drawn:
    """An engine that draws from fixed probabilities, as a crowd of demonstrators would."""

    policy = PolicyRef(run="people", step=0)

    def __init__(self, probabilities: np.ndarray) -> None:
        self._p = probabilities

    def load(self, weights: Mapping[str, Any] | None, policy: PolicyRef) -> None:
        """Nothing to load."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        rng = np.random.default_rng(sampling.seed)
        return [
            [
                Completion(
                    id=f"people-{sampling.seed}-{i}",
                    prompt_id=prompt.id,
                    prompt_tokens=(tabular.PROMPT_TOKEN,),
                    tokens=COMPLETIONS[which],
                    text="".join(map(str, COMPLETIONS[which])),
                    finish="stop",
                    sampling=sampling,
                )
                for i, which in enumerate(rng.choice(9, sampling.n, p=self._p))
            ]
            for prompt in prompts
        ]


def ended(
    settings: OnlinePreferenceConfig,
    seed: int,
    *,
    people: np.ndarray | None = None,
    preferences: np.ndarray | None = None,
) -> tuple[np.ndarray, Tabular]:
    """Run the loop; returns the policy and the world.

    Args:
        people: probabilities of demonstrations.
        preferences: [9, 9] probability that the row's completion beats the column's.
    """
    first, second, rewards = tabular.tables(seed)
    policy, start = TableHead(first, second), TableHead(first, second)
    run = Run.start(settings.run, "online_preference", {})
    engine, scorer = TableEngine(policy), TableScorer(rewards)
    frozen = LocalLearner.frozen(start, settings.learner)
    rivals: dict[str, Any] = {
        "policy": lambda: engine,
        "reference": lambda: OpposedEngine(engine, TableEngine(start)),
        "demonstration": lambda: OpposedEngine(engine, Drawn(people)),  # type: ignore[arg-type]
        "mixture": lambda: engine,
    }
    judged: Scorer = scorer
    if preferences is not None:
        judged = VersusScorer(
            _opinion(preferences), MixedTable(policy, start, settings.mixture_coef)
        )
    steps = settings.num_updates * settings.steps_per_update
    renderer: Any = tabular.TableRenderer()
    parts = Parts(
        engine=rivals[settings.row.rival](),
        policy=LocalLearner(policy, settings.optim, steps, settings.learner),
        value=None,
        reference=MovingReference(frozen) if settings.sync_ref_model else frozen,
        scorer=judged,
        renderer=renderer,
        prompts=[PROMPT],
        ptx_rows=[],
        watch=Watch(
            run, engine, frozen, renderer, [PROMPT],
            settings.sampling, scorer, None, 1, 0.0,
        ),
    )  # fmt: skip
    reference = start.probabilities()
    with run:
        step = online.update_once if settings.row.gradient else update_pairs
        online.optimise(settings, run, parts, step)
    return policy.probabilities(), tabular.world(reference, rewards)


def _opinion(preferences: np.ndarray) -> Opinion:
    def opinion(pairs: Sequence[Pair]) -> list[float | str]:
        return [
            float(preferences[COMPLETIONS.index(p.left.tokens), COMPLETIONS.index(p.right.tokens)])  # type: ignore[arg-type]
            for p in pairs
        ]

    return opinion


SLOW = pytest.mark.slow
_CALM = OptimSettings(lr=0.05, max_grad_norm=0.0, schedule="cosine")
SPIN: dict = {
    "preset": "spin",
    "num_generations": 2 * NUM,
    "batch_size": 2 * NUM,
    "total_episodes": 2 * NUM * 200,
    "optim": _CALM,
}
NASH: dict = {
    "preset": "nash_md",
    "beta": BETA_NASH,
    "total_episodes": NUM * 200,
    "optim": _CALM,
}
"""Settings with which the two come near their ends."""


@pytest.mark.parametrize(
    ("labels", "seed", "updates"),
    [
        ("soft", 0, 60),
        pytest.param("soft", 1, 100, marks=SLOW),
        pytest.param("sampled", 0, 200, marks=SLOW),
    ],
)
def test_online_dpo_reaches_the_regularised_optimum(
    tmp_path: Path, labels: str, seed: int, updates: int
) -> None:
    how = {"labels": labels, "total_episodes": NUM * updates}
    policy, world = ended(config(tmp_path / "run", seed, **how), seed)
    assert total_variation(policy, world.optimum(BETA)) < 0.02
    assert total_variation(world.reference, world.optimum(BETA)) > 0.5


@SLOW
def test_iterative_dpo_reaches_it_from_the_best_and_the_worst_of_eight(tmp_path: Path) -> None:
    how = {"preset": "iterative_dpo", "num_generations": 8, "total_episodes": NUM * 100}
    policy, world = ended(config(tmp_path / "run", 0, **how), 0)
    assert total_variation(policy, world.optimum(BETA)) < 0.02


@SLOW
def test_hard_labels_go_beyond_it(tmp_path: Path) -> None:
    """Who always hears that the higher score is better never learns by how much."""
    how = {"labels": "hard", "total_episodes": NUM * 60}
    policy, world = ended(config(tmp_path / "run", 0, **how), 0)
    best = world.rewards.argmax()
    assert policy[best] > world.optimum(BETA)[best] + 0.1
    assert total_variation(policy, world.optimum(BETA)) > 0.1


def xpo_end(world: Tabular, alpha: float) -> np.ndarray:
    """The policy at which XPO's expected gradient is 0 where it samples itself and ref.

    For every completion y, with h = beta log(pi / ref) and s the sigmoid,
        beta sum_z (pi(y) ref(z) + ref(y) pi(z)) (s(r_y - r_z) - s(h_y - h_z))
            = alpha (ref(y) - pi(y))
    """
    ref, rewards = world.reference, world.rewards

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    said = sigmoid(rewards[:, None] - rewards)

    def gap(logits: np.ndarray) -> np.ndarray:
        pi = np.exp(logits - logits.max())
        pi /= pi.sum()
        h = BETA * np.log(pi / ref)
        met = np.outer(pi, ref) + np.outer(ref, pi)
        pull = BETA * (met * (said - sigmoid(h[:, None] - h))).sum(1) - alpha * (ref - pi)
        return np.append(pull, logits.mean())  # the logits' own constant is free

    start = np.log(world.optimum(BETA))
    found = least_squares(gap, start - start.mean(), xtol=1e-15, ftol=1e-15, gtol=1e-15)
    assert np.abs(gap(found.x)).max() < 1e-9
    pi = np.exp(found.x - found.x.max())
    return pi / pi.sum()


@SLOW
@pytest.mark.parametrize("alpha", [0.02, 0.0])
def test_xpo_ends_where_its_gradient_vanishes(tmp_path: Path, alpha: float) -> None:
    how = {"preset": "xpo", "xpo_alpha": alpha, "total_episodes": NUM * 120}
    policy, world = ended(config(tmp_path / "run", 0, **how), 0)
    own, usual = xpo_end(world, alpha), world.optimum(BETA)
    assert total_variation(policy, own) < 0.02
    if alpha == 0:
        assert total_variation(own, usual) < 1e-6
    else:
        assert total_variation(own, usual) > 0.04
        # optimism: the policy gives less to what the reference says most
        assert own @ np.log(world.reference) < usual @ np.log(world.reference)


@SLOW
def test_spin_ends_at_the_demonstrations(tmp_path: Path) -> None:
    seed = 0
    people = tabular.tables(10)
    head = TableHead(*people[:2])
    wanted = head.probabilities() / head.probabilities().sum()
    policy, world = ended(config(tmp_path / "run", seed, **SPIN), seed, people=wanted)
    assert total_variation(world.reference, wanted) > 0.2
    assert total_variation(policy, wanted) < 0.02


def circle() -> np.ndarray:
    """[9, 9] preferences without a best: each of three kinds beats the next nine times in ten."""
    kinds = np.arange(9) % 3
    step = (kinds[:, None] - kinds) % 3
    return np.select([step == 1, step == 2], [0.1, 0.9], 0.5)


def nash_end(world: Tabular, preferences: np.ndarray, coef: float) -> np.ndarray:
    """The fixed point pi = ref exp(P(. beats the mixture) / beta) / Z, by damped iteration."""

    def tokens(policy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        joint = policy.reshape(3, 3)
        first = joint.sum(1)
        return np.log(first), np.log(joint / first[:, None])

    policy = world.reference.copy()
    for _ in range(2000):
        opponent = mixed(tokens(policy), tokens(world.reference), coef)
        reply = world.reference * np.exp(preferences @ opponent / BETA_NASH)
        policy = 0.9 * policy + 0.1 * reply / reply.sum()
    return policy


@pytest.mark.parametrize("coef", [0.0, pytest.param(0.5, marks=SLOW)])
def test_nash_md_ends_at_its_equilibrium(tmp_path: Path, coef: float) -> None:
    settings = config(tmp_path / "run", 0, **NASH, mixture_coef=coef)
    policy, world = ended(settings, 0, preferences=circle())
    nash = nash_end(world, circle(), 0.0)
    own = nash_end(world, circle(), coef)
    assert total_variation(world.reference, nash) > 0.15
    assert total_variation(policy, own) < 0.02
    if coef == 0:
        # nobody beats it: no reply is worth more than its own value, one half
        reply = world.reference * np.exp(circle() @ policy / BETA_NASH)
        assert total_variation(policy, reply / reply.sum()) < 0.05
    else:
        assert total_variation(own, nash) > 0.05
