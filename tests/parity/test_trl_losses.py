"""heed computes what TRL computes: from recorded tensors, and through the models themselves.

`benchmarks/record_fixtures.py` made the recordings from TRL's unmodified code. The part on streams
feeds recorded tensors to heed's pure functions; the part on models feeds weights and tokens.

One difference is on purpose. Where a completion ends before the widest one, TRL gives the score to
the position after the end token and lets the value model judge it there (`padding_mask_p1`); heed
gives it to the end token, the last one that was chosen. So ragged cases are compared with TRL's
extra position marked as learned, and cases of full width, where the two agree, as they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from heed import credit, kl, masked
from heed.data.batch import TokenBatch
from heed.data.render import Renderer
from heed.losses import policy, reward
from heed.losses.likelihood import nll
from heed.models.heads import PolicyHead, RewardHead, ValueHead
from heed.models.load import load_causal, load_tokenizer
from heed.models.step_head import StepHead
from heed.records import Demonstration, Message, Prompt

FOLDER = Path(__file__).parent / "fixtures" / "trl"
PPO_CASES = ["full", "ragged", "whitened", "k3"]


def recording(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    facts = json.loads((FOLDER / f"{name}.json").read_text())
    return load_file(FOLDER / f"{name}.safetensors"), facts


def agree(found: Tensor | float, expected: Tensor | float, within: float = 1e-6) -> None:
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    torch.testing.assert_close(
        found.double(), expected.double(), rtol=within, atol=within, check_device=False
    )


class TestStreams:
    """heed's pure functions on the tensors that TRL had."""

    @pytest.mark.parametrize("case", PPO_CASES)
    def test_kl_and_rewards(self, case: str) -> None:
        found, facts = recording(f"ppo_{case}")
        learn, options = ~found["padding_mask"], facts["options"]
        estimator = kl.k3 if options.get("kl_estimator") == "k3" else kl.k1
        per_token = estimator(found["logprobs"], found["ref_logprobs"])
        agree(torch.where(learn, per_token, 0.0), torch.where(learn, found["kl"], 0.0))
        agree(
            kl.reward_penalty(per_token, options["kl_coef"], learn),
            found["non_score_reward"],
        )
        agree(masked.sum(per_token, learn) / len(learn), facts["metrics"]["objective/kl"])

    @pytest.mark.parametrize("case", PPO_CASES)
    def test_rewards_with_the_score(self, case: str) -> None:
        found, _ = recording(f"ppo_{case}")
        scored = ~found["padding_mask_p1"]
        placed = credit.place_score(found["scores"], scored) + found["non_score_reward"]
        if case == "whitened":
            agree(placed, found["before_whitening_0"])
            placed = masked.whiten(placed, scored, shift_mean=False, unbiased=True)
        agree(placed, found["rewards"])

    @pytest.mark.parametrize("case", PPO_CASES)
    def test_advantages_and_returns(self, case: str) -> None:
        found, facts = recording(f"ppo_{case}")
        learn, extra = ~found["padding_mask"], ~found["padding_mask_p1"]
        gamma, lam = facts["options"]["gamma"], facts["options"]["lam"]
        advantages, returns = credit.gae(found["rewards"], found["values"], extra, gamma, lam)
        agree(
            advantages, found["before_whitening_1" if case == "whitened" else "before_whitening_0"]
        )
        agree(returns, found["returns"])
        agree(masked.whiten(advantages, learn, unbiased=True), found["advantages"])

    @pytest.mark.parametrize("case", PPO_CASES)
    @pytest.mark.parametrize("epoch", [0, 1])
    def test_policy_and_value_losses(self, case: str, epoch: int) -> None:
        found, facts = recording(f"ppo_{case}")
        options = facts["options"]
        at = found[f"epoch{epoch}:micro_batch_inds"]
        learn, extra = ~found["padding_mask"][at], ~found["padding_mask_p1"][at]
        clip = options["cliprange"]
        terms = policy.clipped_surrogate(
            found[f"epoch{epoch}:new_logprobs"],
            found["logprobs"][at],
            found["advantages"][at],
            learn,
            clip,
            clip,
        )
        value_loss, _ = policy.clipped_value(
            found[f"epoch{epoch}:vpred"],
            found["values"][at],
            found["returns"][at],
            extra,
            options["cliprange_value"],
        )
        policy_mean = masked.reduce(terms.values, learn, "token")
        value_mean = masked.reduce(value_loss, extra, "token")
        agree(policy_mean, found[f"epoch{epoch}:pg_loss"])
        agree(value_mean, found[f"epoch{epoch}:vf_loss"])
        agree(policy_mean + options["vf_coef"] * value_mean, found[f"epoch{epoch}:loss"])

    @pytest.mark.parametrize("case", PPO_CASES)
    def test_reported_figures(self, case: str) -> None:
        found, facts = recording(f"ppo_{case}")
        clip, clip_value = facts["options"]["cliprange"], facts["options"]["cliprange_value"]
        clipped, value_clipped, moved = [], [], []
        for epoch in (0, 1):
            at = found[f"epoch{epoch}:micro_batch_inds"]
            learn, extra = ~found["padding_mask"][at], ~found["padding_mask_p1"][at]
            new, old = found[f"epoch{epoch}:new_logprobs"], found["logprobs"][at]
            terms = policy.clipped_surrogate(new, old, found["advantages"][at], learn, clip, clip)
            both = (terms.clipped_low | terms.clipped_high).float()
            clipped.append(masked.mean(both, learn))
            _, over = policy.clipped_value(
                found[f"epoch{epoch}:vpred"],
                found["values"][at],
                found["returns"][at],
                extra,
                clip_value,
            )
            value_clipped.append(masked.mean(over.float(), extra))
            # TRL averages this one over padding too, where it is 0.
            moved.append(policy.approx_kl(new, old, learn).mean())
        agree(torch.stack(clipped).mean(), facts["metrics"]["policy/clipfrac_avg"])
        agree(torch.stack(value_clipped).mean(), facts["metrics"]["val/clipfrac_avg"])
        agree(torch.stack(moved).mean(), facts["metrics"]["policy/approxkl_avg"])

    def test_recordings_exercise_the_clips(self) -> None:
        for case in PPO_CASES:
            _, facts = recording(f"ppo_{case}")
            assert 0.1 < facts["metrics"]["policy/clipfrac_avg"] < 0.9
            assert 0.1 < facts["metrics"]["val/clipfrac_avg"] < 0.9

    @pytest.mark.parametrize("case", ["plain", "margin", "centred"])
    def test_reward_losses(self, case: str) -> None:
        found, facts = recording("reward")
        chosen, rejected = found[f"{case}:scores"].chunk(2)
        margin = found[f"{case}:margin"] if case == "margin" else None
        loss = reward.bradley_terry(chosen, rejected, margin=margin).mean()
        if case == "centred":
            loss = loss + facts["center_rewards_coefficient"] * (
                reward.centring(chosen, rejected).mean()
            )
        agree(loss, found[f"{case}:loss"])


