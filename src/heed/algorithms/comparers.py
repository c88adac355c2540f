"""What a method that learns from comparisons is made of: a rival to meet, and somebody to judge."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import Any, cast

from torch import nn

from heed.algorithms.live_labels import LiveLabels, read_script
from heed.algorithms.online_preference_config import OnlinePreferenceConfig
from heed.algorithms.parts import Parts, make_parts
from heed.data.datasets import load_demonstrations
from heed.data.render import Renderer
from heed.engines.base import Engine
from heed.engines.local import LocalEngine
from heed.engines.mixture import MixtureEngine
from heed.engines.opposed import OpposedEngine
from heed.engines.scripted import ScriptedEngine
from heed.errors import ConfigError, DataError
from heed.feedback.base import Scorer
from heed.feedback.demonstrated import DemonstratedScorer
from heed.feedback.ensemble import Ensemble
from heed.feedback.human import HumanLabeller
from heed.feedback.human_http import TOKEN_VARIABLE, open_desk
from heed.feedback.judges import load_judge
from heed.feedback.resolve import load_scorers
from heed.feedback.unscored import Unscored
from heed.feedback.versus import (
    Opinion,
    TournamentScorer,
    VersusScorer,
    by_labeller,
    by_scorer,
)
from heed.learners.local import LocalLearner
from heed.learners.reference import AdapterReference, MovingReference
from heed.models.adapters import reference_disabled
from heed.records import PolicyRef, Prompt
from heed.runs.run import Run


def make_comparison_parts(
    config: OnlinePreferenceConfig, run: Run, causal: nn.Module, renderer: Renderer
) -> Parts:
    """Make what the loop is composed of: as `make_parts`, with rival and comparer in place.

    Raises:
        DataError: of SPIN, no prompt has a demonstration that fits.
    """
    replies = demonstrations(config) if config.row.rival == "demonstration" else {}
    scorer: Scorer | None = None
    if config.reward_funcs:
        words, weights = config.reward_funcs, config.reward_weights
        scorer = load_scorers(words, weights, device=config.learner.device)
    elif replies:
        scorer = DemonstratedScorer(replies)
    if config.labeller is not None:
        return _with_people(config, run, causal, renderer, scorer)
    opinion: Opinion | None = None
    if config.judge is not None:
        opinion = by_labeller(load_judge(config.judge, config.run.seed))
    elif scorer is not None:
        opinion = by_scorer(scorer, config.temperature)
    assert opinion is not None
    first = scorer or TournamentScorer(opinion, 2, "halves")  # replaced below
    parts = make_parts(config, run, causal, renderer, first)
    if config.row.gradient or scorer is None:
        standing = VersusScorer(opinion, sampler(config, parts, causal, renderer, 1.0))
        parts = replace(parts, watch=replace(parts.watch, proxy=standing))
    if config.row.gradient:
        opponent = sampler(config, parts, causal, renderer, config.mixture_coef)
        return replace(parts, scorer=VersusScorer(opinion, opponent))
    if scorer is None:
        pairing = "all" if config.pairing == "best_worst" else "halves"
        parts = replace(parts, scorer=TournamentScorer(opinion, config.group_size, pairing))  # type: ignore[arg-type]
    if config.row.rival == "reference":
        parts = _opposed(parts, sampler(config, parts, causal, renderer, 1.0))
    elif config.row.rival == "demonstration":
        parts = _demonstrated(config, run, parts, renderer, replies)
    if config.sync_ref_model:
        assert isinstance(parts.reference, LocalLearner)
        parts = replace(parts, reference=MovingReference(parts.reference))
    return parts


def _with_people(
    config: OnlinePreferenceConfig,
    run: Run,
    causal: nn.Module,
    renderer: Renderer,
    scorer: Scorer | None,
) -> Parts:
    """People compare; a scorer, where there is one, is measured, selects and helps to begin."""
    if config.selection != "uniform" and not isinstance(scorer, Ensemble):
        raise ConfigError(
            f"selection {config.selection!r} looks where the members of an ensemble differ, and "
            "reward_funcs is none; name one such as 'mean(runs/a,runs/b)'"
        )
    live = live_labels(config, run)
    parts = make_parts(config, run, causal, renderer, scorer or Unscored())
    if config.row.rival == "reference":
        parts = _opposed(parts, sampler(config, parts, causal, renderer, 1.0))
    if config.sync_ref_model:
        assert isinstance(parts.reference, LocalLearner)
        parts = replace(parts, reference=MovingReference(parts.reference))
    return replace(parts, live=live)


def live_labels(config: OnlinePreferenceConfig, run: Run) -> LiveLabels:
    """Open what people say while the run goes on, or what they said in an earlier run."""
    if config.replay is not None:
        return LiveLabels(config, run, None, read_script(config.replay))
    assert config.store is not None
    assert config.project is not None
    new = {"calibration_frac": 0.0, "max_policy_lag": config.max_label_lag}
    token = os.environ.get(TOKEN_VARIABLE)
    desk = open_desk(config.store, config.project, config=new, token=token)
    return LiveLabels(config, run, HumanLabeller(desk))


def _opposed(parts: Parts, rival: Engine) -> Parts:
    return replace(parts, engine=OpposedEngine(parts.engine, rival))


def sampler(
    config: OnlinePreferenceConfig,
    parts: Parts,
    causal: nn.Module,
    renderer: Renderer,
    coef: float,
) -> Engine:
    """An engine of the policy (0), the reference (1), or the mixture of both."""
    if coef == 0.0:
        return parts.engine
    policy = PolicyRef(run="reference" if coef == 1.0 else "mixture", step=0)
    rows = config.engine.max_rows
    if isinstance(parts.reference, AdapterReference):
        off = partial(reference_disabled, causal)
        return MixtureEngine(
            causal, causal, renderer, coef=coef, policy=policy, max_rows=rows, around=off
        )
    other: nn.Module = cast(Any, parts.reference).head.causal
    if coef == 1.0:
        path = config.engine.path
        return LocalEngine(other, renderer, policy=policy, max_rows=rows, path=path)
    return MixtureEngine(causal, other, renderer, coef=coef, policy=policy, max_rows=rows)


# -- demonstrations -------------------------------------------------------------------------------


def demonstrations(config: OnlinePreferenceConfig) -> dict[str, str]:
    """The reply of each prompt, by the prompt's id; of several the first.

    Raises:
        DataError: the data has none.
    """
    replies: dict[str, str] = {}
    for data in (config.data, config.eval_prompts):
        if data is not None:
            records, _ = load_demonstrations(data)
            for one in records:
                if len(one.reply) == 1:
                    replies.setdefault(one.prompt.id, one.reply[0].text)
    return replies


def _demonstrated(
    config: OnlinePreferenceConfig,
    run: Run,
    parts: Parts,
    renderer: Renderer,
    replies: dict[str, str],
) -> Parts:
    """Let demonstrations be the rival; prompts without one that ends in time are left out."""
    script = ScriptedEngine(replies, renderer, parts.engine.policy)
    sampling = config.sampling.model_copy(update={"n": 1})
    said = script.generate(parts.prompts, sampling)
    fitting: list[Prompt] = [
        prompt for prompt, (one,) in zip(parts.prompts, said, strict=True) if one.finish == "stop"
    ]
    left_out = len(parts.prompts) - len(fitting)
    if not fitting:
        reasons = [one.error or "longer than sampling.max_tokens" for (one,) in said]
        raise DataError(
            f"none of {len(parts.prompts)} prompts has a demonstration that fits "
            f"({reasons[0] if reasons else 'there are no prompts'}); give demonstrations, or a "
            "larger sampling.max_tokens"
        )
    if left_out:
        run.warn(
            0,
            "data",
            f"{left_out} of {len(parts.prompts)} prompts have no demonstration of one message that "
            f"ends within sampling.max_tokens ({config.sampling.max_tokens}), and are left out",
        )
    return replace(_opposed(parts, script), prompts=fitting)
