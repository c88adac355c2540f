"""Record what TRL's GRPO and RLOO compute: every loss type, and the advantages.

`_compute_loss` and `_generate_and_score_completions` run as they are. The policy's
log-probabilities are made here and handed to the loss in place of a forward pass, so that its value
and its gradient in them are those of the loss alone; rewards are made here too.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.record_fixtures import load, load_tokenizer, texts, training_arguments, write

LENGTHS = (7, 3, 7, 1, 5, 2, 6, 4)
WIDTH = max(LENGTHS)
GROUP = 4
LONGEST = 9
REWARDS = (1.0, 2.0, 3.0, 6.0, 0.5, 0.5, 0.5, 0.5, -1.0, 0.25, 0.0, 2.0)
LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo"},
    "grpo_kl": {"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": False},
    "grpo_kl_corrected": {"loss_type": "grpo", "beta": 0.04},
    "bnpo": {"loss_type": "bnpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
    "delta": {"loss_type": "dapo", "delta": 1.5},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "luspo": {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.28},
    "sapo": {"loss_type": "sapo"},
    "vespo": {"loss_type": "vespo"},
}
SCALES = ("group", "batch", "none")


def streams() -> dict[str, Tensor]:
    """Make log-probabilities, mask and advantages of eight completions."""
    generator = torch.Generator().manual_seed(11)

    def draw(scale: float) -> Tensor:
        return scale * torch.randn(len(LENGTHS), WIDTH, generator=generator, dtype=torch.float64)

    old = -draw(1.0).abs() - 0.1
    mask = torch.arange(WIDTH)[None, :] < torch.tensor(LENGTHS)[:, None]
    advantages = torch.randn(len(LENGTHS), generator=generator, dtype=torch.float64)
    return {
        "logprobs": old + draw(0.25),
        "old_logprobs": old,
        "reference_logprobs": old + draw(0.3),
        "mask": mask,
        "advantages": advantages,
    }


def _give(completions: list[str], **columns: Any) -> list[float]:
    return list(REWARDS[: len(completions)])


def make_trainer(kind: str, batch_size: int, **options: Any) -> Any:
    """Make one of the two trainers on the recorded policy."""
    import trl
    from datasets import Dataset

    config = getattr(trl, f"{kind}Config")
    settings = {
        **training_arguments(batch_size),
        "num_generations": GROUP,
        "max_completion_length": LONGEST,
        "beta": 0.0,
        **options,
    }
    rows = [{"prompt": text} for text in texts(3, (4, 2, 5))]
    return getattr(trl, f"{kind}Trainer")(
        model=load("policy", "LlamaForCausalLM"),
        reward_funcs=_give,
        args=config(**settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(),
    )


def record_loss(kind: str, name: str, options: dict[str, Any]) -> dict[str, Tensor]:
    """Record the loss and its gradient in the policy's log-probabilities."""
    made = streams()
    trainer = make_trainer(kind, len(LENGTHS), **options)
    trainer.current_gradient_accumulation_steps = 1
    leaf = made["logprobs"].clone().requires_grad_()
    ids = torch.ones(len(LENGTHS), WIDTH, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": made["mask"].long(),
        "advantages": made["advantages"],
        "old_per_token_logps": made["old_logprobs"],
        "old_logps": (made["old_logprobs"] * made["mask"]).sum(1),
        "ref_per_token_logps": made["reference_logprobs"],
        "num_items_in_batch": made["mask"].sum(),
    }
    given = (leaf, torch.zeros_like(leaf), None)
    with patch.object(type(trainer), "_get_per_token_logps_and_entropies", lambda *a, **k: given):
        loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    return {f"{name}:loss": loss, f"{name}:gradient": leaf.grad}


def record_advantages(kind: str, name: str, **options: Any) -> dict[str, Tensor]:
    """Record the advantages of twelve rewards in three groups."""
    trainer = make_trainer(kind, len(REWARDS), **options)
    rows = [{"prompt": text} for text in texts(3, (4, 2, 5)) for _ in range(GROUP)]
    found = trainer._generate_and_score_completions(rows)
    return {f"{name}:advantages": found["advantages"]}


def record_online() -> None:
    """Record all losses and advantages."""
    tensors = {**streams(), "rewards": torch.tensor(REWARDS)}
    for name, options in LOSSES.items():
        tensors |= record_loss("GRPO", name, options)
    tensors |= record_loss("RLOO", "rloo", {})
    for scale in SCALES:
        tensors |= record_advantages("GRPO", f"scale_{scale}", scale_rewards=scale)
    tensors |= record_advantages("RLOO", "leave_one_out")
    facts = {"losses": LOSSES, "group": GROUP, "longest": LONGEST}
    facts["source"] = "GRPOTrainer and RLOOTrainer, _compute_loss"
    write("online", tensors, facts)