def token_batch(
    tokens: Tensor, attend: Tensor, learn: Tensor, temperature: float = 1.0
) -> TokenBatch:
    positions = (attend.cumsum(1) - 1).clamp(min=0)
    rows = tuple(str(i) for i in range(len(tokens)))
    return TokenBatch(tokens, attend, learn, positions, rows, temperature=temperature)


def grad_norm(*modules: torch.nn.Module) -> Tensor:
    grads = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
    return torch.stack([g.double().square().sum() for g in grads]).sum().sqrt()


class TestRows:
    """From texts: heed renders the tokens and learn masks that TRL's trainers make."""

    def test_demonstrations(self) -> None:
        found, facts = recording("sft")
        renderer = Renderer(load_tokenizer(FOLDER / "tokenizer"))
        expected = set()
        for ids, labels, attend in zip(
            found["input_ids"], found["labels"], found["attention_mask"].bool(), strict=True
        ):
            expected.add((tuple(ids[attend].tolist()), tuple((labels[attend] != -100).tolist())))
        rows = set()
        for row in facts["rows"]:
            prompt = Prompt.make(row["prompt"], raw=True)
            reply = (Message(role="text", text=row["completion"]),)
            made = renderer.demonstration_row(Demonstration(prompt=prompt, reply=reply))
            rows.add((tuple(made.tokens), tuple(bool(x) for x in made.learn)))
        assert rows == expected

    def test_steps(self) -> None:
        """The same tokens as TRL, and the same places where steps are judged."""
        found, facts = recording("prm")
        renderer = Renderer(load_tokenizer(FOLDER / "tokenizer"))
        expected = set()
        for ids, labels, attend in zip(
            found["input_ids"], found["labels"], found["attention_mask"].bool(), strict=True
        ):
            expected.add((tuple(ids[attend].tolist()), tuple((labels[attend] != -100).tolist())))
        rows = set()
        for row in facts["rows"]:
            prompt = Prompt.make(row["prompt"], raw=True)
            made = renderer.steps_row(prompt, row["completions"], facts["step_separator"])
            rows.add((tuple(made.tokens), tuple(bool(x) for x in made.learn)))
        assert rows == expected

    def test_items_of_pairs(self) -> None:
        found, facts = recording("reward")
        renderer = Renderer(load_tokenizer(FOLDER / "tokenizer"))
        attend = found["plain:attention_mask"].bool()
        expected = {
            tuple(ids[seen].tolist())
            for ids, seen in zip(found["plain:input_ids"], attend, strict=True)
        }
        rows = set()
        for row, text in zip(facts["rows"], facts["prompts"], strict=True):
            prompt = Prompt.make(text, raw=True)
            for side in ("chosen", "rejected"):
                made = renderer.item_row(prompt, row[side].removeprefix(text))
                rows.add(tuple(made.tokens))
        assert rows == expected


