"""What the online loop is made of: engine, learners, reference, scorer, prompts, watch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from heed import kl
from heed.algorithms import rollouts
from heed.algorithms.online_settings import OnlineSettings
from heed.algorithms.ppo_config import PPOConfig
from heed.algorithms.watch import Watch
from heed.data.batch import Row, TokenBatch
from heed.data.datasets import load_texts, split_by_prompt
from heed.data.render import Renderer
from heed.data.report import settle
from heed.data.rows import supervised_rows
from heed.engines.base import Engine
from heed.engines.local import LocalEngine
from heed.engines.policy import load_fitting_prompts, note_path
from heed.errors import ConfigError
from heed.feedback.base import Scorer
from heed.feedback.costed import CostedScorer
from heed.feedback.resolve import load_scorer, load_scorers
from heed.feedback.reward_model import RewardModelScorer
from heed.ids import stream_seed
from heed.learners.base import Evaluator, Learner
from heed.learners.local import LocalLearner
from heed.learners.reference import AdapterReference
from heed.models.device import choose_device
from heed.models.heads import PolicyHead, SharedHead, ValueHead
from heed.models.load import load_causal, same_tokens
from heed.records import PolicyRef, Prompt
from heed.runs.run import Run
from heed.settings import DataSettings


class Live(Protocol):
    """Labels that come while the loop goes on; its checkpoints keep where they were."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        ...

    def resume(self, update: int, state: Mapping[str, Any]) -> None:
        """Go on after an update, from what its checkpoint keeps."""
        ...

    def close(self) -> None:
        """Wait for nothing any more."""
        ...


@dataclass(frozen=True)
class Parts:
    """What the loop is made of. `value` is None where no model of its own gives values."""

    engine: Engine
    policy: Learner
    value: Learner | None
    reference: Evaluator
    scorer: Scorer
    renderer: Renderer
    prompts: Sequence[Prompt]
    ptx_rows: Sequence[Row]
    watch: Watch
    ending: rollouts.Ending = rollouts.AS_SAMPLED
    exact_kl: Callable[[TokenBatch], Tensor] | None = None
    """Sequence KL over the whole vocabulary [B], where it is affordable."""
    live: Live | None = None
    """Labels of people, where they come while the loop goes on."""

    @property
    def value_learner(self) -> Learner:
        """Whoever predicts values."""
        return self.value or self.policy


def make_parts(
    config: OnlineSettings,
    run: Run,
    causal: nn.Module,
    renderer: Renderer,
    judge: Scorer | None = None,
) -> Parts:
    """Make what the loop is composed of.

    Args:
        judge: what is optimised; by default that of `reward_funcs`.
    """
    device = config.learner.device
    if judge is None:
        judge = load_scorers(config.reward_funcs, config.reward_weights, device=device)
    scorer: Scorer = judge
    if config.cost is not None:
        costs = load_scorers(config.cost.funcs, config.cost.weights, device=device)
        scorer = CostedScorer(judge, costs)
    # Before the engine, which looks where the model is.
    causal.to(choose_device(device))
    engine = LocalEngine(
        causal,
        renderer,
        policy=PolicyRef(run=run.folder.name, step=0),
        max_rows=config.engine.max_rows,
        path=config.engine.path,
        cuda_graphs=config.engine.cuda_graphs,
    )
    note_path(run, engine)
    prompts, watched, texts = load_data(config, run, engine)
    steps = config.num_updates * config.steps_per_update
    shared = isinstance(config, PPOConfig) and config.value_init == "shared"
    head = SharedHead(causal) if shared else PolicyHead(causal)
    policy = LocalLearner(head, config.optim, steps, config.learner, bad_batch=run.path("bad"))
    reference = _reference(config, causal, policy)
    value = None
    if isinstance(config, PPOConfig) and not shared:
        value = _value(config, run, causal, renderer, judge, steps)
    return Parts(
        engine=engine,
        policy=policy,
        value=value,
        reference=reference,
        scorer=scorer,
        renderer=renderer,
        prompts=prompts,
        ptx_rows=texts,
        watch=_watch(config, run, engine, reference, scorer, watched),
        ending=_ending(config),
        exact_kl=exact_kl(policy, reference),
    )


