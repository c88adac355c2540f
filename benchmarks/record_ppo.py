"""Record what TRL's PPO (1.12.0, the last version that has it) computes on fixed completions.

`PPOTrainer.train` runs as it is: one update, two epochs, one minibatch. Only its sampling is
replaced, by completions and behaviour logits made here; at its backward passes the local variables
of `train` are copied.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.record_fixtures import gradients, load, load_tokenizer, training_arguments, write

PROMPT_LENGTHS = (6, 3, 9, 5, 1, 8, 4, 2)
RESPONSE_LENGTH = 10
# Completion lengths in tokens, the end token included; 10 is the full width.
LENGTHS = {
    "full": (10, 10, 10, 10, 10, 10, 10, 10),
    "ragged": (10, 4, 1, 7, 9, 10, 2, 8),
    "whitened": (10, 4, 1, 7, 9, 10, 2, 8),
    "k3": (10, 3, 10, 6, 10, 8, 9, 10),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "full": {"temperature": 1.0},
    "ragged": {"temperature": 0.7, "gamma": 0.97},
    "whitened": {"temperature": 1.0, "whiten_rewards": True},
    "k3": {"temperature": 1.0, "kl_estimator": "k3"},
}
SHARED = {"kl_coef": 0.05, "cliprange": 0.2, "cliprange_value": 0.2, "vf_coef": 0.1}
# How far the behaviour policy's weights are from the policy's: enough for ratios outside the clip.
BEHAVIOUR_NOISE = 0.03
ROLLOUT = (
    *("query_responses", "responses", "context_length", "sequence_lengths", "padding_mask"),
    *("padding_mask_p1", "logprobs", "ref_logprobs", "values", "scores", "kl"),
    *("non_score_reward", "rewards", "advantages", "returns"),
)
EPOCH = (
    *("micro_batch_inds", "new_logprobs", "vpred", "pg_loss_max", "vf_loss_max"),
    *("pg_loss", "vf_loss", "loss"),
)
NUM_EPOCHS = 2
# Large, so that in the second epoch values have moved beyond their clip.
LEARNING_RATE = 0.01


def record_ppo() -> None:
    """Record four cases: full width; ragged; rewards whitened; the k3 estimator."""
    for case in LENGTHS:
        tensors, facts = run_case(case)
        facts["source"] = "trl.experimental.ppo.PPOTrainer.train at its backward passes"
        write(f"ppo_{case}", tensors, facts)


def run_case(case: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Run one update of TRL's PPO and copy what it computed."""
    import trl.experimental.ppo.ppo_trainer as module
    from datasets import Dataset

    generator = torch.Generator().manual_seed(11)
    tokenizer = load_tokenizer()
    tokenizer.padding_side = "left"
    prompts = [torch.randint(2, 64, (n,), generator=generator).tolist() for n in PROMPT_LENGTHS]
    config = module.PPOConfig(
        response_length=RESPONSE_LENGTH,
        total_episodes=len(prompts),
        num_ppo_epochs=NUM_EPOCHS,
        learning_rate=LEARNING_RATE,
        num_mini_batches=1,
        num_sample_generations=0,
        stop_token="eos",
        local_rollout_forward_batch_size=len(prompts),
        **SHARED,
        **OPTIONS[case],
        **training_arguments(len(prompts)),
    )
    policy = load("policy", "LlamaForCausalLM")
    trainer = module.PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=policy,
        ref_model=load("reference", "LlamaForCausalLM"),
        reward_model=load("reward", "LlamaForSequenceClassification"),
        value_model=load("value", "LlamaForSequenceClassification"),
        train_dataset=Dataset.from_list([{"input_ids": ids} for ids in prompts]),
    )
    generate = fixed_generation(module, policy, LENGTHS[case], config.temperature)
    whitened: list[Tensor] = []
    found = watch_backward(trainer)
    logged: dict[str, float] = {}
    trainer.log = lambda metrics, *rest: logged.update(metrics)
    whiten = watch_whitening(module, whitened)
    with (
        patch.object(module, "batch_generation", generate),
        patch.object(module, "masked_whiten", whiten),
    ):
        trainer.train()
    for i, argument in enumerate(whitened):
        found[f"before_whitening_{i}"] = argument
    # eps is a speed; the variance of one ratio does not exist.
    kept = {key: value for key, value in logged.items() if key not in ("eps", "val/ratio_var")}
    options = {"gamma": 1.0, "lam": config.lam, **SHARED, **OPTIONS[case]}
    return found, {"options": options, "metrics": kept, "lengths": LENGTHS[case]}


def fixed_generation(
    module: Any, policy: torch.nn.Module, lengths: Sequence[int], temperature: float
) -> Any:
    """Return a stand-in for TRL's sampling: given lengths, logits of a policy nearby."""
    behaviour = load("policy", "LlamaForCausalLM")
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in behaviour.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise) * BEHAVIOUR_NOISE)

    @torch.no_grad()
    def generate(model: Any, queries: Tensor, size: int, pad_id: int, config: Any) -> Any:
        draw = torch.Generator().manual_seed(7)
        shape = (len(lengths), RESPONSE_LENGTH)
        responses = torch.randint(2, 64, shape, generator=draw)
        for row, length in enumerate(lengths):
            if length < RESPONSE_LENGTH:
                responses[row, length - 1] = 1
                responses[row, length:] = pad_id
        whole = torch.cat((queries, responses), 1)
        logits = module.forward(behaviour, whole, pad_id).logits[:, queries.shape[1] - 1 : -1]
        return whole, logits / (temperature + 1e-7)

    return generate


def watch_whitening(module: Any, seen: list[Tensor]) -> Any:
    """Copy what goes into each whitening: rewards (where asked for), then advantages."""
    original = module.masked_whiten

    def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
        seen.append(values.clone())
        return original(values, mask, shift_mean)

    return whiten


def watch_backward(trainer: Any) -> dict[str, Tensor]:
    """Copy the local variables of `train` at each backward pass, and the first one's gradients."""
    original, found = trainer.accelerator.backward, {}
    epoch = iter(range(NUM_EPOCHS))

    def backward(loss: Tensor, **more: Any) -> None:
        k = next(epoch)
        names = sys._getframe(1).f_locals
        if k == 0:
            found.update({name: copied(names[name]) for name in ROLLOUT})
        found.update({f"epoch{k}:{name}": copied(names[name]) for name in EPOCH})
        original(loss, **more)
        if k == 0:
            parameters = (
                "policy.model.norm.weight",
                "policy.lm_head.weight",
                "value_model.score.weight",
            )
            found.update(gradients(trainer.model, *parameters))

    trainer.accelerator.backward = backward
    return found


def copied(value: Any) -> Tensor:
    """Return a copy of a tensor or number."""
    return torch.as_tensor(value).detach().clone()
