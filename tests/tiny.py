"""A world, a policy and two reward models that are made in seconds, for tests of whole stages.

The models are much too small to be good. They are large enough that every stage runs its real
code, and that two runs which should differ do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from heed.algorithms import (
    critic_free,
    online_preference,
    ppo,
    preference,
    prm,
    reward,
    sft,
    unpaired,
)
from heed.algorithms.online_config import OnlineConfig
from heed.algorithms.online_preference_config import OnlinePreferenceConfig
from heed.algorithms.ppo_config import PPOConfig
from heed.algorithms.preference_config import PreferenceConfig
from heed.algorithms.prm import PRMConfig
from heed.algorithms.reward import RewardConfig
from heed.algorithms.sft import SFTConfig
from heed.algorithms.unpaired_config import UnpairedConfig
from heed.pipelines import compare, generate, init, world
from heed.pipelines.compare import CompareConfig
from heed.pipelines.generate import GenerateConfig
from heed.pipelines.init import InitConfig
from heed.pipelines.world import WorldConfig
from heed.runs.run import Run

LEARNER = {"precision": "fp32", "device": "cpu"}
SIZE = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_positions": 160}

NEEDED: dict[str, dict[str, Any]] = {
    "cdpo": {"label_smoothing": 0.1},
    "exo_pair": {"label_smoothing": 0.001},
    "rdpo": {"rdpo_alpha": 0.05},
    "alphapo": {"alphapo_alpha": 0.25},
}
"""Settings without which a loss of pairs does not start."""


@dataclass(frozen=True)
class Tiny:
    """Folders of what was made, each a run; made when first asked for."""

    folder: Path

    def _run(self, name: str) -> dict[str, Any]:
        return {"folder": str(self.folder / name), "seed": 3}

    @cached_property
    def world(self) -> Path:
        """texts, demonstrations, prompts and held_out (.jsonl)."""
        sizes = {"num_texts": 300, "num_demonstrations": 96, "num_prompts": 64, "num_held_out": 24}
        return world.run(WorldConfig(run=self._run("world"), **sizes)).folder

    @cached_property
    def fresh(self) -> Path:
        """A llama with random weights."""
        return self._fresh("fresh", 400)

    @cached_property
    def policy(self) -> Path:
        """The fresh model, warmed up a little."""
        values = {
            "run": self._run("policy"),
            "model": {"path": str(self.fresh)},
            "data": {"path": str(self.world / "demonstrations.jsonl")},
            "batch_size": 16,
            "num_train_epochs": 4,
            "optim": {"lr": 1e-2},
            "learner": LEARNER,
        }
        return sft.run(SFTConfig.model_validate(values)).folder

    @cached_property
    def pairs(self) -> Path:
        """Pairs of the policy's completions that simulated labellers compared."""
        values = {
            "run": self._run("completions"),
            "model": {"path": str(self.policy)},
            "data": {"path": str(self.world / "prompts.jsonl")},
            "sampling": {"n": 3, "max_tokens": 12},
            "learner": LEARNER,
        }
        made = generate.run(GenerateConfig.model_validate(values)).folder
        data = {"path": str(made)}
        values = {"run": self._run("pairs"), "data": data, "scorers": [str(self.world)]}
        return compare.run(CompareConfig.model_validate(values)).folder

    @cached_property
    def reward(self) -> Path:
        """A reward model on the policy, with its tokenizer."""
        return self._reward("reward", self.policy)

    @cached_property
    def other_reward(self) -> Path:
        """A reward model of another vocabulary and architecture."""
        return self._reward("other_reward", self.other_base)

    @cached_property
    def other_base(self) -> Path:
        """A GPT-2 of another vocabulary, with random weights."""
        return self._fresh("other", 330, architecture="gpt2")

    def _fresh(self, name: str, vocab_size: int, **changes: Any) -> Path:
        values = {
            "run": self._run(name),
            "data": {"path": str(self.world / "texts.jsonl")},
            "vocab_size": vocab_size,
            **SIZE,
            **changes,
        }
        return init.run(InitConfig.model_validate(values)).folder

    def _reward(self, name: str, base: Path) -> Path:
        values = {
            "run": self._run(name),
            "model": {"path": str(base)},
            "data": {"path": str(self.pairs)},
            "batch_size": 32,
            "optim": {"lr": 3e-3},
            "learner": LEARNER,
        }
        return reward.run(RewardConfig.model_validate(values)).folder

    # -- configurations ---------------------------------------------------------------------------

    def sft_config(self, folder: Path, *, run: dict[str, Any] | None = None, **changes: Any) -> Any:
        """Eight steps on demonstrations."""
        values = {
            "run": {"folder": str(folder), "seed": 1, **(run or {})},
            "model": {"path": str(self.fresh)},
            "data": {"path": str(self.world / "demonstrations.jsonl")},
            "eval_every": 3,
            "batch_size": 12,
            "optim": {"lr": 3e-3, "warmup_frac": 0.2},
            "learner": LEARNER,
        }
        return SFTConfig.model_validate(values | changes)

    def reward_config(
        self, folder: Path, *, run: dict[str, Any] | None = None, **changes: Any
    ) -> Any:
        """A few steps on the pairs."""
        values = {
            "run": {"folder": str(folder), "seed": 1, **(run or {})},
            "model": {"path": str(self.policy)},
            "data": {"path": str(self.pairs)},
            "eval_every": 2,
            "batch_size": 24,
            "optim": {"lr": 1e-3},
            "learner": LEARNER,
        }
        return RewardConfig.model_validate(values | changes)

    def preference_config(
        self, folder: Path, *, run: dict[str, Any] | None = None, **changes: Any
    ) -> Any:
        """A few steps on the pairs, without a reward model."""
        values = {
            "run": {"folder": str(folder), "seed": 1, **(run or {})},
            "model": {"path": str(self.policy)},
            "data": {"path": str(self.pairs)},
            "eval_every": 2,
            "batch_size": 24,
            "optim": {"lr": 1e-3},
            "learner": LEARNER,
        }
        return PreferenceConfig.model_validate(values | changes)

    def unpaired_config(
        self, folder: Path, *, run: dict[str, Any] | None = None, **changes: Any
    ) -> Any:
        """A few steps on both sides of the pairs."""
        values = {
            "run": {"folder": str(folder), "seed": 1, **(run or {})},
            "model": {"path": str(self.policy)},
            "data": {"path": str(self.pairs)},
            "eval_every": 3,
            "batch_size": 48,
            "optim": {"lr": 1e-3},
            "learner": LEARNER,
        }
        return UnpairedConfig.model_validate(values | changes)

    def ppo_config(self, folder: Path, *, run: dict[str, Any] | None = None, **changes: Any) -> Any:
        """Five updates of 16 completions."""
        values = {
            "run": {"folder": str(folder), "seed": 1, **(run or {})},
            "model": {"path": str(self.policy)},
            "data": {"path": str(self.world / "prompts.jsonl")},
            "eval_prompts": {"path": str(self.world / "held_out.jsonl")},
            "num_eval_prompts": 8,
            "eval_every": 2,
            "num_samples": 2,
            "reward_funcs": [str(self.reward)],
            "gold": str(self.world),
            "kl_coef": 0.05,
            "total_episodes": 80,
            "batch_size": 16,
            "num_ppo_epochs": 2,
            "num_mini_batches": 2,
            "missing_eos_score": -1.0,
            "exact_kl_rows": 4,
            "sampling": {"max_tokens": 8},
            "optim": {"lr": 1e-3, "eps": 1e-5},
            "learner": LEARNER,
        }
        return PPOConfig.model_validate(values | changes)

    def online_config(
        self, folder: Path, *, run: dict[str, Any] | None = None, **changes: Any
    ) -> Any:
        """Five updates of 16 completions, 4 for each prompt."""
        values = {
            "run": {"folder": str(folder), "seed": 1, **(run or {})},
            "model": {"path": str(self.policy)},
            "data": {"path": str(self.world / "prompts.jsonl")},
            "eval_prompts": {"path": str(self.world / "held_out.jsonl")},
            "num_eval_prompts": 8,
            "eval_every": 2,
            "num_samples": 2,
            "reward_funcs": [str(self.reward)],
            "gold": str(self.world),
            "beta": 0.05,
            "total_episodes": 80,
            "batch_size": 16,
            "num_generations": 4,
            "num_iterations": 2,
            "num_mini_batches": 2,
            "exact_kl_rows": 4,
            "sampling": {"max_tokens": 8},
            "optim": {"lr": 1e-3, "eps": 1e-5},
            "learner": LEARNER,
        }
        return OnlineConfig.model_validate(values | changes)

    def online_preference_config(
        self, folder: Path, *, run: dict[str, Any] | None = None, **changes: Any
    ) -> Any:
        """Five updates of 16 completions, compared by the reward model unless a judge is named."""
        values = {
            "run": {"folder": str(folder), "seed": 1, **(run or {})},
            "model": {"path": str(self.policy)},
            "data": {"path": str(self.world / "prompts.jsonl")},
            "eval_prompts": {"path": str(self.world / "held_out.jsonl")},
            "num_eval_prompts": 8,
            "eval_every": 2,
            "num_samples": 2,
            "reward_funcs": () if "judge" in changes else (str(self.reward),),
            "gold": str(self.world),
            "total_episodes": 80,
            "batch_size": 16,
            "num_mini_batches": 2,
            "exact_kl_rows": 4,
            "sampling": {"max_tokens": 8},
            "optim": {"lr": 1e-3},
            "learner": LEARNER,
        }
        return OnlinePreferenceConfig.model_validate(values | changes)

    def spin_config(
        self, folder: Path, *, run: dict[str, Any] | None = None, **changes: Any
    ) -> Any:
        """The same on demonstrations."""
        data = {"path": str(self.world / "demonstrations.jsonl")}
        values = {"preset": "spin", "data": data, "eval_prompts": None, "reward_funcs": ()}
        values |= {"sampling": {"max_tokens": 60}, "num_mini_batches": 1}
        return self.online_preference_config(folder, run=run, **(values | changes))


STAGES = {
    "sft": sft.run,
    "reward": reward.run,
    "prm": prm.run,
    "ppo": ppo.run,
    "online": critic_free.run,
    "online_preference": online_preference.run,
    "preference": preference.run,
    "unpaired": unpaired.run,
}


def run_stage(config: Any) -> Run:
    """Run a stage by the class of its configuration."""
    kinds: dict[type, str] = {
        SFTConfig: "sft",
        RewardConfig: "reward",
        PRMConfig: "prm",
        PPOConfig: "ppo",
        OnlineConfig: "online",
        OnlinePreferenceConfig: "online_preference",
        PreferenceConfig: "preference",
        UnpairedConfig: "unpaired",
    }
    return STAGES[kinds[type(config)]](config)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """What is in this module, shared by all tests of a session."""
    return Tiny(tmp_path_factory.mktemp("tiny"))
