"""Every metric that a run logs: its unit, what it means, and which way is better.

`<...>` in a name stands for one part without a slash. Logging a name that is not here is an
error, so this table is the whole truth about `metrics.jsonl`.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from heed.errors import HeedError


@dataclass(frozen=True)
class Metric:
    """What one metric is.

    Args:
        unit: such as nats, tokens, seconds, fraction.
        meaning: one sentence.
        better: which way is better, or None where neither is.
    """

    unit: str
    meaning: str
    better: Literal["up", "down"] | None = None


METRICS: dict[str, Metric] = {
    # Every stage that trains
    "loss": Metric("nats", "Training loss, mean over what the loss counts.", "down"),
    "learning_rate": Metric("1", "Learning rate of the step."),
    "grad_norm": Metric("1", "Norm of the whole gradient before clipping."),
    "num_tokens": Metric("tokens", "Tokens trained on so far, prompts included."),
    "num_samples": Metric("rows", "Rows trained on so far."),
    "samples_per_second": Metric("rows/s", "Rows per second since the last line.", "up"),
    "tokens_per_second": Metric("tokens/s", "Tokens per second since the last line.", "up"),
    "epoch": Metric("epochs", "Passes over the data so far, as a fraction."),
    "episode": Metric("completions", "Completions sampled and trained on so far."),
    "perplexity": Metric("1", "Exponential of the mean loss per learned token.", "down"),
    # Reward models
    "accuracy": Metric("fraction", "Pairs of the batch whose chosen side scores higher.", "up"),
    "margin": Metric("score", "Mean score of chosen minus rejected.", "up"),
    "mean_reward": Metric("score", "Mean score over both sides of the batch."),
    # Preference optimisation without sampling
    "rewards/chosen": Metric("reward", "Mean implicit reward of chosen: beta x log-ratio.", "up"),
    "rewards/rejected": Metric("reward", "Mean implicit reward of rejected.", "down"),
    "rewards/margins": Metric("reward", "Mean implicit reward of chosen minus rejected.", "up"),
    "rewards/accuracies": Metric("fraction", "Pairs whose chosen side has more reward.", "up"),
    "logps/chosen": Metric("nats", "Mean log-probability of a chosen reply."),
    "logps/rejected": Metric("nats", "Mean log-probability of a rejected reply."),
    "logps/chosen_change": Metric("nats", "logps/chosen minus the reference's, same rows.", "up"),
    "lengths/delta": Metric("tokens", "Mean length of chosen minus rejected replies."),
    "kl": Metric("nats", "KTO's baseline: mean log-ratio of mismatched replies, at least 0."),
    "delta": Metric("reward", "BCO's baseline: mean implicit reward of all batches so far."),
    "eval/rewards/auc": Metric("fraction", "Held-out good replies ranked above bad.", "up"),
    "wpo_weight": Metric("1", "Mean weight of a pair under WPO."),
    "eval/rewards/accuracies": Metric("fraction", "Held-out pairs with the right order.", "up"),
    "eval/rewards/margins": Metric("reward", "Held-out mean of chosen minus rejected.", "up"),
    "eval/logps/chosen": Metric("nats", "Held-out log-probability of a chosen reply."),
    "eval/logps/rejected": Metric("nats", "Held-out log-probability of a rejected reply."),
    "eval/logps/chosen_change": Metric("nats", "eval/logps/chosen minus at the start.", "up"),
    "tie_log_nu": Metric("nats", "Logarithm of the tie parameter of two tied completions."),
    "step_accuracy": Metric("fraction", "Labelled steps of the batch judged as labelled.", "up"),
    # Held-out evaluation
    "eval/loss": Metric("nats", "Loss on held-out rows.", "down"),
    "eval/perplexity": Metric("1", "Exponential of the held-out loss per token.", "down"),
    "eval/accuracy": Metric("fraction", "Held-out pairs whose chosen side scores higher.", "up"),
    "eval/step_accuracy": Metric("fraction", "Held-out steps judged as they are labelled.", "up"),
    "eval/margin": Metric("score", "Held-out mean score of chosen minus rejected.", "up"),
    "eval/proxy": Metric("score", "Mean score by the proxy on fixed held-out prompts.", "up"),
    "eval/true": Metric("quality", "Mean true quality on fixed held-out prompts.", "up"),
    "eval/kl": Metric("nats", "KL from the reference a completion, fixed held-out prompts."),
    "eval/length": Metric("tokens", "Mean completion length on fixed held-out prompts."),
    # Policy optimisation: objective
    "objective/kl": Metric("nats", "KL from the reference a completion: mean of the k1 sums."),
    "objective/kl_standard_error": Metric("nats", "Standard error of objective/kl."),
    "objective/kl_k3": Metric("nats", "KL from the reference a completion, by k3 (never < 0)."),
    "objective/kl_exact": Metric("nats", "KL a completion, summed exactly over the vocabulary."),
    "objective/kl_per_token": Metric("nats/token", "KL from the reference a token (k1)."),
    "objective/entropy": Metric(
        "nats/completion", "Estimated entropy: minus the log-probability of a sampled completion."
    ),
    "objective/scores": Metric("score", "Mean score of the completions by the proxy.", "up"),
    "objective/scores_std": Metric("score", "Standard deviation of the scores."),
    "objective/rlhf_reward": Metric("score", "Mean score minus the KL penalty.", "up"),
    "objective/non_score_reward": Metric("score", "Mean sum of the KL penalties, as rewards."),
    "rewards/<scorer>/mean": Metric("score", "Mean score by one scorer, or one part of it.", "up"),
    "rewards/<scorer>/std": Metric("score", "Standard deviation of those scores."),
    "num_failed": Metric("completions", "Completions of the update that have no score.", "down"),
    "kl_coef": Metric("score/nat", "Coefficient of the KL penalty."),
    "kl_error": Metric("fraction", "KL over its target, minus 1, as the controller clips it."),
    # Policy optimisation: a cost held at a limit
    "cost/mean": Metric("cost", "Mean cost of the completions.", "down"),
    "cost/excess": Metric("cost", "Mean cost minus its limit; above 0 the price rises.", "down"),
    "cost/multiplier": Metric("score/cost", "Price of a unit of cost in this update."),
    # Policy optimisation: pairs that were compared online
    "pairs/num": Metric("pairs", "Pairs that the update learns from."),
    "pairs/num_ties": Metric("pairs", "Pairs left out because neither side is better."),
    "pairs/num_equal": Metric("pairs", "Pairs left out because both sides are the same."),
    "pairs/num_missing": Metric("pairs", "Pairs left out because a side failed.", "down"),
    "pairs/label": Metric("probability", "Mean label: that the chosen side is better."),
    "pairs/rival_chosen_frac": Metric("fraction", "Pairs whose second side is chosen."),
    "logps/rival": Metric("nats", "Mean log-probability of the rival's completions."),
    # Policy optimisation: labels of people that come while the run goes on
    "labels/asked": Metric("pairs", "Pairs of the update that people were asked about."),
    "labels/received": Metric("labels", "People's labels that came back and are taught now."),
    "labels/waiting": Metric("pairs", "Pairs, young enough to be taught, without a label yet."),
    "labels/simulated": Metric("pairs", "Pairs that reward_funcs labelled in people's place."),
    "labels/unjudged": Metric("pairs", "Pairs that came back and that nobody could judge."),
    "labels/unused": Metric("labels", "Labels of pairs too old, or that are not this run's."),
    "labels/changed": Metric("labels", "Labels corrected or taken back after they came."),
    "labels/total": Metric("labels", "People's labels so far; a corrected one counts once."),
    "labels/lag": Metric("updates", "Mean age of the pairs whose labels came back."),
    "labels/position": Metric("1", "Position of the label store's log that the run has read to."),
    # Policy optimisation: groups, refills, and weights between learner and sampler
    "frac_reward_zero_std": Metric("fraction", "Groups whose scores are all equal.", "down"),
    "selected_frac": Metric("fraction", "Completions that a selection chose to learn."),
    "num_alone": Metric("completions", "Completions whose siblings all failed.", "down"),
    "sampling/num_refills": Metric("batches", "Batches of prompts sampled beyond the first."),
    "sampling/groups_left_out": Metric("groups", "Groups left out, their scores all equal."),
    "importance/mean": Metric("1", "Mean weight between learner and sampler, bounded."),
    "importance/min": Metric("1", "Smallest such weight."),
    "importance/max": Metric("1", "Largest such weight."),
    "importance/masked_frac": Metric("fraction", "Tokens whose weight is out of bounds.", "down"),
    "importance/effective_frac": Metric("fraction", "Effective share of the tokens.", "up"),
    # Policy optimisation: the update
    "loss/policy_avg": Metric("1", "Policy loss per token, mean over minibatches.", "down"),
    "loss/value_avg": Metric("score^2", "Value loss, mean over tokens.", "down"),
    "loss/kl_avg": Metric("nats/token", "KL term of the loss, before its coefficient."),
    "loss/ptx_avg": Metric("nats/token", "Loss on demonstrations mixed in (PPO-ptx).", "down"),
    "policy/approxkl_avg": Metric("nats/token", "Mean of half the squared log-ratio."),
    "policy/clipfrac_avg": Metric("fraction", "Tokens whose gradient the bounds cut off."),
    "policy/clipfrac_low": Metric("fraction", "Tokens cut off at the lower bound."),
    "policy/clipfrac_high": Metric("fraction", "Tokens cut off at the upper bound."),
    "policy/grad_norm": Metric("1", "Norm of the policy's gradient before clipping."),
    "value/grad_norm": Metric("1", "Norm of the value model's gradient before clipping."),
    "value/explained_variance": Metric("fraction", "Explained share of returns' variance.", "up"),
    "val/clipfrac_avg": Metric("fraction", "Values that the value bounds cut off."),
    "val/ratio": Metric("1", "Mean probability ratio of policy to sampler."),
    "val/ratio_var": Metric("1", "Variance of the probability ratio of policy to sampler."),
    "val/ratio_first_max_deviation": Metric("1", "Largest |ratio - 1| before the first step."),
    "val/num_eos_tokens": Metric("completions", "Completions that end with the end token."),
    "completions/mean_length": Metric("tokens", "Mean completion length, end token included."),
    "completions/min_length": Metric("tokens", "Shortest completion."),
    "completions/max_length": Metric("tokens", "Longest completion."),
    "completions/mean_length_better": Metric("tokens", "Mean length where the advantage is > 0."),
    "completions/mean_length_worse": Metric("tokens", "Mean length where the advantage is < 0."),
    "completions/clipped_ratio": Metric("fraction", "Completions cut at the longest length."),
    # Truth, where it is known
    "quality/true": Metric("quality", "Mean true quality of the completions.", "up"),
    "quality/proxy": Metric("score", "Mean score of the same completions by the proxy.", "up"),
    # Where the time goes
    "time/rollout_seconds": Metric("s", "Sampling and scoring of the update.", "down"),
    "time/label_wait_seconds": Metric("s", "Waiting for people's labels.", "down"),
    "time/credit_seconds": Metric("s", "Reference, values and credit of the update.", "down"),
    "time/train_seconds": Metric("s", "Training steps of the update.", "down"),
}  # fmt: skip
"""Name or pattern -> what it is."""


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"<[a-z_]+>", "[^/]+", re.escape(name)))


_PATTERNS = {_pattern(name): name for name in METRICS if "<" in name}


@lru_cache(maxsize=1024)
def describe(name: str) -> Metric:
    """Say what a metric is.

    Args:
        name: as in `metrics.jsonl`.

    Raises:
        HeedError: the name is in no row of the table; the nearest rows are named.
    """
    if name in METRICS and "<" not in name:
        return METRICS[name]
    for pattern, row in _PATTERNS.items():
        if pattern.fullmatch(name):
            return METRICS[row]
    near = difflib.get_close_matches(name, METRICS, n=3, cutoff=0.4)
    hint = f" The nearest are {', '.join(near)}." if near else ""
    raise HeedError(
        f"the metric {name!r} is not described.{hint} "
        "Add a row with unit and meaning to METRICS in heed/runs/metrics.py"
    )