class TestModels:
    """The whole way: weights and tokens through heed's heads, to losses and gradients."""

    def test_supervised_loss(self) -> None:
        found, _ = recording("sft")
        causal = load_causal(FOLDER / "policy")
        learn = found["labels"] != -100
        batch = token_batch(found["input_ids"], found["attention_mask"].bool(), learn)
        logprobs = PolicyHead(causal).outputs(batch)["logprobs"]
        agree(logprobs[:, 1:], found["logprobs"])
        loss = masked.reduce(nll(logprobs, learn), learn, "token")
        loss.backward()
        agree(loss, found["loss"])
        agree(causal.model.norm.weight.grad, found["grad:model.norm.weight"])
        agree(causal.model.embed_tokens.weight.grad, found["grad:model.embed_tokens.weight"])
        agree(causal.lm_head.weight.grad, found["grad:lm_head.weight"])
        agree(grad_norm(causal), found["grad_norm"])

    @pytest.mark.parametrize("case", ["plain", "margin", "centred"])
    def test_reward_model_loss(self, case: str) -> None:
        found, facts = recording("reward")
        attend = found[f"{case}:attention_mask"].bool()
        tokens = found[f"{case}:input_ids"]
        head = RewardHead.load(FOLDER / "reward")
        scores = head.outputs(token_batch(tokens, attend, torch.zeros_like(attend)))["scores"]
        agree(scores, found[f"{case}:scores"])
        chosen, rejected = scores.chunk(2)
        loss = reward.bradley_terry(chosen, rejected, margin=found.get(f"{case}:margin")).mean()
        if case == "centred":
            coefficient = facts["center_rewards_coefficient"]
            loss = loss + coefficient * reward.centring(chosen, rejected).mean()
        loss.backward()
        agree(loss, found[f"{case}:loss"])
        agree(head.score.weight.grad, found[f"{case}:grad:score.weight"])
        agree(head.backbone.norm.weight.grad, found[f"{case}:grad:model.norm.weight"])
        agree(grad_norm(head), found[f"{case}:grad_norm"])

    def test_process_reward_model_loss(self) -> None:
        """The two-class softmax at each step's end is the sigmoid of one log-odds."""
        found, _ = recording("prm")
        attend, labels = found["attention_mask"].bool(), found["labels"]
        learn = labels != -100
        batch = token_batch(found["input_ids"], attend, learn)
        head = StepHead.load(FOLDER / "steps")
        values = head.outputs(batch)["values"]
        odds = (found["logits"][..., 1] - found["logits"][..., 0]) * learn
        agree(values, odds)
        loss = masked.reduce(
            reward.step_correctness(values, labels.double(), learn), learn, "token"
        )
        loss.backward()
        agree(loss, found["loss"])
        # The difference of two rows moves each by as much: d/dw = d/dw_1 = -d/dw_0.
        agree(head.score.weight.grad[0], found["grad:score.weight"][1])
        agree(head.score.weight.grad[0], -found["grad:score.weight"][0])
        agree(head.backbone.norm.weight.grad, found["grad:model.norm.weight"])

    @pytest.mark.parametrize("case", PPO_CASES)
    def test_ppo_from_tokens_to_gradients(self, case: str) -> None:
        found, facts = recording(f"ppo_{case}")
        options = facts["options"]
        start = int(found["context_length"])
        batch, extra = ppo_batches(found, options["temperature"])
        policy_head = PolicyHead(load_causal(FOLDER / "policy"))
        reference_head = PolicyHead(load_causal(FOLDER / "reference"))
        reward_head = RewardHead.load(FOLDER / "reward")
        value_head = ValueHead.from_reward(RewardHead.load(FOLDER / "value"))
        behaviour = torch.zeros(batch.tokens.shape)
        behaviour[:, start:] = found["logprobs"]

        with torch.no_grad():
            reference = reference_head.outputs(batch)["logprobs"]
            scores = reward_head.outputs(batch)["scores"]
        values = value_head.outputs(extra)["values"]
        old_values = values.detach()
        learn, beyond = batch.learn, extra.learn
        agree(reference[:, start:], torch.where(learn[:, start:], found["ref_logprobs"], 0.0))
        agree(scores, found["scores"])
        agree(old_values[:, start:], found["values"])

        estimator = kl.k3 if options.get("kl_estimator") == "k3" else kl.k1
        penalty = kl.reward_penalty(estimator(behaviour, reference), options["kl_coef"], learn)
        rewards = credit.place_score(scores, beyond) + penalty
        if options.get("whiten_rewards"):
            rewards = masked.whiten(rewards, beyond, shift_mean=False, unbiased=True)
        advantages, returns = credit.gae(
            rewards, old_values, beyond, options["gamma"], options["lam"]
        )
        advantages = masked.whiten(advantages, learn, unbiased=True)
        # Another processor's fp32 products differ in their last bits, which whitening enlarges
        # twice. From the same values they agree to 1e-6: see TestStreams.
        agree(advantages[:, start:], found["advantages"], within=1e-5)
        agree(returns[:, start:], found["returns"], within=1e-5)

        logprobs = policy_head.outputs(batch)["logprobs"]
        clip = options["cliprange"]
        terms = policy.clipped_surrogate(logprobs, behaviour, advantages, learn, clip, clip)
        value_loss, _ = policy.clipped_value(
            values, old_values, returns, beyond, options["cliprange_value"]
        )
        loss = masked.reduce(terms.values, learn, "token")
        loss = loss + options["vf_coef"] * masked.reduce(value_loss, beyond, "token")
        loss.backward()
        agree(loss, found["epoch0:loss"])
        causal = policy_head.causal
        agree(causal.model.norm.weight.grad, found["grad:policy.model.norm.weight"])
        agree(causal.lm_head.weight.grad, found["grad:policy.lm_head.weight"])
        agree(value_head.score.weight.grad, found["grad:value_model.score.weight"])
        value_head.score.bias.grad = None  # TRL's value head has none
        agree(grad_norm(policy_head, value_head), found["grad_norm"])

    def test_full_width_needs_no_extra_position(self) -> None:
        found, _ = recording("ppo_full")
        batch, extra = ppo_batches(found, 1.0)
        assert torch.equal(batch.learn, extra.learn)
        assert torch.equal(batch.attend, extra.attend)


def ppo_batches(found: dict[str, Tensor], temperature: float) -> tuple[TokenBatch, TokenBatch]:
    """The batch as heed learns from it, and with TRL's extra position after each end token."""
    tokens, start = found["query_responses"], int(found["context_length"])
    before = torch.zeros(len(tokens), start, dtype=torch.bool)
    learn = torch.cat((before, ~found["padding_mask"]), 1)
    beyond = torch.cat((before, ~found["padding_mask_p1"]), 1)
    attend = tokens != 0
    return (
        token_batch(tokens, attend, learn, temperature),
        token_batch(tokens, attend | beyond, beyond, temperature),
    )