def _ending(config: OnlineSettings) -> rollouts.Ending:
    return rollouts.Ending(config.truncate_after, config.truncate_min_tokens)


def _watch(
    config: OnlineSettings,
    run: Run,
    engine: LocalEngine,
    reference: Evaluator,
    proxy: Scorer,
    prompts: Sequence[Prompt],
) -> Watch:
    """Whoever answers the same held-out prompts over time, and judges the answers."""
    seed = stream_seed(config.run.seed, "watch")
    return Watch(
        run=run,
        engine=engine,
        reference=reference,
        renderer=engine.renderer,
        prompts=prompts,
        sampling=config.sampling.model_copy(update={"n": 1, "seed": seed}),
        proxy=proxy,
        gold=load_scorer(config.gold, device=config.learner.device) if config.gold else None,
        num_samples=config.num_samples,
        max_failed_frac=config.max_failed_frac,
        ending=_ending(config),
    )


def load_data(
    config: OnlineSettings, run: Run, engine: LocalEngine
) -> tuple[list[Prompt], list[Prompt], list[Row]]:
    """Prompts to train on, prompts to watch, and rows of pretraining text; reported and checked."""
    max_tokens = config.sampling.max_tokens
    prompts, report = load_fitting_prompts(config.data, engine, max_tokens)
    reports = [report]
    if config.eval_prompts:
        watched, other = load_fitting_prompts(config.eval_prompts, engine, max_tokens)
        reports.append(other)
    else:
        frac = min(0.5, config.num_eval_prompts / max(1, len(prompts)))
        prompts, watched = split_by_prompt(prompts, frac, config.run.seed)
    rows: list[Row] = []
    if config.ptx_data:
        texts, other = load_texts(config.ptx_data)
        length = config.ptx_data.max_length
        rows = supervised_rows(texts, engine.renderer, other, max_length=length)
        reports.append(other)
    limits = [settings.max_loss_frac for settings in _sources(config)]
    settle(run, list(zip(reports, limits, strict=True)))
    # A single prompt is trained on and watched.
    return prompts, (watched or prompts)[: config.num_eval_prompts], rows


def _sources(config: OnlineSettings) -> list[DataSettings]:
    return [s for s in (config.data, config.eval_prompts, config.ptx_data) if s is not None]


def _reference(config: OnlineSettings, causal: nn.Module, policy: LocalLearner) -> Evaluator:
    """The frozen policy of the KL penalty: a copy, or the same weights without adapters."""
    if config.reference is None and config.model.lora:
        return AdapterReference(policy, causal)
    return LocalLearner.frozen(
        PolicyHead(load_causal(config.reference or config.model)), config.learner
    )


def _value(
    config: PPOConfig,
    run: Run,
    causal: nn.Module,
    renderer: Renderer,
    scorer: Scorer,
    steps: int,
) -> LocalLearner:
    """The separate value model, from the reward model where it reads the policy's tokens."""
    readable = isinstance(scorer, RewardModelScorer) and same_tokens(
        scorer.renderer.tokenizer, renderer.tokenizer
    )
    if config.value_init == "reward" and not readable:
        raise ConfigError(
            "value_init is 'reward', and the score is not that of one reward model with the "
            "policy's tokenizer, so its weights cannot read the policy's tokens; set value_init "
            "to 'policy' or 'auto'"
        )
    if readable and config.value_init in ("reward", "auto"):
        assert isinstance(scorer, RewardModelScorer)
        head = ValueHead.from_reward(scorer.head)
    else:
        head = ValueHead.from_policy(causal)
    # Only the policy is saved, so only the policy is averaged.
    optim = (config.value_optim or config.optim).model_copy(update={"ema_decay": None})
    return LocalLearner(head, optim, steps, config.learner, bad_batch=run.path("bad"))


def exact_kl(policy: LocalLearner, reference: Evaluator) -> Callable[[TokenBatch], Tensor]:
    """Sequence KL(policy || reference) [B], summed over the whole vocabulary at each token."""

    def measure(batch: TokenBatch) -> Tensor:
        ours, theirs = policy.log_distribution(batch), reference.log_distribution(batch)
        per_token = kl.exact(ours, theirs)
        out = torch.zeros(batch.tokens.shape)
        out[batch.learn] = per_token
        return out.sum(1)

    return measure
